"""Read tables from files, saying file and line of whatever is wrong: what is in a file decides, not its name."""

from pathlib import Path
from typing import Any

from layerstill.data.contents import (
    GZIP,
    decoded,
    first_bytes,
    read_bytes,
    read_text,
    refuse_missing,
    stem_of,
    suffix_of,
    with_line_feeds,
)
from layerstill.data.delimited import is_table, read_delimited
from layerstill.data.excel import ZIP, read_excel
from layerstill.data.json_rows import SUFFIXES as JSON_SUFFIXES
from layerstill.data.json_rows import is_json, json_object, read_json_rows
from layerstill.data.parquet import MAGIC, read_parquet
from layerstill.data.table import ORIGIN, Table
from layerstill.data.unquoted import read_unquoted
from layerstill.errors import UserError

__all__ = [
    "ORIGIN",
    "SUFFIXES",
    "Table",
    "is_table_file",
    "read_json",
    "read_lines",
    "read_rows",
    "read_table",
    "read_text",
    "read_unquoted",
    "refuse_copies",
    "stem_of",
    "suffix_of",
]

SUFFIXES = (".tsv", ".csv", ".jsonl", ".parquet", ".json", ".ndjson", ".xlsx")
"""Names of tables, each also in capitals and with `.gz`."""


def is_table_file(path: Path) -> bool:
    """Whether a file is called as tables are."""
    return suffix_of(path) in SUFFIXES


def read_table(path: Path) -> Table:
    """Read a file as what it is: separated fields, JSON, Parquet or Excel, packed with gzip or not.

    A `.txt` file is taken if it is a table. UserError with the line for what cannot be read.
    """
    refuse_missing(path)
    if not is_table_file(path) and suffix_of(path) != ".txt":
        raise UserError(f"{path}: unknown kind of file {path.suffix!r}; use one of {', '.join(SUFFIXES)}")
    try:
        table = _read(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not table.lines:
        raise UserError(f"{path}: no rows")
    return table


def _read(path: Path) -> Table:
    first = first_bytes(path)
    if first.startswith(MAGIC) or (suffix_of(path) == ".parquet" and not first.startswith(GZIP)):
        return read_parquet(path)
    raw = read_bytes(path)
    if raw.startswith(MAGIC):
        return read_parquet(path, raw)
    if raw.startswith(ZIP):
        return read_excel(path, raw)
    text = decoded(path, raw).removeprefix("\ufeff")
    kind = suffix_of(path)
    if kind in JSON_SUFFIXES:
        # Lines that are a table but no JSON were given the wrong name.
        wrong = text.lstrip()[:1] not in {"{", "["} and is_table(path, text)
        return read_delimited(path, text) if wrong else read_json_rows(path, with_line_feeds(text))
    if is_json(text):
        return read_json_rows(path, with_line_feeds(text))
    if kind == ".xlsx" and not is_table(path, text):
        raise UserError(f"{path}: not a readable Excel file; save it again, or as 'CSV UTF-8'")
    if kind == ".txt" and not is_table(path, text):
        raise UserError(
            f"{path}: a text file without columns has no labels; give a table with a line of names on top "
            f"({' '.join(SUFFIXES)}), or texts alone with --supplementary or --unlabelled"
        )
    return read_delimited(path, text)


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object."""
    refuse_missing(path)
    return json_object(str(path), read_text(path))


def refuse_copies(table: Table) -> None:
    """UserError for a table of augmented texts, of which none can be held out: copies of it would stay in train."""
    origins = [str(value) for value in table.columns.get(ORIGIN, ())]
    if len(set(origins)) < len(origins) and all(value.isdecimal() for value in origins):
        raise UserError(
            f"{table.path}: its column {ORIGIN!r} says that rows are copies of others, so a held-out row would have "
            f"copies in train; give --dev, or rename the column if it means something else"
        )


def read_lines(path: Path) -> Table:
    """A `.txt` file as a table with the column `text`: one row a line, without the empty lines."""
    refuse_missing(path)
    try:
        text = with_line_feeds(decoded(path, read_bytes(path)).removeprefix("\ufeff"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    every = list(enumerate(text.removesuffix("\n").split("\n"), 1))
    rows = [(number, line) for number, line in every if line.strip()]
    if not rows:
        raise UserError(f"{path}: no text in it")
    blank = [number for number, line in every if not line.strip()]
    return Table(path, {"text": [line for _, line in rows]}, [number for number, _ in rows], blank=blank)


def read_rows(path: Path) -> Table | None:
    """A `.txt` file as a table, rows of JSON say; None for one that can only be lines of text."""
    try:
        return read_table(path)
    except UserError:
        return None
