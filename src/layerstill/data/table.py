"""A table as it was read from a file: columns, and where each row stands in it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from layerstill.errors import UserError, nearest

ORIGIN = "origin"
"""The column of augmented files: the line that a row was made from."""


@dataclass(frozen=True)
class Table:
    """Columns of equal length; `lines` are the line numbers in the file where rows begin, for messages."""

    path: Path
    columns: dict[str, list]
    lines: list[int]
    notices: tuple[str, ...] = ()
    """What is legal but perhaps not meant."""
    separator: str = ""
    """What stands between the names in the first line; empty where a file names its columns in another way."""
    quoted: bool = False
    """Whether quotes around fields were taken off in a file whose fields are separated by tabs."""
    unit: str = "line"
    """What `lines` count."""
    blank: list[int] = field(default_factory=list, compare=False)
    """Where nothing stands and there is no row; empty rows that a notice counts are not among them."""

    def where(self, line: int) -> str:
        """One of `lines` as messages say it."""
        return f"{self.path} {self.unit} {line}"

    def take(self, rows: Sequence[int]) -> "Table":
        """The rows of these numbers, counted from 0."""
        columns = {name: [values[i] for i in rows] for name, values in self.columns.items()}
        return replace(self, columns=columns, lines=[self.lines[i] for i in rows])

    def column(self, name: str, option: str) -> list:
        """A column by name; UserError that names the option which asked for it."""
        # Blanks around the names in a file are left out, so they are no mistake in an option either.
        found = name if name in self.columns else name.strip()
        if found not in self.columns:
            raise UserError(
                f"{self.path}: no column {name!r} (from {option}): {nearest(name, self.columns)}{self.missing_header()}"
            )
        return self.columns[found]

    def missing_header(self) -> str:
        """The end of a message about a column that is not there: what to do if line 1 is data already, else nothing."""
        if not self.separator or not any(map(self._is_data, self.columns)):
            return ""
        example = self.separator.join(("text", "label")[: max(1, len(self.columns))]).replace("\t", "<TAB>")
        return f"; {self.unit} 1 looks like data: put a line with the names of the columns before it, such as {example}"

    def _is_data(self, name: str) -> bool:
        """Whether a name is a number, a sentence, or what stands in its column again."""
        sentence = len(name.split()) > 3 or name.endswith((".", "!", "?"))
        return bool(name) and (
            sentence or re.fullmatch(r"-?\d+([.,]\d+)?", name) is not None or name in self.columns[name]
        )
