"""Tables whose fields are separated by a mark: which mark it is, whether quotes are CSV's, and where rows end.

A file can often be read in more than one way. The rules, in this order:

1. The separator is the one that the name stands for (`.csv` commas, `.tsv` tabs) if every row has then as many fields
   as the header, else the only other one of tab, comma, semicolon and bar of which that is true.
2. Between commas, semicolons and bars, quotes are CSV's. Between tabs they are so if only that gives every row as many
   fields as the header, or if the rows are as many either way and every field that holds a quote is quoted. A file
   whose lines are rows already keeps its quotes as they are.
3. Where a file has line feeds, a carriage return alone is part of a text, unless only the opposite gives whole rows.

What was decided against another possible reading is said in a note.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from layerstill.data.contents import suffix_of, with_line_feeds
from layerstill.data.quotes import swallowed, unbalanced
from layerstill.data.table import Table
from layerstill.errors import UserError

SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
OWN = {".csv": ",", ".tsv": "\t"}
"""The separator that a name stands for."""
CUTS = 20
"""Lines at the end of a sample that may be parts of one row."""
Row = tuple[int, list[str]]
"""The line where a row begins, and its fields."""


@dataclass(frozen=True)
class Reading:
    """One way to read a file."""

    separator: str
    quoted: bool = False
    names: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    notices: tuple[str, ...] = ()
    blank: list[int] = field(default_factory=list)
    """Lines that hold nothing, and empty rows at the end."""
    blanks: bool = False
    """Whether those after a separator do not count."""
    problem: str | None = None
    """Why the file cannot be read so; None if it can."""

    def table(self, path: Path, unit: str = "line") -> Table:
        """The table; UserError with the problem."""
        if self.problem:
            raise UserError(self.problem)
        columns = {name: [row[i] for _, row in self.rows] for i, name in enumerate(self.names)}
        tabs = self.quoted and self.separator == "\t"
        lines = [line for line, _ in self.rows]
        return Table(path, columns, lines, self.notices, self.separator, tabs, unit, self.blank)


def read_delimited(path: Path, text: str) -> Table:
    """Read a text by the rules above; UserError with the line for what is wrong in the most likely reading."""
    text = with_line_feeds(text)
    reading = _read(path, text)
    if reading.problem and "\r" in text:
        other = _read(path, text.replace("\r", "\n"))
        reading = reading if other.problem else other
    return reading.table(path)


def is_table(path: Path, text: str) -> bool:
    """Whether every row has the same number of fields, and more than one."""
    reading = _read(path, with_line_feeds(text))
    return reading.problem is None and len(reading.names) > 1


def sample_reading(path: Path, text: str) -> Reading | None:
    """How the first lines of a table are read; None if they are none. The last row may be cut off anywhere."""
    end = len(text)
    for _ in range(CUTS):
        reading = _read(path, text[:end])
        if reading.problem is None:
            return reading if reading.rows and not text.startswith("sep=") else None
        end = text.rfind("\n", 0, end - 1) + 1
        if end <= 0:
            break
    return None


def from_rows(path: Path, rows: Iterable[Row], separator: str, unit: str, notices: tuple[str, ...]) -> Table:
    """A table of rows that were read already, the names of the columns first; UserError for uneven ones."""
    reading = _fitted(path, Reading(separator, notices=notices), rows, unit)
    return reading.table(path, unit)


def _read(path: Path, text: str) -> Reading:
    own = OWN.get(suffix_of(path), "")
    said = re.match(r"sep=([\t,;|])\n", text)  # Excel's own way to name the separator
    if said:
        text, own = "\n" + text[said.end() :], said[1]
    first = _first_line(text)
    possible = [mark for mark in SEPARATORS if len(_fields(first, mark)) > 1]
    if not possible or possible == [own]:
        return _quotes(path, text, own or ",")
    readings = {mark: _quotes(path, text, mark) for mark in sorted(possible, key=lambda mark: mark != own)}
    fit = {mark: reading for mark, reading in readings.items() if not reading.problem}
    if not fit:
        return readings[own] if own in readings else _single(path, first, own, readings)
    mark = own if own in fit else max(fit, key=lambda mark: len(fit[mark].names))
    return replace(fit[mark], notices=(*_told(path, mark, own, fit), *fit[mark].notices))


def _told(path: Path, mark: str, own: str, fit: dict[str, Reading]) -> list[str]:
    """A note on the separator that was chosen, if another was to be expected or is possible."""
    others = [f"{SEPARATORS[m]} would make {len(reading.names)}" for m, reading in fit.items() if m != mark]
    if others:
        return [
            f"{path}: split at {SEPARATORS[mark]} into {len(fit[mark].names)} columns; {' and '.join(others)}; "
            "if that is right, take the other separators out of line 1 to silence this"
        ]
    return (
        [f"{path}: its fields are separated by {SEPARATORS[mark]} and were read that way"]
        if own not in {"", mark}
        else []
    )


def _single(path: Path, first: str, own: str, readings: dict[str, Reading]) -> Reading:
    """Why a file is no table at any separator."""
    if not own:
        return max(readings.values(), key=lambda reading: len(reading.names))
    line = first if len(first) <= 60 else f"{first[:57]}..."
    mark, reading = next(iter(readings.items()))
    why = f"{SEPARATORS[mark]}: {str(reading.problem).removeprefix(f'{path} ')}"
    return Reading(
        own,
        problem=f"{path} line 1: a single column, {line!r}; fields are separated by {SEPARATORS[own]} here, "
        f"and not by {why}",
    )


def _first_line(text: str) -> str:
    found = re.search(r"[^\n]*\S[^\n]*", text)
    return found[0] if found else ""


def _fields(line: str, mark: str) -> list[str]:
    return next(csv.reader([line], delimiter=mark), [])


def _quotes(path: Path, text: str, mark: str) -> Reading:
    """The better one of the readings with and without quotes."""
    if mark != "\t":
        return _by_csv(path, text, mark)
    plain = _fitted(path, Reading(mark), _lines(text))
    if not re.search(r'(?:^|[\t\n])"', text):
        return plain
    quoted = _by_csv(path, text, mark)
    if quoted.problem and plain.problem:
        return quoted if "fields where" in quoted.problem else plain
    if plain.problem:
        return quoted
    kept = f"{path}: its quotes are read as part of the texts"
    if quoted.problem:
        return replace(plain, notices=(*plain.notices, f"{kept}, because as quotes around fields they do not match"))
    if len(plain.rows) != len(quoted.rows):
        why = (
            f"every line is then a row, {len(plain.rows)} in all; as quotes around fields they make {len(quoted.rows)}"
        )
        return replace(plain, notices=(*plain.notices, f"{kept}: {why}"))
    return _of_equal_rows(kept, plain, quoted, path)


def _of_equal_rows(kept: str, plain: Reading, quoted: Reading, path: Path) -> Reading:
    pairs = [
        (a, b)
        for (_, one), (_, two) in zip([(1, plain.names), *plain.rows], [(1, quoted.names), *quoted.rows], strict=True)
        for a, b in zip(one, two, strict=True)
        if '"' in a
    ]
    bare = sum(a == b for a, b in pairs)
    doubled = any('""' in a[1:-1] for a, b in pairs if a != b)
    if bare and not doubled:
        why = f"{bare} fields hold quotes without being quoted; {len(pairs) - bare} fields are in quotes as a whole"
        return replace(plain, notices=(*plain.notices, f"{kept}: {why}"))
    whole = any(all(b[i] != a[i] for (_, a), (_, b) in zip(plain.rows, quoted.rows, strict=True))
                for i in range(len(plain.names)))  # fmt: skip
    if doubled or whole:
        return quoted
    note = f"{path}: the quotes around {len(pairs)} fields are left out, as CSV has them; write them twice to keep them"
    return replace(quoted, notices=(*quoted.notices, note))


def _lines(text: str) -> Iterator[Row]:
    lines = text.removesuffix("\n").split("\n")
    return ((number, line.split("\t") if line else []) for number, line in enumerate(lines, 1))


def _by_csv(path: Path, text: str, mark: str) -> Reading:
    header = _fields(_first_line(text), mark)
    if header[1:] and all(name.startswith(" ") for name in header[1:]):
        return _csv(path, text, mark, True)
    plain = _csv(path, text, mark, False)
    after = mark + ' "'
    if after in text and (plain.problem or any(value.startswith(' "') for _, row in plain.rows for value in row)):
        blanks = _csv(path, text, mark, True)
        return plain if blanks.problem else blanks
    return plain


def _csv(path: Path, text: str, mark: str, blanks: bool) -> Reading:
    """The csv module's reading; `blanks` says that those after a separator do not count."""
    # The module takes a lone carriage return for the end of a row; a character that is not in the text stands for it.
    stand_in = next(chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in text) if "\r" in text else ""
    source = text.replace("\r", stand_in) if stand_in else text
    reader = csv.reader(io.StringIO(source), delimiter=mark, strict=True, skipinitialspace=blanks)
    rows: list[Row] = []
    start = 1
    # The limit is the csv module's own and global; a long text is no mistake, and an unclosed quote has its own line.
    limit = csv.field_size_limit(len(text) + 1)
    problem = None
    try:
        for row in reader:
            rows.append((start, [f.replace(stand_in, "\r") for f in row] if stand_in else row))
            start = reader.line_num + 1
    except csv.Error as error:
        problem = unbalanced(path, text, start, reader.line_num, error)
    finally:
        csv.field_size_limit(limit)
    if problem:
        return Reading(mark, True, next((row for _, row in rows if row), []), problem=problem)
    reading = _fitted(path, Reading(mark, True, blanks=blanks), rows)
    return replace(reading, notices=(*reading.notices, *swallowed(path, text, mark, reading.rows)))


def _fitted(path: Path, reading: Reading, rows: Iterable[Row], unit: str = "line") -> Reading:
    """Rows with as many fields as there are names, without empty ones; with the problem if that cannot be."""
    every = [*rows]
    (line, names), *filled = [row for row in every if row[1]] or [(1, [])]
    names = [name.strip() for name in names]
    rest, notices = _without_empty(path, filled, unit)
    last = rest[-1][0] if rest else line
    blank = [number for number, row in every if not row or number > last]
    # Spreadsheets write empty columns on the right of what is filled.
    while len(names) > 1 and not names[-1] and not any("".join(row[len(names) - 1 :]).strip() for _, row in rest):
        names.pop()
    rest = [(number, row[: len(names)] if not any(row[len(names) :]) else row) for number, row in rest]
    problem = _problem(f"{path} {unit} ", line, names, rest, reading.separator)
    return replace(reading, names=names, rows=rest, notices=(*reading.notices, *notices), blank=blank, problem=problem)


def _without_empty(path: Path, rows: list[Row], unit: str) -> tuple[list[Row], list[str]]:
    """Rows without those that have several fields and nothing in them; a note if such stand between others."""
    full = [row for row in rows if len(row[1]) == 1 or any(value.strip() for value in row[1])]
    last = full[-1][0] if full else 0
    between = [number for number, row in rows if number < last and len(row) > 1 and not any(v.strip() for v in row)]
    where = f"{unit} {between[0]}" if len(between) == 1 else f"{unit}s {', '.join(map(str, between[:5]))}"
    more = ", ..." if len(between) > 5 else ""
    return full, [f"{path}: {len(between)} empty rows are left out ({where}{more})"] if between else []


def _problem(where: str, first: int, names: list[str], rows: list[Row], separator: str) -> str | None:
    """What is wrong with a table; None if nothing is."""
    if twice := next((name for name in names if names.count(name) > 1), None):
        missing = f"; if line {first} is data already, put a line with the names of the columns before it"
        why = missing if any(twice in row for _, row in rows) else ""
        return f"{where}{first}: a column name appears twice: {', '.join(names)}{why}"
    row = next(((number, row) for number, row in rows if len(row) != len(names)), None)
    if row is None:
        return None
    way = f"; a text with {SEPARATORS[separator]} in it needs quotes around it" if len(row[1]) > len(names) else ""
    return f"{where}{row[0]}: {len(row[1])} fields where the header has {len(names)}{way}"
