"""TSV files as those of GLUE and its kin are written: a line is a row, a quote is a character like any other."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from layerstill.data.contents import read_text, refuse_missing
from layerstill.data.table import ORIGIN, Table
from layerstill.errors import UserError


def read_unquoted(path: Path, header: tuple[str, ...] | None = None, skip_ragged: bool = False) -> Table:
    """Read lines with tabs between fields; UserError with the line for what is wrong.

    Args:
        path: the file.
        header: names of the columns, of a file without a line for them. One column more is taken for `origin`.
        skip_ragged: whether rows with too few fields (the official QQP has some) are dropped instead of refused.
    """
    refuse_missing(path)
    try:
        text = read_text(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    rows = ((i, line.split("\t")) for i, line in enumerate(text.split("\n"), 1) if line)
    table = _table(path, rows, header, skip_ragged)
    if not table.lines:
        raise UserError(f"{path}: no rows")
    return table


def _table(
    path: Path, rows: Iterator[tuple[int, list[str]]], header: tuple[str, ...] | None, skip_ragged: bool
) -> Table:
    if header:
        first = next(rows, (0, []))
        rows = chain([first] if first[1] else [], rows)
        names = [*header, ORIGIN] if len(first[1]) == len(header) + 1 else list(header)
    else:
        names = next(rows, (0, []))[1]
    columns: dict[str, list] = {name: [] for name in names}
    if len(columns) != len(names):
        raise UserError(f"{path} line 1: a column name appears twice: {', '.join(names)}")
    if len(names) == 1 and any(mark in names[0] for mark in ",;|"):
        raise UserError(f"{path} line 1: a single column, {names[0]!r}; fields are separated by tabs here")
    lines = []
    for line, row in rows:
        if len(row) != len(names):
            if skip_ragged and len(row) < len(names):
                continue
            raise UserError(f"{path} line {line}: {len(row)} fields where the header has {len(names)}")
        lines.append(line)
        for name, value in zip(names, row, strict=True):
            columns[name].append(value)
    return Table(path, columns, lines)
