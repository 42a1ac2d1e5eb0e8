"""What comes through a pipe: its first line tells JSON lines from texts, and a table from both."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerstill.data.contents import decoded, with_line_feeds
from layerstill.data.delimited import SEPARATORS, is_table, read_delimited
from layerstill.data.json_rows import read_json_rows
from layerstill.data.table import Table
from layerstill.errors import UserError


@dataclass(frozen=True)
class Opening:
    """How a text begins, as far as JSON goes.

    Args:
        value: what the line is if all of it is JSON, else None.
        broken: why it is not; empty if it is.
        unfinished: whether JSON could go on in the next line.
    """

    value: Any = None
    broken: str = ""
    unfinished: bool = False

    @classmethod
    def of(cls, line: str) -> "Opening":
        """Of the first line that holds anything."""
        try:
            return cls(json.loads(line))
        except json.JSONDecodeError as error:
            open_ = line.lstrip()[:1] in {"{", "["} and error.pos >= len(line.rstrip())
            return cls(None, f"{error.msg} at column {error.colno}", open_)
        except (ValueError, RecursionError) as error:
            return cls(None, str(error))

    @property
    def is_row(self) -> bool:
        """Whether the line is an object by itself."""
        return isinstance(self.value, dict)

    @property
    def wants_more(self) -> bool:
        """Whether only the whole stream says if it is JSON: an array of rows, or a value over several lines."""
        rows = isinstance(self.value, list) and bool(self.value) and all(isinstance(row, dict) for row in self.value)
        return rows or self.unfinished


class ObjectsAsTexts:
    """Counts JSON objects among lines that are read as texts because the first of them was one."""

    def __init__(self) -> None:
        self._count = self._first = 0

    def passing(self, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        """The lines as they are."""
        for number, line in lines:
            if looks_like_rows(line) and Opening.of(line).is_row:
                self._first = self._first or number
                self._count += 1
            yield number, line

    def notices(self, path: Path) -> list[str]:
        """How many they were, if any."""
        if not self._count:
            return []
        what = "a JSON object was" if self._count == 1 else f"{self._count:,} JSON objects were"
        return [f"{path}: {what} read as text, because the first line is not one (from line {self._first} on)"]


def looks_like_rows(line: str) -> bool:
    """Whether a line begins as JSON rows do: with an object and its first key."""
    return re.match(r'\s*(\[\s*)?\{\s*"', line) is not None


def first_lines(stream: Iterable[bytes]) -> list[bytes]:
    """The lines of a stream up to the first that holds anything."""
    head = []
    for line in stream:
        head.append(line)
        if line.removeprefix(b"\xef\xbb\xbf").strip():
            return head
    return []


def json_table(path: Path, raw: bytes) -> Table | None:
    """The rows of a JSON array or object that all of `raw` is; None if it is none, UserError if it has no rows."""
    text = with_line_feeds(decoded(path, raw).removeprefix("\ufeff"))
    return read_json_rows(path, text) if Opening.of(text).broken == "" else None


def header_names(line: str, columns: Sequence[tuple[str, ...]]) -> list[str]:
    """The names of a header that has one of the known sets of columns; none if the line is no such header."""
    for mark in SEPARATORS:
        names = [name.strip().strip('"') for name in line.split(mark)]
        if any(set(known) <= {*names} for known in columns):
            return names
    return []


def delimited_table(path: Path, raw: bytes) -> Table | None:
    """The table that `raw` is; None if its rows differ in their number of fields, or have only one."""
    text = decoded(path, raw).removeprefix("\ufeff")
    return read_delimited(path, text) if is_table(path, text) else None


def json_lines(rows: Iterator[tuple[int, dict[str, Any]]], first: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """JSON lines of a pipe; a line that is none is refused with the reason why it was read as one."""
    try:
        yield from rows
    except UserError as error:
        why = f"line {first} is a JSON object, so every line is read as one"
        raise UserError(f'{error}; {why}. Write a plain text as {{"text": "..."}}') from None
