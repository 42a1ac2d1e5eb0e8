"""How far what a model says is from what another says, or from gold labels: a finer measure than its score."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from layerstill.data.tasks import Split, Task
from layerstill.evaluation.predictions import PREDICTIONS_FILE, prediction_tensors
from layerstill.heads import Head
from layerstill.knowledge.distances import KL


def kept_predictions(folder: Path) -> dict[str, Tensor]:
    """What a finished run said of dev, from its `predictions.safetensors`."""
    return load_file(folder / PREDICTIONS_FILE)


def distance_to(student: dict[str, Tensor], teacher: Any, split: Split, head: Head) -> float:
    """Mean divergence KL(teacher || student) of a split, in nats, at temperature 1; of scores their squared difference.

    `student` is as `kept_predictions` gives it, `teacher` logits as the head joins them.
    """
    theirs = prediction_tensors(teacher, split, head)
    first, second = _alike(_rows(student), _rows(theirs))
    total, count = head.distance(KL())(first, second, torch.ones(len(first), 1, dtype=torch.bool))
    return float(total / count.clamp(min=1))


def loss_of(said: dict[str, Tensor], task: Task) -> float:
    """Mean of the task's own error of every gold label, for `kept_predictions`."""
    labels = said["labels"]
    parts = labels.split(said["words"].tolist()) if "words" in said else [labels]
    logits, gold = _alike(_rows(said), list(parts))
    known = task.head.labelled(gold)
    return float(task.head.errors(logits.float(), gold)[known].mean())


def _rows(said: dict[str, Tensor]) -> list[Tensor]:
    """The logits of each sentence, or those of all examples as one part."""
    logits = said["logits"]
    return list(logits.split(said["lengths"].tolist())) if "lengths" in said else [logits]


def _alike(first: list[Tensor], second: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Both joined; of a sentence that was cut, no more than both have."""
    least = [min(len(one), len(other)) for one, other in zip(first, second, strict=True)]

    def joined(rows: list[Tensor]) -> Tensor:
        return torch.cat([row[:n] for row, n in zip(rows, least, strict=True)])

    return joined(first), joined(second)
