"""Run a study: teachers first, then what waits for them, as many jobs at a time as the pool takes."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from layerstill.errors import UserError
from layerstill.studies.expand import Planned, tuned
from layerstill.studies.folder import StudyFolder
from layerstill.studies.job import Job, forget_cache, forget_model
from layerstill.studies.plan import StudyPlan
from layerstill.studies.pool import Pool, Reply
from layerstill.studies.tuning import Halving, JobError, Score, halve, jobs_in
from layerstill.studies.widening import edge_notes, edges, widened

Listener = Callable[[Job, Reply], None]


@dataclass
class StudyRun:
    """One call of a study.

    Args:
        plan: what is to be done.
        folder: where; locked by this process.
        keep_cache: leave what the teachers gave away on the disk.
        listener: called with every job that was done.
    """

    plan: StudyPlan
    folder: StudyFolder
    keep_cache: bool = False
    listener: Listener = lambda job, reply: None
    pool: Pool | None = None
    _shared: dict[Any, asyncio.Task[Any]] = field(default_factory=dict, repr=False)
    _halvings: dict[tuple[Any, ...], Halving] = field(default_factory=dict, repr=False)
    _settled_runs: dict[int, Planned] = field(default_factory=dict, repr=False)
    _waiting: Counter[str] = field(default_factory=Counter, repr=False)

    async def run(self, pool: Pool) -> list[dict[str, Any]]:
        """Do everything that is not done; the records. The pool is closed in any case."""
        self.pool = pool
        for run in self.plan.runs:
            self._waiting[self._cache(run)] += 1
            self.folder.set_failure(self._key(run), None)
        self._write()
        try:
            await asyncio.gather(*(self._run(run) for run in self.plan.runs))
        finally:
            await pool.close()
        if not self.keep_cache:
            forget_cache(self.plan.output / "cache")  # with what an earlier call that was killed left behind
        self._write()
        return self.records()

    async def _run(self, run: Planned) -> None:
        """One run with everything before it; its failure is kept and stops nobody."""
        try:
            await self._teacher(run)
            done = await self._tuned(run)
            job = self.plan.run_job(done)
            reply = await self._once(job)
            if reply is not None and reply.error is not None:
                raise JobError(reply.error)
        except UserError as error:
            self.folder.set_failure(self._key(run), str(error))
        else:
            if self.plan.study.keep == "results":
                forget_model(self.plan.output / "runs" / job["hash"])
        self._release(run)
        self._write()

    async def _teacher(self, run: Planned) -> None:
        job = self.plan.teacher_job(run)
        if job is None:
            return
        reply = await self._once(job)
        if reply is not None and reply.error is not None:
            raise JobError(f"its teacher {job['hash']} failed: {reply.error}")

    async def _tuned(self, run: Planned) -> Planned:
        tune = self.plan.study.tune
        if tune is None:
            return run
        group = run.group(tune.per)
        await self._share(("tune", group), lambda: self._halve(group))
        settled = self._settled(run)
        assert settled is not None
        return settled

    async def _halve(self, group: tuple[Any, ...]) -> Halving:
        tune = self.plan.study.tune
        assert tune is not None
        found = self._halvings.get(group)
        if found is None:
            found = await self._search(self._scorer(group, self._trained))
        self._halvings[group] = found
        self.folder.write_tuning(self._tuning_record())
        return found

    async def _search(self, score: Score) -> Halving:
        tune = self.plan.study.tune
        assert tune is not None
        found = await halve(tune.candidates(), tune.rungs, score)
        return await widened(found, tune.widen, score) if tune.widen else found

    def _scorer(self, group: tuple[Any, ...], score: Callable[[Job, str], Awaitable[float | None]]) -> Any:
        """A candidate's mean score over the first seeds; `score` gives that of one job by the name of its metric."""
        plan, tune = self.plan, self.plan.study.tune
        assert tune is not None
        runs = [run for run in plan.runs if run.group(tune.per) == group]
        others = [axis for axis in plan.study.axes if axis != "seed"]
        alike = [run for run in runs if run.group(others) == runs[0].group(others)][: tune.seeds]
        if len(alike) < tune.seeds:
            raise UserError(f"tune.seeds {tune.seeds}: the study has only {len(alike)} seeds to tune with")

        async def mean(values: dict[str, Any], share: float) -> float | None:
            jobs = [plan.tuning_job(run, values, run.settings.seed, share) for run in alike]
            scores = await asyncio.gather(*(score(job, plan.metric(runs[0])) for job in jobs))
            good = [s for s in scores if s is not None]
            return fmean(good) if len(good) == len(scores) else None

        return mean

    async def _trained(self, job: Job, metric: str) -> float | None:
        reply = await self._once(job)
        if reply is not None and reply.error is not None:
            if not reply.refused:
                raise JobError(f"tuning run {job['hash']} failed: {reply.error}")
            # It diverged, say: a candidate that cannot be trained is not chosen, then or when the study is asked again.
            self.folder.set_failure(job["hash"], reply.error)
            return None
        result = self.folder.result(job["folder"])
        assert result is not None
        forget_model(self.plan.output / "tuning" / job["hash"])
        return result.scores[metric]

    async def _once(self, job: Job) -> Reply | None:
        """Do a job unless it is finished (None) or being done already (its reply)."""
        return await self._share(job["hash"], lambda: self._perform(job))

    async def _perform(self, job: Job) -> Reply | None:
        if self.folder.result(job["folder"]) is not None:
            return None
        assert self.pool is not None
        reply = await self.pool.perform(job)
        if reply.error is None and self.folder.result(job["folder"]) is None:
            reply = Reply("the job left no result.json", False, reply.seconds)
        if reply.error is None:
            self.folder.add_duration(job["kind"], job["hash"], reply.seconds)
        self.listener(job, reply)
        return reply

    async def _share(self, key: Any, make: Callable[[], Awaitable[Any]]) -> Any:
        """The outcome of something that several runs wait for and one starts."""
        if key not in self._shared:
            self._shared[key] = asyncio.ensure_future(make())
        return await self._shared[key]

    def _cache(self, run: Planned) -> str:
        return str(self.plan.run_job(run)["cache"])

    def _release(self, run: Planned) -> None:
        place = self._cache(run)
        self._waiting[place] -= 1
        if not self._waiting[place] and place != "off" and not self.keep_cache:
            forget_cache(Path(place))

    def _key(self, run: Planned) -> str:
        """What failures are kept under: the run's hash before tuning."""
        return str(self.plan.run_job(run)["hash"])

    def _settled(self, run: Planned) -> Planned | None:
        """The run with what tuning chose; None while that is not known."""
        tune = self.plan.study.tune
        if tune is None:
            return run
        group = run.group(tune.per)
        if group not in self._halvings:
            return None
        if id(run) not in self._settled_runs:
            chosen = self._halvings[group].chosen
            self._settled_runs[id(run)] = tuned(self.plan.study, self.plan.file_folder, run, chosen)
        return self._settled_runs[id(run)]

    def recall_tuning(self) -> None:
        """Find out what finished tuning runs chose, without training anything."""
        tune = self.plan.study.tune
        for group in {run.group(tune.per): None for run in self.plan.runs} if tune else ():
            assert tune is not None

            async def score(job: Job, metric: str) -> float | None:
                result = self.folder.result(job["folder"])
                if result is None and self.folder.failure(job["hash"]) is not None:
                    return None
                if result is None:
                    raise JobError(f"tuning run {job['hash']} is not finished")
                return result.scores[metric]

            try:
                self._halvings[group] = asyncio.run(self._search(self._scorer(group, score)))
            except (JobError, UserError):
                continue

    def states(self) -> list[tuple[Planned, str, str]]:
        """Each run with its hash and whether it is `finished`, `failed` or `to do`."""
        found = []
        for run in self.plan.runs:
            settled = self._settled(run)
            job = self.plan.run_job(settled or run)
            if settled is not None and self.folder.result(job["folder"]) is not None:
                found.append((run, str(job["hash"]), "finished"))
            else:
                failed = self.folder.failure(self._key(run)) is not None
                found.append((run, str(job["hash"]), "failed" if failed else "to do"))
        return found

    def jobs(self) -> Counter[str]:
        """How many jobs of each kind the study has, done or not."""
        teachers = {job["hash"] for run in self.plan.runs if (job := self.plan.teacher_job(run)) is not None}
        found = Counter(teacher=len(teachers), run=len({key for _, key, _ in self.states()}))
        if tune := self.plan.study.tune:
            groups = {run.group(tune.per) for run in self.plan.runs}
            found["tuning"] = len(groups) * jobs_in(len(tune.candidates()), len(tune.rungs), tune.seeds)
        return found

    def left(self) -> Counter[str]:
        """How many jobs of each kind are still to be done."""
        jobs = {job["hash"]: job for run in self.plan.runs if (job := self.plan.teacher_job(run)) is not None}
        left = Counter(teacher=sum(self.folder.result(job["folder"]) is None for job in jobs.values()))
        left["run"] = len({key for _, key, state in self.states() if state != "finished"})
        if tune := self.plan.study.tune:
            groups = {run.group(tune.per) for run in self.plan.runs} - set(self._halvings)
            left["tuning"] = len(groups) * jobs_in(len(tune.candidates()), len(tune.rungs), tune.seeds)
        return left

    def records(self) -> list[dict[str, Any]]:
        """A record for every finished or failed run, in the order of the grid."""
        records = []
        tune = self.plan.study.tune
        for run, key, state in self.states():
            if state == "to do":
                continue
            result = self.folder.result(str(self.plan.output / "runs" / key)) if state == "finished" else None
            record = {"hash": key, "status": state, "coordinates": run.coordinates, "seed": run.settings.seed}
            if tune and run.group(tune.per) in self._halvings:
                record["tuned"] = self._halvings[run.group(tune.per)].chosen
            record |= {
                "result": result and result.to_data(),
                "error": None if result else self.folder.failure(self._key(run)),
            }
            records.append(record)
        return records

    def _tuning_record(self) -> list[dict[str, Any]]:
        tune = self.plan.study.tune
        assert tune is not None
        groups = {run.group(tune.per): None for run in self.plan.runs}
        return [
            {"group": dict(zip(tune.per, group, strict=True)), "chosen": found.chosen, "rungs": found.rungs}
            | ({"widened": found.widened} if found.widened else {})
            | ({"edge": at} if (at := edges(found)) else {})
            for group in groups
            if (found := self._halvings.get(group)) is not None
        ]

    def tuning_notes(self) -> list[str]:
        """Lines about choices that a wider grid might have made better."""
        tune = self.plan.study.tune
        return edge_notes(self._tuning_record(), tune.widen) if tune else []

    def _write(self) -> None:
        self.folder.write_records(self.records())
