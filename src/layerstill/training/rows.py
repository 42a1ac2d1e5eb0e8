"""Rows of a data set as training takes them, without what a library does for each of them at every step."""

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

LARGEST = 2**30
"""Bytes of a table that may be copied into memory."""
Read = Callable[[Sequence[int]], Sequence[Any]]


class Rows:
    """The rows of a table, by their numbers; values are the numbers, lists and strings of Python that it holds.

    `datasets` looks up, gathers, converts and decodes each row by itself, which for a small model takes a twentieth of
    a step. Here columns of numbers and of lists of numbers are arrays, made once and without a copy where the table
    is one piece of memory; other columns are asked as they are.
    """

    def __init__(self, table: pa.Table) -> None:
        self._count = table.num_rows
        self._columns = {name: _reader(table.column(name)) for name in table.column_names}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Several at once; a data loader asks in this way. IndexError for a number that no row has."""
        if min(rows, default=0) < 0 or max(rows, default=-1) >= self._count:
            raise IndexError(f"rows are numbered from 0 to {self._count - 1}, got {min(rows)} to {max(rows)}")
        columns = [read(rows) for read in self._columns.values()]
        return [dict(zip(self._columns, values, strict=True)) for values in zip(*columns, strict=True)]


def rows_of(dataset: Any) -> Any:
    """The `Rows` of a data set that is a table of numbers, texts and lists of them, given as they are.

    Anything else stays what it is: another kind of data set, a large one, which may be larger than memory, one with a
    format or a transformation, or one with columns that the library decodes.
    """
    if not isinstance(dataset, datasets.Dataset) or dataset.format["type"] is not None:
        return dataset
    if set(dataset.format["columns"]) != set(dataset.column_names):
        return dataset
    if dataset.data.nbytes > LARGEST:
        return dataset
    table = dataset.with_format("arrow")[:]
    return Rows(table) if all(_is_plain(kind) for kind in table.schema.types) else dataset


def _reader(column: pa.ChunkedArray) -> Read:
    """What gives the values of a column at some rows."""
    if column.null_count == 0 and column.num_chunks:
        whole = column.combine_chunks()
        if _is_numeric(whole.type):
            return _Numbers(whole.to_numpy())
        lists = isinstance(whole, pa.ListArray | pa.LargeListArray) and _is_numeric(whole.values.type)
        if lists and not whole.values.null_count:
            return _Lists(whole.offsets.to_numpy(), whole.values.to_numpy())
    return _Others(column)


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_plain(kind.value_type)
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return texts or pa.types.is_boolean(kind) or pa.types.is_null(kind) or _is_numeric(kind)


def _is_numeric(kind: pa.DataType) -> bool:
    # Truth values are single bits in a table, and numbers of half width have no array without a copy.
    return pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind)


class _Others:
    """Values of any kind, asked for as they are."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __call__(self, rows: Sequence[int]) -> list[Any]:
        found: list[Any] = self._column.take(pa.array(rows)).to_pylist()
        return found


class _Numbers:
    """Numbers, which are one array."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def __call__(self, rows: Sequence[int]) -> list[Any]:
        found: list[Any] = self._values[rows].tolist()
        return found


class _Lists:
    """Lists of numbers, which lie in one array, each from an offset to the next."""

    def __init__(self, offsets: np.ndarray, values: np.ndarray) -> None:
        self._offsets = offsets
        self._values = values

    def __call__(self, rows: Sequence[int]) -> list[list[Any]]:
        offsets, values = self._offsets, self._values
        return [values[offsets[row] : offsets[row + 1]].tolist() for row in rows]
