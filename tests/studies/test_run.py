"""Whole studies: shared teachers, skipping, failures that stop nobody, kills, the table, the command line."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from layerstill.acts.study import WORKER, perform
from layerstill.errors import UserError
from layerstill.reporting.study import cells, expected, spoken
from layerstill.studies.folder import RECORDS_FILE, StudyFolder
from layerstill.studies.pool import LocalPool
from tests.studies.small import Here, comparable, make_place, plan_of, run_here, write_study


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("studies"))


def read_records(output):
    return [json.loads(line) for line in (output / RECORDS_FILE).read_text("utf-8").splitlines()]


def test_supplementary_texts_take_their_share_of_the_updates(place, tmp_path):
    (place / "texts.txt").write_text("some film or other\n" * 50, "utf-8")
    arm = {"name": "texts", "recipe": "l-ild-supplementary", "supplementary": "texts.txt"}
    arm["set"] = {"stages.0.epochs": 3, "stages.1.epochs": 1}
    records, _ = run_here(write_study(place, axes={"recipe": [arm], "seed": [0]}), tmp_path / "out")
    (record,) = records
    assert record["result"]["train"]["steps"] == 4
    folder = tmp_path / "out" / "runs" / record["hash"]
    result = json.loads((folder / "result.json").read_text("utf-8"))
    assert result["supplementary"]["examples"] == 50
    stages = [json.loads(line)["stage"] for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert set(stages) == {1, 2}
    job = json.loads((folder / "job.json").read_text("utf-8"))
    (place / "texts.txt").write_text("another film\n" * 50, "utf-8")
    with pytest.raises(UserError, match="texts.txt: changed since the study began"):
        perform(job | {"folder": str(tmp_path / "again")})


def test_teachers_come_once_and_first_and_what_is_finished_is_skipped(place, tmp_path):
    file = write_study(place)
    records, pool = run_here(file, tmp_path / "out")
    assert [job["kind"] for job in pool.jobs] == ["teacher", "run", "run", "run", "run"]
    assert [(r["status"], r["coordinates"], r["seed"]) for r in records] == [
        ("finished", {"recipe": recipe, "seed": seed}, seed) for recipe in ("kd", "att-kl") for seed in (0, 1)
    ]
    assert read_records(tmp_path / "out") == records
    assert {r["result"]["train"]["steps"] for r in records} == {4}
    assert not (tmp_path / "out" / "cache").exists()
    # Nothing is left to do, and a wider grid does what is new.
    again, pool = run_here(file, tmp_path / "out")
    assert not pool.jobs
    assert again == records
    wider = write_study(place, axes={"recipe": ["kd", "att-kl", "finetune"], "seed": [0, 1]}, keep="results")
    more, pool = run_here(wider, tmp_path / "out", keep_cache=True)
    assert [job["recipe"]["name"] for job in pool.jobs] == ["finetune", "finetune"]
    assert more[:4] == records
    assert {path.name for path in (tmp_path / "out" / "runs").rglob("*.safetensors")} == {"predictions.safetensors"}
    assert list((tmp_path / "out" / "teachers").rglob("model.safetensors"))


def test_teachers_are_made_side_by_side_and_a_run_waits_for_its_own_only(place, tmp_path):
    """The first teacher is not done before the second has begun, and that one not before a run of the first is."""

    class Rendezvous(Here):
        def __init__(self):
            super().__init__()
            self.both_begun, self.run_done = asyncio.Event(), asyncio.Event()

        async def perform(self, job):
            teachers = [one for one in self.jobs if one["kind"] == "teacher"]
            if job["kind"] == "teacher" and teachers:
                self.both_begun.set()
                await asyncio.wait_for(self.run_done.wait(), 30)
            elif job["kind"] == "teacher":
                self.jobs.append(job)
                await asyncio.wait_for(self.both_begun.wait(), 30)
                self.jobs.remove(job)
            reply = await super().perform(job)
            if job["kind"] == "run":
                self.run_done.set()
            return reply

    axes = {"teacher.learning_rate": [1e-3, 2e-3], "seed": [0]}
    records, pool = run_here(write_study(place, axes=axes), tmp_path / "out", Rendezvous())
    assert [r["status"] for r in records] == ["finished", "finished"]
    assert [job["kind"] for job in pool.jobs] == ["teacher", "run", "teacher", "run"]


def test_two_names_for_the_same_run_are_one_job(place, tmp_path):
    axes = {"recipe": ["kd", {"name": "kd again", "recipe": "kd"}]}
    records, pool = run_here(write_study(place, axes=axes), tmp_path / "out")
    assert [job["kind"] for job in pool.jobs] == ["teacher", "run"]
    assert [r["coordinates"]["recipe"] for r in records] == ["kd", "kd again"]
    assert records[0]["result"] == records[1]["result"]


def test_a_failed_teacher_fails_its_runs_and_no_others(place, tmp_path):
    axes = {"teacher.learning_rate": [1e30, 1e-3], "seed": [0]}
    file = write_study(place, axes=axes)
    records, pool = run_here(file, tmp_path / "out")
    assert [r["status"] for r in records] == ["failed", "finished"]
    assert "its teacher" in records[0]["error"]
    assert "became nan" in records[0]["error"]
    assert records[0]["result"] is None
    assert records[1]["error"] is None
    # The next call tries again what failed, and only that.
    again, more = run_here(file, tmp_path / "out")
    assert [job["hash"] for job in more.jobs] == [pool.jobs[0]["hash"]]
    assert again == records


def test_a_bug_is_a_record_too(place, tmp_path):
    class Broken(Here):
        async def perform(self, job):
            return await super().perform(job | {"max_length": None} if job["seed"] == 1 else job)

    records, _ = run_here(write_study(place, axes={"seed": [0, 1]}), tmp_path / "out", Broken())
    assert [r["status"] for r in records] == ["finished", "failed"]
    assert records[1]["error"].startswith("TypeError: ")


def test_the_command_line_with_a_kill_two_workers_and_failures(place, tmp_path, call):
    # A learning rate that breaks two of four runs, then one that does not.
    bad = {"name": "kd", "recipe": "kd", "set": {"stages.0.learning_rate": 1e30}}
    good = {"name": "kd", "recipe": "kd"}
    out = tmp_path / "out"
    quick = {"axes.seed": [0]}
    file = write_study(place, "cli", axes={"recipe": [bad, "att-kl"], "seed": [0, 1]})
    status, printed, err = call(f"study {file} --output {out} --dry-run")
    assert status == 0, err
    assert "4 runs, 0 finished; left: 1 teachers, 4 runs, unknown until a run is finished" in printed
    assert not out.exists()
    # Stopped or killed in the middle of the teacher, its worker goes with it.
    mark = f"STUDY_UNDER_TEST={tmp_path}"
    command = [sys.executable, "-m", "layerstill", "study", str(file), "--output", str(out), "--quiet"]
    for end in (signal.SIGTERM, signal.SIGKILL):
        attempt = subprocess.Popen(
            command, env=os.environ | dict([mark.split("=", 1)]), stderr=subprocess.PIPE, text=True
        )
        while len(marked_processes(mark)) < 2 and attempt.poll() is None:
            time.sleep(0.01)
        attempt.send_signal(end)
        _, said = attempt.communicate()
        deadline = time.monotonic() + 20
        while marked_processes(mark) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not marked_processes(mark)
        assert attempt.returncode == (128 + end if end == signal.SIGTERM else -end)
        assert ("terminated; the same command resumes" in said) == (end == signal.SIGTERM)
    status, printed, err = call(f"study {file} --output {out} --jobs 2")
    assert status == 1
    assert "2 of 4 runs failed; the same command tries them again" in err
    assert "recipe kd, seed 0: " in err
    assert "became nan" in err
    assert [r["status"] for r in read_records(out)] == ["failed", "failed", "finished", "finished"]
    status, printed, _ = call(f"study {file} --output {out} --dry-run --json")
    assert [row["state"] for row in json.loads(printed)] == ["failed", "failed", "finished", "finished"]
    file = write_study(place, "cli", axes={"recipe": [good, "att-kl"], "seed": [0, 1]})
    _, printed, _ = call(f"study {file} --output {out} --dry-run")
    assert "4 runs, 2 finished; left: 2 runs, about" in printed
    file = write_study(place, "cli", axes={"recipe": ["att-kl"], "seed": [0, 1]}, quick=quick)
    status, printed, err = call(f"study {file} --output {out} --json --quick")
    assert status == 0, err
    (row,) = json.loads(printed)
    assert row["coordinates"] == {"recipe": "att-kl"}
    assert (row["n"], row["metric"]) == (1, "accuracy")


def test_mistakes_leave_no_folder_and_status_2(place, tmp_path, call):
    file = write_study(place, "wrong", axes={"recipe": ["nope"]})
    for words, message in [
        (f"{file} --output {tmp_path}/out", "unknown recipe 'nope'"),
        (f"{place}/none.yaml --output {tmp_path}/out", "study file"),
        (f"{write_study(place)} --output {tmp_path}/out --quick", "no section quick"),
        (f"{write_study(place)} --output {tmp_path}/out --cache-budget 0", "--cache-budget 0.0"),
    ]:
        status, _, err = call(f"study {words}")
        assert status == 2
        assert message in err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_second_process_is_refused(place, tmp_path, call):
    file = write_study(place)
    with StudyFolder(tmp_path / "out").open(plan_of(file, tmp_path / "out").study, False):
        status, _, err = call(f"study {file} --output {tmp_path}/out")
    assert status == 2
    assert f"process {os.getpid()} is working in this folder" in err


def test_a_dead_worker_is_a_failed_job_and_is_replaced(tmp_path):
    async def story():
        pool = LocalPool(1, tmp_path, WORKER)
        worker = pool.workers[0]
        try:
            asking = asyncio.ensure_future(pool.perform({"hash": "x"}))
            while worker._process is None:
                await asyncio.sleep(0.01)
            process = worker._process
            os.kill(process.pid, signal.SIGKILL)
            return await asking, await pool.perform({"hash": "x"}), process.returncode
        finally:
            await pool.close()

    first, second, returncode = asyncio.run(story())
    assert first.error.startswith("the worker process died (killed by SIGKILL); see ")
    assert second.error == "KeyError: 'source'"
    assert not first.refused
    assert not second.refused
    assert returncode == -signal.SIGKILL
    assert "Traceback" in (tmp_path / "worker-1.log").read_text("utf-8")


def run_until(file, output, events: int) -> int:
    """Run a study in a child that kills itself at a file operation in `output`; its status, negative for the signal."""
    child = os.fork()
    if child == 0:
        seen = 0

        def watch(event: str, arguments: tuple) -> None:
            nonlocal seen
            if event in {"open", "os.rename", "os.remove", "os.mkdir"} and str(arguments[0]).startswith(str(output)):
                seen += 1
                if seen == events:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            try:
                run_here(file, output)
                os._exit(0)
            finally:
                os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_a_study_killed_again_and_again_ends_with_the_same_records_and_models(place, tmp_path):
    tune = {"learning_rate": [1e-3, 1e-2], "per": ["recipe"], "held_out": 0.25, "rungs": [1]}
    file = write_study(place, "killed", tune=tune, base={"precision": "fp32"}, axes={"recipe": ["att-kl"]})
    whole, _ = run_here(file, tmp_path / "whole")
    out = tmp_path / "out"
    rng = random.Random(0)
    statuses = []
    while 0 not in statuses:
        statuses.append(run_until(file, out, rng.randrange(40, 200)))
        assert statuses[-1] in (0, -signal.SIGKILL)
    assert len(statuses) > 3
    assert comparable(read_records(out)) == comparable(whole)
    assert (out / "tuning.json").read_text("utf-8") == (tmp_path / "whole" / "tuning.json").read_text("utf-8")
    for one in whole:
        model = f"runs/{one['hash']}/model.safetensors"
        assert (out / model).read_bytes() == (tmp_path / "whole" / model).read_bytes()
    assert not (out / "cache").exists()


def marked_processes(mark: str) -> list[int]:
    """Processes that have inherited a mark in their environment."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    found += [int(entry)] * (mark.encode() in file.read().split(b"\0"))
            except OSError:
                continue
    return found


def record(recipe, seed, score=None, teacher=0.9, **more):
    result = score and {
        "metrics": {"accuracy": score, "f1": 0.1, "selected": "last"},
        "teacher_metrics": {"accuracy": teacher},
    }
    status = "finished" if score else "failed"
    return {"coordinates": {"recipe": recipe, "seed": seed}, "status": status, "result": result, **more}


def test_the_table_has_mean_sample_deviation_and_n():
    rows = cells([record("kd", 0, 0.5), record("kd", 1, 0.7), record("pkd", 0, 0.6), record("pkd", 1)], "accuracy")
    assert rows[0]["mean"] == pytest.approx(0.6)
    assert rows[0]["sd"] == pytest.approx(0.02**0.5)
    assert (rows[0]["n"], rows[0]["failed"], rows[0]["teacher"]) == (2, 0, pytest.approx(0.9))
    assert (rows[1]["mean"], rows[1]["sd"], rows[1]["n"], rows[1]["failed"]) == (0.6, None, 1, 1)
    assert cells([record("kd", 0, 0.5)], "f1")[0]["mean"] == 0.1
    assert cells([record("kd", 0, 0.5)], "pearson")[0]["metric"] == "accuracy"
    assert cells([record("kd", 0)], None)[0]["mean"] is None


def test_the_estimate_adds_up():
    assert expected({"run": 10, "teacher": 2, "tuning": 5}, {"run": 6.0, "teacher": 30.0}, 2) == (60 + 60 + 30) / 2
    assert expected({"run": 1}, {}, 1) is None
    assert (spoken(None), spoken(59.1)) == ("unknown until a run is finished", "about 60 s")
    assert (spoken(600), spoken(7260)) == ("about 10 min", "about 2 h 1 min")
