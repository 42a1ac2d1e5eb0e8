"""Texts without labels, a part of the rows at a time, so that a file may be larger than memory."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import Any

from layerstill.data import conll
from layerstill.data.contents import suffix_of
from layerstill.data.files import Table, read_lines, read_rows, read_table
from layerstill.data.large import Blank, Rows, lines_of, objects_of, stream_of
from layerstill.data.piped import (
    ObjectsAsTexts,
    Opening,
    delimited_table,
    first_lines,
    header_names,
    json_lines,
    json_table,
    looks_like_rows,
)
from layerstill.errors import UserError

ROWS = 1024
"""Of a part."""
LARGE = 200_000_000
"""Bytes from which on a file is not read whole."""
STDIN = Path("standard input")
TEXT, PAIR, WORDS = "text", ("sentence1", "sentence2"), "tokens"
"""Columns of what has none."""


class Parts:
    """The rows of a file or a stream as tables, one part after the other; it can be gone through once.

    Args:
        data: a table (`.tsv .csv .jsonl .parquet`), a `.txt` with one text per line or with a table, or a stream of
            bytes with JSON objects, a table whose header names known columns, or one text per line.
        texts: how many a row the model reads; None where that is not known. Two are separated by a tab in a line.
        words: whether texts are sentences of words. `.conll` and its kin have a word per line, in the first column.
        columns: names of text columns by any of which a `.txt` is known for a table.

    UserError with file and line for what cannot be read, and for what has no rows.
    """

    def __init__(
        self, data: Path | Any, texts: int | None, words: bool = False, columns: Sequence[tuple[str, ...]] = ()
    ) -> None:
        self.path = data if isinstance(data, Path) else STDIN
        self.named = self.path != STDIN
        """Whether columns have names of their own, for sure once the first part was read."""
        self._texts, self._words, self._columns = texts, words, columns
        self._blank, self._unit, self._objects = Blank(), "line", ObjectsAsTexts()
        self._parts = self._of_file(self.path) if isinstance(data, Path) else self._of_stream(data)

    def __iter__(self) -> Iterator[Table]:
        return self._parts

    def closing(self) -> list[str]:
        """What is to be said when all of them were read: how many lines gave no row, or looked like another kind."""
        return [*self._blank.notices(self.path, self._unit), *self._objects.notices(self.path)]

    def _of_file(self, path: Path) -> Iterator[Table]:
        if path.is_dir():
            raise UserError(f"--data {path}: a folder; name the file in it whose texts are asked about")
        if not path.is_file():
            raise UserError(f"--data {path}: {'not an ordinary file' if path.exists() else 'no such file'}")
        suffix, large = suffix_of(path), _is_large(path)
        if suffix == ".txt":
            yield from self._of_text_file(path, large)
        elif self._words and suffix in conll.COLUMN_SUFFIXES:
            self.named = suffix == ".tsv"
            sentences = [list(sentence) for sentence in conll.read_words(path)]
            yield from self._cut(Table(path, {WORDS: sentences}, list(range(1, len(sentences) + 1))))
        elif large and (stream := stream_of(path, self._blank)):
            yield from _some(path, stream.rows, (stream.notice,))
        else:
            yield from self._cut(read_table(path))

    def _of_text_file(self, path: Path, large: bool) -> Iterator[Table]:
        """Texts one per line, or a table that is called so: a small one in any encoding, a large one in UTF-8."""
        stream = stream_of(path, self._blank) if large else None
        if stream and self._is_table(stream.names):
            yield from _some(path, stream.rows, (stream.notice,))
            return
        table = None if large else read_rows(path)
        names = () if table is None else tuple(table.columns)
        if table is not None and (not table.separator or self._is_table(names)):
            yield from self._cut(table, f"{path}: read as a table with the columns {', '.join(names)}")
            return
        self.named = False
        if large:
            with path.open("rb") as file:
                yield from _some(path, self._lined(path, lines_of(path, file, self._blank)))
            return
        whole = read_lines(path)
        self._count(whole)
        pairs = table is not None and table.separator == "\t" and self._texts != 1
        unsure = table is not None and len(table.lines) > 1 and not pairs and not self._words
        columns = ", ".join(names)
        other = f"{path}: read as one text per line; if it is a table with the columns {columns}, say which is text"
        rows = self._lined(path, zip(whole.lines, whole.columns[TEXT], strict=True))
        yield from _some(path, rows, (f"{other} with --text-columns",) if unsure else ())

    def _is_table(self, names: Sequence[str]) -> bool:
        """Whether the first line of a text file names columns that are known; without any it is JSON."""
        return not names or any(set(known) <= {*names} for known in self._columns)

    def _of_stream(self, stream: Iterable[bytes]) -> Iterator[Table]:
        """JSON lines if the first line is an object, a table if it is the header of one, else texts one per line."""
        lines = iter(stream)
        head = first_lines(lines)
        if not head:
            raise UserError(f"{STDIN}: no texts in it; pipe one per line, or JSON lines")
        ((number, first),) = lines_of(STDIN, head, Blank())
        opening, header = Opening.of(first), header_names(first, self._columns)
        if opening.is_row:
            objects = objects_of(STDIN, lines_of(STDIN, chain(head, lines), self._blank))
            yield from _some(STDIN, json_lines(objects, number))
            return
        if opening.wants_more or len(header) > 1:
            raw = b"".join([*head, *lines])
            table = json_table(STDIN, raw) if opening.wants_more else delimited_table(STDIN, raw)
            if table is not None:
                self.named = True
                yield from self._cut(table, f"{STDIN}: read as a table with the columns {', '.join(table.columns)}")
                return
            head, lines = [], BytesIO(raw)
        notices = []
        if opening.broken and looks_like_rows(first):
            notices = [f"{STDIN} line {number}: not JSON ({opening.broken}), so every line is read as a text"]
        elif header:
            notices = [f"{STDIN} line {number}: {first!r} is read as a text; if it is a header, leave it out"]
        texts = self._lined(STDIN, self._objects.passing(lines_of(STDIN, chain(head, lines), self._blank)))
        yield from _some(STDIN, texts, tuple(notices))

    def _lined(self, path: Path, lines: Iterable[tuple[int, str]]) -> Rows:
        texts = self._texts
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

    def _count(self, table: Table) -> None:
        self._unit = table.unit
        for number in table.blank:
            self._blank.add(number)

    def _cut(self, table: Table, *notices: str) -> Iterator[Table]:
        """A table in parts; notices come with the first."""
        self._count(table)
        for start in range(0, len(table.lines), ROWS):
            here = slice(start, start + ROWS)
            columns = {name: values[here] for name, values in table.columns.items()}
            told = () if start else (*notices, *table.notices)
            yield replace(table, columns=columns, lines=table.lines[here], notices=told, blank=[])


def _is_large(path: Path) -> bool:
    return path.stat().st_size >= LARGE


def _some(path: Path, rows: Rows, notices: tuple[str, ...] = ()) -> Iterator[Table]:
    """Rows as tables; a key that a row lacks is None there, and one that is new is in the tables from there on."""
    names: dict[str, None] = {}
    while part := list(islice(rows, ROWS)):
        names |= dict.fromkeys(name for _, row in part for name in row)
        yield Table(path, {name: [row.get(name) for _, row in part] for name in names}, [n for n, _ in part], notices)
        notices = ()
    if not names:
        raise UserError(f"{path}: no texts in it")
