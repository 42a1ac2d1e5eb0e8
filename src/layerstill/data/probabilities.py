"""Ready soft labels: what some teacher said of the training examples, as probabilities in columns of their file."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layerstill.data.columns import guess_texts, short, texts_of
from layerstill.data.files import Table, read_table, read_unquoted
from layerstill.data.folders import find_files
from layerstill.data.glue import GLUE, glue_files
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError

OPTION = "--teacher-probabilities"


@dataclass(frozen=True)
class Probabilities:
    """A probability of each label for texts: `rows[i][c]` is that of `labels[c]` for `texts[i]`.

    Examples find theirs by their texts, so that a subset of the file will do. A text that is there several times has
    the mean.
    """

    source: str
    """Where they are from, for messages."""
    labels: tuple[str, ...]
    texts: list[tuple[str, ...]]
    rows: list[list[float]]
    columns: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.rows):
            raise UserError(f"{OPTION}: {len(self.rows)} rows for {len(self.texts)} texts; each text needs one")

    def check(self, task: Task) -> None:
        """UserError for a row that holds no probabilities of the task's labels."""
        task.head.refuse_probabilities(OPTION)
        for number, row in enumerate(self.rows, 1):
            if len(row) != len(self.labels):
                raise UserError(
                    f"{OPTION}: row {number} of {self.source} has {len(row)} numbers, and there are "
                    f"{len(self.labels)} labels; give one for each"
                )
            task.head.logits_of(row, f"{OPTION}: row {number} of {self.source}")

    def of(self, split: Split, task: Task) -> np.ndarray:
        """Those of the examples of a split, `(n, C)` in the order of the task's labels; UserError if one has none."""
        if set(self.labels) != set(task.labels):
            raise UserError(
                f"{OPTION}: they are of {', '.join(self.labels)}, and task {task.name} has {', '.join(task.labels)}"
            )
        places = [self.labels.index(name) for name in task.labels]
        found = defaultdict(list)
        for text, row in zip(self.texts, self.rows, strict=True):
            found[text].append([row[place] for place in places])
        if missing := [text for text in split.texts if text not in found]:
            raise UserError(
                f"{OPTION}: {len(missing)} of {len(split)} training examples have no row in {self.source}, such "
                f"as {short(missing[0][0])}; give probabilities of all of them"
            )
        means = {text: np.mean(rows, 0) for text, rows in found.items()}
        return np.array([means[text] for text in split.texts])

    def logits(self, split: Split, task: Task) -> np.ndarray:
        """Of the examples of a split, `(n, C)`; a probability below 1e-6 counts as if it were that."""
        return np.array([task.head.logits_of(row, OPTION) for row in self.of(split, task).tolist()])

    def fingerprint(self, task: Task) -> str:
        """Twelve hexadecimal digits of those of the task's training examples."""
        return hashlib.sha256(self.of(task.splits["train"], task).tobytes()).hexdigest()[:12]

    def record(self) -> dict[str, Any]:
        """The `teacher_probabilities` block of `result.json`."""
        return {"source": self.source, "columns": list(self.columns), "examples": len(self.rows)}

    def agreement(self, task: Task) -> str | None:
        """How often the most probable class is the training label, as a notice; None where an example has several."""
        if not task.head.single:
            return None
        train = task.splits["train"]
        share = float(np.mean(self.of(train, task).argmax(1) == np.array(train.labels)))
        hint = "" if share > 0.5 else "; are the columns in the order of the labels?"
        return f"{OPTION}: the most probable class is the label of {share:.1%} of the training examples{hint}"


def probabilities_file(task: Task, data: Path | None, dev: Path | None) -> Path:
    """The file with the task's training examples; UserError for a task that has none here."""
    if data is None:
        raise UserError(f"{OPTION}: they are columns of the training file of --data, and none is given")
    return glue_files(task.name, data)["train"] if task.name in GLUE else find_files(data, dev)["train"]


def read_probabilities(
    path: Path, columns: Sequence[str], task: Task, text_columns: tuple[str, ...] = (), label_column: str = "label"
) -> Probabilities:
    """Read soft labels from columns of the file of a task's training examples.

    Args:
        path: the file.
        columns: one for each label, called after it, perhaps with a prefix that all of them have (`p_neg,p_pos`), or in
            the order of the task's labels; or a single one that holds a list in that order or an object by label.
        task: what the file was read as.
        text_columns: as the task was read with.
        label_column: likewise.

    UserError with the line for what is no probability.
    """
    task.head.refuse_probabilities(OPTION)
    glue = GLUE.get(task.name)
    table = read_unquoted(path, glue.header, skip_ragged=task.name == "qqp") if glue else read_table(path)
    texts = texts_of(table, text_columns or (glue.texts if glue else guess_texts(table, label_column)), OPTION)
    if twice := next((name for name in columns if list(columns).count(name) > 1), None):
        raise UserError(f"{OPTION}: column {twice!r} is named twice; name one for each label")
    rows = _from_one(table, columns[0], task) if len(columns) == 1 else None
    labels: tuple[str, ...] = task.labels
    notices: tuple[str, ...] = ()
    if rows is None:
        labels, notices = _labels_of(columns, task)
        values = [table.column(name, OPTION) for name in columns]
        rows = [
            [
                _number(value, f"{table.path} line {line}, column {name!r}")
                for name, value in zip(columns, row, strict=True)
            ]
            for line, row in zip(table.lines, zip(*values, strict=True), strict=True)
        ]
    for line, row in zip(table.lines, rows, strict=True):
        task.head.logits_of(row, f"{table.path} line {line}")
    return Probabilities(str(path), labels, texts, rows, tuple(columns), notices)


def _labels_of(columns: Sequence[str], task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which label each column is of, and a notice where only their order says so."""
    if len(columns) != len(task.labels):
        raise UserError(
            f"{OPTION}: {len(columns)} columns, and task {task.name} has {len(task.labels)} labels "
            f"({', '.join(task.labels)}); name one for each, or one that holds a list of them"
        )
    folded = {name.casefold(): name for name in task.labels}
    for cut in range(min(map(len, columns))):
        if len({name[:cut] for name in columns}) > 1:
            break
        found = [folded.get(name[cut:].casefold()) for name in columns]
        if None not in found and len(set(found)) == len(columns):
            return tuple(map(str, found)), ()
    pairs = ", ".join(f"{column} is {label}" for column, label in zip(columns, task.labels, strict=True))
    return task.labels, (f"{OPTION}: the columns are not named after the labels; in their order {pairs}",)


def _from_one(table: Table, column: str, task: Task) -> list[list[float]] | None:
    """A column of lists or objects, which CSV and TSV hold as JSON; None for a column of numbers."""
    values = table.column(column, OPTION)
    rows = []
    for line, value in zip(table.lines, values, strict=True):
        where = f"{table.path} line {line}, column {column!r}"
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise UserError(f"{where}: {short(value)} where a list of probabilities is expected") from None
        if isinstance(value, int | float) and len(task.labels) != 1:
            raise UserError(
                f"{where}: one number, and task {task.name} has {len(task.labels)} labels ({', '.join(task.labels)}); "
                f"name a column for each: {OPTION} A,B"
            )
        rows.append([_number(one, where) for one in _in_order(value, where, task)])
    return rows


def _in_order(value: Any, where: str, task: Task) -> list[Any]:
    if isinstance(value, dict):
        if missing := [name for name in task.labels if value.get(name) is None]:
            raise UserError(f"{where}: nothing for label {missing[0]!r}; it has {', '.join(map(str, value))}")
        if more := [name for name in value if name not in task.labels]:
            raise UserError(f"{where}: {more[0]!r} is not one of the labels {', '.join(task.labels)}")
        return [value[name] for name in task.labels]
    row = list(value) if isinstance(value, list | tuple) else [value]
    if len(row) != len(task.labels):
        raise UserError(f"{where}: {len(row)} probabilities, and task {task.name} has {len(task.labels)} labels")
    return row


def _number(value: Any, where: str) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not abs(number) < float("inf"):
        raise UserError(f"{where}: {short(value)} where a probability is expected")
    return number
