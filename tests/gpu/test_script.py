"""benchmarks/on_gpu.sh: one record for each part, whatever becomes of the part."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.training.forks import ROOT

SCRIPT = ROOT / "benchmarks" / "on_gpu.sh"
PARTS = f"""#!/bin/sh
case "$1 $2" in
  "- "*) exec {sys.executable} "$@" ;;
  "-m pytest") echo 3 passed ;;
  benchmarks/gpu_launches.py*) echo '{{"launches": 7}}' >"$3"; echo no such kernel >&2; exit 3 ;;
  *) exit 9 ;;
esac
"""
"""A Python whose tests pass and whose benchmarks fail, one of them with half of its findings."""


def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", SCRIPT, *words], capture_output=True, text=True, env=os.environ | environment, timeout=60
    )


def parts(folder: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}


def test_a_part_that_fails_has_its_error_in_its_record_and_the_next_ones_follow(tmp_path):
    python = tmp_path / "python"
    python.write_text(PARTS, "utf-8")
    python.chmod(0o755)
    done = run("first", "--quick", "--output", str(tmp_path / "out"), PYTHON=str(python))
    assert done.returncode == 1, done.stderr
    found = parts(tmp_path / "out")
    assert {name: (part["state"], part["status"]) for name, part in found.items()} == {
        "tests": ("done", 0),
        "kernels": ("failed", 3),
        "speed": ("failed", 9),
    }
    assert found["tests"]["said"] == ["3 passed"]
    assert found["kernels"]["found"] == {"launches": 7}
    assert found["kernels"]["said"] == ["no such kernel"]
    assert all(part["quick"] for part in found.values())
    assert "no such kernel" in done.stdout
    again = run("first", "--only", "tests", PYTHON=str(python), OUT=str(tmp_path / "whole"))
    assert (again.returncode, set(parts(tmp_path / "whole"))) == (0, {"tests"})


def test_a_word_that_it_does_not_know_is_refused_and_nothing_is_written(tmp_path):
    for words in (["third"], [], ["first", "--quickly"]):
        refused = run(*words, OUT=str(tmp_path / "out"))
        assert refused.returncode == 2
        assert "benchmarks/on_gpu.sh first" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_the_two_runs_fit_into_ten_minutes_each():
    script = SCRIPT.read_text("utf-8")
    first, second = script.split('if [ "$run" = first ]')[1].split("\nelse\n")
    for run_ in (first, second):
        limits = [int(line.split("part ")[1].split()[1]) for line in run_.splitlines() if "part " in line]
        assert len(limits) >= 3
        assert sum(limits) <= 560, "unpacking takes some, too"
