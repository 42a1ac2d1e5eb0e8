"""The documents of a corpus, read piece by piece, so that neither a file nor a line need fit into memory."""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from layerstill.data.contents import GZIP, MARKS, OTHERS, UTF8, first_bytes, suffix_of
from layerstill.data.parquet import MAGIC as PARQUET
from layerstill.data.parts import Parts
from layerstill.errors import UserError, nearest

PLAIN = (".txt", ".text", ".raw", ".md")
TABLES = (".csv", ".tsv", ".parquet")
LINES = (".jsonl", ".ndjson")
SUFFIXES = (*PLAIN, *LINES, *TABLES)
"""Files that a folder is searched for; a single file of any other name is read as plain text."""
USUAL = ("text", "content", "document", "body")
"""What a column of texts is usually called."""
PIECE = 1 << 18
"""Characters after which a document is handed on, though it goes on."""
LONGEST_ROW = 1 << 26
"""Characters of a line of JSON at most."""
TITLE = re.compile(r"=\s[^=].*\s=$")
"""How Wikipedia dumps head an article."""


@dataclass(frozen=True)
class Piece:
    """Some text of a document."""

    text: str
    begins: bool
    """Whether the document begins with it."""
    end: int = 0
    """Where in its file, as `extent` counts, reading was when it was handed on."""


def corpus_files(path: Path) -> tuple[list[Path], int]:
    """The files of `--data`, in order of their names, and how many others its folder holds; UserError if none."""
    if path.is_file():
        return [path], 0
    if not path.is_dir():
        if path.exists():
            raise UserError(f"--data {path}: not an ordinary file")
        of_hub = len(path.parts) == 2 and not path.is_absolute() and not path.suffix
        other = f"; a data set of the hub is given as hub:{path}" if of_hub else ""
        raise UserError(f"--data {path}: no such file or folder{other}")
    visible = (p for p in path.rglob("*") if not any(part.startswith(".") for part in p.relative_to(path).parts))
    there = sorted(p for p in visible if p.is_file())
    found = [p for p in there if suffix_of(p) in SUFFIXES]
    if not found:
        raise UserError(f"--data {path}: no texts in it; looked for {' '.join(SUFFIXES)}, also packed as .gz")
    return found, len(there) - len(found)


def read_documents(path: Path, column: str | None = None) -> Iterator[Piece]:
    """The documents of a file.

    Plain text: a blank line ends a document, and a line `= Title =` begins one. JSON lines, `.csv .tsv .parquet`: a
    document a row, in `column`, or without one in a column that is usually called so. Rows without text are passed
    over. UserError with file and line for what is no text.
    """
    suffix = suffix_of(path)
    if suffix in TABLES:
        yield from _of_table(path, column)
        return
    if column is not None and suffix not in LINES:
        raise UserError(f"--text-columns {column}: {path} is plain text and has no columns; leave it out")
    for first, way in OTHERS.items():
        if first_bytes(path).startswith(first):
            raise UserError(f"{path}: {way}")
    with path.open("rb") as raw, _opened(path, raw) as stream:
        pieces = _of_rows(path, stream, column) if suffix in LINES else _of_plain(path, stream)
        try:
            for piece in pieces:
                yield Piece(piece.text, piece.begins, raw.tell())
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path}: cannot be read to its end: {error}") from None


def extent(path: Path) -> int:
    """How long a file is for `Piece.end`: rows of Parquet, lines of another table, bytes on the disk of other files."""
    start = first_bytes(path)
    if suffix_of(path) not in TABLES:
        return path.stat().st_size
    if start.startswith(PARQUET):
        import pyarrow.parquet

        return int(pyarrow.parquet.ParquetFile(path).metadata.num_rows)
    with path.open("rb") as raw:
        stream: Any = gzip.GzipFile(fileobj=raw) if start.startswith(GZIP) else raw
        return sum(part.count(b"\n") for part in iter(lambda: stream.read(1 << 20), b""))


def _opened(path: Path, raw: Any) -> IO[str]:
    start = first_bytes(path)
    if start.startswith(GZIP):
        steps: Any = _Steps(raw)
        raw = gzip.GzipFile(fileobj=steps)
    encoding = next((name for mark, name in MARKS if start.startswith(mark)), "utf-8-sig")
    return io.TextIOWrapper(raw, encoding)


def read_stream(path: Path, raw: Any, column: str | None) -> Iterator[Piece]:
    """The documents of a stream of bytes that can be peeked into: JSON lines if it begins with `{`, else plain text.

    `path` is what messages call it. UserError as in `read_documents`.
    """
    start = raw.peek(1)
    for first, way in OTHERS.items():
        if start.startswith(first):
            raise UserError(f"{path}: {way}")
    if start.startswith(GZIP):
        raise UserError(f"{path}: packed with gzip; unpack it (gunzip -c FILE | layerstill ...)")
    stream = io.TextIOWrapper(raw, "utf-8-sig")
    as_rows = start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    if column is not None and not as_rows:
        raise UserError(f"--text-columns {column}: {path} is plain text and has no columns; leave it out")
    try:
        yield from _of_rows(path, stream, column) if as_rows else _of_plain(path, stream)
    finally:
        stream.detach()


class _Steps:
    """A file in small steps, so that its position says how far it has been unpacked."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def read(self, size: int) -> bytes:
        part: bytes = self.raw.read(min(size, io.DEFAULT_BUFFER_SIZE))
        return part


def _lines(path: Path, stream: IO[str], longest: int) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, long ones in parts of at most so many characters; UserError for what is no text."""
    number, whole = 1, True
    try:
        while line := stream.readline(longest):
            if "\0" in line:
                raise UserError(f"{path} line {number}: a NUL byte in it, so it is not text")
            whole = line.endswith("\n")
            yield number, line
            number += whole
    except UnicodeDecodeError:
        raise UserError(f"{path} line {number} or soon after: not UTF-8; {UTF8}") from None


def _of_plain(path: Path, stream: IO[str]) -> Iterator[Piece]:
    held: list[str] = []
    size, begins = 0, True
    for line in _at_white_space(text for _, text in _lines(path, stream, PIECE)):
        bare = line.strip()
        ends = not bare or TITLE.match(bare) is not None
        if held and (ends or size + len(line) > PIECE):
            yield Piece("".join(held), begins)
            held, size, begins = [], 0, False
        begins = begins or ends
        if bare:
            held.append(line)
            size += len(line)
    if held:
        yield Piece("".join(held), begins)


def _at_white_space(lines: Iterable[str]) -> Iterator[str]:
    """Parts of long lines, cut between words where there is any white space."""
    rest = ""
    for line in lines:
        line = rest + line
        cut = len(line) if line.endswith("\n") else max(line.rfind(" "), line.rfind("\t")) + 1
        if len(line) > 4 * PIECE:  # no white space for long: it is cut anywhere
            cut = len(line)
        rest = line[cut:]
        if cut:
            yield line[:cut]
    if rest:
        yield rest


def _of_rows(path: Path, stream: IO[str], column: str | None) -> Iterator[Piece]:
    seen: dict[str, None] = {}
    found = False
    for number, line in _lines(path, stream, LONGEST_ROW):
        if not line.strip():
            continue
        if len(line) >= LONGEST_ROW and not line.endswith("\n"):
            raise UserError(f"{path} line {number}: longer than {LONGEST_ROW:,} characters; is it JSON lines?")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} line {number}: not JSON: {error}") from None
        if isinstance(row, dict):
            column = column or column_of(path, list(row))
            found = found or column in row
            seen |= dict.fromkeys(row) if not found else {}
            row = row.get(column)
        yield from pieces_of(row, f"{path} line {number}", column)
    if seen and not found and column is not None:
        raise UserError(f"{path}: no row has {column!r}: {nearest(column, list(seen))}")


def _of_table(path: Path, column: str | None) -> Iterator[Piece]:
    for table in Parts(path, 1):
        column = column or column_of(path, list(table.columns))
        if column not in table.columns:
            raise UserError(f"{path}: no column {column!r}: {nearest(column, list(table.columns))}")
        for number, text in zip(table.lines, table.columns[column], strict=True):
            for piece in pieces_of(text, f"{path} line {number}", column):
                yield Piece(piece.text, piece.begins, number)


def column_of(path: Path, names: list[str]) -> str:
    """The column of texts among these; UserError if it is not plain which."""
    found = next((name for name in USUAL if name in names), None)
    if found is None and len(names) == 1:
        found = names[0]
    if found is None:
        raise UserError(f"{path}: which column holds the texts? Set --text-columns to one of {', '.join(names)}")
    return found


def pieces_of(text: Any, where: str, column: str | None) -> Iterator[Piece]:
    """The document of a row, if it has one; UserError that begins with `where` for what is no text."""
    if text is None or (isinstance(text, float) and text != text):
        return
    if not isinstance(text, str):
        raise UserError(f"{where}: {f'column {column!r} holds ' if column else ''}{type(text).__name__}, not a text")
    begins = True
    # A short one stays whole: cut off, its last word would have no space before it, which some tokens begin with.
    parts = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
    for part in _at_white_space(parts) if len(parts) > 1 else parts:
        if part.strip():
            yield Piece(part, begins)
            begins = False
