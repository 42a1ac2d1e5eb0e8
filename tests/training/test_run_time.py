"""The time of a whole run: its parts added up, and held against a run."""

import json
import math
import time

import pytest
import torch

from layerstill import Recipe
from layerstill.heads import Classes
from layerstill.reporting.plan import measured_lines
from layerstill.training.plan import ExpectedSpeed, Plan, make_plan
from layerstill.training.run_time import (
    AROUND,
    Amounts,
    Pace,
    process_age,
    run_time,
    seconds_a_megabyte,
)
from layerstill.training.step_time import StepTime
from tests.tiny import save_tiny, tiny_config, write_csv

PACE = Pace(start=5.0, score=0.01, teacher_score=0.03, megabyte=0.2)


def planned(recipe: Recipe, examples: int):
    config = tiny_config("bert")
    made = make_plan(
        recipe, config, config, 2, Classes(), 0, 32, examples=examples, tokens=10.0, supplementary=examples
    )
    epochs = tuple(
        stage.steps * spec.batch_size / examples for stage, spec in zip(made.stages, recipe.stages, strict=True)
    )
    timed = [stage.timed(StepTime(0.5, 0.1), e) for stage, e in zip(made.stages, epochs, strict=True)]
    return timed, epochs


def simulated(recipe: Recipe, timed, epochs, dev: int, far: int, megabytes: float) -> dict[str, float]:
    """The same run gone through event by event."""
    spent = {"start": PACE.start + AROUND, "training": 0.0, "evaluation": dev * PACE.teacher_score, "saving": 0.0}

    def save(copies: int) -> None:
        spent["saving"] += copies * megabytes * PACE.megabyte

    for stage, plan, passes in zip(recipe.stages, timed, epochs, strict=True):
        spent["training"] += plan.seconds
        for _ in range(math.ceil(passes)):
            save(3)  # the student and two moments
            if stage.select == "best" or stage.evaluate != "end":
                spent["evaluation"] += dev * PACE.score
        save(1)  # the stage's student
    spent["evaluation"] += (dev + far) * PACE.score
    save(1)  # the run's
    return spent


@pytest.mark.parametrize("recipe", ["kd", "best", "tinybert", "finetune"])
@pytest.mark.parametrize("sets", [(), ("stages.0.select=best",), ("stages.0.evaluate=epoch",)])
def test_a_run_takes_what_its_parts_take(recipe, sets):
    loaded = Recipe.load(recipe, sets).limited(3, 8, None)
    timed, epochs = planned(loaded, 80)
    found = run_time(loaded.stages, timed, Amounts(40.0, 100, 30, epochs), PACE)
    wanted = simulated(loaded, timed, epochs, 100, 30, 40.0)
    for part, seconds in wanted.items():
        assert getattr(found, part) == pytest.approx(seconds), part
    assert found.total == pytest.approx(sum(wanted.values()))


def test_without_the_time_of_its_steps_there_is_none():
    recipe = Recipe.load("kd").limited(3, 8, None)
    config = tiny_config("bert")
    made = make_plan(recipe, config, config, 2, Classes(), 0, 32, examples=80, tokens=10.0)
    assert run_time(recipe.stages, made.stages, Amounts(40.0, 100, 0, (3.0,)), PACE) is None


def test_what_is_measured_of_the_machine_is_of_its_size():
    assert 0 < seconds_a_megabyte() < 10
    assert 0 <= process_age() < 61


@pytest.fixture
def place(tmp_path):
    for split in ("train", "dev"):
        write_csv(tmp_path / f"{split}.csv", rows=60)
    save_tiny(tmp_path / "teacher", layers=6, width=96)
    return tmp_path


def test_the_plan_says_how_fast_and_large_the_student_is(place, call):
    words = f"plan {place}/teacher --task classification --data {place} --max-length 16 --epochs 2"
    before = torch.random.get_rng_state()
    status, out, err = call(f"{words} --student-layers 1 --json")
    assert status == 0, err
    assert torch.equal(torch.random.get_rng_state(), before)
    said = json.loads(out)
    speed, seconds = said["speed"], said["seconds"]
    assert speed["times_as_fast"] == pytest.approx(speed["teacher_ms"] / speed["p50_ms"], abs=0.01)
    assert speed["times_as_fast"] > 1.3  # 6 layers to 1
    assert speed["mb"] == pytest.approx(4 * said["student_parameters"] / 1e6, abs=0.1)
    assert speed["teacher_mb"] == pytest.approx(4 * said["teacher_parameters"] / 1e6, abs=0.1)
    assert seconds["total"] == pytest.approx(sum(v for name, v in seconds.items() if name != "total"), abs=0.1)
    assert seconds["training"] == pytest.approx(sum(stage["seconds"] for stage in said["stages"]), abs=0.01)
    assert seconds["trials"] == 0
    status, out, _ = call(f"{words} --student-layers 1 --learning-rate auto --json")
    assert json.loads(out)["seconds"]["trials"] > seconds["training"]
    status, out, _ = call(f"{words} --student-layers 6")
    text = " ".join(out.split())
    assert "ms for one text of these lengths on the CPU" in text
    assert "times as fast as the teacher" in text
    assert "run: about" in text


def test_a_plan_with_probabilities_has_no_teacher_to_compare_with():
    speed = ExpectedSpeed(2.0, None, None, 12.0, None)
    plan = Plan(0, 3_000_000, 2, None, [], 10.0, speed=speed)
    (line,) = measured_lines(plan)
    assert line.startswith("student: 2 ms for one text of these lengths on the CPU; 12.0 MB in 32 bits")


def test_the_parts_of_a_run_have_names_that_say_what_they_are():
    seconds = {"start": 5.0, "training": 30.0, "trials": 60.0, "asking": 20.0, "total": 115.0}
    (line,) = measured_lines(Plan(0, 3_000_000, 2, None, [], 10.0, seconds=seconds))
    assert "(start 5 s, training 30 s, trying learning rates 60 s, asking the teachers 20 s)" in line


@pytest.mark.slow
def test_the_time_that_is_said_is_the_time_that_it_takes(place, call):
    """Generously, because other processes may come and go between the two."""
    words = f"{place}/teacher --task classification --data {place} --student-layers 3 --max-length 16 --epochs 60"
    said = json.loads(call(f"plan {words} --json")[1])["seconds"]
    begun = time.perf_counter()
    assert call(f"distill {words} --output {place}/o --quiet")[0] == 0
    taken = time.perf_counter() - begun
    assert said["total"] / 4 < taken + said["start"] < 4 * said["total"]
