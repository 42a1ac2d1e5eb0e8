"""Data that are in memory already as tables: a Dataset, a DataFrame, lists, and dictionaries of these by split.

Neither pandas nor datasets is imported for it: where they are not loaded, nobody has an object of theirs.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layerstill.data.columns import short
from layerstill.data.files import Table, read_table
from layerstill.errors import UserError

SPLITS = {"train": "train", "dev": "dev", "validation": "dev", "valid": "dev", "val": "dev", "test": "test"}
"""What splits are called in a dictionary, and here."""
TAKEN = (
    "a Task, a Dataset, DatasetDict or DataFrame, a list of (text, label), a list of dictionaries by column, a list of "
    "texts with labels=, a dictionary of these by split, or a path"
)


def tables_of(data: Any, labels: Any, label_column: str, words: bool = False) -> dict[str, Table]:
    """A table a split; whatever is not by split is `train`. UserError for what can be no data.

    `words` says that an example is a list of words and not of texts.
    """
    if not isinstance(data, Mapping):
        return {"train": _table("train", data, labels, label_column, words)}
    if not data or (odd := [name for name in data if name not in SPLITS]):
        raise UserError(f"data: a dictionary has the splits {', '.join(SPLITS)}, this one {short([*data][:10])}")
    if labels is not None and not isinstance(labels, Mapping):
        raise UserError("labels: the texts are by split, so the labels must be, too: labels={'train': ..., 'dev': ...}")
    if labels is not None and (odd := [name for name in data if name not in labels]):
        raise UserError(f"labels: there are none for split {odd[0]}")
    found = {}
    for name, part in data.items():
        split = SPLITS[name]
        if split in found:
            raise UserError(f"data: {name!r} is another name of split {split}, which is given too")
        found[split] = _table(split, part, None if labels is None else labels[name], label_column, words)
    return found


def has_columns(data: Any) -> bool:
    """Whether data have names of columns of their own: files, DataFrames, Datasets and lists of dictionaries."""
    parts = data.values() if isinstance(data, Mapping) else [data]
    kinds = (("pandas", "DataFrame"), ("datasets", "Dataset"))
    return all(
        isinstance(part, str | Path) or _are_rows(part) or any(_is(part, *kind) for kind in kinds) for part in parts
    )


def _table(split: str, data: Any, labels: Any, label_column: str, words: bool) -> Table:
    if isinstance(data, str | Path):
        return read_table(Path(data))
    columns = _columns_of(data) or _columns_of_rows(split, data, labels, label_column, words)
    if labels is not None and label_column not in columns:
        columns[label_column] = as_list(labels)
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(
            f"{split}: {', '.join(f'{size} of {name}' for name, size in sizes.items())}; one each is needed"
        )
    rows = next(iter(sizes.values()), 0)
    if not rows:
        raise UserError(f"{split}: no rows in it")
    return Table(Path(split), columns, list(range(1, rows + 1)))


def _columns_of(data: Any) -> dict[str, list]:
    """The columns of a DataFrame, a Dataset or rows as dictionaries; else none.

    Classes are given by name where the Dataset has their names, and a row may lack a column, which is then None.
    """
    if _are_rows(data):
        names = dict.fromkeys(name for row in data for name in row)
        return {str(name): as_list([row.get(name) for row in data]) for name in names}
    if _is(data, "pandas", "DataFrame"):
        return {str(name): data[name].tolist() for name in data.columns}
    if not _is(data, "datasets", "Dataset"):
        return {}
    return {name: _named(data[name], data.features[name]) for name in data.column_names}


def _are_rows(data: Any) -> bool:
    """Whether data are a list of dictionaries, as JSON lines are read."""
    return isinstance(data, list | tuple) and bool(data) and all(isinstance(row, Mapping) for row in data)


def _named(values: Any, feature: Any) -> list:
    """A column of a Dataset; numbers of classes as their names."""
    inner = getattr(feature, "feature", None)  # of a list feature, such as the tags of a sentence
    if _is(inner, "datasets", "ClassLabel"):
        return [_named(row, inner) for row in values]
    if not _is(feature, "datasets", "ClassLabel"):
        return list(values)
    # A number that is none of the classes stays, so that reading the labels can say where it stands.
    known = range(len(feature.names))
    return [feature.names[value] if value in known else value for value in values]


def _columns_of_rows(split: str, data: Any, labels: Any, label_column: str, words: bool) -> dict[str, list]:
    """Lists of texts, of pairs, or of these with their label."""
    if isinstance(data, str | bytes) or not (isinstance(data, Sequence) or _is(data, "numpy", "ndarray")):
        raise UserError(f"{split}: {type(data).__name__} is not data; give {TAKEN}")
    rows = as_list(data)
    if labels is None:
        if odd := next((row for row in rows if not isinstance(row, tuple | list) or len(row) not in (2, 3)), None):
            raise UserError(
                f"{split}: {short(odd)} is neither (text, label) nor (text, text, label); give labels=, "
                "as long as the list, if these are texts alone"
            )
        return _texts([tuple(row[:-1]) for row in rows]) | {label_column: [row[-1] for row in rows]}
    return _texts([(row,) if words or isinstance(row, str) else tuple(row) for row in rows])


def _texts(rows: list[tuple[Any, ...]]) -> dict[str, list]:
    """The texts of examples in columns that are found by their names."""
    sizes = {len(row) for row in rows}
    if len(sizes) > 1:
        raise UserError(f"data: {' and '.join(map(str, sorted(sizes)))} texts per example; all need the same number")
    names = ("text",) if sizes == {1} else ("sentence1", "sentence2")
    if sizes - {1, 2}:
        raise UserError(f"data: {max(sizes)} texts per example; one or two are possible")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)} if rows else {}


def as_list(values: Any) -> list:
    """A list, array, Series or column as a list of plain Python values."""
    if _is(values, "numpy", "ndarray") or _is(values, "pandas", "Series") or _is(values, "torch", "Tensor"):
        return values.tolist()
    return [value.item() if _is(value, "numpy", "generic") else value for value in values]


def _is(value: Any, module: str, name: str) -> bool:
    """Whether a value is of a class of a module that may not be loaded."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))
