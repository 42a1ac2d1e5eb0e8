"""What an example of each class counts in the loss on labels, for classes of unequal size."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from layerstill.data.tasks import Task
from layerstill.errors import UserError

BALANCED = "balanced"
OPTION = "--class-weights"
EXAMPLE = '{"rare": 5, "common": 1}'


def with_class_weights(task: Task, weights: str | Path | Mapping[str, float]) -> Task:
    """The same task, in whose loss on labels the examples of a class count as much as its weight says.

    Args:
        task: of one class a text.
        weights: `balanced`, which gives every class the same share of the loss, as scikit-learn has it: with n examples
            of C classes a class of k examples gets n / (C k). Or a number above 0 for each class by its name, or a JSON
            file that holds these.

    Weights are divided by their mean over the training examples, so that losses stay as large as they were and no
    learning rate has to change. Soft targets and scores know nothing of them. UserError for another kind of task, and
    for weights that are none.
    """
    names = task.labels
    task.head.weighted([1.0] * len(names))  # so that a wrong kind of task is named before a wrong file
    found = Counter(label for label in task.splits["train"].labels if label in range(len(names)))
    if isinstance(weights, str) and weights == BALANCED:
        asked = [1 / found[i] if found[i] else 0.0 for i in range(len(names))]
    else:
        asked = _named(weights, names)
    mean = sum(asked[i] * count for i, count in found.items()) / max(sum(found.values()), 1)
    return replace(task, head=task.head.weighted([weight / mean if weight else 1.0 for weight in asked]))


def _named(weights: str | Path | Mapping[str, float], names: tuple[str, ...]) -> list[float]:
    where = OPTION if isinstance(weights, Mapping) else f"{OPTION} {weights}"
    given = weights if isinstance(weights, Mapping) else _read(Path(weights), where)
    if missing := [name for name in names if name not in given]:
        raise UserError(f"{where}: it has no weight for class {missing[0]!r}; give one for each of {', '.join(names)}")
    if unknown := [name for name in given if name not in names]:
        raise UserError(f"{where}: there is no class {unknown[0]!r}; the classes are {', '.join(names)}")
    for name, weight in given.items():
        right = isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight < float("inf")
        if not right:
            raise UserError(f"{where}: the weight of class {name!r} is {weight!r}; use a number above 0")
    return [float(given[name]) for name in names]


def _read(path: Path, where: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{where}: no such file; use `{BALANCED}`, or a JSON file such as {EXAMPLE}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: it cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{where}: it must hold an object such as {EXAMPLE}")
    return found
