"""Files of answers: the rows that were asked about, each with what the model says of it."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from layerstill.data.writing import refuse_existing
from layerstill.errors import UserError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".jsonl", ".ndjson", *SEPARATORS)


def refuse_target(path: Path) -> None:
    """UserError for a file that is there, or of a kind that answers are not written in."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"--output {path}: unknown kind of file {path.suffix!r}; use one of {', '.join(SUFFIXES)}")
    refuse_existing(path)


class AnswerFile:
    """Writes rows, all with the same keys, as JSON lines or as a table with a header.

    Args:
        stream: what to write to.
        suffix: one of `SUFFIXES`.
        mark: what stands between the parts of a list in a field of a table.
    """

    def __init__(self, stream: TextIO, suffix: str, mark: str = "|") -> None:
        self._stream = stream
        self._mark = mark
        separator = SEPARATORS.get(suffix)
        self._table = None if separator is None else csv.writer(stream, delimiter=separator, lineterminator="\n")

    def write(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """All of the rows; how many they were."""
        count = 0
        for count, row in enumerate(rows, 1):
            if self._table is None:
                self._stream.write(self._json(row) + "\n")
                continue
            if count == 1:
                self._table.writerow(row)
            self._table.writerow([self._field(value) for value in row.values()])
        return count

    def _json(self, row: Mapping[str, Any]) -> str:
        text = json.dumps(row, ensure_ascii=False, default=str)
        try:
            text.encode(self._stream.encoding or "utf-8")
        except UnicodeEncodeError:  # of a terminal, or half of a surrogate pair that another program wrote
            text = json.dumps(row, default=str)
        return text

    def _field(self, value: Any) -> Any:
        if isinstance(value, dict):
            return json.dumps(value, ensure_ascii=False, default=str)
        if isinstance(value, str):
            return value.encode("utf-8", "backslashreplace").decode()
        if not isinstance(value, list | tuple):
            return value
        parts = ["" if part is None else str(part) for part in value]
        if any(self._mark in part for part in parts):
            return json.dumps(value, ensure_ascii=False, default=str)
        return self._mark.join(parts)
