"""Corpora whose size nobody knows beforehand: data sets of the hub, row by row, and standard input."""

import hashlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from layerstill.data.text.documents import Piece, column_of, pieces_of, read_stream
from layerstill.data.text.packing import Corpus
from layerstill.errors import UserError, nearest

HUB = "hub:"
"""How `--data` begins for a data set of the hub."""
STDIN = "-"


def corpus_at(data: str | Path, column: str | None = None) -> Corpus:
    """The corpus of `--data`: a file, a folder, `hub:NAME[@REVISION][:CONFIG[:SPLIT]]`, or `-` for standard input.

    UserError if there is none; what is on the hub is asked for when it is read.
    """
    name = str(data)
    if name == STDIN:
        return StandardInput(Path(STDIN), (), column)
    if name.startswith(HUB):
        return HubStream(Path(name), (), column)
    return Corpus.at(data, column)


@dataclass(frozen=True)
class Stream(Corpus):
    """A corpus without files. What was read of it is known again by its content."""

    open_ended: ClassVar[bool] = True

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of what it is called; its content is not read for that."""
        return hashlib.sha256(repr((str(self.path), self.column)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class HubStream(Stream):
    """A data set as `datasets.load_dataset` streams it; its path is `hub:NAME[@REVISION][:CONFIG[:SPLIT]]`."""

    def pieces(self, begin: int) -> Iterator[tuple[int, int, Piece]]:
        place, column = 0, self.column
        for number, row in enumerate(self._rows(), 1):
            column = column or column_of(self.path, list(row))
            if column not in row:
                raise UserError(f"--data {self.path}: no column {column!r}: {nearest(column, list(row))}")
            for piece in pieces_of(row[column], f"{self.path} row {number}", column):
                yield 0, place, piece
                place += 1

    def _rows(self) -> Iterator[dict[str, Any]]:
        import datasets

        name, _, rest = str(self.path).removeprefix(HUB).partition(":")
        name, _, revision = name.partition("@")
        config, _, split = rest.partition(":")
        split = split or "train"
        try:
            found: Any = datasets.load_dataset(
                name, config or None, split=split, streaming=True, revision=revision or None
            )
            yield from found
        # Whatever a hub, a network and a builder of a data set raise; there is no common class.
        except Exception as error:
            if isinstance(error, UserError):
                raise
            said = " ".join(str(error).split())
            raise UserError(
                f"--data {self.path}: data set {name!r} (split {split}) cannot be read: {said:.300}; is its name as on "
                "the hub and the network there? Texts in a file or folder need neither"
            ) from None


@dataclass(frozen=True)
class StandardInput(Stream):
    """Documents from standard input, as in a file of plain text or, if they begin with `{`, of JSON lines."""

    once: ClassVar[bool] = True

    def pieces(self, begin: int) -> Iterator[tuple[int, int, Piece]]:
        raw = io.BufferedReader(sys.stdin.buffer)  # type: ignore[type-var]  # reads like any raw stream
        try:
            for place, piece in enumerate(read_stream(Path("standard input"), raw, self.column)):
                yield 0, place, piece
        finally:
            raw.detach()  # which would be closed with it
