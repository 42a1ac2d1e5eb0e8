"""Scores on out-of-domain test sets, and how far they fall behind the score in the domain."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from layerstill.data.encode import encode
from layerstill.data.label_agreement import FittedSet
from layerstill.data.tasks import Task
from layerstill.evaluation.predict import predict_encoded
from layerstill.heads.head import IGNORED


def score_ood(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    sets: Sequence[FittedSet],
    max_length: int,
    logits: Any,
    labels: Any,
) -> dict[str, Any]:
    """The block `ood` of `result.json`: for each set its metrics, the gap, numbers of examples, and parts.

    `logits` `(n, C)` and gold `labels` `(n,)` are those of the in-domain split. The gap is the in-domain score minus
    the score on the set, both in the classes of the set, so that two-way scores are not compared with three-way ones.
    """
    block = {}
    head = task.head
    for ood in sets:
        encoded = encode(ood.split, tokenizer, max_length, head)
        predicted = _as_scored(head.decide(predict_encoded(model, tokenizer, encoded, head)), ood)
        gold = head.gold(ood.split.labels)
        in_domain = _score(task, ood, _as_scored(head.decide(logits), ood), _as_scored(labels, ood))
        metrics = _score(task, ood, predicted, gold)
        entry: dict[str, Any] = {
            "metrics": metrics,
            "in_domain": in_domain,
            "gap": {name: in_domain[name] - value for name, value in metrics.items()},
            "examples": len(gold),
            "truncated": encoded.truncated,
            "classes": list(ood.labels),
        }
        if ood.parts:
            entry["parts"] = {
                part: {"metrics": _score(task, ood, predicted[at], gold[at], part=True), "examples": len(at)}
                for part, at in ood.parts.items()
            }
        block[ood.name] = entry
    return block


def _as_scored(classes: np.ndarray, ood: FittedSet) -> np.ndarray:
    """Classes of the model as classes of the set; scores as they are."""
    if not ood.labels:
        return classes
    known = classes != IGNORED
    return np.where(known, np.array(ood.of_class)[np.where(known, classes, 0)], IGNORED)


def _score(task: Task, ood: FittedSet, predicted: np.ndarray, gold: np.ndarray, part: bool = False) -> dict[str, float]:
    """The task's metrics; of a part with a single class only accuracy, the others say nothing there."""
    names = ("accuracy",) if part and ood.labels and len(set(gold.tolist())) == 1 else task.metrics
    positive = task.positive if task.positive in ood.labels else None
    return task.head.score(names, ood.labels, predicted, gold, positive)
