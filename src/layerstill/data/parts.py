"""Texts without labels, a part of the rows at a time, so that a file may be larger than memory."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from layerstill.data import conll
from layerstill.data.contents import suffix_of
from layerstill.data.files import Table, read_lines, read_table
from layerstill.errors import UserError

ROWS = 1024
"""Of a part."""
LARGE = 200_000_000
"""Bytes from which on a table is not read whole. Both ways read the same, but the whole one forgives more."""
LONGEST = 2**31 - 1
"""Characters of a field."""
STDIN = Path("standard input")
TEXT, PAIR, WORDS = "text", ("sentence1", "sentence2"), "tokens"
"""Columns of what has none."""
Rows = Iterator[tuple[int, dict[str, Any]]]
"""Line by line: its number and what it holds."""


def read_parts(path: Path, texts: int | None, words: bool) -> Iterator[Table]:
    """The rows of a file in parts: a table, or texts one a line.

    Args:
        path: a table (`.tsv .csv .jsonl .parquet`), or `.txt` with one text a line.
        texts: how many a row the model reads; None where that is not known. Two are separated by a tab in a line.
        words: whether texts are sentences of words. `.conll` and its kin then have a word a line, in the first column.

    UserError with file and line for what cannot be read, and for a file without rows.
    """
    if path.is_dir():
        raise UserError(f"--data {path}: a folder; name the file in it whose texts are asked about")
    if not path.is_file():
        raise UserError(f"--data {path}: {'not an ordinary file' if path.exists() else 'no such file'}")
    suffix = suffix_of(path)
    if suffix == ".txt":
        yield from _of_lines(path, texts)
    elif words and suffix in conll.COLUMN_SUFFIXES:
        sentences = [list(sentence) for sentence in conll.read_words(path)]
        yield from _cut(Table(path, {WORDS: sentences}, list(range(1, len(sentences) + 1))))
    elif _read_whole(path) or suffix not in LARGE_READERS:
        yield from _cut(read_table(path))
    else:
        yield from _some(path, LARGE_READERS[suffix](path))


def _read_whole(path: Path) -> bool:
    return path.stat().st_size < LARGE or path.suffix.lower() == ".gz"


def _of_lines(path: Path, texts: int | None) -> Iterator[Table]:
    """Texts one a line: a small file in any encoding that tables may have, or packed, a large one in UTF-8."""
    if _read_whole(path):
        whole = read_lines(path)
        yield from _some(path, _texts(path, zip(whole.lines, whole.columns[TEXT], strict=True), texts))
        return
    with path.open("rb") as stream:
        yield from _some(path, _texts(path, _lines(path, stream), texts))


def read_stream(stream: Any, texts: int | None) -> Iterator[Table]:
    """The same of a stream of bytes: JSON objects if the first line begins with one, else one text a line."""
    lines = _lines(STDIN, stream)
    first = next(lines, None)
    if first is None:
        raise UserError(f"{STDIN}: no texts in it; pipe one a line, or JSON lines")
    lines = _with_first(first, lines)
    rows = _objects(STDIN, lines) if first[1].lstrip().startswith("{") else _texts(STDIN, lines, texts)
    yield from _some(STDIN, rows)


def has_header(path: Path) -> bool:
    """Whether columns have names of their own."""
    return path != STDIN and suffix_of(path) not in {*conll.COLUMN_SUFFIXES} - {".tsv"}


def _with_first(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _lines(path: Path, stream: Any) -> Iterator[tuple[int, str]]:
    """The lines that hold anything, with their numbers."""
    number = 0
    text = io.TextIOWrapper(stream, "utf-8-sig")
    try:
        for number, line in enumerate(text, 1):
            if line.strip():
                yield number, line.rstrip("\n")
    except UnicodeDecodeError:
        raise UserError(f"{path} line {number + 1} or soon after: not UTF-8; convert it to UTF-8") from None
    finally:
        text.detach()


def _texts(path: Path, lines: Iterable[tuple[int, str]], texts: int | None) -> Rows:
    for number, line in lines:
        if texts is None:  # as its first line has it
            texts = 1 + ("\t" in line)
        if texts == 1:
            yield number, {TEXT: line}
            continue
        parts = line.split("\t")
        if len(parts) != texts:
            raise UserError(f"{path} line {number}: {len(parts)} texts where {texts} are read, separated by a tab")
        yield number, dict(zip(PAIR, parts, strict=True))


def _objects(path: Path, lines: Iterable[tuple[int, str]]) -> Rows:
    for number, line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path} line {number}: a JSON object is expected, got {type(row).__name__}")
        yield number, row


def _large_jsonl(path: Path) -> Rows:
    with path.open("rb") as stream:
        yield from _objects(path, _lines(path, stream))


def _large_tsv(path: Path) -> Rows:
    with path.open("rb") as stream:
        rows = ((number, line.split("\t")) for number, line in _lines(path, stream))
        yield from _named(path, rows)


def _large_csv(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        limit = csv.field_size_limit(LONGEST)  # the module's own and global; a long text is no mistake
        reader = csv.reader(stream, strict=True)
        try:
            yield from _named(path, ((reader.line_num, row) for row in reader if row))
        except csv.Error as error:
            raise UserError(f"{path} line {reader.line_num}: {error}; are the quotes inside texts doubled?") from None
        except UnicodeDecodeError:
            raise UserError(f"{path} line {reader.line_num + 1} or soon after: not UTF-8; convert it") from None
        finally:
            csv.field_size_limit(limit)


def _large_parquet(path: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(ROWS):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None


LARGE_READERS = {".csv": _large_csv, ".tsv": _large_tsv, ".jsonl": _large_jsonl, ".parquet": _large_parquet}


def _named(path: Path, rows: Iterator[tuple[int, list[str]]]) -> Rows:
    """Fields by the names of the first row."""
    _, names = next(rows, (0, []))
    if len(set(names)) < len(names):
        raise UserError(f"{path} line 1: a column name is there twice: {', '.join(names)}")
    for number, fields in rows:
        if len(fields) != len(names):
            raise UserError(f"{path} line {number}: {len(fields)} fields where the header has {len(names)}")
        yield number, dict(zip(names, fields, strict=True))


def _some(path: Path, rows: Rows) -> Iterator[Table]:
    """Rows as tables, all with the columns of the first row; a key that a later row lacks is None there."""
    names: list[str] = []
    while part := list(islice(rows, ROWS)):
        names = names or [*part[0][1]]
        for number, row in part:
            if more := next((key for key in row if key not in names), None):
                raise UserError(f"{path} line {number}: key {more!r} is not in the first row: {', '.join(names)}")
        yield Table(path, {name: [row.get(name) for _, row in part] for name in names}, [n for n, _ in part])
    if not names:
        raise UserError(f"{path}: no texts in it")


def _cut(table: Table) -> Iterator[Table]:
    """A table in parts; notices come with the first."""
    for start in range(0, len(table.lines), ROWS):
        here = slice(start, start + ROWS)
        columns = {name: values[here] for name, values in table.columns.items()}
        yield Table(table.path, columns, table.lines[here], () if start else table.notices)
