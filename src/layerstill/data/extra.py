"""Texts without labels that join a task's training examples: those of a file, and copies made on the fly.

Terms that compare with a model learn from them as from any other example. Gold labels there are none, so terms on gold
labels count the task's own examples and nothing else.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from layerstill.data.checks import Key, key_of
from layerstill.data.supplementary import Supplementary, read_texts
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError

Row = tuple[str, ...]


class Unlabelled(Supplementary):
    """Texts, or pairs of texts, that join the training examples of every stage that can learn from them."""

    option = "--unlabelled"


def read_unlabelled(source: str, columns: tuple[str, ...] = ()) -> Unlabelled:
    """Read what `--unlabelled` names: the same kinds of files as `read_supplementary`."""
    return read_texts(source, columns, Unlabelled)


@dataclass(frozen=True)
class ExtraTexts:
    """What joins the training examples, and what was left out of it because it was there already."""

    rows: tuple[Row, ...] = ()
    unlabelled: dict[str, Any] | None = None
    """The block of this name in `result.json`."""
    augmented: dict[str, Any] | None = None
    """Likewise."""
    notices: tuple[str, ...] = ()

    def joined(self, task: Task) -> Split:
        """The training examples, and after them these, whose labels are not known."""
        train, outputs = task.splits["train"], len(task.labels)
        return train.joined(self.rows, (task.head.unknown(row, outputs) for row in self.rows))


class Sieve:
    """Lets through what is in no split of a task, and nothing twice.

    Texts that differ in upper and lower case or white space only are the same.
    """

    def __init__(self, task: Task) -> None:
        self._key = key_of(task)
        self._known: dict[Key, str] = {}
        for name in sorted(task.splits, key=lambda name: name != "train"):
            self._add(task.splits[name].texts, f"in {name}")

    def _add(self, rows: Iterable[Row], why: str) -> None:
        for row in rows:
            self._known.setdefault(self._key(row), why)

    def new(self, rows: Iterable[Row]) -> tuple[list[Row], dict[str, int]]:
        """The rows that pass, and how many did not for which reason: `in train`, `in dev`, `twice`, `empty`."""
        kept, left = [], Counter[str]()
        for row in rows:
            key = self._key(row)
            why = self._known.get(key) or ("" if all(key) else "empty")
            if why:
                left[why] += 1
                continue
            self._known[key] = "twice"
            kept.append(row)
        return kept, dict(left)


def fitting(texts: Unlabelled, task: Task) -> list[Row]:
    """The texts as the task has them, as many an example, or as words; UserError where they cannot be."""
    texts.refuse_words(task)
    if task.head.per_token:
        return texts.texts if texts.words else [tuple(" ".join(row).split()) for row in texts.texts]
    gives, takes = len(texts.texts[0]), len(task.splits["train"].texts[0])
    if gives != takes:
        said = ("one text", "two texts")
        raise UserError(
            f"{texts.option} {texts.source}: its examples are {said[gives - 1]}, those of task {task.name} "
            f"{said[takes - 1]}; name {said[takes - 1].split()[0]} of its columns with {texts.option}-columns"
        )
    return texts.texts


def add_unlabelled(texts: Unlabelled, task: Task, sieve: Sieve) -> ExtraTexts:
    """The texts of a file that are new; UserError if none is."""
    rows, left = sieve.new(fitting(texts, task))
    if not rows:
        raise UserError(
            f"{texts.option} {texts.source}: none of its {len(texts.texts)} texts is new ({counted(left)}); "
            "give other texts, or leave it out"
        )
    record = texts.record() | {"examples": len(rows), "left_out": left}
    notice = f"{texts.option} {texts.source}: {len(rows)} of {len(texts.texts)} texts join the training examples"
    return ExtraTexts(tuple(rows), unlabelled=record, notices=(*texts.notices, notice + left_out(left)))


def left_out(left: dict[str, int]) -> str:
    """The end of a notice about what did not pass a sieve."""
    return f"; left out: {counted(left)}" if left else ""


def counted(left: dict[str, int]) -> str:
    """`3 in train, 1 twice`."""
    return ", ".join(f"{number} {why}" for why, number in left.items())


def together(parts: Sequence[ExtraTexts]) -> ExtraTexts | None:
    """All of them as one; None for none."""
    if not parts:
        return None
    return ExtraTexts(
        tuple(row for part in parts for row in part.rows),
        next((part.unlabelled for part in parts if part.unlabelled), None),
        next((part.augmented for part in parts if part.augmented), None),
        tuple(notice for part in parts for notice in part.notices),
    )
