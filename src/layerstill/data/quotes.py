"""What is wrong with the quotes of a CSV file, or might be."""

import csv
from collections.abc import Sequence
from pathlib import Path

SHARE = 2
"""A column tells rows apart from texts if it holds at most one value in so many rows."""


def unbalanced(path: Path, text: str, start: int, end: int, error: csv.Error) -> str:
    """What is wrong with the quotes of the record that begins at line `start`: where the last one of them opened."""
    opened, line, quoted = start, start, False
    for part in text.split("\n")[start - 1 : end]:
        for mark in part:
            if mark == '"':
                quoted = not quoted
                opened = line if quoted else opened
        line += 1
    if "unexpected end of data" in str(error):
        way = "close it, or double the quotes inside a text"
        return f"{path} line {opened}: a quote is opened here and never closed; {way}"
    last = f" and closed in line {end}" if end > start else ""
    return (
        f"{path} line {start}: a quote is opened here{last}, but more text follows the closing quote; "
        "double the quotes inside a text"
    )


def swallowed(path: Path, text: str, separator: str, rows: Sequence[tuple[int, list[str]]]) -> list[str]:
    """A note on rows of several lines that look like rows of their own, which a quote not closed has joined.

    A line looks like one if it has as many fields as the others and one of them, outside the text that goes on, has a
    value that is usual in its column (a label, say). Texts with line breaks are no reason for a note.
    """
    spans = [(line, row) for line, row in rows if any("\n" in value for value in row)]
    single = [row for _, row in rows if not any("\n" in value for value in row)]
    if not spans or not single:
        return []
    lines = text.split("\n")
    usual = [values if len(values) * SHARE <= len(single) else set() for values in map(set, zip(*single, strict=False))]
    odd = [(line, row) for line, row in spans if _looks_like_rows(lines, line, row, separator, usual)]
    if not odd:
        return []
    return [
        f"{path} line {odd[0][0]}: the text in quotes that begins here takes up {_lines_in(odd[0][1])} lines that "
        f"look like rows of their own; if a quote was not closed there, close it or remove it "
        f"({len(odd)} of {len(rows)} rows)"
    ]


def _lines_in(row: list[str]) -> int:
    return 1 + sum(value.count("\n") for value in row)


def _looks_like_rows(lines: list[str], line: int, row: list[str], separator: str, usual: list[set[str]]) -> bool:
    going_on = [i for i, value in enumerate(row) if "\n" in value]
    opens, closes, count = going_on[0], going_on[-1], _lines_in(row)
    for number, part in enumerate(lines[line - 1 : line - 1 + count]):
        fields = part.split(separator)
        if len(fields) != len(usual):
            continue
        # The first line has whole fields before the text that goes on, the last one behind it.
        begin = opens + 1 if number == 0 else 0
        end = closes if number == count - 1 else len(fields)
        if any(fields[i].strip() and fields[i].strip() in usual[i] for i in range(begin, end)):
            return True
    return False
