"""What a model said of every example of a split, kept beside it so that runs can be compared example by example."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from layerstill.data.tasks import Split, Task
from layerstill.heads import Head
from layerstill.metrics.by_name import METRICS

PREDICTIONS_FILE = "predictions.safetensors"
TEACHER_FILE = "teacher_predictions.safetensors"
"""What a run's teacher said of the same examples, if the run asked it."""
ADDS = "adds."
MOST_CELLS = 16
"""Pairs of label and prediction up to which leaving each out in turn is quick."""
_OF_CLASSES = {"f1", "f1_macro", "matthews_correlation"}


@dataclass(frozen=True)
class Predictions:
    """`logits` `(n, C)` float32, gold `labels` `(n,)`, and `ids` `(n,)`, a 63-bit hash of each example's texts.

    Where an example has several labels, these are a row each, and `adds` has what the head says each example adds to a
    metric, by its name.
    """

    logits: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    adds: dict[str, np.ndarray] = field(default_factory=dict)

    def contributions(self, metric: str) -> np.ndarray | None:
        """What each example adds to a metric, `(n,)`, with the metric as mean; None if that is not known.

        For accuracy 1 or 0. Else the jackknife's pseudo-values, n m - (n - 1) m_i with m_i the metric without
        example i (Efron & Tibshirani 1993, eq. 11.12), moved so that their mean is m; they make intervals over
        examples possible for metrics that are no means. Examples with the same label and prediction have the same.
        """
        if self.adds:
            return self.adds.get(metric)
        if metric not in {"accuracy", *_OF_CLASSES}:
            return None
        said, n = self.logits.argmax(-1), len(self.labels)
        if metric == "accuracy":
            return (said == self.labels).astype(float)
        cells, which = np.unique(np.stack([self.labels, said]), axis=1, return_inverse=True)
        if n < 3 or cells.shape[1] > MOST_CELLS:
            return None
        whole = METRICS[metric](self.labels, said)
        values = np.empty(n)
        for cell in range(cells.shape[1]):
            there = np.flatnonzero(which.ravel() == cell)
            without = METRICS[metric](np.delete(self.labels, there[0]), np.delete(said, there[0]))
            values[there] = n * whole - (n - 1) * without
        return values - values.mean() + whole


def prediction_tensors(logits: Any, split: Split, head: Head) -> dict[str, torch.Tensor]:
    """The tensors of `predictions.safetensors`; `logits` are in the order of the split, as the head joins them.

    Where tokens have logits, those of all examples stand one after the other, and so do labels: `lengths` says how many
    logits each has, `words` how many labels, which are more where a sentence was cut.
    """
    digests = (hashlib.blake2b(json.dumps(t).encode(), digest_size=8).digest() for t in split.texts)
    ids = [int.from_bytes(digest, "big") >> 1 for digest in digests]
    if not head.per_token:
        tensors = {"logits": torch.as_tensor(logits), "labels": torch.tensor(split.labels), "ids": torch.tensor(ids)}
        if tensors["labels"].ndim > 1:
            return tensors
        known = head.labelled(tensors["labels"])  # a metric over the others would be another than the record's
        return {name: values[known] for name, values in tensors.items()}
    return {
        "logits": torch.as_tensor(np.concatenate(logits)),
        "lengths": torch.tensor([len(row) for row in logits]),
        "words": torch.tensor([len(row) for row in split.labels]),
        "labels": torch.as_tensor(np.concatenate(head.gold(split.labels))),
        "ids": torch.tensor(ids),
    }


def contribution_tensors(logits: Any, task: Task, split: str) -> dict[str, torch.Tensor]:
    """What each example of a split adds to every metric, as `adds.METRIC`, where the head works that out itself."""
    decided, gold = task.head.decide(logits), task.gold(split)
    found = {m: task.head.contributions(m, task.labels, decided, gold) for m in task.metrics}
    return {f"{ADDS}{metric}": torch.as_tensor(adds) for metric, adds in found.items() if adds is not None}


def kept_tensors(logits: Any, task: Task, split: str = "dev") -> dict[str, torch.Tensor]:
    """All that a file of predictions holds."""
    return prediction_tensors(logits, task.splits[split], task.head) | contribution_tensors(logits, task, split)


def contributions_of(logits: Any, task: Task, split: str, metric: str) -> np.ndarray | None:
    """What each example of a split adds to a metric, `(n,)`, as `Predictions.contributions` has it."""
    tensors = {name: tensor.numpy() for name, tensor in kept_tensors(logits, task, split).items()}
    adds = {name.removeprefix(ADDS): values for name, values in tensors.items() if name.startswith(ADDS)}
    return Predictions(tensors["logits"], tensors["labels"], tensors["ids"], adds).contributions(metric)


def load_predictions(folder: Path, file: str = PREDICTIONS_FILE) -> Predictions | None:
    """The predictions in a run's folder; None if there are none, or none that can be read."""
    try:
        tensors = load_file(folder / file)
        adds = {name.removeprefix(ADDS): tensors[name] for name in tensors if name.startswith(ADDS)}
        found = Predictions(tensors["logits"], tensors["labels"], tensors["ids"], adds)
    except (OSError, SafetensorError, KeyError):
        return None
    rows = len(found.ids)
    if adds:
        return found if all(values.shape == (rows,) for values in adds.values()) else None
    shapes = (found.logits.shape[:1], found.labels.shape, found.ids.shape)
    return found if found.logits.ndim == 2 and shapes == ((rows,),) * 3 else None
