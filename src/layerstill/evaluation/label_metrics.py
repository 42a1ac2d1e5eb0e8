"""Metrics of several labels a text, from decisions and gold labels `(n, C)`; gold labels below 0 are not known."""

from collections.abc import Callable, Sequence

import numpy as np

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
THRESHOLDS = tuple(i / 100 for i in range(1, 100))
"""What `tuned_threshold` tries."""


def _found(decided: np.ndarray, gold: np.ndarray) -> Found:
    """Of each label: how often it was given rightly, given at all, and there; `(C,)` each."""
    known = gold >= 0
    given, there = decided.astype(bool) & known, gold > 0
    return (given & there).sum(0), given.sum(0), there.sum(0)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, 0 where there is nothing to divide by, as scikit-learn has it with `zero_division=0`."""
    return part / np.maximum(whole, 1)


def f1_micro(decided: np.ndarray, gold: np.ndarray) -> float:
    """F1 of all labels of all texts taken together."""
    right, given, there = (count.sum() for count in _found(decided, gold))
    return float(_ratio(2 * right, given + there))


def f1_macro(decided: np.ndarray, gold: np.ndarray) -> float:
    """Mean over the labels of each label's F1; a label that is never there counts 0."""
    right, given, there = _found(decided, gold)
    return float(_ratio(2 * right, given + there).mean())


def subset_accuracy(decided: np.ndarray, gold: np.ndarray) -> float:
    """Share of texts with every known label right."""
    return float(((decided.astype(bool) == (gold > 0)) | (gold < 0)).all(1).mean())


LABEL_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "f1_micro": f1_micro,
    "f1_macro": f1_macro,
    "subset_accuracy": subset_accuracy,
}
"""Each takes decisions and gold labels, both `(n, C)`."""


def label_table(labels: Sequence[str], decided: np.ndarray, gold: np.ndarray) -> dict[str, dict[str, float]]:
    """For every label its precision, recall and F1, and its support: the texts that have it."""
    right, given, there = _found(decided, gold)
    columns = (_ratio(right, given), _ratio(right, there), _ratio(2 * right, given + there))
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(labels, *columns, there, strict=True)
    }


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
