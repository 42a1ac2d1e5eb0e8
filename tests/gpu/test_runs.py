"""Whole runs through the command line, where the Trainer chooses the device: a GPU if torch sees one."""

import json
import signal
import socket

import pytest
import torch

from layerstill.recipe import Recipe
from tests.gpu.process import started
from tests.tiny import save_tiny, write_csv
from tests.training.forks import record
from tests.training.pair import follow

SHARED = ("kd", "rail-kd-l", "cr-ild", "rkd")
"""Recipes of two processes; the last relates the examples of both."""


@pytest.fixture(autouse=True)
def chosen(device):
    if torch.cuda.is_available() and device.type == "cpu":
        pytest.skip("the Trainer would choose the GPU")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    save_tiny(folder / "teacher", sharp=2.0)
    save_tiny(folder / "steady", sharp=2.0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (folder / "data").mkdir()
    write_csv(folder / "data" / "train.csv", rows=21)
    write_csv(folder / "data" / "dev.csv", rows=6, seed=1)
    return folder


def words(place, output, recipe: str, *more: str, teacher: str = "steady") -> list[str]:
    line = (
        f"distill {place}/{teacher} --task classification --data {place}/data --recipe {recipe} --student-layers 2 -q"
    )
    line += f" --max-length 32 --batch-size 8 --epochs 2 --output {output}"
    return [*line.split(), *more]


def logged(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(place, device, tmp_path):
    """With dropout, whose draws on the device go on where they were; two stages, the kill in the first."""

    def line(output):
        return words(place, output, "tinybert", "--precision", "fp32", teacher="teacher")

    assert follow([{"words": line(tmp_path / "whole")}]) == [0]
    killed = started([{"words": line(tmp_path / "s"), "kill_at": 5}], device)
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    assert not (tmp_path / "s" / "result.json").exists()
    assert follow([{"words": line(tmp_path / "s")}]) == [0]
    assert record(tmp_path / "s") == record(tmp_path / "whole")


def test_two_processes_that_share_the_device_learn_what_one_learns(place, device, tmp_path):
    def orders(who: str) -> list[dict]:
        return [{"words": words(place, tmp_path / who / name, name, "--precision", "fp32")} for name in SHARED]

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    pair = [started(orders("two"), device, RANK=str(rank), **group) for rank in (0, 1)]
    assert follow(orders("one")) == [0] * len(SHARED)
    for process in pair:
        process.join(240)
    assert [process.exitcode for process in pair] == [0, 0]
    for name in SHARED:
        ours, theirs = logged(tmp_path / "two" / name), logged(tmp_path / "one" / name)
        assert len(ours) == len(theirs) > 1
        for a, b in zip(ours, theirs, strict=True):
            assert (a["stage"], a["step"]) == (b["stage"], b["step"])
            if "objectives" in b:
                assert a["objectives"] == pytest.approx(b["objectives"], rel=1e-3, abs=1e-5), (name, a["step"])
                assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-2)


def test_runs_in_sixteen_bits_stay_near_one_in_fp32(place, device, tmp_path):
    recipe = "tinybert"
    kinds = ("fp32", "bf16", "fp16")
    assert follow([{"words": words(place, tmp_path / k, recipe, "--precision", k)} for k in kinds]) == [0, 0, 0]
    exact = [entry for entry in logged(tmp_path / "fp32") if "objectives" in entry]
    assert len({entry["stage"] for entry in exact}) == len(Recipe.load(recipe).stages)
    for kind in kinds[1:]:
        result = json.loads((tmp_path / kind / "result.json").read_text("utf-8"))
        assert result["train"]["precision"] == kind
        found = [entry for entry in logged(tmp_path / kind) if "objectives" in entry]
        assert len(found) == len(exact)
        for ours, theirs in zip(found, exact, strict=True):
            assert ours["objectives"] == pytest.approx(theirs["objectives"], rel=0.1, abs=0.02), (kind, ours["step"])
        assert found != exact
