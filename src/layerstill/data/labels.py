"""Labels of own files: what is written in a column, as a head learns from it. One reader for each kind of output."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from layerstill.data.class_names import is_missing, names_of_classes, way_out
from layerstill.data.columns import not_text, scores_of, short
from layerstill.data.files import Table
from layerstill.data.label_sets import read_label_sets
from layerstill.errors import UserError


@dataclass(frozen=True)
class Written:
    """Own files as they were read, by split."""

    tables: dict[str, Table]
    texts: dict[str, list[tuple[str, ...]]]
    text_columns: tuple[str, ...]
    label_column: str

    @cached_property
    def labels(self) -> dict[str, list]:
        """The label column."""
        column, there = self.label_column, self.tables["train"].columns
        if column not in there and "," in column and {name.strip() for name in column.split(",")} <= set(there):
            raise UserError(
                f"--label-column {column}: one column is expected; a column for each label is --task multilabel, a "
                "column for each score --task regression"
            )
        if column.strip() not in there and set(there) <= set(self.text_columns):
            raise UserError(
                f"{self.tables['train'].path}: no column {column!r} (from --label-column), only "
                f"{', '.join(there)}; texts without labels are for --unlabelled, beside --data with some that have "
                "them, or for layerstill predict"
            )
        return {split: table.column(column, "--label-column") for split, table in self.tables.items()}


@dataclass(frozen=True)
class Labels:
    """What a head learns from."""

    splits: dict[str, list[Any]]
    names: tuple[str, ...] = ()
    """Of the outputs, in order."""
    notices: tuple[str, ...] = ()


def read_scores(written: Written) -> Labels:
    """A finite number a row, or a row of them where the columns of several targets are named."""
    column = written.label_column
    if "," in column and column not in written.tables["train"].columns:
        return _read_targets(written, tuple(name.strip() for name in column.split(",")))
    return Labels({s: scores_of(table, written.labels[s]) for s, table in written.tables.items()})


def _read_targets(written: Written, names: tuple[str, ...]) -> Labels:
    if "" in names:
        raise UserError("--label-column: a name between two commas is missing; write a,b,c")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--label-column: column {twice!r} is named twice; name each score's column once")
    if both := next((name for name in names if name in written.text_columns), None):
        raise UserError(f"column {both!r} is both text and label; set --text-columns and --label-column")
    splits = {}
    for split, table in written.tables.items():
        columns = [scores_of(table, table.column(name, "--label-column"), f"score {name}") for name in names]
        splits[split] = [list(row) for row in zip(*columns, strict=True)]
    return Labels(splits, names)


def read_classes(written: Written) -> Labels:
    """The name of a class, or a whole number, a row; the classes are those of train."""
    train, column = written.tables["train"], written.label_column
    labels, told = names_of_classes(written.labels)
    names, notices = _label_names(train, labels, column)
    different = len(set(written.texts["train"]))
    if len(names) > different:
        raise UserError(
            f"{train.path}: column {column!r} holds {len(names)} different labels for "
            f"{different} different texts in {', '.join(written.text_columns)}; are the columns swapped? "
            "Set --text-columns and --label-column"
        )
    splits = {s: _classes(table, labels[s], names, column) for s, table in written.tables.items()}
    return Labels(splits, names, (*(f"{train.path}: {notice}" for notice in told), *notices))


def read_several(written: Written) -> Labels:
    """Any number of labels a row; the labels are those of train, or those whose columns are named."""
    names, splits, notices = read_label_sets(written.tables, written.label_column, written.text_columns)
    return Labels(splits, names, tuple(notices))


READERS: dict[str, Callable[[Written], Labels]] = {
    "classification": read_classes,
    "regression": read_scores,
    "multilabel": read_several,
}
"""By the word of the head."""


def _label_names(table: Table, labels: dict[str, list], column: str) -> tuple[tuple[str, ...], list[str]]:
    """The classes in order, and notices."""
    written = labels["train"]
    for line, value in zip(table.lines, written, strict=True):
        if not _names_a_class(value):
            raise UserError(f"{table.where(line)}: label {short(value)} names no class; {way_out(value, column)}")
    names = {str(value) for value in written}
    whole = all(re.fullmatch(r"-?\d{1,18}", name) for name in names)
    ordered = tuple(sorted(names, key=lambda name: (int(name), name)) if whole else sorted(names))
    if len(ordered) < 2:
        raise UserError(
            f"{table.path}: column {column!r} holds a single class, {ordered[0]!r}; there is nothing to learn"
        )
    if len(ordered) > max(20, len(written) // 2) and not _return(labels, names):
        raise UserError(
            f"{table.path}: column {column!r} holds {len(ordered)} different labels in {len(written)} rows; "
            "if it is the text column, set --text-columns and --label-column; if there really are so many classes, "
            "give --dev, a file with other examples of them"
        )
    folded = [name.casefold() for name in ordered]
    alike = [name for name in ordered if folded.count(name.casefold()) > 1]
    notice = f"{table.path}: labels {', '.join(alike)} differ only in upper and lower case and are taken as different"
    notices = [notice] if alike else []
    if joined := [name for name in ordered if "|" in name and set(name.split("|")) & names]:
        notices.append(
            f"{table.path}: {joined[0]!r} is taken as a class of its own; if these are several labels of one text, use "
            "--task multilabel"
        )
    return ordered, notices


def _return(labels: dict[str, list], names: set[str]) -> bool:
    """Whether the labels of train are those of another split, too, as classes are and texts are not."""
    others = [{str(value) for value in values} for split, values in labels.items() if split != "train"]
    return any(len(other) > 1 and other <= names for other in others)


def _names_a_class(value: object) -> bool:
    """Whether a label is a name or a whole number; numbers with a fraction, nan and empty cells are not."""
    if not isinstance(value, str):
        return isinstance(value, int)  # true and false too
    if not value.strip() or not_text(value):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return re.fullmatch(r"-?\d+", value) is not None


def _classes(table: Table, written: list, names: tuple[str, ...], column: str) -> list[int]:
    number = {name: i for i, name in enumerate(names)}
    for line, value in zip(table.lines, written, strict=True):
        if is_missing(value):
            raise UserError(f"{table.where(line)}: label {short(value)} names no class; {way_out(value, column)}")
        if str(value) not in number:
            known = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
            raise UserError(
                f"{table.where(line)}: label {short(value)} is not in train, which has {known}; "
                "add examples of it to train, or correct the label"
            )
    return [number[str(value)] for value in written]
