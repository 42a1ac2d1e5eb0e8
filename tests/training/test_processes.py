"""Two processes learn what one learns: losses, gradients, scores and records, for every recipe that is shipped."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training.batches import MicroBatches, share
from tests.tiny import WORDS, save_tiny, task_recipes, tiny_model, write_csv
from tests.training.forks import ROOT, TIMES
from tests.training.pair import follow, own_loop

STEADY = ("optimiser.warmup=0", "optimiser.schedule=constant", "optimiser.clip=0")
MORE = {  # by name: recipe, settings of every stage, and of the first
    "mixup of labels, in parts": ("finetune", ("accumulation=2",), ("objectives.task.view=mixup",)),
    "padding included": ("tinybert", (), ("objectives.attention scores.padding=included", "objectives.hidden states.padding=included")),
    "moving average": ("cr-ild", (), ("objectives.consistent hidden states.target={moving_average: {decay: 0.5}}",)),
    "best epoch": ("kd", ("select=best", "learning_rate=1e-2"), ()),
    "objectives watched": ("cr-ild", ("evaluate=objectives",), ()),
    "memory watched": ("hid-cls-contrast", (), ("evaluate=objectives",)),
}  # fmt: skip
RECIPES = [*task_recipes(), *MORE]


def words(place, output, name: str, teacher: str = "teacher", more: tuple[str, ...] = ()) -> list[str]:
    recipe, every, first = MORE.get(name, (name, (), ()))
    count = len(Recipe.load(recipe).stages)
    sets = [f"stages.{i}.{s}" for i in range(count) for s in (*STEADY, *every)] + [f"stages.0.{s}" for s in first]
    line = f"distill {place}/{teacher} --task classification --data {place}/data --max-length 32 --student-layers 2 -q"
    line += f" --supplementary {place}/extra.txt" if Recipe.load(recipe).supplementary_stages else ""
    line += f" --recipe {recipe} --epochs {2 if name == 'best epoch' else 1} --batch-size 8 --precision fp32"
    return [*line.split(), "--output", str(output), *(w for s in sets for w in ("--set", s)), *more]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    save_tiny(folder / "teacher", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    save_tiny(folder / "dropping")
    (folder / "data").mkdir()
    # Every text has a length of its own, and the last step has one row: a process without any.
    rows = "".join(f"{WORDS[i % 3]}{' film was' * i},{('bad', 'fine', 'good')[i % 3]}\n" for i in range(17))
    (folder / "data" / "train.csv").write_text(f"text,label\n{rows}", "utf-8")
    write_csv(folder / "data" / "dev.csv", rows=7, seed=1)
    (folder / "extra.txt").write_text("".join(f"the {'plot was ' * (i + 1)}\n" for i in range(9)), "utf-8")
    return folder


def orders(place, who: str) -> list[dict]:
    return [
        {"words": words(place, place / who / name, name), "gradients": str(place / f"{who}-{name}")} for name in RECIPES
    ]


@pytest.fixture(scope="module")
def pair(place):
    """Everything that the pair does, in one launch; what it printed."""
    todo = orders(place, "two")
    dropping = words(place, place / "whole", "rail-kd-l", "dropping", ("--epochs", "2"))
    again = words(place, place / "stopped", "rail-kd-l", "dropping", ("--epochs", "2"))
    todo += [{"words": dropping}, {"words": again, "stop_at": 5}, {"words": again}]
    todo += [{"words": words(place, place / "odd", "kd", more=("--batch-size", "7"))}]
    (place / "foreign").mkdir()
    (place / "foreign" / "letter.txt").write_text("dear", "utf-8")
    todo += [{"words": words(place, place / "foreign", "kd")}]
    todo += [{"words": words(place, place / "lost", "kd"), "lose_at": 2}]
    (place / "orders.json").write_text(json.dumps(todo), "utf-8")
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "tests.training.pair", place / "orders.json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    statuses = [json.loads((place / f"statuses-{rank}.json").read_text("utf-8")) for rank in (0, 1)]
    return statuses, done


@pytest.fixture(scope="module")
def alone(place):
    statuses = follow(orders(place, "one"))
    assert statuses == [0] * len(RECIPES)


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_equal_one(name, place, pair, alone):
    ours, theirs = lines(place / "two" / name), lines(place / "one" / name)
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert (a["stage"], a["step"]) == (b["stage"], b["step"])
        if "dev" in b:
            assert a["dev"] == pytest.approx(b["dev"])
            continue
        if "dev_objectives" in b:
            for group in ("dev_objectives", "train_objectives"):
                assert a[group] == pytest.approx(b[group], rel=2e-5, abs=2e-6)
            continue
        # Small divergences are differences of numbers around 1, hence the absolute part.
        assert a["objectives"] == pytest.approx(b["objectives"], rel=2e-5, abs=2e-6), (a["stage"], a["step"])
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-5, abs=2e-6)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)
    compared = 0
    # Logits are 14 times cosines near 1 there, and gradients what is left of their differences: 1e-6 is their rounding.
    tolerance = 3e-4 if name == "hid-cls-contrast" else 1e-5
    for one in sorted(place.glob(f"one-{name}-stage-*-0")):
        stage_and_step = one.name.removeprefix(f"one-{name}-").removesuffix("-0")
        expected = load_file(one)
        for rank in (0, 1):
            found = load_file(place / f"two-{name}-{stage_and_step}-{rank}")
            assert set(found) == set(expected)
            largest = max(g.abs().max().item() for g in expected.values())
            for parameter, gradient in expected.items():
                difference = (found[parameter] - gradient).abs().max().item()
                assert difference <= tolerance * largest, (stage_and_step, rank, parameter, difference, largest)
                compared += 1
    assert compared > 10
    results = [json.loads((place / who / name / "result.json").read_text("utf-8")) for who in ("one", "two")]
    for result in results:
        for field in TIMES:
            del result["train"][field]
    assert results[0].pop("metrics") == pytest.approx(results[1].pop("metrics"))
    assert results[0] == results[1]


def test_processes_that_are_stopped_go_on_with_the_dropout_of_each(place, pair):
    a, b = (load_file(place / who / "model.safetensors") for who in ("whole", "stopped"))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert lines(place / "whole") == lines(place / "stopped")


def test_a_module_sharded_by_fsdp_learns_what_a_whole_one_does(place, pair):
    own_loop(place / "unsharded", 1, 0)
    assert json.loads((place / "sharded" / "shards.json").read_text("utf-8")) == {"DTensor": 2}, "of 3 rows"
    models = []
    for name in ("sharded", "unsharded"):
        model, report = AutoModelForSequenceClassification.from_pretrained(place / name, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        models.append(model.state_dict())
    start = build_student(tiny_model(), 2, Recipe.load("tinybert").student, 0).state_dict()
    changed = 0
    for name, weight in models[1].items():
        torch.testing.assert_close(models[0][name], weight, rtol=1e-4, atol=1e-6)
        changed += not torch.equal(weight, start[name])
    assert changed > 10


def test_the_example_of_a_sharded_loop_makes_an_ordinary_student(tmp_path):
    save_tiny(tmp_path / "teacher", labels=10)
    words = (
        f"--standalone --nproc_per_node 2 {ROOT}/examples/shard.py {tmp_path}/teacher --student-layers 2 --max-steps 3"
    )
    words += f" --output {tmp_path}/student"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    launch = [sys.executable, "-m", "torch.distributed.run", *words.split()]
    done = subprocess.run(launch, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    model, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.config.num_hidden_layers == 2
    start = build_student(
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "teacher"), 2, Recipe.load("rail-kd-l").student, 0
    )
    moved = [n for n, w in model.state_dict().items() if not torch.equal(w, start.state_dict()[n])]
    assert len(moved) > 10


def test_the_example_refuses_a_recipe_of_several_stages(tmp_path):
    save_tiny(tmp_path / "teacher", labels=10)
    words = f"--standalone --nproc_per_node 1 {ROOT}/examples/shard.py {tmp_path}/teacher --recipe att-kl"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    launch = [sys.executable, "-m", "torch.distributed.run", *words.split(), "--output", str(tmp_path / "student")]
    done = subprocess.run(launch, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode != 0
    assert "recipe att-kl has 2 stages; this loop trains one" in done.stderr
    assert not (tmp_path / "student").exists()


def test_accelerate_launch_starts_a_run_like_torchrun(place, alone):
    folder = place / "launched"
    command = words(place, folder, "kd")
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "-m", "layerstill", *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(launch, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    losses, expected = ([line["loss"] for line in lines(f) if "loss" in line] for f in (folder, place / "one" / "kd"))
    assert losses == pytest.approx(expected, rel=2e-5)


def test_a_run_refuses_what_it_would_not_do(place, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert follow([{"words": words(place, place / "refused", "kd")}]) == [2]
    assert "error: ACCELERATE_USE_FSDP: runs are not sharded" in capsys.readouterr().err


def test_only_the_first_process_speaks_and_all_end_alike(place, pair):
    statuses, done = pair
    assert statuses[0] == statuses[1]
    ended = Counter(statuses[0])
    assert ended == {0: len(RECIPES) + 2, 130: 1, 2: 2}
    said = [line for line in done.stderr.splitlines() if line.startswith(("error", "interrupted", "process"))]
    folder = place / "foreign"
    assert [line for line in said if line.startswith("error: --output")] == [
        f"error: --output {folder}: not empty and not a run of layerstill; choose a new folder"
    ]
    # The pipe of both may bring the second's next words on the same line.
    refused = "error: batch_size 7 cannot be divided among 2 processes; use a multiple of 2"
    assert any(line.startswith(refused) for line in said)
    assert sum(line.startswith("interrupted") for line in said) == 1
    assert sum("2 layers" in line for line in done.stdout.splitlines()) == len(RECIPES) + 2, done.stdout


def test_a_process_that_dies_takes_the_others_with_it(pair):
    _, done = pair
    assert done.returncode == 1, "the launcher's, and it came back"
    # The launcher may be quicker than the first process with its line.
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: another process")]
    line = "error: another process of this run has ended; the same command resumes from the last checkpoint"
    assert lines in ([], [line])


def test_shares_are_whole_disjoint_and_their_own_mirror_images():
    for rows in range(1, 20):
        for processes in (1, 2, 3, 4):
            shares = [share(rows, processes, p) for p in range(processes)]
            assert sorted(i for s in shares for i in s) == list(range(rows))
            for own in shares:
                assert [rows - 1 - i for i in reversed(own)] == own


def test_every_row_is_seen_once_an_epoch_however_many_processes_there_are():
    from layerstill.data.order import LengthBuckets

    order = LengthBuckets([1 + i % 5 for i in range(23)], 8, seed=0)
    whole = list(MicroBatches(order, 4, 1, 0))
    parts = [list(MicroBatches(order, 4, 2, p)) for p in (0, 1)]
    assert len(whole) == len(MicroBatches(order, 4, 1, 0)) == len(parts[0]) == len(parts[1]) == 6
    for together, *own in zip(whole, *parts, strict=True):
        assert sorted(together) == sorted(i for part in own for i in part[:-1])
        longest = max(order.lengths[i] for i in together)
        assert [order.lengths[part[-1]] for part in own] == [longest] * 2
