"""Columns of a table as texts and scores, saying file and line of what cannot be either."""

import re

from layerstill.data.files import Table
from layerstill.errors import UserError

USUAL = (("text",), ("sentence1", "sentence2"), ("sentence",))
"""Text columns that are found without being named."""
USUAL_LABEL = "label"


def guess_texts(table: Table, label_column: str, option: str = "--text-columns") -> tuple[str, ...]:
    """The text columns of a file that uses a usual name for them; UserError that lists its columns otherwise."""
    for columns in USUAL:
        if all(c in table.columns for c in columns):
            return columns
    for columns in USUAL:
        found = tuple(in_any_case(table, c) for c in columns)
        if all(c in table.columns for c in found):
            return found
    others = [c for c in table.columns if c != label_column]
    raise UserError(
        f"{table.path}: which columns are text? Say {option} NAME[,NAME]; columns: {', '.join(others)}"
        f"{table.missing_header()}"
    )


def in_any_case(table: Table, name: str) -> str:
    """What a file calls the column `name`, if it has one that differs in upper and lower case only; else `name`."""
    alike = [column for column in table.columns if column.casefold() == name]
    return alike[0] if name not in table.columns and len(alike) == 1 else name


def texts_of(table: Table, columns: tuple[str, ...], option: str) -> list[tuple[str, ...]]:
    """One or two columns as the texts of examples; `option` is what asked for them."""
    if len(columns) > 2:
        raise UserError(f"{option}: one or two text columns, got {len(columns)}: {', '.join(columns)}")
    if len(set(columns)) < len(columns):
        raise UserError(f"{option}: column {columns[0]!r} is named twice; name two columns, or one")
    values = [table.column(c, option) for c in columns]
    for column, column_values in zip(columns, values, strict=True):
        for line, value in zip(table.lines, column_values, strict=True):
            if value is None:
                raise UserError(
                    f"{table.where(line)}: column {column!r} holds None where text is expected: it is missing; "
                    "fill it in or leave the row out"
                )
            if not isinstance(value, str):
                hint = "; words with a tag each are for --task tokens" if isinstance(value, list) else ""
                raise UserError(
                    f"{table.where(line)}: column {column!r} holds {short(value)} where text is expected{hint}"
                )
            if problem := not_text(value):
                raise UserError(f"{table.where(line)}: column {column!r} holds {problem}")
    if not any(value.strip() for column_values in values for value in column_values):
        raise UserError(f"{table.path}: column {columns[0]!r} is empty in all of its {len(table.lines)} rows")
    return list(zip(*values, strict=True))


def not_text(value: str) -> str | None:
    """What makes a string of JSON or Parquet something that no tokenizer and no file can take; None for text."""
    if "\0" in value:
        return "a NUL character, which no text contains"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"half of a surrogate pair, {value[error.start]!r}, which is not a character"
    return None


def short(value: object) -> str:
    """A value as messages show it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def scores_of(table: Table, written: list, what: str = "score") -> list[float]:
    """A column as finite numbers; `what` it holds in messages."""
    scores = []
    for line, value in zip(table.lines, written, strict=True):
        try:
            score = float("nan") if isinstance(value, bool) or "_" in str(value) else float(value)
        except (TypeError, ValueError, OverflowError):
            score = float("nan")
        if not abs(score) < float("inf"):
            raise UserError(
                f"{table.where(line)}: {what} {short(value)} is not a finite number; "
                f"{_way_out(value)}, or use --task classification for names of classes"
            )
        scores.append(score)
    return scores


def _way_out(value: object) -> str:
    """What to do about a value that is no score."""
    if value is None or not str(value).strip() or str(value).strip().lower() == "nan":
        return "it is missing: fill it in or leave the row out"
    if re.fullmatch(r"\s*-?\d+,\d+\s*", str(value)):
        return f"if the comma is a decimal one, write {str(value).strip().replace(',', '.')}"
    return "correct the row"
