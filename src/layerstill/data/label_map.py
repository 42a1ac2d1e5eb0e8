"""Other names for the labels of data: `--label-map 0=NEGATIVE,1=POSITIVE`."""

from collections.abc import Mapping
from dataclasses import replace
from shlex import quote

from layerstill.data.tasks import Task
from layerstill.errors import UserError, nearest

OPTION = "--label-map"


def read_label_map(text: str) -> dict[str, str]:
    """`data=model,...` as a dictionary; UserError for what cannot be read so.

    Names that hold a comma, or old ones with an equal sign, cannot be given.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        old, equals, new = (piece.strip() for piece in part.partition("="))
        if not (old and equals and new):
            raise UserError(
                f"{OPTION} {text}: write the data's name, =, and the model's, such as 0=negative,1=positive"
            )
        if old in found:
            raise UserError(f"{OPTION} {text}: {old!r} appears twice")
        found[old] = new
    return found


def with_label_map(task: Task, names: Mapping[str, str]) -> Task:
    """The same task with some of its labels under other names, all renamed at once, so that two can change places.

    UserError for a label that the data do not have, and where two labels would get one name.
    """
    if not task.labels:
        raise UserError(f"{OPTION}: task {task.name} has {task.head.gives}, which have no names")
    names = {_in_data(old, task): new for old, new in names.items()}
    labels = tuple(names.get(name, name) for name in task.labels)
    if twice := next((name for name in labels if labels.count(name) > 1), None):
        raise UserError(f"{OPTION}: two labels would be called {twice!r}; every label needs a name of its own")
    positive = None if task.positive is None else names.get(task.positive, task.positive)
    source = task.source and task.source.model_copy(update={"label_map": dict(names)})
    return replace(task, labels=labels, positive=positive, source=source)


def _in_data(name: str, task: Task) -> str:
    """A label as the data write it, whose upper and lower case need not be right; UserError if there is none such."""
    if name in task.labels:
        return name
    same = [label for label in task.labels if label.casefold() == name.casefold()]
    if len(same) != 1:
        raise UserError(f"{OPTION}: the data have no label {name!r}: {nearest(name, task.labels)}")
    return same[0]


def names_in_data(task: Task) -> tuple[str, ...]:
    """What the data themselves call the labels of a task."""
    given = task.source.label_map if task.source else {}
    old = {new.casefold(): name for name, new in given.items()} | {new: name for name, new in given.items()}
    return tuple(old.get(name, old.get(name.casefold(), name)) for name in task.labels)


def as_option(old: tuple[str, ...], new: tuple[str, ...]) -> str | None:
    """The option that gives the labels `old` the names `new`, where they differ, as a shell takes it.

    None for names that cannot be given so.
    """
    wanted = {a: b for a, b in zip(old, new, strict=True) if a != b}
    text = ",".join(f"{a}={b}" for a, b in wanted.items())
    try:
        read = read_label_map(text)
    except UserError:
        return None
    return f"{OPTION} {quote(text)}" if read == wanted else None
