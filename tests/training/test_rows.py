"""Rows of a data set are the library's, whatever its columns are."""

import pickle
import random

import datasets
import pytest
import torch

from layerstill.training import rows
from layerstill.training.rows import Rows, rows_of

COLUMNS = {
    "input_ids": [[5, 6, 7], [], [8], [9, 10], [2**40, -1]],
    "labels": [0, 1, 2, 1, 0],
    "weights": [0.5, 1.25, 0.1, 2.0, 1e-9],
    "content": [2**62, 1, 2, 3, 4],
    "text": ["a", "", "ü", "d", "e"],
    "tags": [["x"], [], ["y", "z"], ["w"], ["v"]],
    "several": [[True, False], [True], [], [False], [True]],
    "nested": [[[1], [2, 3]], [], [[4]], [[5]], [[6]]],
    "missing": [1, None, 3, None, 5],
    "missing_lists": [[1], None, [2, None], [3], []],
    "never": [None] * 5,
}
TABLE = datasets.Dataset.from_dict(COLUMNS).cast_column("weights", datasets.Value("float32"))


def same(found, expected) -> bool:
    """Equal, and of equal types: a number of NumPy is not one of Python."""
    return found == expected and repr(found) == repr(expected)


@pytest.mark.parametrize(
    "data",
    [
        TABLE,
        TABLE.select([4, 2, 0]),
        TABLE.select(range(1, 4)),
        datasets.concatenate_datasets([TABLE, TABLE.select([3, 1])]),
        TABLE.sort("labels"),
    ],
    ids=["whole", "chosen", "slice", "joined", "sorted"],
)
def test_rows_are_those_of_the_library(data):
    found = rows_of(data)
    assert isinstance(found, Rows)
    assert len(found) == len(data)
    places = random.Random(0).choices(range(len(data)), k=12)
    assert same(found.__getitems__(places), data.__getitems__(places))
    assert same([found[i] for i in places], [data[i] for i in places])


def test_a_loader_asks_for_batches_and_a_slice_of_a_file_is_read_right(tmp_path):
    TABLE.save_to_disk(tmp_path / "table")
    data = datasets.load_from_disk(tmp_path / "table").select(range(2, 5))
    loader = torch.utils.data.DataLoader(rows_of(data), batch_size=2, collate_fn=list)
    assert same(list(loader), [data.__getitems__([0, 1]), data.__getitems__([2])])


def test_a_large_table_may_be_larger_than_memory_and_is_left_on_the_disk(monkeypatch):
    monkeypatch.setattr(rows, "LARGEST", TABLE.data.nbytes - 1)
    assert rows_of(TABLE) is TABLE


@pytest.mark.parametrize("row", [-1, 5])
def test_a_row_that_is_not_there_is_no_other_row(row):
    with pytest.raises(IndexError, match="numbered from 0 to 4"):
        rows_of(TABLE)[row]


def test_rows_can_be_sent_to_a_worker():
    there = pickle.loads(pickle.dumps(rows_of(TABLE)))
    assert same(there.__getitems__([3, 0]), TABLE.__getitems__([3, 0]))


@pytest.mark.parametrize(
    "data",
    [
        list(range(3)),
        TABLE.with_format("numpy"),
        TABLE.with_transform(lambda rows: {"doubled": [2 * n for n in rows["labels"]]}),
        datasets.Dataset.from_dict({"pair": [{"a": 1}]}),
        datasets.Dataset.from_dict({"bytes": [b"a"]}),
    ],
    ids=["list", "numpy", "transformed", "structures", "bytes"],
)
def test_what_the_library_makes_of_rows_is_left_to_it(data):
    assert rows_of(data) is data
