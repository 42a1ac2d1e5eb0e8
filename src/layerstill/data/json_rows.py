"""Rows of JSON: an object per line, an array of objects, or the columns of a DataFrame."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from layerstill.data.contents import suffix_of
from layerstill.data.table import Table
from layerstill.errors import UserError

SUFFIXES = (".jsonl", ".ndjson", ".json")
"""Names of files that hold JSON."""


def is_json(text: str) -> bool:
    """Whether a text begins with a JSON object or with an array of objects, whatever the file is called."""
    first = text.lstrip()
    if first.startswith("["):
        return first[1:].lstrip()[:1] in {"{", "["}
    return first.startswith("{") and first[1:].lstrip()[:1] == '"'


def read_json_rows(path: Path, text: str) -> Table:
    """Rows as they stand in a text; a key that a row lacks is None there. UserError with the line or row."""
    lines = text.split("\n")
    full = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if full and not _is_one_value(path, text, full):
        table = _table(path, [(n, json_object(f"{path} line {n}", line)) for n, line in full], "line")
        blank = [number for number, line in enumerate(text.removesuffix("\n").split("\n"), 1) if not line.strip()]
        return replace(table, blank=blank)
    return _whole(path, _parsed(str(path), text)) if full else Table(path, {}, [])


def json_object(where: str, text: str) -> dict[str, Any]:
    """A text that holds one JSON object; UserError that says `where`."""
    row = _parsed(where, text)
    if not isinstance(row, dict):
        raise UserError(f"{where}: a JSON object is expected, got {type(row).__name__}")
    return row


def _is_one_value(path: Path, text: str, full: list[tuple[int, str]]) -> bool:
    """Whether a text is not an object per line but a single array or object."""
    first = full[0][1].strip()
    if first.startswith("["):
        return True
    if len(full) > 1 and first.startswith("{") and not _is_whole(first):
        return first == "{" or suffix_of(path) == ".json" or _is_whole(text)
    return len(full) == 1 and _is_columns(path, first)


def _is_whole(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_columns(path: Path, line: str) -> bool:
    """Whether the only line is a table of columns and not its only row."""
    if suffix_of(path) == ".json":
        return True
    # Lists may be the words and tags of the only sentence, so in a file of lines they are no columns.
    value = json.loads(line) if line.startswith("{") and _is_whole(line) else None
    lists = isinstance(value, dict) and any(isinstance(part, list) for part in value.values())
    return isinstance(value, dict) and not lists and _columns_of(value) is not None


def _whole(path: Path, value: Any) -> Table:
    if isinstance(value, dict):
        if (columns := _columns_of(value)) is not None:
            rows = len(next(iter(columns.values())))
            notice = f"{path}: one object, read as {len(columns)} columns of {rows} rows and not as a single row"
            lists_of = [*value.values()] == [*columns.values()]
            return Table(path, columns, list(range(1, rows + 1)), (notice,) if lists_of else (), unit="row")
        lists = [key for key, rows in value.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
        if not lists and not any(isinstance(part, dict) for part in value.values()):
            return _table(path, [(1, value)], "line")
        if len(lists) != 1:
            raise UserError(
                f"{path}: an object with the keys {', '.join(map(str, value))} where rows are expected: an array of "
                "objects, or an object per line (pandas: to_json(orient='records', lines=True))"
            )
        table = _whole(path, value[lists[0]])
        return Table(path, table.columns, table.lines, (f"{path}: its rows are read from {lists[0]!r}",), unit="row")
    rows_of = value if isinstance(value, list) else [value]
    for number, row in enumerate(rows_of, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path} row {number}: a JSON object is expected, got {type(row).__name__}")
    return _table(path, enumerate(rows_of, 1), "row")


def _columns_of(value: dict[str, Any]) -> dict[str, list] | None:
    """The columns that pandas writes with orient='columns' or 'split', or lists of equal length; None if it is none."""
    if {"columns", "data"} <= value.keys() <= {"columns", "data", "index"} and isinstance(value["columns"], list):
        rows = value["data"]
        if isinstance(rows, list) and all(isinstance(r, list) and len(r) == len(value["columns"]) for r in rows):
            return {str(name): [row[i] for row in rows] for i, name in enumerate(value["columns"])} if rows else None
    for kind, take in _KINDS:
        parts = list(value.values())
        if len(parts) > 1 and all(isinstance(part, kind) and part for part in parts):
            same = {tuple(p) if kind is dict else len(p) for p in parts}
            if len(same) == 1:
                return {name: take(part) for name, part in value.items()}
    return None


_KINDS: tuple[tuple[type, Callable[[Any], list]], ...] = ((dict, lambda part: list(part.values())), (list, list))


def _table(path: Path, rows: Iterable[tuple[int, dict[str, Any]]], unit: str) -> Table:
    rows = [(number, row) for number, row in rows]
    names = dict.fromkeys(name for _, row in rows for name in row)
    columns = {name: [row.get(name) for _, row in rows] for name in names}
    return Table(path, columns, [number for number, _ in rows], unit=unit)


def _parsed(where: str, text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{where}: key {twice!r} appears twice")
        return row

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text.strip() else ""
        raise UserError(f"{where}: not JSON: {error.msg} at {line}column {error.colno}") from None
    except RecursionError:
        raise UserError(f"{where}: not a row: lists or objects are nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{where}: {error}") from None
