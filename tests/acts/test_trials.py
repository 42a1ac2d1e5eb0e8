"""Candidates compared by short trainings: what is held out, who goes on, and what a second call does again."""

import json
import sys
from collections import Counter
from dataclasses import replace

import pytest

from layerstill import Options, Recipe, Split, Task, UserError
from layerstill.acts.rungs import ranks_of
from layerstill.acts.trials import Trial, Tried, run_trials, slice_of
from layerstill.training.cache_choice import CacheOptions
from tests.tiny import save_tiny, write_csv

OPTIONS = Options(max_length=32, precision="fp32", progress=False)


def task_of(rows: int, head: str = "classification", classes: int = 4) -> Task:
    texts = [(f"text {i}",) for i in range(rows)]
    labels = [i * i % classes for i in range(rows)] if head == "classification" else [float(i % 7) for i in range(rows)]
    split = Split(texts, labels)
    names = tuple("abcdefgh"[:classes]) if head == "classification" else ()
    return Task("t", head, {"train": split, "dev": Split([("dev",)] * 3, labels[:3]), "test": split}, names)


@pytest.mark.parametrize(("rows", "held"), [(8, 4), (60, 30), (100, 50), (700, 70), (5_452, 545), (20_000, 1_000)])
def test_a_slice_is_a_tenth_within_its_bounds(rows, held):
    cut = slice_of(task_of(rows))
    assert (len(cut.splits["dev"]), len(cut.splits["train"])) == (held, rows - held)
    assert sorted(cut.splits) == ["dev", "train"]
    both = cut.splits["dev"].texts + cut.splits["train"].texts
    assert sorted(both) == sorted(task_of(rows).splits["train"].texts)


def test_a_slice_has_its_share_of_every_class_and_depends_on_the_seed():
    task = task_of(700, classes=4)
    whole, cut = Counter(task.splits["train"].labels), slice_of(task, 3)
    part = Counter(cut.splits["dev"].labels)
    assert all(abs(part[label] - count / 10) < 1 for label, count in whole.items())
    assert slice_of(task, 3) == cut
    assert slice_of(task, 4) != cut


def test_a_slice_of_scores_covers_their_range():
    part = Counter(slice_of(task_of(700, "regression")).splits["dev"].labels)
    assert set(part.values()) == {10}


def test_too_few_examples_are_refused():
    with pytest.raises(UserError, match="7 training examples are too few"):
        slice_of(task_of(7))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trials")
    for split, rows in (("train", 48), ("dev", 12)):
        write_csv(folder / f"{split}.csv", rows=rows, seed=len(split))
    return save_tiny(folder / "teacher", sharp=2.0), Task.from_files("classification", folder)


def candidates() -> list[Trial]:
    recipe = Recipe.load("kd")
    return [Trial(f"{rate:g}", recipe.limited(None, 8, rate), 2) for rate in (1e-6, 1e-3, 1e30)]


def test_the_better_half_goes_on_and_a_second_call_trains_nothing(place, tmp_path, monkeypatch):
    teacher, task = place
    cut = slice_of(task)
    found = run_trials(teacher, cut, candidates(), [4, 8], tmp_path, OPTIONS)
    assert [[t.updates for t in rung] for rung in found.rungs] == [[4] * 3, [8] * 2]
    first, last = found.rungs
    assert first[2].score is None
    assert "learning rate" in str(first[2].error).lower()
    assert [t.trial.name for t in last] == ["1e-06", "0.001"]
    ranks = ranks_of(last, len(cut.splits["dev"]))
    assert found.chosen == last[ranks.index(max(r for r in ranks if r is not None))].trial
    assert all(t.distance > 0 for t in last)
    files = {path: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert len(files) == 5
    assert [path for path in tmp_path.iterdir() if path.is_dir() and path.name != "teacher-cache"] == []

    monkeypatch.setattr(
        sys.modules["layerstill.acts.distill"], "distill", None
    )  # which would be called if anything were trained
    assert run_trials(teacher, cut, candidates(), [4, 8], tmp_path, OPTIONS) == found
    assert {path: path.read_bytes() for path in tmp_path.glob("*.json")} == files


def test_another_seed_or_another_slice_is_another_training(place, tmp_path):
    teacher, task = place
    some = candidates()[:1]
    run_trials(teacher, slice_of(task), some, [2], tmp_path, OPTIONS)
    run_trials(teacher, slice_of(task), some, [2], tmp_path, replace(OPTIONS, seed=1))
    run_trials(teacher, slice_of(task, 1), some, [2], tmp_path, OPTIONS)
    assert len(list(tmp_path.glob("*.json"))) == 3


def test_scores_within_a_standard_error_are_decided_by_the_distance():
    def tried(score, distance):
        return Tried(Trial("", Recipe.load("kd")), 4, score, distance, 1.0)

    near, far, low, failed = tried(0.79, 0.1), tried(0.80, 0.3), tried(0.60, 0.01), tried(None, None)
    ranks = ranks_of([near, far, low, failed], examples=100)  # 0.8 has a standard error of 0.04 there
    assert ranks[0] > ranks[1] > ranks[2]
    assert ranks[3] is None
    assert ranks_of([near, far], examples=100_000)[1] > ranks_of([near, far], examples=100_000)[0]


def test_equal_scores_are_decided_by_the_distance_to_the_teacher(place, tmp_path):
    teacher, task = place
    # Nothing is learnt at either rate, so both students score the same; the second is a little nearer or farther.
    recipe = Recipe.load("kd")
    trials = [Trial(f"{rate:g}", recipe.limited(None, 8, rate), 2) for rate in (1e-7, 1e-5)]
    found = run_trials(teacher, slice_of(task), trials, [4], tmp_path, OPTIONS)
    (one, other), *_ = found.rungs
    assert one.score == other.score
    assert one.distance != other.distance
    assert found.chosen == min((one, other), key=lambda t: t.distance).trial


def test_the_trials_share_a_cache_that_the_user_may_name(place, tmp_path):
    teacher, task = place
    options = replace(OPTIONS, cache=CacheOptions(str(tmp_path / "cache")))
    run_trials(teacher, slice_of(task), candidates()[:2], [8], tmp_path / "t", options)
    assert list((tmp_path / "cache").iterdir())
    assert not (tmp_path / "t" / "teacher-cache").exists()


def test_no_candidate_that_can_be_trained_is_an_error_that_says_why(place, tmp_path):
    teacher, task = place
    with pytest.raises(UserError, match="none of the 1 candidates can be trained"):
        run_trials(teacher, slice_of(task), candidates()[2:], [4], tmp_path, OPTIONS)
    record = json.loads(next(tmp_path.glob("*.json")).read_text("utf-8"))
    assert record["score"] is None
