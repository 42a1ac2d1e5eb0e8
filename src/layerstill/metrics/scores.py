"""Metrics of several scores a text: of each target, and their mean over the targets.

Decisions and gold scores are `(n,)`, or `(n, C)` for C targets; a gold score of nan is not known and counts nowhere.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from layerstill.metrics.by_name import METRICS

FEWEST = 2
"""Known scores of a target without which it has no correlation."""


def _targets(decided: np.ndarray, gold: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Gold scores and decisions of each target, where the former are known."""
    for said, there in zip(np.atleast_2d(decided.T), np.atleast_2d(gold.T), strict=True):
        known = ~np.isnan(there)
        yield there[known], said[known]


def mean_score(metric: Callable[[np.ndarray, np.ndarray], float], decided: np.ndarray, gold: np.ndarray) -> float:
    """Mean of a metric over the targets with enough known scores; 0 if there is none."""
    found = [metric(there, said) for there, said in _targets(decided, gold) if len(there) >= FEWEST]
    return float(np.mean(found)) if found else 0.0


def score_table(names: Sequence[str], decided: np.ndarray, gold: np.ndarray) -> dict[str, dict[str, float]]:
    """For every target both correlations, the mean squared error, and its support: the texts whose score is known."""
    found = {}
    for name, (there, said) in zip(names, _targets(decided, gold), strict=True):
        enough = len(there) >= FEWEST
        row = {metric: METRICS[metric](there, said) if enough else 0.0 for metric in ("pearson", "spearman")}
        squared = float(np.mean((said - there) ** 2)) if len(there) else 0.0
        found[name] = {**row, "mse": squared, "support": len(there)}
    return found
