"""Successive halving: golden cases, equal budgets, and that dev is never looked at."""

import asyncio
import json

import pytest

from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.recipe import Recipe
from layerstill.studies.folder import TUNING_FILE, StudyFolder
from layerstill.studies.run import StudyRun
from layerstill.studies.tasks import hold_out
from layerstill.studies.tuning import halve, jobs_in
from tests.studies.small import comparable, make_place, plan_of, run_here, write_study


def halved(scores: dict[str, list[float | None]], rungs=(0.25, 0.5, 1.0)):
    """Halve candidates `x: name` whose score on rung r is `scores[name][r]`."""
    asked = []

    async def score(candidate, share):
        asked.append((candidate["x"], share))
        return scores[candidate["x"]][list(rungs).index(share)]

    return asyncio.run(halve([{"x": name} for name in scores], list(rungs), score)), asked


def test_the_better_half_goes_on():
    found, asked = halved(
        {"a": [0.1, 9, 9], "b": [0.4, 0.9, 0.1], "c": [0.3, 0.8, 0.7], "d": [0.2, 9, 9], "e": [0.5, 0, 9]}
    )
    assert found.chosen == {"x": "b"} or found.chosen == {"x": "c"}
    assert [name for name, share in asked if share == 0.5] == ["b", "c", "e"]
    assert [name for name, share in asked if share == 1.0] == ["b", "c"]
    assert found.chosen == {"x": "c"}
    assert found.rungs[0] == {
        "share": 0.25,
        "candidates": [{"x": n, "score": s} for n, s in zip("abcde", (0.1, 0.4, 0.3, 0.2, 0.5), strict=True)],
    }
    assert len(asked) == jobs_in(5, 3, 1) == 10
    assert jobs_in(5, 3, 2) == 20


def test_of_equal_scores_the_first_candidate_wins():
    found, _ = halved({"a": [0.5, 0.5], "b": [0.5, 0.5], "c": [0.5, 0.5]}, (0.5, 1.0))
    assert found.chosen == {"x": "a"}


def test_negative_scores_are_ranked_too():
    found, _ = halved({"a": [-0.5], "b": [0.0], "c": [-0.1]}, (1.0,))
    assert found.chosen == {"x": "b"}


def test_a_candidate_that_cannot_be_trained_is_out():
    found, asked = halved({"a": [None, 9], "b": [0.1, 0.1], "c": [None, 9]}, (0.5, 1.0))
    assert found.chosen == {"x": "b"}
    assert [name for name, share in asked if share == 1.0] == ["b"]
    with pytest.raises(UserError, match="none of the candidates"):
        halved({"a": [None], "b": [None]}, (1.0,))


def test_the_held_out_slice_is_train_and_only_train(tmp_path):
    place = make_place(tmp_path)
    task = Task.from_files("classification", place / "data")
    made = hold_out(task, 0.25)
    rows = [*zip(made.splits["train"].texts, made.splits["train"].labels, strict=True)]
    held = [*zip(made.splits["dev"].texts, made.splits["dev"].labels, strict=True)]
    whole = [*zip(task.splits["train"].texts, task.splits["train"].labels, strict=True)]
    assert (len(rows), len(held)) == (36, 12)
    assert sorted(rows + held) == sorted(whole)
    assert set(made.splits) == {"train", "dev"}
    assert hold_out(task, 0.25) == made
    with pytest.raises(UserError, match="too little to choose by"):
        hold_out(task, 0.01)


def test_tuning_is_equal_for_all_and_dev_does_not_move_it(tmp_path):
    place = make_place(tmp_path)
    tune = {"learning_rate": [1e-5, 3e-2], "per": ["recipe"], "held_out": 0.25, "rungs": [0.5, 1]}
    file = write_study(place, tune=tune, axes={"recipe": ["finetune", "kd"], "seed": [1]})
    records, pool = run_here(file, tmp_path / "a")
    tuning = json.loads((tmp_path / "a" / TUNING_FILE).read_text("utf-8"))
    assert [group["group"] for group in tuning] == [{"recipe": "finetune"}, {"recipe": "kd"}]
    budgets = []
    for group in tuning:
        assert [(rung["share"], len(rung["candidates"])) for rung in group["rungs"]] == [(0.5, 2), (1.0, 1)]
        budgets.append(sum(rung["share"] * len(rung["candidates"]) for rung in group["rungs"]))
        best = max(group["rungs"][-1]["candidates"], key=lambda c: c["score"])
        assert {"learning_rate": best["learning_rate"]} == group["chosen"]
    assert len(set(budgets)) == 1
    jobs = [job for job in pool.jobs if job["kind"] == "tuning"]
    assert len(jobs) == 2 * jobs_in(2, 2, 1)
    assert all(job["held_out"] == 0.25 and job["seed"] == 1 and not job["ood"] for job in jobs)
    # The chosen value is in the record and in what was run.
    for record, group in zip(records, tuning, strict=True):
        assert record["tuned"] == group["chosen"]
        recipe = Recipe.load(tmp_path / "a" / "runs" / record["hash"] / "recipe.yaml")
        assert {"learning_rate": recipe.stages[0].learning_rate} == group["chosen"]
    # Tuning runs are scored on 12 of 48 training examples and trained on the others.
    for job in jobs:
        settings = json.loads((tmp_path / "a" / "tuning" / job["hash"] / "run.json").read_text("utf-8"))
        assert settings["data_fingerprint"] not in {
            json.loads((tmp_path / "a" / "runs" / r["hash"] / "run.json").read_text("utf-8"))["data_fingerprint"]
            for r in records
        }
    # Other labels in dev: other data, so other runs, but the same tuning, score by score.
    dev = place / "data" / "dev.csv"
    swapped = dev.read_text("utf-8").replace(",good", ",BAD").replace(",bad", ",good").replace(",BAD", ",bad")
    dev.write_text(swapped, "utf-8")
    run_here(write_study(place, tune=tune, axes={"recipe": ["kd"], "seed": [1]}), tmp_path / "b")
    assert json.loads((tmp_path / "b" / TUNING_FILE).read_text("utf-8")) == tuning[1:]


def test_a_candidate_that_diverged_is_not_trained_again(tmp_path):
    place = make_place(tmp_path)
    tune = {"learning_rate": [1e-3, 1e20], "per": ["recipe"], "held_out": 0.25, "rungs": [1]}
    file = write_study(place, tune=tune, axes={"recipe": ["finetune"], "seed": [1]})
    records, pool = run_here(file, tmp_path / "a")
    assert [r["status"] for r in records] == ["finished"]
    assert len([job for job in pool.jobs if job["kind"] == "tuning"]) == 2
    candidates = json.loads((tmp_path / "a" / TUNING_FILE).read_text("utf-8"))[0]["rungs"][0]["candidates"]
    assert candidates[1]["score"] is None
    asked = StudyRun(plan_of(file, tmp_path / "a"), StudyFolder(tmp_path / "a"))
    asked.recall_tuning()
    assert sum(asked.left().values()) == 0
    again, pool = run_here(file, tmp_path / "a")
    assert not pool.jobs
    assert comparable(again) == comparable(records)
