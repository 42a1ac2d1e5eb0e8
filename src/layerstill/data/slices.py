"""A slice of the training examples, held out so that choices are made without looking at dev."""

from typing import Any

from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.randomness import generator

SHARE = 0.1
FEWEST, MOST = 50, 1_000
"""Bounds of a slice in examples; of small data it is never more than half."""
TOO_FEW = 8


def slice_of(task: Task, seed: int = 0) -> Task:
    """The task with a tenth of its training examples, 50 to 1,000, as `dev` in place of its own, and no other split.

    The same slice for the same task and seed. Every class, or range of scores, has its share of it. UserError for fewer
    than 8 training examples.
    """
    train = task.splits["train"]
    total = len(train)
    if total < TOO_FEW:
        raise UserError(
            f"task {task.name}: {total} training examples are too few to hold a slice out for choosing; give at least "
            f"{TOO_FEW}, or give a learning rate"
        )
    count = min(max(round(SHARE * total), FEWEST), MOST, total // 2)
    drawn = generator(seed, "slice")
    order = sorted(range(total), key=lambda i: (_stratum(task, train.labels[i]), drawn.random()))
    start = drawn.random()
    held = {order[int((k + start) * total / count)] for k in range(count)}
    kept = [i for i in range(total) if i not in held]
    splits = {"train": train.take(kept), "dev": train.take(sorted(held)).unweighted()}
    # Made anew, because what a task remembers of its regime is about the whole train split.
    return Task(task.name, task.head, splits, task.labels, task.metrics, task.positive)


def _stratum(task: Task, label: Any) -> float:
    """What the examples are ordered by before every so-manyth is taken."""
    known = isinstance(label, int | float) and label == label
    return float(label) if known and (task.head.single or not task.head.named) else 0.0
