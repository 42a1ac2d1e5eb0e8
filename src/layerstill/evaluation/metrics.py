"""Metrics by name, from scikit-learn and scipy."""

import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats
from sklearn import metrics


def _correlation(function: Callable) -> Callable[[np.ndarray, np.ndarray], float]:
    def score(labels: np.ndarray, predicted: np.ndarray) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant predictions: the correlation is undefined
            value = float(function(labels, predicted)[0])
        return 0.0 if np.isnan(value) else value

    return score


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": lambda y, p: float(metrics.accuracy_score(y, p)),
    "f1": lambda y, p: float(metrics.f1_score(y, p, zero_division=0)),
    "f1_macro": lambda y, p: float(metrics.f1_score(y, p, average="macro", zero_division=0)),
    "matthews_correlation": lambda y, p: float(metrics.matthews_corrcoef(y, p)),
    "pearson": _correlation(stats.pearsonr),
    "spearman": _correlation(stats.spearmanr),
}
"""Each takes gold labels and predictions `(n,)`; correlations of constant predictions count as 0."""


def decide(logits: np.ndarray, kind: str) -> np.ndarray:
    """Predictions from logits `(n, C)`: the largest class, or the score itself for regression."""
    return logits[:, 0] if kind == "regression" else logits.argmax(-1)


def score(names: tuple[str, ...], kind: str, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """All metrics of a task on its logits."""
    predicted = decide(logits, kind)
    return {name: METRICS[name](labels, predicted) for name in names}
