"""Metrics of several labels a text, from decisions and gold labels `(n, C)`; gold labels below 0 are not known."""

from collections.abc import Callable, Sequence

import numpy as np

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
THRESHOLDS = tuple(i / 100 for i in range(1, 100))
"""What `tuned_threshold` tries."""


def _found(decided: np.ndarray, gold: np.ndarray) -> Found:
    """Of each example and label: given rightly, given at all, and there; `(n, C)` each, 0 or 1."""
    known = gold >= 0
    given, there = decided.astype(bool) & known, gold > 0
    return (given & there).astype(int), given.astype(int), there.astype(int)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, 0 where there is nothing to divide by, as scikit-learn has it with `zero_division=0`."""
    return part / np.maximum(whole, 1)


def _micro(right: np.ndarray, given: np.ndarray, there: np.ndarray) -> np.ndarray:
    return _ratio(2 * right.sum(-1), given.sum(-1) + there.sum(-1))


def _macro(right: np.ndarray, given: np.ndarray, there: np.ndarray) -> np.ndarray:
    return _ratio(2 * right, given + there).mean(-1)


_OF_COUNTS = {"f1_micro": _micro, "f1_macro": _macro}
"""Each takes counts of labels `(..., C)`."""


def f1_micro(decided: np.ndarray, gold: np.ndarray) -> float:
    """F1 of all labels of all texts taken together."""
    return float(_micro(*(each.sum(0) for each in _found(decided, gold))))


def f1_macro(decided: np.ndarray, gold: np.ndarray) -> float:
    """Mean over the labels of each label's F1; a label that is never there counts 0."""
    return float(_macro(*(each.sum(0) for each in _found(decided, gold))))


def _all_right(decided: np.ndarray, gold: np.ndarray) -> np.ndarray:
    return ((decided.astype(bool) == (gold > 0)) | (gold < 0)).all(1)


def subset_accuracy(decided: np.ndarray, gold: np.ndarray) -> float:
    """Share of texts with every known label right."""
    return float(_all_right(decided, gold).mean())


LABEL_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "f1_micro": f1_micro,
    "f1_macro": f1_macro,
    "subset_accuracy": subset_accuracy,
}
"""Each takes decisions and gold labels, both `(n, C)`."""


def label_table(labels: Sequence[str], decided: np.ndarray, gold: np.ndarray) -> dict[str, dict[str, float]]:
    """For every label its precision, recall and F1, and its support: the texts that have it."""
    right, given, there = (each.sum(0) for each in _found(decided, gold))
    columns = (_ratio(right, given), _ratio(right, there), _ratio(2 * right, given + there))
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(labels, *columns, there, strict=True)
    }


def label_contributions(metric: str, decided: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """What each example adds to a metric, `(n,)`, with the metric as mean: see `Predictions.contributions`."""
    if metric not in _OF_COUNTS:
        return _all_right(decided, gold).astype(float)
    each, n = _found(decided, gold), len(gold)
    whole = _OF_COUNTS[metric](*(one.sum(0) for one in each))
    without = _OF_COUNTS[metric](*(one.sum(0) - one for one in each))
    values = n * whole - (n - 1) * without
    return values - values.mean() + whole


def best_constant(gold: np.ndarray) -> float:
    """The highest micro F1 of giving every text the same labels."""
    known, there = (gold >= 0).sum(0), (gold > 0).sum(0)
    order = np.argsort(-there / np.maximum(known, 1), kind="stable")
    return float(_ratio(2 * there[order].cumsum(), known[order].cumsum() + there.sum()).max())


def log_odds(threshold: float) -> float:
    """The logit whose sigmoid is the threshold."""
    return float(np.log(threshold / (1 - threshold)))


def tuned_threshold(logits: np.ndarray, gold: np.ndarray, metric: str = "f1_micro") -> float:
    """The one of 0.01, 0.02 ... 0.99 at which the metric is highest on logits `(n, C)`; of equals the nearest to 0.5.

    One threshold for all labels. To be given examples that nothing is scored on.
    """
    measure = LABEL_METRICS[metric]
    found = {threshold: measure(logits >= log_odds(threshold), gold) for threshold in THRESHOLDS}
    return max(THRESHOLDS, key=lambda threshold: (found[threshold], -abs(threshold - 0.5)))
