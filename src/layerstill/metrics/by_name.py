"""Metrics by name, from scikit-learn and scipy."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats
from sklearn import metrics


def _correlation(function: Callable) -> Callable[[np.ndarray, np.ndarray], float]:
    def correlate(labels: np.ndarray, predicted: np.ndarray) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant predictions: the correlation is undefined
            value = float(function(labels, predicted)[0])
        return 0.0 if np.isnan(value) else value

    return correlate


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": lambda y, p: float(metrics.accuracy_score(y, p)),
    "f1": lambda y, p: float(metrics.f1_score(y, p, zero_division=0)),  # of class 1 against the rest
    "f1_macro": lambda y, p: float(metrics.f1_score(y, p, average="macro", zero_division=0)),
    "matthews_correlation": lambda y, p: float(metrics.matthews_corrcoef(y, p)),
    "pearson": _correlation(stats.pearsonr),
    "spearman": _correlation(stats.spearmanr),
}
"""Each takes gold labels and predictions `(n,)`; correlations of constant predictions count as 0."""


def class_table(labels: Sequence[str], decided: np.ndarray, gold: np.ndarray) -> dict[str, dict[str, float]]:
    """For every class its precision, recall and F1, and its support: the texts that have it.

    Classes and decisions are numbers `(n,)`; texts whose class is not known (below 0) count nowhere. A share of nothing
    is 0, as scikit-learn has it with `zero_division=0`.
    """
    known = gold >= 0
    numbers = list(range(len(labels)))
    columns = metrics.precision_recall_fscore_support(gold[known], decided[known], labels=numbers, zero_division=0)
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(labels, *columns, strict=True)
    }
