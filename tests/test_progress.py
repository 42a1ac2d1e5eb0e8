"""How far it is: one bar or a line now and then, whose bars are shown, and from where a run is resumed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from layerstill import progress
from layerstill.progress import Task, our_bars_only, showing, spoken
from tests.tiny import save_tiny, write_csv
from tests.training.forks import ROOT


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when they are told to."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress._Lines, "last", 0.0)
    return now


def test_a_line_every_half_minute_says_what_is_known_and_what_is_left(clock, capsys):
    with showing(True, "student 2 of 3"), Task("training", 600, done=300) as task:
        for step in range(1, 101):
            clock[0] += 1
            task.say(epoch="2 of 3", loss=f"{step}.5")
            task.advance()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert said[0].startswith(
        "student 2 of 3, training: 329 of 600 (54%), epoch 2 of 3, loss 30.5, about 281 s left"[:50]
    )
    assert said[2].startswith("student 2 of 3, training: 389 of 600 (64%), epoch 2 of 3, loss 90.5, about 4 min left")


def test_tasks_that_follow_each_other_share_the_half_minute(clock, capsys):
    with showing(True):
        for number in range(10):
            with Task(f"candidate {number}", 5) as task:
                for _ in range(5):
                    clock[0] += 2
                    task.advance()
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == ["candidate 2", "candidate 5", "candidate 8"]


def test_a_task_inside_another_stands_beside_it(clock, capsys):
    with showing(True), Task("export", 2) as outer:
        outer.advance()
        with Task("scoring", 10) as inner:
            clock[0] += 31
            inner.advance(4)
        clock[0] += 31
        outer.advance()
    first, second = capsys.readouterr().err.splitlines()
    assert first == "export: 1 of 2 (50%), scoring 4 of 10, about 31 s left"
    assert "scoring" not in second


@pytest.mark.parametrize("rank", ["0", "1"])
def test_nothing_is_said_unless_it_is_shown_and_by_the_first_process_only(rank, clock, capsys, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    for shown in (False, None, True):
        with showing(shown), Task("training", 2) as task:
            clock[0] += 31
            task.advance()
    assert bool(capsys.readouterr().err) == (rank == "0")


def test_a_bar_that_moves_takes_the_place_of_lines_and_only_one(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress, "has_bar", lambda: True)
    with showing(True), Task("training", 4) as outer:
        outer.say(loss="0.5")
        outer.advance()
        with Task("scoring", 3) as inner:
            inner.advance(3)
        outer.advance(3)
    said = capsys.readouterr().err
    assert set(re.findall(r"(\w+) +\d+%\|", said)) == {"training"}
    assert said.split("\r")[-1].strip() == ""  # it is gone when the work is done


def test_durations():
    assert [spoken(s) for s in (0.2, 89.1, 91, 5400, 7300)] == [
        "about 1 s",
        "about 90 s",
        "about 2 min",
        "about 1 h 30 min",
        "about 2 h 2 min",
    ]


@pytest.mark.parametrize("hub_off", [False, True])
def test_other_libraries_do_as_they_did_afterwards(hub_off):
    import datasets
    import transformers
    from huggingface_hub import utils as hub

    def states() -> tuple[bool, bool, bool]:
        shown = transformers.utils.logging.is_progress_bar_enabled()
        return shown, not datasets.are_progress_bars_disabled(), not hub.are_progress_bars_disabled()

    transformers.utils.logging.enable_progress_bar()
    datasets.enable_progress_bars()
    hub.disable_progress_bars() if hub_off else hub.enable_progress_bars()
    before = states()
    assert before == (True, True, not hub_off)
    with our_bars_only(), our_bars_only():
        assert states() == (False, False, False)
    assert states() == before
    with pytest.raises(ZeroDivisionError), our_bars_only():
        _ = 1 / 0
    assert states() == before


NOTEBOOK = """
import sys, types
class ZMQInteractiveShell: pass
ipython = types.ModuleType("IPython"); ipython.get_ipython = lambda: ZMQInteractiveShell()
sys.modules["IPython"] = ipython
from layerstill import Options, distill, evaluate, export, finetune
rows = [("good film", "good"), ("bad plot", "bad")] * 20
options = Options(max_length=8, max_steps=4)
teacher = finetune(sys.argv[1] + "/m", rows, sys.argv[1] + "/teacher", options=options)
student = distill(teacher.folder, rows, "kd", 1, sys.argv[1] + "/student", options)
evaluate(student.folder, rows)
"""


def test_a_notebook_sees_our_bar_and_no_other(tmp_path):
    save_tiny(tmp_path / "m", layers=2, labels=2)
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}"}
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, str(tmp_path)], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    bars = {
        part.split(":")[0].split("%|")[0].rstrip(" 0123456789")
        for part in re.split(r"[\r\n]", done.stderr)
        if "|" in part
    }
    assert bars <= {"training", "teacher, scoring", "scoring", "teacher cache"}, done.stderr
    assert "training" in bars
    assert "it/s]" not in done.stderr + done.stdout


def test_a_run_that_is_resumed_says_from_where(tmp_path, call, monkeypatch):
    from layerstill.training import trainer

    save_tiny(tmp_path / "m", layers=1)
    write_csv(tmp_path / "d.csv", rows=40)
    words = (
        f"finetune {tmp_path}/m --task classification --data {tmp_path}/d.csv --batch-size 8 --max-length 8 --epochs 3 "
        f"--output {tmp_path}/run"
    )
    ends = trainer.DistillationTrainer.get_batch_samples

    def killed(self, *args):
        if self.state.global_step == 7:
            raise KeyboardInterrupt
        return ends(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.DistillationTrainer, "get_batch_samples", killed)
        assert call(words)[0] != 0
    status, _, err = call(words)
    assert status == 0
    checkpoint = re.search(r"run: resumed at step (\d+) of (\d+)", err)
    assert checkpoint, err
    assert (int(checkpoint[1]), int(checkpoint[2])) == (5, 15)
    assert json.loads((Path(tmp_path) / "run" / "result.json").read_text("utf-8"))["train"]["steps"] == 15


def test_a_study_says_how_far_it_is_without_a_terminal(monkeypatch, capsys):
    import time

    from layerstill.reporting.study import StudyProgress

    monkeypatch.setattr(progress, "EVERY", 0.05)
    with StudyProgress(4, True) as study:
        study.done("a", "accuracy 1")
        time.sleep(0.2)
    assert "1 of 4 jobs done after about 1 s, about 1 s left" in capsys.readouterr().err
