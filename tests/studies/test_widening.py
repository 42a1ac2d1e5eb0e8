"""Grids that go on where their edge won: golden cases, and a whole study."""

import asyncio
import json

import pytest

from layerstill.errors import UserError
from layerstill.studies.file import load_study
from layerstill.studies.folder import TUNING_FILE, StudyFolder
from layerstill.studies.run import StudyRun
from layerstill.studies.tuning import halve
from layerstill.studies.widening import edge_notes, edges, is_grid, widened
from tests.studies.small import comparable, make_place, plan_of, run_here, write_study


def searched(values, score, most=5, rungs=(0.5, 1.0)):
    """What is found among `rate: value`, and what was trained on the whole length."""
    asked = []

    async def scored(candidate, share):
        if share == 1.0:
            asked.append(candidate["rate"])
        return score(candidate["rate"])

    async def both():
        return await widened(await halve([{"rate": value} for value in values], list(rungs), scored), most, scored)

    return asyncio.run(both()), asked


def test_it_goes_on_by_the_last_ratio_as_long_as_that_is_better():
    found, asked = searched([1e-5, 2e-5, 5e-5], lambda rate: -abs(rate - 3e-4))
    assert found.chosen == {"rate": 3.12e-4}
    assert asked == [2e-5, 5e-5, 1.25e-4, 3.12e-4, 7.79e-4]
    assert [one["rate"] for one in found.widened] == [1.25e-4, 3.12e-4, 7.79e-4]
    assert edges(found) == {}
    found, _ = searched([1e-5, 2e-5, 5e-5], lambda rate: -rate, most=2)
    assert [one["rate"] for one in found.widened] == [5e-6, 2.5e-6]
    assert (found.chosen, edges(found)) == ({"rate": 2.5e-6}, {"rate": "lowest"})


def test_what_wins_inside_is_left_and_so_is_an_edge_that_beats_what_is_beyond():
    found, _ = searched([1, 2, 4], lambda rate: -abs(rate - 2))
    assert (found.chosen, found.widened, edges(found)) == ({"rate": 2}, [], {})
    found, _ = searched([1, 2, 4], lambda rate: {4: 2.0}.get(rate, 1.0))
    assert (found.chosen, found.widened, edges(found)) == ({"rate": 4}, [{"rate": 8, "score": 1.0}], {})
    # As good is not better, and what cannot be trained is not either.
    found, _ = searched([1.0, 2.0], lambda rate: 0.5)
    assert (found.chosen, found.widened) == ({"rate": 1.0}, [{"rate": 0.5, "score": 0.5}])
    assert searched([2.0, 1.0][::-1], lambda rate: rate if rate <= 2 else None)[0].chosen == {"rate": 2.0}


def test_a_value_that_no_recipe_takes_is_where_the_grid_ends():
    async def score(candidate, share):
        if candidate["warmup"] > 1:
            raise UserError("warmup: at most 1")
        return candidate["warmup"]

    found = asyncio.run(halve([{"warmup": 0.1}, {"warmup": 0.5}], [1.0], score))
    after = asyncio.run(widened(found, 2, score))
    assert (after.chosen, after.widened) == ({"warmup": 0.5}, [])


def test_whole_numbers_stay_whole_and_end_at_one():
    found, _ = searched([2, 4, 8], lambda rate: -rate)
    assert [one["rate"] for one in found.widened] == [1]  # a half is no whole number
    assert (found.chosen, edges(found)) == ({"rate": 1}, {"rate": "lowest"})
    assert isinstance(found.chosen["rate"], int)


@pytest.mark.parametrize(
    "values", [[1e-5], [1e-5, 1e-5], [5e-5, 1e-5], [0, 1], [-1, 1], ["1/3", "2/3"], [True, 2], ["a", "b"]]
)
def test_no_grid_no_widening(values, tmp_path):
    assert not is_grid(values)
    place = make_place(tmp_path)
    with pytest.raises(UserError, match="tune: widen goes on with the ratio of the last two values"):
        load_study(write_study(place, tune={"learning_rate": values, "widen": 2}))
    with pytest.raises(UserError, match="one tuned axis"):
        load_study(write_study(place, tune={"learning_rate": [1e-5, 2e-5], "batch_size": [8, 16], "widen": 1}))
    load_study(write_study(place, tune={"learning_rate": values}))


def test_notes_name_the_groups_and_the_way_out():
    inside = {"group": {"recipe": "kd"}, "chosen": {"learning_rate": 1e-4}}
    edge = {"group": {"task": "sst2", "recipe": "pkd"}, "chosen": {"learning_rate": 2e-5}}
    edge |= {"edge": {"learning_rate": "lowest"}}
    assert edge_notes([inside], 0) == []
    first, second = edge_notes([inside, edge], 0)
    assert first.startswith("1 of 2 tuned groups chose an edge")
    assert "tune: {widen: 2}" in first
    assert second == "  sst2 / pkd: learning_rate 2e-05 is the lowest"
    assert "tune:" not in edge_notes([edge], 2)[0]
    assert edge_notes([edge] * 12, 0)[-1] == "  and 2 more in tuning.json"


def test_a_study_goes_beyond_its_grid_and_finds_it_again(tmp_path, call):
    """Rates far too small for a step to matter, so that the highest wins; the same call finds everything done."""
    place, out = make_place(tmp_path), tmp_path / "out"
    tune = {"learning_rate": [1e-4, 1e-3], "per": ["recipe"], "held_out": 0.25, "rungs": [1]}
    sections = {"axes": {"recipe": ["finetune"], "seed": [1]}, "base": {"total_steps": 12, "precision": "fp32"}}
    file = write_study(place, "narrow", tune=tune, **sections)
    narrow, _ = run_here(file, out)
    (group,) = json.loads((out / TUNING_FILE).read_text("utf-8"))
    assert "widened" not in group
    assert group["edge"] == {"learning_rate": {1e-4: "lowest", 1e-3: "highest"}[group["chosen"]["learning_rate"]]}
    status, printed, err = call(f"study {file} --output {out} --dry-run")
    assert status == 0, err
    assert f"finetune: learning_rate {group['chosen']['learning_rate']:g} is the " in printed
    wide, pool = run_here(write_study(place, tune=tune | {"widen": 2}, **sections), out)
    (group,) = json.loads((out / TUNING_FILE).read_text("utf-8"))
    tried = [candidate["learning_rate"] for candidate in group["widened"]]
    assert tried in ([0.01], [0.01, 0.1], [1e-5], [1e-5, 1e-6])
    jobs = [job for job in pool.jobs if job["kind"] == "tuning"]
    assert [job["recipe"]["stages"][0]["learning_rate"] for job in jobs] == tried
    assert all(job["held_out"] == 0.25 and job["share"] == 1 for job in jobs)
    every = {c["learning_rate"]: c["score"] for c in [*group["rungs"][-1]["candidates"], *group["widened"]]}
    assert every[group["chosen"]["learning_rate"]] == max(every.values())
    assert wide[0]["tuned"] == group["chosen"]
    asked = StudyRun(plan_of(file, out), StudyFolder(out))
    asked.recall_tuning()
    assert comparable(asked.records()) == comparable(narrow)
    assert asked.records()[0]["tuned"] == narrow[0]["tuned"]
    again, pool = run_here(write_study(place, tune=tune | {"widen": 2}, **sections), out)
    assert not pool.jobs
    assert comparable(again) == comparable(wide)
