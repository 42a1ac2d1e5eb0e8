"""The time that a plan says: what is measured, and what follows from it for a whole stage."""

import json
import sys

import pytest
import torch

from layerstill import Options, Recipe
from layerstill.data.encode import Collator, encode
from layerstill.heads import Classes
from layerstill.reporting.plan import duration
from layerstill.training.plan import make_plan
from layerstill.training.step_time import StepTime, measure_step_seconds
from tests.tiny import save_tiny, tiny_config, tiny_tokenizer, write_csv


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    from layerstill import Task

    folder = tmp_path_factory.mktemp("times")
    for split in ("train", "dev"):
        write_csv(folder / f"{split}.csv", rows=40)
    task = Task.from_files("classification", folder)
    return encode(task.splits["train"], tiny_tokenizer(), 32, Classes())


def measured(recipe: str, encoded, *sets: str) -> StepTime:
    options = Options(max_length=32, precision="fp32", progress=False)
    loaded = Recipe.load(recipe, sets)
    configs = tiny_config("bert", layers=2), tiny_config("bert", layers=4)
    return measure_step_seconds(loaded, 0, *configs, encoded, Collator(tiny_tokenizer(), Classes()), Classes(), options)


def test_steps_are_timed_and_nothing_is_drawn_from_the_global_generator(encoded):
    before = torch.random.get_rng_state()
    time = measured("best", encoded)
    assert 0 < time.teacher < time.step < 60
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_recipe_without_a_teacher_takes_no_time_of_one(encoded):
    assert measured("finetune", encoded).teacher == 0


@pytest.mark.parametrize("recipe", ["cr-ild", "rail-kd-c", "bert-emd", "tinybert"])
def test_every_kind_of_stage_can_be_timed(encoded, recipe):
    assert measured(recipe, encoded, "stages.0.batch_size=8").step > 0


def test_a_cached_teacher_costs_its_part_once_for_each_example():
    config = tiny_config("bert")
    recipe = Recipe.load("kd").limited(4, 8, None)
    made = make_plan(recipe, config, config, 2, Classes(), 0, 32, examples=80, tokens=10.0)
    (stage,) = made.stages
    assert (stage.steps, stage.cached) == (40, True)
    assert stage.timed(StepTime(3.0, 1.0), 4.0).seconds == pytest.approx(40 * 2 + 10 * 1)
    live = make_plan(recipe.limited(1, None, None), config, config, 2, Classes(), 0, 32, examples=80, tokens=10.0)
    (stage,) = live.stages
    assert (stage.steps, stage.cached) == (10, False)
    assert stage.timed(StepTime(3.0, 1.0), 1.0).seconds == pytest.approx(30)


def test_the_plan_prints_the_time_and_leaves_it_out_for_what_does_not_fit(call, tmp_path, monkeypatch):
    for split in ("train", "dev"):
        write_csv(tmp_path / f"{split}.csv", rows=12)
    save_tiny(tmp_path / "teacher")
    words = f"plan {tmp_path}/teacher --task classification --data {tmp_path} --student-layers 2 --max-length 16"
    _, out, _ = call(words)
    assert "time: about" in out
    assert "measured here" in " ".join(out.split())
    _, out, _ = call(f"{words} --json")
    (stage,) = json.loads(out)["stages"]
    assert stage["seconds"] > stage["step_seconds"] > 0
    monkeypatch.setattr(sys.modules["layerstill.acts.plan"], "fits_in_memory", lambda megabytes: False)
    status, out, _ = call(words)
    assert (status, "time: about" in out, "run: about" in out) == (0, False, False)
    assert "neither the run's time nor the student's speed was measured: the models need about" in " ".join(out.split())


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "0 s"), (95, "95 s"), (720, "12 min"), (12_600, "3.5 h")])
def test_durations_are_said_as_users_read_them(seconds, said):
    assert duration(seconds) == said
