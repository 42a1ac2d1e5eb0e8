"""Tasks as plain data, for another process: what JSON gives back is the same task."""

import json
from typing import Any

from layerstill.data.source import TaskSource
from layerstill.data.split import Split
from layerstill.data.tasks import Task
from layerstill.errors import UserError


def as_plain(task: Task) -> dict[str, Any] | None:
    """A task as plain data; None if it would come back as another, such as one with a head of somebody's own."""
    try:
        data = _plain(task)
        back = from_plain(data)
        # Not the tasks themselves: a score that is not known is nan, which equals nothing.
        return data if type(back.head) is type(task.head) and json.dumps(_plain(back)) == json.dumps(data) else None
    except (TypeError, ValueError, UserError):
        return None


def _plain(task: Task) -> dict[str, Any]:
    data = {
        "name": task.name,
        "head": task.head.word,
        "splits": {name: vars(split) for name, split in task.splits.items()},
        "labels": task.labels,
        "metrics": task.metrics,
        "positive": task.positive,
        "regime": task.regime,
        "clean_labels": task.clean_labels,
        "source": None if task.source is None else task.source.model_dump(),
    }
    found: dict[str, Any] = json.loads(json.dumps(data))
    return found


def from_plain(data: dict[str, Any]) -> Task:
    """The task that `as_plain` was given."""
    source = data["source"]
    return Task(
        **{
            **data,
            "splits": {name: Split(**split) for name, split in data["splits"].items()},
            "labels": tuple(data["labels"]),
            "metrics": tuple(data["metrics"]),
            "source": None if source is None else TaskSource.model_validate(source),
        }
    )
