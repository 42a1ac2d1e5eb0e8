"""Any file is read as a task or refused with its name; a good table is read back as it was written."""

import csv
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import assume, event, example, given
from hypothesis import strategies as st

from layerstill.data.checks import data_counts, data_notices
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from tests.fuzz.strategies import fuzz, table_texts

SUFFIXES = [".tsv", ".csv", ".jsonl", ".parquet"]
KINDS = st.sampled_from(["classification", "regression", "multilabel"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def read(folder: Path, suffix: str, content: bytes, kind: str = "classification") -> Task | None:
    """The task of one file as train and dev; None if it is refused in a line with its name. All else is a failure."""
    path = folder / f"any{suffix}"
    path.write_bytes(content)
    try:
        task = Task.from_files(kind, path, path)
    except UserError as error:
        assert f"any{suffix}" in str(error) or "--text-columns" in str(error) or "is both text and label" in str(error)
        event("refused")
        return None
    event("read")
    for split in task.splits.values():
        assert len(split.texts) == len(split.labels) > 0
        assert len({len(texts) for texts in split.texts}) == 1
        if kind == "classification":
            assert set(split.labels) <= set(range(len(task.labels)))
        if kind == "multilabel":
            assert {(len(row), *set(row) - {0, 1}) for row in split.labels} == {(len(task.labels),)}
    assert all(isinstance(notice, str) for notice in data_notices(task, data_counts(task)))
    return task


FRAGMENTS = [
    "text",
    "label",
    ",",
    "\t",
    "\n",
    '"',
    "\r\n",
    "a",
    "b",
    "1",
    "0.5",
    "{",
    "}",
    ":",
    "[",
    "null",
    "\ufeff",
    "\0",
    "é",
]
TABLISH = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join).map(lambda s: f"text,label\n{s}".encode())


@fuzz(150, 10_000)
@given(st.sampled_from(SUFFIXES), st.binary(max_size=60) | TABLISH, KINDS)
@example(".csv", b'text,label\n"a,b\n', "classification")
@example(".csv", b"text,label\na," + b"9" * 5000 + b"\nb,1\n", "classification")
def test_any_bytes_are_a_table_or_refused(folder, suffix, content, kind):
    read(folder, suffix, content, kind)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from([10**400, "a\ud800"])
)
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=2) | st.dictionaries(st.text(max_size=3), v, max_size=2), max_leaves=3)  # fmt: skip
ROWS = st.lists(st.fixed_dictionaries({"text": st.text(max_size=5) | VALUES, "label": VALUES}), min_size=1, max_size=6)


@fuzz(80, 5000)
@given(ROWS, KINDS)
@example([{"text": "a", "label": 10**400}], "regression")
@example([{"text": "a\ud800", "label": "x"}, {"text": "b", "label": "y"}], "classification")
def test_any_json_rows_are_a_table_or_refused(folder, rows, kind):
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    task = read(folder, ".jsonl", content, kind)
    if task is not None:
        assert [texts for (texts,) in task.splits["train"].texts] == [row["text"] for row in rows]


COLUMNS = st.sampled_from(
    [["a", "b"], [1, 2], [1.5, None], [b"a", b"b"], [["a"], []], [{"x": 1}, None], [True, False], ["", " "]]
)


@fuzz(40, 2000)
@given(COLUMNS, COLUMNS, KINDS, st.binary(max_size=4), st.integers(0, 400))
@example([True, False], [True, False], "classification", b"\x80", 126)
def test_any_parquet_columns_are_a_table_or_refused(folder, text, label, kind, noise, at):
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": text, "label": label}), sink)
    whole = sink.getvalue()
    read(folder, ".parquet", whole, kind)
    read(folder, ".parquet", whole[: -(at + 1)], kind)
    read(folder, ".parquet", whole[:at] + noise + whole[at + len(noise) :], kind)


def written(suffix: str, rows: list[tuple[str, str]]) -> bytes:
    if suffix == ".jsonl":
        return "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows).encode()
    if suffix == ".parquet":
        sink = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table({"text": [t for t, _ in rows], "label": [y for _, y in rows]}), sink)
        return sink.getvalue()
    out = io.StringIO()
    mark = "\t" if suffix == ".tsv" else ","
    csv.writer(out, lineterminator="\n", delimiter=mark).writerows([("text", "label"), *rows])
    return out.getvalue().encode()


LABELS = st.sampled_from(["yes", "no", "perhaps", "-1", "0", "12", "ünïcode", "a b", 'quo"te'])


@fuzz(100, 10_000)
@given(st.sampled_from(SUFFIXES), st.data())
def test_a_good_table_is_read_back_as_it_was_written(folder, suffix, data):
    without = {".tsv": "\r", ".csv": "\r"}.get(suffix, "")
    rows = data.draw(st.lists(st.tuples(table_texts(without), LABELS), min_size=2, max_size=8))
    texts, labels = [t for t, _ in rows], [y for _, y in rows]
    assume(1 < len(set(labels)) <= len(set(texts)) and any(t.strip() for t in texts))
    task = read(folder, suffix, written(suffix, rows))
    assert task is not None
    for split in ("train", "dev"):
        assert task.splits[split].texts == [(t,) for t in texts]
        assert [task.labels[i] for i in task.splits[split].labels] == labels
