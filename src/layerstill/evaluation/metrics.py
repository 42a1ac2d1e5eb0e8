"""Metrics by name, from scikit-learn and scipy."""

import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats
from sklearn import metrics

from layerstill.data.tasks import Task


def _correlation(function: Callable) -> Callable[[np.ndarray, np.ndarray], float]:
    def score(task: Task, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """All metrics of a task on logits `(n, C)` whose classes are numbered as the task's are."""
    predicted = decide(logits, task.kind)
    scores = {}
    for name in task.metrics:
        pair = (labels, predicted)
        if name == "f1" and task.positive is not None:
            # The numbers of classes follow the model, so it is the name that says which class F1 is about.
            positive = task.labels.index(task.positive)
            pair = (labels == positive, predicted == positive)
        scores[name] = METRICS[name](*pair)
    return scores
