"""The act `study`, and the jobs that its workers do."""

import asyncio
import logging
import os
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import transformers

from layerstill.acts.distill import distill
from layerstill.acts.finetune import finetune
from layerstill.atomic import write_json
from layerstill.errors import UserError
from layerstill.recipe import Recipe
from layerstill.studies.capacity import AtOnce, Jobs, Machine, given, jobs_of, most_at_once
from layerstill.studies.file import Study, load_study
from layerstill.studies.folder import StudyFolder
from layerstill.studies.job import Job, out_of_domain, scores_on, supplementary_of, with_steps
from layerstill.studies.plan import StudyPlan
from layerstill.studies.pool import LocalPool, Pool
from layerstill.studies.run import Listener, StudyRun
from layerstill.studies.stage_split import stage_split
from layerstill.studies.tasks import task_of
from layerstill.training.arguments import Options
from layerstill.training.cache_choice import CacheOptions
from layerstill.training.records import JOB_FILE

WORKER = "layerstill.acts.worker"
"""The program of a worker process."""


def study(
    file: str | Path,
    output: str | Path,
    data: str | Path | None = None,
    ood_data: str | Path | None = None,
    jobs: Jobs = 1,
    quick: bool = False,
    ray: str | None = None,
    teachers: str | Path | None = None,
    cache_budget: float = 4.0,
    keep_cache: bool = False,
) -> list[dict[str, Any]]:
    """Do what is missing of a grid of runs; the records of all that are finished or failed.

    Args:
        file: the study file.
        output: the study's folder.
        data: a folder in the GLUE layout.
        ood_data: the folder that out-of-domain sets are in.
        jobs: runs at a time; `auto` for as many as give the most steps a second on this machine.
        quick: the small version that the file's section `quick` says.
        ray: the address of a Ray cluster, or `local`; without it the jobs run in worker processes of this machine.
        teachers: a folder of teachers that several studies share.
        cache_budget: largest teacher cache in GB.
        keep_cache: leave the teacher caches on the disk.

    UserError for a study that cannot be started; runs that fail are records.
    """
    ready = prepare(file, output, data, ood_data, quick, teachers, cache_budget, keep_cache)
    return ready.carry_out(ready.at_once(jobs, ray), ray)


@dataclass(frozen=True)
class Prepared:
    """A study that was read and checked, before anything is done."""

    study: Study
    folder: StudyFolder
    run: StudyRun
    quick: bool

    def notes(self) -> list[str]:
        """Lines that a user should see with the runs: how stages share their updates, choices at the edge of a grid."""
        split = stage_split(self.run.plan)
        return [*([split] if split else []), *self.run.tuning_notes()]

    def at_once(self, jobs: Jobs = 1, ray: str | None = None) -> AtOnce:
        """How many runs at a time; UserError for what is no number, and for `auto` with Ray, whose machines are others
        than this."""
        wanted = jobs_of(str(jobs))
        if wanted != "auto":
            return given(wanted)
        if ray is not None:
            raise UserError(f"--jobs auto looks at this machine only; with --ray {ray} give a number")
        every, left = (sum(counted.values()) for counted in (self.run.jobs(), self.run.left()))
        return most_at_once(Machine.here(), self.run.plan.memory_mb, every, left)

    def carry_out(
        self, at_once: AtOnce, ray: str | None = None, listener: Listener = lambda job, reply: None
    ) -> list[dict[str, Any]]:
        """Do what is missing, so many jobs at a time; `listener` is told every job that was done."""
        self.run.listener = listener

        def pool() -> Pool:
            if ray is None:
                return LocalPool(at_once.count, self.folder.path / "logs", WORKER, at_once.threads)
            from layerstill.studies.ray import RayPool  # only who asks for Ray imports it

            return RayPool(ray, at_once.count, answer_quietly)

        with self.folder.open(self.study, self.quick):
            return _until_terminated(self.run, pool)


def prepare(
    file: str | Path,
    output: str | Path,
    data: str | Path | None = None,
    ood_data: str | Path | None = None,
    quick: bool = False,
    teachers: str | Path | None = None,
    cache_budget: float = 4.0,
    keep_cache: bool = False,
) -> Prepared:
    """Read and check a study; the arguments are those of `study`. UserError for a study that cannot be started."""
    CacheOptions(budget_gb=cache_budget)  # refuses what is no budget
    file, output = Path(file), Path(output)
    the_study = load_study(file, quick)
    folder = StudyFolder(output)
    folder.refuse_others(the_study)
    places = [None if place is None else Path(place) for place in (data, ood_data, teachers)]
    plan = StudyPlan(the_study, file.parent, output, places[0], places[1], cache_budget, places[2])
    plan.check()
    run = StudyRun(plan, folder, keep_cache)
    run.recall_tuning()
    return Prepared(the_study, folder, run, quick)


def _until_terminated(run: StudyRun, pool: Callable[[], Pool]) -> list[dict[str, Any]]:
    before = signal.getsignal(signal.SIGTERM)

    async def main() -> list[dict[str, Any]]:
        # An exception out of a signal handler could be lost in the loop; cancelling ends the workers, too.
        this = asyncio.current_task()
        assert this is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
        # Made inside the loop that it works in.
        return await run.run(pool())

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def perform(job: Job) -> None:
    """Do the job; when this returns, its folder holds a finished run."""
    task = task_of(job)
    recipe = Recipe.from_data(job["recipe"], "recipe")
    texts = supplementary_of(job)
    sizes = {"task": len(task.splits["train"]), "supplementary": len(texts.texts) if texts else 0}
    recipe = with_steps(recipe, sizes, job["total_steps"], job["max_steps"], job["share"])
    options = Options(
        seed=job["seed"],
        max_length=job["max_length"],
        max_steps=job["max_steps"],
        precision=job["precision"],
        progress=False,
        cache=CacheOptions(job.get("cache", "off"), job.get("cache_budget", 4.0), job.get("cache_runs")),
    )
    _keep(job)
    if job["kind"] == "teacher":
        finetune(job["model"], task, job["folder"], recipe, options)
        return
    more = out_of_domain(job, task) | {"teacher_metrics": scores_on(Path(job["teacher"]), job), "supplementary": texts}
    layers, start = job["student_layers"], job["init_from"]
    distill(job["teacher"], task, recipe, layers, job["folder"], options, start, **more)


def _keep(job: Job) -> None:
    """Write the job into its run's folder, ahead of the run, so that no finished run is without it."""
    folder = Path(job["folder"])
    for path in (folder / JOB_FILE, folder / f".{JOB_FILE}.part"):
        if path.is_symlink():
            raise UserError(f"{path}: a symbolic link, which could lead to files elsewhere; remove it")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / JOB_FILE, job)


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job: `error` is None or one line, `refused` whether the line is layerstill's own, and `seconds`."""
    begun = time.perf_counter()
    error, refused = None, False
    try:
        perform(job)
    except UserError as problem:
        error, refused = " ".join(str(problem).split()), True
    except Exception as problem:  # a failed run is a record; the traceback is for the log
        traceback.print_exc()
        error = " ".join(f"{type(problem).__name__}: {problem}".split())
    return {"hash": job["hash"], "error": error, "refused": refused, "seconds": time.perf_counter() - begun}


def quieten() -> None:
    """No progress bars; notes of layerstill go to standard error, which is the worker's log."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("layerstill").setLevel(logging.INFO)


def answer_quietly(job: dict[str, Any]) -> dict[str, Any]:
    """`answer` in a process that others share."""
    quieten()
    return answer(job)
