"""`layerstill compress` with several students at a time: the same students, whatever becomes of the processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

import layerstill
from layerstill import Options
from layerstill.acts import ahead
from layerstill.acts.ladder import _side_by_side_seconds, climb_down, foreseen, side_by_side
from layerstill.compression.choice import Budget
from layerstill.data.plain import as_plain
from layerstill.data.tasks import Task
from layerstill.evaluation.predictions import TEACHER_FILE
from layerstill.studies.capacity import AtOnce
from layerstill.training.trainer import DistillationTrainer
from tests.tiny import save_teacher_and_data

SETTINGS = Options(max_length=16, max_steps=6, progress=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return save_teacher_and_data(tmp_path_factory.mktemp("ahead"))


def task_in(home) -> Task:
    return Task.from_files("classification", home / "data")


def compressed(home, output, jobs, effort="normal"):
    return layerstill.compress(
        home / "teacher", task_in(home), output, Budget(max_drop=100), effort, SETTINGS, layers=[2, 1], jobs=jobs
    )


def weights_in(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name / "model.safetensors").read_bytes() for name in ("2-layers", "1-layers")}


@pytest.fixture(scope="module")
def one_by_one(home):
    return compressed(home, home / "alone", 1)


@pytest.mark.slow
def test_students_and_trials_are_those_of_one_at_a_time(home, one_by_one, monkeypatch, caplog):
    """All have one thread. Nothing is left to be trained here: whoever asks for it is told that it is there."""

    def never(*args, **settings):
        raise AssertionError("this process trains")

    with monkeypatch.context() as patch, caplog.at_level("INFO", "layerstill"):
        patch.setattr(DistillationTrainer, "train", never)
        found = compressed(home, home / "together", 2)
    assert weights_in(home / "together") == weights_in(home / "alone")
    assert found.trials == one_by_one.trials
    assert [row.score for row in found.rows] == [row.score for row in one_by_one.rows]
    files = [
        {str(path.relative_to(home / name)) for path in (home / name).rglob("*") if path.name != TEACHER_FILE}
        for name in ("together", "alone")
    ]
    assert files[0] == files[1]
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if line.startswith("teacher on dev")]) == 1, "notes are shown, each of them once"


@pytest.mark.slow
def test_without_processes_everything_is_done_here(home, one_by_one, monkeypatch, caplog):
    monkeypatch.setattr(ahead, "WORKER", "layerstill.no_such_module")
    with caplog.at_level("INFO", "layerstill"):
        found = compressed(home, home / "nobody", 2)
    assert weights_in(home / "nobody") == weights_in(home / "alone")
    assert found.trials == one_by_one.trials
    assert any("could not be trained beside others" in record.getMessage() for record in caplog.records)


def errand_for(home, output: Path, teacher: str | None = None) -> ahead.Errand:
    task = task_in(home)
    ladder = climb_down(str(home / "teacher"), task, "quick", SETTINGS, [1])
    trial = ahead.Trial("1 layer", ladder.recipe(ladder.candidates[0], 2, ladder.students[0]), 1)
    plain = as_plain(task)
    assert plain is not None
    return ahead.Errand.of(output.name, teacher or ladder.teacher, plain, [trial], output, SETTINGS)


def test_an_errand_that_fails_leaves_the_process_for_the_next(home, tmp_path, caplog):
    """A rate that diverges, say: it is met again, and told, where its result is needed."""
    failing = errand_for(home, tmp_path / "failed", str(tmp_path / "nowhere"))
    with caplog.at_level("INFO", "layerstill"), ahead.Crew(1, 1) as crew:
        crew.do([failing, errand_for(home, tmp_path / "done")])
    assert (tmp_path / "done" / "result.json").is_file()
    assert not (tmp_path / "failed").exists()
    said = [record.getMessage() for record in caplog.records if "beside others" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("note: failed could not be trained beside others, so it is done alone (")
    assert "nowhere" in said[0]


def test_another_takes_the_place_of_a_process_that_died(home, tmp_path):
    with ahead.Crew(1, 1) as crew:
        crew._start(1)
        crew._processes[0]._process.kill()
        crew._processes[0]._process.wait()
        crew.do([errand_for(home, tmp_path / "done")])
    assert (tmp_path / "done" / "result.json").is_file()


def test_where_no_process_can_be_started_nothing_is_done_ahead(home, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with caplog.at_level("INFO", "layerstill"), ahead.Crew(2, 1) as crew:
        crew.do([errand_for(home, tmp_path / "out")])
    assert "another process cannot be started (No such file or directory)" in caplog.text
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_comes_out_as_another_is_not_used(home, tmp_path):
    errand = errand_for(home, tmp_path / "out")
    errand.trials[0]["hash"] = "another"
    with pytest.raises(ValueError, match="is another one in this process"):
        errand.do()
    assert not (tmp_path / "out").exists()


WAITING = """
import sys, time
from layerstill.acts.ahead import Crew
crew = Crew(1, 1)
crew._start(1)
print(crew._processes[0]._process.pid, flush=True)
time.sleep(100)
"""


def test_processes_go_when_the_one_that_started_them_is_killed():
    with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
        gone, _ = psutil.wait_procs([child], timeout=240)
    assert gone or child.status() == psutil.STATUS_ZOMBIE


def test_how_many_at_a_time(home, monkeypatch):
    task = task_in(home)
    short = climb_down(str(home / "teacher"), task, "normal", SETTINGS, [2, 1])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert side_by_side(short).count == 1, "starting processes would take as long"
    long = climb_down(str(home / "teacher"), task, "normal", Options(max_length=16), [2, 1])
    monkeypatch.setattr("layerstill.acts.ladder.FEWEST_SIDE_BY_SIDE", long.updates)
    found = side_by_side(long)
    assert (found.count, found.threads) == (2, 2)
    assert side_by_side(long, 4) == AtOnce(4, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert side_by_side(long).count == 1


def test_a_plan_counts_the_time_of_students_side_by_side(home, monkeypatch):
    ladder = climb_down(str(home / "teacher"), task_in(home), "normal", SETTINGS, [2, 1])
    monkeypatch.setattr("layerstill.acts.ladder._seconds_of", lambda ladder, one: 60.0)
    threads = torch.get_num_threads()
    alone, together = foreseen(ladder, 1), foreseen(ladder, 2)
    trained = [i for i, step in enumerate(alone) if step.updates]
    assert len(trained) == 3
    assert [2 * together[i].seconds for i in trained] == [alone[i].seconds for i in trained]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("each", "count", "wanted"), [([10, 2], 1, 12), ([10, 2], 2, 10), ([4, 3, 3, 2], 2, 6), ([3, 3], 9, 3)]
)
def test_the_longest_of_students_side_by_side_counts(each, count, wanted):
    assert _side_by_side_seconds(each, count) == wanted


@pytest.mark.parametrize("jobs", ["0", "many", "1.5"])
def test_other_numbers_of_jobs_are_refused(home, tmp_path, call, jobs):
    words = f"compress {home}/teacher --task classification --data {home}/data --output {tmp_path}/out --max-length 16"
    status, _, err = call([*words.split(), "--jobs", jobs])
    assert status == 2
    assert f"--jobs {jobs}: give a whole number from 1, or auto" in err
    assert not (tmp_path / "out").exists()
