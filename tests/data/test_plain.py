"""Tasks as plain data come back as the same tasks, or not at all."""

import json
from dataclasses import replace

import pytest

from layerstill.data.plain import as_plain, from_plain
from layerstill.data.regimes import Regime
from layerstill.data.split import Split
from layerstill.data.tasks import Task
from layerstill.heads import Classes
from tests.tiny import write_csv

SPLITS = {
    "classification": ([("so goes it", "another"), ("ü\u2028,",)], [1, 0], ("no", "yes")),
    "multilabel": ([("a",), ("b",)], [[0, 1, 1], [1, 0, 0]], ("x", "y", "z")),
    "tokens": ([("a", "b"), ("c",)], [[0, 1], [2]], ("O", "B-X", "I-X")),
    "regression": ([("a",), ("b",)], [0.1 + 0.2, -1e-17], ()),
}


@pytest.mark.parametrize("head", SPLITS)
def test_every_head_comes_back(head):
    texts, labels, names = SPLITS[head]
    split = Split(texts, labels, [1.0, 1 / 3])
    task = Task("some task", head, {"train": split, "dev": replace(split, weights=[])}, names)
    data = json.loads(json.dumps(as_plain(task)))
    assert from_plain(data) == task
    assert from_plain(data).metrics == task.metrics


def test_a_score_that_is_not_known_comes_back():
    task = Task("some task", "regression", {"train": Split([("a",), ("b",)], [float("nan"), 0.5])})
    plain = as_plain(task)
    assert plain is not None
    first, second = from_plain(plain).splits["train"].labels
    assert (first != first, second) == (True, 0.5)


def test_what_it_was_read_from_and_its_regime_come_too(tmp_path):
    write_csv(tmp_path / "train.csv")
    task = Regime(few_samples=12, label_noise=0.5).apply(Task.from_files("classification", tmp_path), 0)
    back = from_plain(as_plain(task))
    assert back == task
    assert back.source == task.source
    assert back.source is not None
    assert (back.regime, back.clean_labels) == (task.regime, task.clean_labels)
    assert back.clean_labels is not None


class Own(Classes):
    """A head that only this file knows."""


def test_a_head_of_somebodys_own_does_not(tmp_path):
    texts, labels, names = SPLITS["classification"]
    task = Task("own", Own(), {"train": Split(texts, labels)}, names)
    assert as_plain(task) is None
    assert as_plain(replace(task, head=Classes(), regime={"set": {1}})) is None
