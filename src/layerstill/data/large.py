"""Tables that are too large to be read whole: row by row, in the way that their first rows are read.

A table that is read whole is known to its last row before anything is decided, so this way forgives less: a row that is
not like the first ones is refused with its line. What is no plain table in UTF-8 is read whole, whatever its size.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from layerstill.data.contents import GZIP, MARKS, first_bytes, with_line_feeds
from layerstill.data.delimited import SEPARATORS, Reading, sample_reading
from layerstill.data.excel import ZIP
from layerstill.data.json_rows import is_json
from layerstill.data.parquet import MAGIC
from layerstill.errors import UserError

BATCH = 1024
"""Rows of a Parquet file that are in memory at once."""
SAMPLE = 2**18
"""Bytes of the first rows, by which it is decided how all are read."""
LONGEST = 2**31 - 1
"""Characters of a field."""
STAND_IN = "\ufdd0"
"""No character, and in no text."""
FIRST = 5
"""Blank lines that are named."""
Rows: TypeAlias = Iterator[tuple[int, dict[str, Any]]]
"""Row by row: the line where it ends and what it holds."""


@dataclass
class Blank:
    """Lines that hold nothing and give no row, counted as they pass."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, number: int) -> None:
        """One more."""
        self.count += 1
        if len(self.first) < FIRST:
            self.first.append(number)

    def notices(self, where: Path, unit: str = "line") -> list[str]:
        """How many they were, if any."""
        if not self.count:
            return []
        numbers = ", ".join(map(str, self.first)) + (", ..." if self.count > len(self.first) else "")
        if self.count == 1:
            return [f"{where}: {unit} {numbers} is blank and has no answer"]
        return [f"{where}: {self.count:,} {unit}s are blank and have no answer ({unit}s {numbers})"]


@dataclass(frozen=True)
class Stream:
    """The rows of a large file as they come, and a notice about how they are read."""

    rows: Rows
    notice: str
    names: tuple[str, ...] = ()
    """Of the columns; empty where rows say them themselves."""


def stream_of(path: Path, blank: Blank) -> Stream | None:
    """A large file row by row; None for what has to be read whole. Blank lines are added to `blank` as they pass."""
    first = first_bytes(path)
    if first.startswith(MAGIC):
        return Stream(_parquet(path), f"{path}: large, read {BATCH:,} rows at a time")
    wide = any(first.startswith(mark) for mark, encoding in MARKS if encoding != "utf-8-sig")
    if first.startswith((GZIP, ZIP)) or wide:
        return None
    sample = first_bytes(path, SAMPLE)
    text = with_line_feeds(sample[: sample.rfind(b"\n") + 1].decode("utf-8", "replace").removeprefix("\ufeff"))
    if is_json(text):
        one_a_line = _is_object(text.lstrip().split("\n", 1)[0])
        return Stream(_jsonl(path, blank), f"{path}: large, read an object per line") if one_a_line else None
    reading = sample_reading(path, text)
    if reading is None:
        return None
    quotes = "quotes as CSV has them" if reading.quoted else "quotes are part of the texts"
    how = (
        f"{path}: large, read row by row as its first rows are: separated by {SEPARATORS[reading.separator]}, {quotes}"
    )
    rows = _quoted(path, blank, reading) if reading.quoted else _plain(path, blank, reading)
    return Stream(rows, how, tuple(reading.names))


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def lines_of(path: Path, stream: Iterable[bytes], blank: Blank) -> Iterator[tuple[int, str]]:
    """The lines of a stream of bytes that hold anything, with their numbers; UserError for what is not UTF-8."""
    for number, raw in enumerate(stream, 1):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{path} line {number}: not UTF-8; convert it to UTF-8") from None
        if number == 1:
            line = line.removeprefix("\ufeff")
        if line.strip():
            yield number, line.removesuffix("\n").removesuffix("\r")
        else:
            blank.add(number)


def objects_of(path: Path, lines: Iterator[tuple[int, str]]) -> Rows:
    """JSON lines; UserError with the line for what is no object."""
    for number, line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path} line {number}: a JSON object is expected, got {type(row).__name__}")
        yield number, row


def _jsonl(path: Path, blank: Blank) -> Rows:
    with path.open("rb") as stream:
        yield from objects_of(path, lines_of(path, stream, blank))


def _plain(path: Path, blank: Blank, reading: Reading) -> Rows:
    with path.open("rb") as stream:
        rows = ((number, line.split(reading.separator)) for number, line in lines_of(path, stream, blank))
        yield from _named(path, rows, len(reading.names), blank)


def _quoted(path: Path, blank: Blank, reading: Reading) -> Rows:
    with path.open(encoding="utf-8-sig", newline="\n") as stream:
        limit = csv.field_size_limit(LONGEST)  # the module's own and global; a long text is no mistake
        # A carriage return alone, which ends no row, would end one for the csv module.
        lines = (line.replace("\r\n", "\n").replace("\r", STAND_IN) for line in stream)
        rows = csv.reader(lines, delimiter=reading.separator, strict=True, skipinitialspace=reading.blanks)
        try:
            yield from _named(path, _filled(rows, blank), len(reading.names), blank)
        except csv.Error as error:
            raise UserError(f"{path} line {rows.line_num}: {error}; are the quotes inside texts doubled?") from None
        except UnicodeDecodeError:
            raise UserError(f"{path} line {rows.line_num + 1} or soon after: not UTF-8; convert it") from None
        finally:
            csv.field_size_limit(limit)


def _filled(reader: Any, blank: Blank) -> Iterator[tuple[int, list[str]]]:
    for row in reader:
        if row:
            yield reader.line_num, [value.replace(STAND_IN, "\r") for value in row]
        else:
            blank.add(reader.line_num)


def _parquet(path: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(BATCH):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None


def _named(path: Path, rows: Iterator[tuple[int, list[str]]], columns: int, blank: Blank) -> Rows:
    """Fields by the names of the first row, of which the first `columns` count; the rest is empty on the right."""
    names: list[str] = []
    for number, fields in rows:
        if not names:
            names = [name.strip() for name in fields[:columns]]
            continue
        if len(fields) > 1 and not any(field.strip() for field in fields):
            blank.add(number)
            continue
        if len(fields) < columns or any(fields[columns:]):
            raise UserError(f"{path} line {number}: {len(fields)} fields where the header has {columns}")
        yield number, dict(zip(names, fields[:columns], strict=True))
