"""Real processes that are killed, starved of disk or told to stop, and what the same command makes of it afterwards."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load, load_file

from tests.tiny import save_tiny, save_tiny_masked_lm, write_csv
from tests.training.forks import ROOT, record, tear

AVERAGE = "target={moving_average: {decay: 0.5}}"
BEST = ("stages.0.select=best", "stages.0.patience=2", "stages.0.learning_rate=1e-12")
RECIPES = {
    "rail-kd-c": (),
    "cr-ild": tuple(f"stages.0.objectives.consistent {o}.{AVERAGE}" for o in ("attention", "hidden states")),
    "tinybert": ("stages.0.accumulation=2", "stages.1.accumulation=4"),
    "bert-emd": (),
    "rkd": (),
    "kd": BEST,
    "hid-cls": ("stages.1.select=best",),
    "hid-cls-contrast": ("stages.0.evaluate=objectives",),
}
SIZES = {"kd": "--epochs 4 --batch-size 8", "hid-cls": "--epochs 3 --batch-size 1"}  # the last logs every fourth step


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    save_tiny(folder / "teacher")
    (folder / "data").mkdir()
    write_csv(folder / "data" / "train.csv", rows=21)
    write_csv(folder / "data" / "dev.csv", rows=6, seed=1)
    return folder


def command(place, recipe: str, output, *more: str) -> list[str]:
    words = f"distill {place}/teacher --task classification --data {place}/data --max-length 32 --student-layers 2 -q"
    settings = [word for setting in RECIPES[recipe] for word in ("--set", setting)]
    words += f" --recipe {recipe} {SIZES.get(recipe, '--epochs 2 --batch-size 8')} --precision fp32 --output {output}"
    return [*words.split(), *settings, *more]


@pytest.fixture(scope="module")
def whole(place, forks):
    """What each run is when nothing happens to it, and how many file operations it takes."""
    known = {}

    def run(recipe: str, *more: str):
        key = (recipe, *more)
        if key not in known:
            folder = place / f"whole-{len(known)}"
            done = forks(command(place, recipe, folder, *more), folder=folder)
            assert done["status"] == 0, done["err"]
            known[key] = record(folder), done["events"]
        return known[key]

    return run


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(recipe, place, forks, whole, tmp_path):
    expected, events = whole(recipe)
    rng = random.Random(recipe)
    folder = tmp_path / "s"
    kills = 0
    one_after_a_checkpoint = {"lines": {"kd": 5, "hid-cls": 7}.get(recipe, 4)}
    for moment in (one_after_a_checkpoint, {"at": events // 3}, {"at": rng.randint(1, events // 3)}, {}):
        done = forks(command(place, recipe, folder), folder=folder, **moment)
        if done["status"] != -signal.SIGKILL:
            break
        kills += 1
        tear(folder)
    assert done["status"] == 0, done["err"]
    assert kills >= 2
    assert record(folder) == expected


@pytest.mark.parametrize(
    ("what", "moment"),
    [
        ("the steps are done", {"at": "stage-1-done"}),
        ("the steps are limited", {"at": "stage-1-done"}),
        ("patience is over", {"at": "stage-1-done"}),
        ("the stage is half done", {"at": "stage-1-done/spent.json"}),
        ("the stage is done", {"after_path": "stage-1-done/spent.json"}),
        ("the student is saved", {"at": "/result.json"}),
        ("the result is there", {"after_path": "/result.json"}),
    ],
)
def test_a_kill_after_the_last_step_of_a_stage_adds_no_step(what, moment, place, forks, whole, tmp_path):
    recipe = "kd" if what == "patience is over" else "tinybert"
    more = ("--max-steps", "4") if what == "the steps are limited" else ()
    expected, _ = whole(recipe, *more)
    folder = tmp_path / "s"
    killed = forks(command(place, recipe, folder, *more), folder=folder, **moment)
    assert killed["status"] == -signal.SIGKILL
    assert (folder / "result.json").exists() == (what == "the result is there")
    assert forks(command(place, recipe, folder, *more))["status"] == 0
    assert record(folder) == expected


def test_a_run_whose_examples_were_joined_by_others_is_killed_and_ends_as_if_nothing_had_happened(
    place, forks, whole, tmp_path
):
    """Copies by a masked language model are made once: a kill while they are written, after that, and in the training."""
    (place / "more.txt").write_text("the film was not very good\nand they was poor but fine\n", "utf-8")
    save_tiny_masked_lm(place / "masked")
    more = ("--unlabelled", f"{place}/more.txt", "--augment", "2", "--augment-model", f"{place}/masked")
    expected, events = whole("rkd", *more)
    assert expected["result.json"]["augmented"]["examples"] > 20
    folder = tmp_path / "s"
    kept = folder / "checkpoints" / "augmented.json"
    for moment, there in (
        ({"at": "augmented.json"}, False),
        ({"after_path": "augmented.json"}, True),
        ({"lines": 4}, True),
        ({"at": events // 3}, True),
    ):
        done = forks(command(place, "rkd", folder, *more), folder=folder, **moment)
        assert done["status"] == -signal.SIGKILL
        assert kept.exists() == there
        made = kept.stat().st_mtime_ns if there else 0
    done = forks(command(place, "rkd", folder, *more), folder=folder, after_path="stage-1-done/spent.json")
    assert done["status"] == -signal.SIGKILL
    assert kept.stat().st_mtime_ns == made, "the copies were not made again"
    assert forks(command(place, "rkd", folder, *more))["status"] == 0
    assert record(folder) == expected


def test_the_masses_of_an_optimal_transport_are_in_checkpoints_and_beside_the_student(place, forks, whole, tmp_path):
    expected, _ = whole("bert-emd")
    names = {
        f"{o}.mapping_state.{side}" for o in ("attention scores", "hidden states") for side in ("student", "teacher")
    }
    maps = {f"hidden states.aligner.student.{part}" for part in ("weight", "bias")}
    folder = tmp_path / "s"
    assert forks(command(place, "bert-emd", folder), folder=folder, at="stage-1-done")["status"] == -signal.SIGKILL
    saved = load_file(folder / "checkpoints" / "stage-1" / "checkpoint-6" / "model.safetensors")
    owned = load(expected["stage-1-objectives.safetensors"])
    for number, name in enumerate(("attention scores", "hidden states")):
        for side in ("student", "teacher"):
            mass = saved[f"objectives.{number}.mapping_state.{side}"]
            assert torch.equal(mass, owned[f"{name}.mapping_state.{side}"]), "those after the stage's last step"
    assert set(owned) == names | maps
    for name in names:
        assert owned[name].sum().item() == pytest.approx(1, abs=1e-12)
        assert owned[name].std() > 1e-3, "they have moved"
    assert "stage-2-objectives.safetensors" not in expected


def test_a_memory_is_in_checkpoints_and_not_beside_the_student(place, forks, whole, tmp_path):
    expected, _ = whole("hid-cls-contrast")
    owned = load(expected["stage-1-objectives.safetensors"])
    assert set(owned) == {f"contrast.aligner.{s}.{p}" for s in ("student", "teacher") for p in ("weight", "bias")}
    folder = tmp_path / "s"
    killed = forks(command(place, "hid-cls-contrast", folder), folder=folder, at="stage-1-done")
    assert killed["status"] == -signal.SIGKILL
    saved = load_file(folder / "checkpoints" / "stage-1" / "checkpoint-6" / "model.safetensors")
    for side in ("student", "teacher"):
        kept = saved[f"objectives.0.memory.{side}"]
        assert kept.shape == (21, 128)
        torch.testing.assert_close(kept.norm(dim=-1), torch.ones(21)), "every example was seen"
    assert saved["objectives.0.memory.log_scales"].isfinite().all()


def test_evaluations_on_the_way_change_nothing_that_is_remembered(place, forks, whole, tmp_path):
    expected, _ = whole("hid-cls-contrast")
    done = forks(command(place, "hid-cls-contrast", tmp_path / "s", "--set", "stages.0.evaluate=end"))
    assert done["status"] == 0, done["err"]
    found = record(tmp_path / "s")
    assert b"dev_objectives" in expected["metrics.jsonl"]
    assert b"dev_objectives" not in found["metrics.jsonl"]
    for name in ("stage-1-objectives.safetensors", "model.safetensors"):
        assert found[name] == expected[name]


def test_evaluations_on_the_way_move_no_masses(place, forks, whole, tmp_path):
    expected, _ = whole("bert-emd")
    done = forks(command(place, "bert-emd", tmp_path / "s", "--set", "stages.0.evaluate=objectives"))
    assert done["status"] == 0, done["err"]
    found = record(tmp_path / "s")
    assert b"dev_objectives" in found["metrics.jsonl"]
    for name in ("stage-1-objectives.safetensors", "model.safetensors"):
        assert found[name] == expected[name]


def test_a_run_that_is_killed_at_once_is_not_taken_for_something_foreign(place, forks, whole, tmp_path):
    expected, _ = whole("tinybert")
    folder = tmp_path / "s"
    for at in (2, 3, 4, 5, 6):
        assert forks(command(place, "tinybert", folder), folder=folder, at=at)["status"] == -signal.SIGKILL
    done = forks(command(place, "tinybert", folder))
    assert done["status"] == 0, done["err"]
    assert record(folder) == expected


def test_the_best_checkpoint_is_found_from_another_working_folder(place, forks, whole, tmp_path):
    expected, events = whole("kd")
    folder = tmp_path / "s"
    assert forks(command(place, "kd", folder), folder=folder, at=events * 2 // 3)["status"] == -signal.SIGKILL
    assert list(folder.glob("checkpoints/stage-1/checkpoint-*/trainer_state.json"))
    folder.rename(tmp_path / "moved")
    assert forks(command(place, "kd", tmp_path / "moved"))["status"] == 0
    assert record(tmp_path / "moved") == expected


@pytest.mark.parametrize("end", ["full", "read-only"])
def test_a_full_disk_or_a_read_only_folder_is_one_line_and_loses_nothing(end, place, forks, whole, tmp_path):
    expected, events = whole("tinybert")
    folder = tmp_path / "s"
    for at in (events // 4, 1):
        limit = {"limit": 20_000} if at > 1 else {"limit": 0}
        failed = forks(command(place, "tinybert", folder), folder=folder, at=at, end=end, **limit)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        assert failed["status"] == 2, failed["err"]
        assert failed["err"].count("\n") == 1, failed["err"]
        assert failed["err"].startswith(f"error: --output {folder}: cannot be written")
        complete = [p.parent for p in folder.glob("checkpoints/stage-1/checkpoint-*/trainer_state.json")]
        assert complete, "the last good checkpoint is kept"
        if end == "full":
            there = folder.glob("checkpoints/stage-1/checkpoint-*")
            assert sorted(complete) == sorted(there), "a half one gives its room back"
    assert forks(command(place, "tinybert", folder))["status"] == 0
    assert record(folder) == expected


@pytest.mark.parametrize(("end", "status"), [("terminate", 143), ("interrupt", 130)])
def test_a_run_that_is_told_to_stop_says_so_in_one_line_and_goes_on_later(end, status, place, forks, whole, tmp_path):
    expected, events = whole("tinybert")
    folder = tmp_path / "s"
    stopped = forks(command(place, "tinybert", folder), folder=folder, at=events // 2, end=end)
    assert stopped["status"] == status, stopped["err"]
    assert stopped["err"].endswith("ed; the same command resumes from the last checkpoint\n")
    assert stopped["err"].count("\n") == 1
    assert not (folder / "run.lock").exists()
    assert forks(command(place, "tinybert", folder))["status"] == 0
    assert record(folder) == expected


def test_a_second_run_in_a_folder_is_refused_while_the_first_lives(place, forks, whole, tmp_path):
    expected, _ = whole("tinybert")
    folder = tmp_path / "s"
    words = command(place, "tinybert", folder)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-m", "layerstill", *words], env=environment) as first:
        deadline = time.monotonic() + 120
        while not (folder / "run.json").exists():
            assert time.monotonic() < deadline
            assert first.poll() is None
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)
        second = forks(words, folder=folder)
        first.kill()
    assert second["status"] == 2
    assert second["err"].startswith(f"error: --output {folder}: process {first.pid} is working in this folder")
    assert second["err"].count("\n") == 1
    assert (folder / "run.lock").exists(), "a dead process leaves its file, which binds nobody"
    assert forks(words)["status"] == 0
    assert record(folder) == expected
    assert "run.lock" not in expected
