"""`--learning-rate auto`: what is tried, what is chosen, that it is kept, and that the run is the one it would be."""

import json
from types import SimpleNamespace

import pytest

from layerstill import Options, Recipe, UserError, distill
from layerstill.acts.rates import RATES, rate_line, rungs_for
from layerstill.acts.rungs import ranks_of
from layerstill.training.records import RunFolder
from tests.tiny import save_tiny, write_csv
from tests.training.forks import Forks, record


@pytest.mark.parametrize(
    ("examples", "epochs", "rungs"), [(5_000, 9.6, [151, 300]), (700, 30, [66, 165]), (64, 3, [6]), (100_000, 3, [300])]
)
def test_rungs_are_a_tenth_and_a_quarter_of_the_run_within_bounds(examples, epochs, rungs):
    recipe = Recipe.load("kd").limited(epochs, 32, None)
    assert rungs_for(recipe, {"task": examples}, None) == rungs
    assert rungs_for(recipe, {"task": examples}, 5) == [5]


def test_every_stage_has_at_least_an_update():
    recipe = Recipe.load("hid-seq").limited(1, 32, None)
    assert rungs_for(recipe, {"task": 8}, 1) == [2]


def test_the_line_says_what_was_chosen_among_how_many_and_the_next_best():
    tried = [{"learning_rate": rate, "score": 0.5, "distance": 1.0} for rate in RATES]
    last = [
        {"learning_rate": 2e-4, "score": 0.831, "distance": 0.1},
        {"learning_rate": 4e-4, "score": 0.824, "distance": 0.1},
        {"learning_rate": 8e-4, "score": None, "distance": None},
    ]
    found = {"learning_rate": 2e-4, "held_out": 545, "rungs": [{"candidates": tried}, {"candidates": last}]}
    assert rate_line(found) == "learning rate 2e-4 (of 6 tried on 545 held-out texts; 83.1, next best 82.4 at 4e-4)"
    next(c for c in last if c["learning_rate"] == 4e-4)["score"] = 0.835
    assert "83.1, closer to the wanted answers than 83.5 at 4e-4)" in rate_line(found)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rates")
    for split, rows in (("train", 40), ("dev", 12)):
        write_csv(folder / f"{split}.csv", rows=rows, seed=len(split))
    save_tiny(folder / "teacher", sharp=2.0)
    return folder


def words(place, output, rate="auto", **more) -> str:
    extra = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in more.items())
    return (
        f"distill {place}/teacher --task classification --data {place} --recipe kd --student-layers 2 --batch-size 8 "
        f"--max-length 16 --epochs 2 --learning-rate {rate} --output {output} {extra}"
    )


@pytest.mark.slow
def test_the_run_is_what_the_chosen_rate_gives_and_the_choice_is_recorded(call, place, tmp_path):
    status, _, said = call(words(place, tmp_path / "auto"))
    assert status == 0
    result = json.loads((tmp_path / "auto" / "result.json").read_text("utf-8"))
    tuning = result["tuning"]
    assert rate_line(tuning) in said
    (rung,) = tuning["rungs"]
    assert (rung["updates"], tuning["held_out"], tuning["metric"]) == (10, 20, "accuracy")
    assert [c["learning_rate"] for c in rung["candidates"]] == [*RATES]
    ranks = ranks_of([SimpleNamespace(**candidate) for candidate in rung["candidates"]], tuning["held_out"])
    best = max(range(len(ranks)), key=lambda i: ranks[i])
    assert tuning["learning_rate"] == rung["candidates"][best]["learning_rate"]
    assert json.loads((tmp_path / "auto" / "run.json").read_text("utf-8"))["tuning"] == tuning
    assert Recipe.load(tmp_path / "auto" / "recipe.yaml").stages[0].learning_rate == tuning["learning_rate"]
    assert not (tmp_path / "auto" / "tuning").exists()
    # All of train is trained on, from the start that the run would have had.
    status, _, _ = call(words(place, tmp_path / "given", tuning["learning_rate"]))
    assert status == 0
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("auto", "given")]
    assert weights[0] == weights[1]
    assert json.loads((tmp_path / "given" / "result.json").read_text("utf-8"))["tuning"] is None
    # Once more it is there, and as a run of a rate that was given it is another.
    status, _, said = call(words(place, tmp_path / "auto"))
    assert (status, "already holds this run" in said) == (0, True)
    status, _, said = call(words(place, tmp_path / "auto", tuning["learning_rate"]))
    assert (status, "holds another run" in said) == (2, True)


def test_finetune_finds_a_rate_too(call, place, tmp_path):
    told = f"finetune {place}/teacher --task classification --data {place} --learning-rate auto --batch-size 8"
    status, _, said = call(f"{told} --max-length 16 --epochs 1 --output {tmp_path}/t")
    assert status == 0
    assert "next best" in said
    result = json.loads((tmp_path / "t" / "result.json").read_text("utf-8"))
    assert all(c["distance"] > 0 for c in result["tuning"]["rungs"][-1]["candidates"])


def test_the_plan_says_what_finding_a_rate_takes(call, place):
    told = words(place, "unused").replace("distill", "plan")
    status, _, said = call(told)
    assert status == 0
    assert "6 are tried first, on 20 held-out training texts, in 60 updates" in said


@pytest.mark.parametrize("option", ["--learning-rate", "--epochs"])
def test_words_that_are_no_numbers_are_refused(call, place, tmp_path, option):
    status, _, said = call(f"{words(place, tmp_path / 'x')} {option} fast")
    assert (status, said) == (2, f"error: {option} 'fast': give a number, or auto\n")
    with pytest.raises(UserError, match="learning_rate 'fast'"):
        distill(str(place / "teacher"), None, student_layers=2, learning_rate="fast")  # type: ignore[arg-type]


def test_too_few_examples_to_hold_any_out(call, place, tmp_path):
    status, _, said = call(words(place, tmp_path / "x", train_examples=7))
    assert (status, "7 training examples are too few" in said) == (2, True)
    # The way out that the message names works in the same folder.
    status, _, said = call(words(place, tmp_path / "x", 1e-4, train_examples=7))
    assert status == 0


def test_what_another_run_found_is_not_taken_over(tmp_path):
    def opened(seed: int) -> RunFolder:
        return RunFolder(tmp_path / "run", {"recipe": {}, "seed": seed, "teacher": f"place {seed}"})

    with opened(0) as folder:
        folder.keep("tuning", {"learning_rate": 1e-3})
    with opened(0) as folder:
        assert folder.kept("tuning") == {"learning_rate": 1e-3}
    with opened(1) as folder:  # allowed, because nothing was trained
        assert folder.kept("tuning") is None


@pytest.mark.slow
def test_a_run_killed_while_it_tunes_goes_on_to_the_same_end(place, tmp_path):
    forks = Forks()
    try:
        told = words(place, tmp_path / "whole", quiet="").split()
        whole = forks(told, folder=tmp_path / "whole")
        assert whole["status"] == 0
        trained = 0
        for share in (0.2, 0.55):
            run = tmp_path / f"killed at {share}"
            told = [*words(place, "RUN", quiet="").split()]
            told[told.index("RUN")] = str(run)
            assert forks(told, folder=run, at=round(share * whole["events"]))["status"] == -9
            assert not (run / "result.json").exists()
            records = {path.name: path.read_bytes() for path in run.glob("tuning/*.json")}
            trained += len(records)
            assert forks(told, folder=run, at="result.json")["status"] == -9
            after = {path.name: path.read_bytes() for path in run.glob("tuning/*.json")}
            assert records.items() <= after.items()  # nothing that was done is done again
            assert forks(told)["status"] == 0
            assert timeless(run) == timeless(tmp_path / "whole")
        assert trained
    finally:
        forks.close()


def timeless(run) -> dict:
    """Everything in a run folder but what measures time."""
    found = record(run)
    settings = json.loads(found["run.json"])
    for part in (settings, found["result.json"]):
        del part["tuning"]["seconds"]
    return found | {"run.json": settings}


def test_python_takes_a_number_as_well(place, tmp_path):
    from layerstill import Task

    task = Task.from_files("classification", place)
    options = Options(max_length=16, max_steps=1, progress=False)
    result = distill(str(place / "teacher"), task, "kd", 2, tmp_path / "s", options, learning_rate=3e-3)
    assert Recipe.load(result.folder / "recipe.yaml").stages[0].learning_rate == 3e-3
