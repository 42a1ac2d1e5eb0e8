"""How a file compares with the model in PyTorch on the same texts, and whether that is near enough."""

import math
from typing import Any

import numpy as np

from layerstill.data.tasks import Task
from layerstill.evaluation.agreement import agreement

NEAR = 1e-4
"""Most that a logit of an fp32 file may differ from PyTorch's, where logits are about 1; in proportion where larger."""
FEWEST = 10
"""Examples of a class from which on its recall says something."""


def parity(task: Task, split: str, torch_logits: Any, logits: Any) -> dict[str, Any]:
    """Compare logits, as the head joins them, of the same split.

    `max_logit_difference` and `largest_logit` (of PyTorch); `agreement`, the share of decisions alike (None for
    scores); `scores` and `torch_scores`; `worst_class`, the largest loss of recall among classes, labels or types
    with at least `FEWEST` examples: its `name`, `lost` (points) and `examples` (None where there is none).
    """
    ours, theirs = _flat(logits), _flat(torch_logits)
    gold = task.gold(split)
    return {
        "examples": len(logits),
        "max_logit_difference": float(np.abs(ours - theirs).max(initial=0.0)),
        "largest_logit": float(np.abs(theirs).max(initial=0.0)),
        "agreement": agreement(torch_logits, logits, task.head) if task.head.named else None,
        "scores": task.score(logits, gold),
        "torch_scores": task.score(torch_logits, gold),
        "worst_class": worst_class(task, split, torch_logits, logits),
    }


def drop_of(found: dict[str, Any], metric: str) -> float:
    """Points (hundredths) of a metric that a file loses against PyTorch."""
    before, after = found["torch_scores"][metric], found["scores"][metric]
    if math.isnan(before) and math.isnan(after):  # a correlation with what never changes, here and there
        return 0.0
    return round(100 * (before - after), 4)


def is_near(found: dict[str, Any]) -> bool:
    """Whether logits are those of PyTorch but for rounding."""
    return found["max_logit_difference"] <= NEAR * max(1.0, found["largest_logit"])


def worst_class(task: Task, split: str, torch_logits: Any, logits: Any) -> dict[str, Any] | None:
    """The largest loss of recall among classes with enough examples."""
    before, after = (_recalls(task, split, said) for said in (torch_logits, logits))
    lost = {name: 100 * (recall - after[name][0]) for name, (recall, n) in before.items() if n >= FEWEST}
    if not lost:
        return None
    name = max(lost, key=lambda one: lost[one])
    return {"name": name, "lost": round(lost[name], 4), "examples": int(before[name][1])}


def _recalls(task: Task, split: str, logits: Any) -> dict[str, tuple[float, int]]:
    """Recall and number of examples of every class, label or type of entity, by name."""
    table = task.by_label(logits, split)
    return {name: (row["recall"], int(row["support"])) for name, row in table.items() if "recall" in row}


def _flat(logits: Any) -> np.ndarray:
    return np.concatenate([np.ravel(row) for row in logits])
