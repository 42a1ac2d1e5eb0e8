"""Worker processes: who does a job, and that it does not matter what a process did before."""

import asyncio
import os
import shutil
from pathlib import Path

from layerstill.acts.study import WORKER
from layerstill.studies import pool
from layerstill.studies.pool import LocalPool, Reply
from tests.studies.small import make_place, plan_of, write_study


def done_by(workers: LocalPool, jobs: list[dict]) -> list[Reply]:
    """The replies to jobs that are done one after the other."""

    async def all_of_them():
        try:
            return [await workers.perform(job) for job in jobs]
        finally:
            await workers.close()

    return asyncio.run(all_of_them())


def test_a_process_does_so_many_jobs_and_one_after_a_bug_is_another(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "MOST_JOBS", 3)
    ends = ["well", "refused", "well", "well", "bug", "well", "dead", "well"]
    replies = done_by(LocalPool(1, tmp_path, "tests.studies.echo_worker"), [{"ends": end} for end in ends])
    processes = [reply.seconds for reply in replies]
    # Three jobs; a refusal harms nobody. Two, of which the last is a bug. One, and the job that it dies over. One.
    assert processes[0] == processes[1] == processes[2] != processes[3] == processes[4] != processes[5]
    assert len({processes[0], processes[3], processes[5], processes[7]}) == 4
    assert [reply.error for reply in replies[:6]] == [None, "refused", None, None, "bug", None]
    assert replies[6].error.startswith("the worker process died (exit status 3)")
    assert replies[7].error is None
    for process in processes[:6]:
        assert not os.path.exists(f"/proc/{process}")


def test_a_run_is_the_same_bit_for_bit_in_a_process_that_did_others_before(tmp_path):
    """One worker does all jobs, with what it keeps of their data; another one does the last alone."""
    axes = {"recipe": ["kd", "att-kl"], "seed": [0]}
    regime = {"regime": {"few_samples": 10}, "precision": "fp32", "max_length": 16}
    places = {}
    for name in ("after others", "alone"):
        plan = plan_of(write_study(make_place_in(tmp_path), axes=axes, base=regime), tmp_path / name)
        teacher, first, last = plan.teacher_job(plan.runs[0]), *map(plan.run_job, plan.runs)
        places[name] = Path(last["folder"])
        if name == "after others":
            jobs = [teacher, first, last]
        else:
            shutil.copytree(tmp_path / "after others" / "teachers", tmp_path / name / "teachers")
            jobs = [last]
        assert [reply.error for reply in done_by(LocalPool(1, tmp_path, WORKER), jobs)] == [None] * len(jobs)
    for file in ("model.safetensors", "predictions.safetensors"):
        one, other = ((place / file).read_bytes() for place in places.values())
        assert one == other


def make_place_in(folder: Path) -> Path:
    place = folder / "place"
    if not place.exists():
        place.mkdir()
        make_place(place)
    return place
