"""Several labels a text, as own files write them: lists, `a|b` in one column, or one column a label.

Every error names file, line and column.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from layerstill.data.columns import not_text, short
from layerstill.data.files import Table
from layerstill.errors import UserError, nearest

BAR = "|"
UNKNOWN = -100
"""Written in a label's own column where it is not known whether a text has it; no loss and no metric counts it."""
_MARKS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, str(UNKNOWN): UNKNOWN, f"{UNKNOWN}.0": UNKNOWN}
LabelSets = dict[str, list[list[int]]]
"""For every split a row an example: for every label 1 or 0, or `UNKNOWN`."""


def read_label_sets(
    tables: Mapping[str, Table], column: str, text_columns: Sequence[str] = ()
) -> tuple[tuple[str, ...], LabelSets, list[str]]:
    """Names of the labels, the labels of every split, and notices; the names are those that occur in `train`.

    `column` is the value of `--label-column`: one column of lists or of `a|b`, or `a,b,c`, a column of 0 and 1 for each
    label. UserError for what is neither.
    """
    if "," in column and column not in tables["train"].columns:
        names = tuple(name.strip() for name in column.split(","))
        if both := next((name for name in names if name in text_columns), None):
            raise UserError(f"column {both!r} is both text and label; set --text-columns and --label-column")
        return names, {split: _from_columns(table, names) for split, table in tables.items()}, []
    if column not in (there := tables["train"].columns):
        raise UserError(
            f"{tables['train'].path}: no column {column!r} (from --label-column): {nearest(column, there)}; where each "
            "label has a column of 0 and 1, name them all: --label-column a,b,c"
        )
    sets = {split: _from_one_column(table, column) for split, table in tables.items()}
    names = _names(tables["train"], column, sets["train"])
    notices = _look_alike(tables["train"], column, names)
    number = {name: i for i, name in enumerate(names)}
    rows = {split: _numbered(tables[split], column, sets[split], number) for split in tables}
    return names, rows, notices


def _from_columns(table: Table, names: tuple[str, ...]) -> list[list[int]]:
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--label-column: column {twice!r} is named twice; name each label's column once")
    if "" in names:
        raise UserError("--label-column: a name between two commas is missing; write a,b,c")
    columns = [[_mark(table, name, at, value) for at, value in enumerate(table.column(name, "--label-column"))]
               for name in names]  # fmt: skip
    return [list(row) for row in zip(*columns, strict=True)]


def _mark(table: Table, column: str, at: int, value: Any) -> int:
    mark = _MARKS.get(str(value).strip().lower())
    if mark is None:
        raise UserError(
            f"{_where(table, column, at)} holds {short(value)} where 1 (the text has this label) or 0 is expected; "
            f"write {UNKNOWN} where it is not known"
        )
    return mark


def _from_one_column(table: Table, column: str) -> list[list[str]]:
    return [
        list(_labels_of(table, column, at, value)) for at, value in enumerate(table.column(column, "--label-column"))
    ]


def _labels_of(table: Table, column: str, at: int, value: Any) -> Iterator[str]:
    """The names of one example's labels."""
    where = _where(table, column, at)
    if isinstance(value, str):
        parts: list[Any] = value.split(BAR) if value.strip() else []
    elif isinstance(value, list):
        parts = value
    else:
        raise UserError(
            f"{where} holds {short(value)} where the labels of a text are expected: a list of names, or a{BAR}b; "
            "an empty one if it has none"
        )
    seen = set()
    for part in parts:
        if not _names_a_label(part):
            raise UserError(f"{where}: {short(part)} in {short(value)} names no label; use strings or whole numbers")
        name = str(part).strip()
        if name in seen:
            raise UserError(
                f"{where}: label {name!r} appears twice in {short(value)}; name each label of a text once "
                "(0 and 1 for every label belong in a column for each label: --label-column a,b,c)"
            )
        seen.add(name)
        yield name


def _names_a_label(value: Any) -> bool:
    """Whether a value is a name or a whole number; numbers with a fraction, true, null and empty names are not."""
    if isinstance(value, bool):
        return False
    if not isinstance(value, str):
        return isinstance(value, int)
    return bool(value.strip()) and not_text(value) is None


def _names(table: Table, column: str, sets: list[list[str]]) -> tuple[str, ...]:
    """All labels of the training examples, in order."""
    names = {name for row in sets for name in row}
    whole = all(re.fullmatch(r"-?\d{1,18}", name) for name in names)
    ordered = tuple(sorted(names, key=lambda name: (int(name), name)) if whole else sorted(names))
    if not ordered:
        raise UserError(f"{table.path}: column {column!r} is empty in all of its {len(sets)} rows; no text has a label")
    if set(ordered) <= {"0", "1"}:
        raise UserError(
            f"{table.path}: column {column!r} holds only 0 and 1, which name no labels; name the columns of all labels "
            "(--label-column a,b,c), or use --task classification for one yes or no"
        )
    if len(ordered) < 2:
        raise UserError(
            f"{table.path}: column {column!r} holds a single label, {ordered[0]!r}; to learn whether a "
            "text has it, name two classes and use --task classification"
        )
    if isinstance(table.columns[column][0], str) and len(ordered) > max(20, len(sets) // 2):
        raise UserError(
            f"{table.path}: column {column!r} holds {len(ordered)} different labels in {len(sets)} rows; "
            "is it the text column? Set --text-columns and --label-column"
        )
    return ordered


def _look_alike(table: Table, column: str, names: tuple[str, ...]) -> list[str]:
    """Notices of names that are perhaps not meant."""
    notices = []
    folded = [name.casefold() for name in names]
    if alike := [name for name in names if folded.count(name.casefold()) > 1]:
        notices.append(
            f"{table.path}: labels {', '.join(alike)} differ only in upper and lower case and are taken as different"
        )
    cells = [value for value in table.columns[column] if isinstance(value, str)]
    for mark in ",;":
        if not any(BAR in cell for cell in cells) and (joined := next((c for c in cells if mark in c), None)):
            notices.append(
                f"{table.path}: column {column!r} holds {short(joined)}, taken as one label; if it is several, "
                f"write {BAR} between them"
            )
    return notices


def _numbered(table: Table, column: str, sets: list[list[str]], number: dict[str, int]) -> list[list[int]]:
    rows = []
    for at, labels in enumerate(sets):
        row = [0] * len(number)
        for label in labels:
            if label not in number:
                known = ", ".join(list(number)[:20]) + (f", ... ({len(number)} in all)" if len(number) > 20 else "")
                raise UserError(
                    f"{_where(table, column, at)}: label {label!r} is not in train, which has {known}; "
                    "add examples of it to train, or correct the label"
                )
            row[number[label]] = 1
        rows.append(row)
    return rows


def _where(table: Table, column: str, at: int) -> str:
    return f"{table.where(table.lines[at])}: column {column!r}"
