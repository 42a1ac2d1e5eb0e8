"""Distillation on streams, through the command line: resumed inside one, planned, refused."""

import io
import json
import signal
import subprocess
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from tests.tiny import WORDS, save_tiny_masked_lm
from tests.training.forks import ROOT, record, tear

LENGTH = 16


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    save_tiny_masked_lm(folder / "masked")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(3, 60))) for _ in range(1500)]
    (folder / "texts.txt").write_text("\n\n".join(texts) + "\n", "utf-8")
    (folder / "set").mkdir()
    for i in range(3):  # a data set of the hub is such a folder, elsewhere
        table = pyarrow.table({"number": list(range(500)), "text": texts[i * 500 : (i + 1) * 500]})
        pyarrow.parquet.write_table(table, folder / "set" / f"train-{i:05}-of-00003.parquet")
    return folder


def words(place, data: str, *more: str, verb: str = "distill") -> list[str]:
    line = f"{verb} {place}/masked --task text --data {data} --student-layers 2 --max-length {LENGTH} -q"
    return [*f"{line} --recipe text-kd --batch-size 8 --precision fp32".split(), *more]


def test_a_run_that_is_killed_inside_a_stream_ends_as_if_nothing_had_happened(place, forks, tmp_path):
    line = words(place, f"hub:{place}/set", "--max-steps", "12")
    done = forks([*line, "--output", str(tmp_path / "whole")], folder=tmp_path / "whole")
    assert done["status"] == 0, done["err"]
    expected, folder = record(tmp_path / "whole"), tmp_path / "s"
    line += ["--output", str(folder)]
    for moment in ({"after_path": "corpus/packed.json"}, {"lines": 9}):
        assert forks(line, folder=folder, **moment)["status"] == -signal.SIGKILL
        tear(folder)
    assert forks(line, folder=folder)["status"] == 0
    assert record(folder) == expected
    assert expected["result.json"]["train"]["steps"] == 12
    assert expected["result.json"]["train"]["epochs"] <= 1, "every block is new"
    assert expected["result.json"]["text"]["documents"] < 1500


@pytest.mark.slow
def test_standard_input_is_distilled_from_a_pipe(place, tmp_path):
    line = words(place, "-", "--max-tokens", "3000", "--output", str(tmp_path / "s"))
    with (place / "texts.txt").open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "layerstill", *line],
            cwd=ROOT,
            stdin=file,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "s" / "result.json").read_text("utf-8"))
    assert 0.6 * 3000 < result["train"]["examples"] * 12 < 2 * 3000


@pytest.mark.parametrize("more", ["--max-steps 5", "--max-tokens 4000", "--max-steps 4 --set student.vocabulary=train"])
def test_plan_says_what_a_run_on_a_stream_then_has(more, place, call, tmp_path):
    data = f"hub:{place}/set"
    status, out, err = call(words(place, data, *more.split(), "--json", verb="plan"))
    assert status == 0, err
    plan = json.loads(out)
    status, _, err = call(words(place, data, *more.split(), "--output", str(tmp_path / "s")))
    assert status == 0, err
    result = json.loads((tmp_path / "s" / "result.json").read_text("utf-8"))
    assert plan["text"] == result["text"] | {"estimated_from": None}
    assert [stage["steps"] for stage in plan["stages"]] == [result["train"]["steps"]]


def test_hours_decide_how_much_of_a_stream_is_read(place, call, tmp_path):
    data = f"hub:{place}/set"
    status, _, err = call(words(place, data, "--max-hours", "0.0003", "--output", str(tmp_path / "s")))
    assert status == 0, err
    kept = json.loads((tmp_path / "s" / "run.json").read_text())["steps"]
    result = json.loads((tmp_path / "s" / "result.json").read_text("utf-8"))
    assert [result["train"]["steps"]] == kept
    assert result["text"]["documents"] <= 1500
    status, out, err = call(words(place, data, "--max-hours", "0.0003", "--json", verb="plan"))
    assert status == 0, err
    assert json.loads(out)["stages"][0]["steps"] >= 1


@pytest.mark.parametrize("verb", ["distill", "plan"])
@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        ("hub:{place}/set", "", "a stream, and nobody knows how long it is; say how long to train with --max-tokens"),
        ("-", "", "--data -: a stream, and nobody knows how long it is"),
        ("-", "--max-hours 1", "--data -: --max-hours 1.0 looks at the texts before they are packed, and standard"),
        ("-", "--max-steps 1 --set student.vocabulary=train", "--data -: student.vocabulary train looks at the texts"),
        ("-", "--max-steps 1", "--data -: 0 tokens in it, too few to train on"),
        ("hub:nobody/nothing", "--max-steps 1", "--data hub:nobody/nothing: data set 'nobody/nothing' (split train)"),
        ("hub:{place}/set::dev", "--max-steps 1", "(split dev) cannot be read"),
        ("hub:{place}/set", "--max-steps 1 --text-columns txt", "no column 'txt': did you mean 'text'"),
        ("hub:{place}/set", "--max-steps 1 --text-columns number", "row 1: column 'number' holds int, not a text"),
        (
            "nobody/nothing",
            "--max-steps 1",
            "no such file or folder; a data set of the hub is given as hub:nobody/nothing",
        ),
    ],
)
def test_a_mistake_is_one_clear_line(data, more, message, verb, place, call, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    output = ["--output", str(tmp_path / "s")] if verb == "distill" else []
    status, _, err = call([*words(place, data.format(place=place), *more.split(), verb=verb), *output])
    assert status == 2
    assert message in " ".join(err.split())
    assert not (tmp_path / "s" / "model.safetensors").exists()
