"""Read tables from `.tsv`, `.csv`, `.jsonl` and `.parquet`, saying file and line of whatever is wrong."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from layerstill.errors import UserError, nearest

SUFFIXES = (".tsv", ".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Table:
    """Columns of equal length; `lines` are the line numbers in the file, for messages."""

    path: Path
    columns: dict[str, list]
    lines: list[int]

    def column(self, name: str, option: str) -> list:
        """A column by name; UserError that names the option which asked for it."""
        if name not in self.columns:
            raise UserError(f"{self.path}: no column {name!r} (from {option}): {nearest(name, self.columns)}")
        return self.columns[name]


def read_table(path: Path, header: tuple[str, ...] | None = None, skip_ragged: bool = False) -> Table:
    """Read a file by its suffix. `header` names the columns of a TSV file without a header line.

    TSV files are split at tabs without any quoting, as GLUE's are. `skip_ragged` drops rows with too few fields
    (the official QQP has some) instead of refusing them.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    reader = {".tsv": _tsv, ".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}.get(path.suffix)
    if reader is None:
        raise UserError(f"{path}: unknown kind of file {path.suffix!r}; use one of {', '.join(SUFFIXES)}")
    try:
        table = reader(path, header, skip_ragged)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; convert the file to UTF-8") from None
    if not table.lines:
        raise UserError(f"{path}: no rows")
    return table


def _from_rows(
    path: Path, rows: Iterator[tuple[int, list[str]]], header: tuple[str, ...] | None, skip_ragged: bool
) -> Table:
    names = list(header) if header else next(rows, (0, []))[1]
    columns: dict[str, list] = {name: [] for name in names}
    if len(columns) != len(names):
        raise UserError(f"{path} line 1: a column name is there twice: {', '.join(names)}")
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


def _tsv(path: Path, header: tuple[str, ...] | None, skip_ragged: bool) -> Table:
    text = path.read_text("utf-8-sig")
    rows = ((i, line.split("\t")) for i, line in enumerate(text.split("\n"), 1) if line)
    return _from_rows(path, ((i, [v.removesuffix("\r") for v in row]) for i, row in rows), header, skip_ragged)


def _csv(path: Path, header: tuple[str, ...] | None, skip_ragged: bool) -> Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        rows = ((reader.line_num, row) for row in reader if row)
        try:
            return _from_rows(path, rows, header, skip_ragged)
        except csv.Error as error:
            raise UserError(f"{path} line {reader.line_num}: {error}") from None


def _jsonl(path: Path, header: tuple[str, ...] | None, skip_ragged: bool) -> Table:
    columns: dict[str, list] = {}
    lines: list[int] = []
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path} line {number}: not JSON: {error.msg} at column {error.colno}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path} line {number}: a JSON object is expected, got {type(row).__name__}")
        if lines and row.keys() != columns.keys():
            raise UserError(
                f"{path} line {number}: keys {', '.join(row)} differ from line {lines[0]}'s {', '.join(columns)}"
            )
        lines.append(number)
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    return Table(path, columns, lines)


def _parquet(path: Path, header: tuple[str, ...] | None, skip_ragged: bool) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path).read()
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
    if len(set(table.column_names)) < len(table.column_names):
        raise UserError(f"{path}: a column name is there twice: {', '.join(table.column_names)}")
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return Table(path, columns, list(range(1, table.num_rows + 1)))
