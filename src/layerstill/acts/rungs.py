"""Short trainings of candidates, compared on a slice of train, and longer ones of the better half: successive halving.

Jamieson and Talwalkar, arXiv 1502.07943. Every finished training is a record in the folder, so that a second call with
the same candidates trains only what is missing.
"""

import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from layerstill.atomic import read_json, write_json
from layerstill.data.tasks import Task
from layerstill.errors import ObjectiveError, UserError
from layerstill.progress import showing
from layerstill.recipe import Recipe
from layerstill.result import Result
from layerstill.studies.job import with_steps
from layerstill.studies.tuning import survivors
from layerstill.training import processes
from layerstill.training.arguments import Options
from layerstill.training.records import PLACES, settings_of

log = logging.getLogger("layerstill")


@dataclass(frozen=True)
class Trial:
    """A candidate: a recipe, and the student that it trains."""

    name: str
    recipe: Recipe
    student_layers: int | None = None
    init_from: str | None = None


@dataclass(frozen=True)
class Tried:
    """One short training of a candidate."""

    trial: Trial
    updates: int
    score: float | None
    """The task's first metric on the slice; None for a candidate whose training went out of bounds."""
    distance: float | None
    """What decides between equal scores: how far it is from its teacher, or from the gold labels. Lower is better."""
    seconds: float
    error: str | None = None
    """Why there is no score."""


def ranks_of(tried: Sequence[Tried], examples: int) -> list[tuple[float, float] | None]:
    """What a rung's candidates are ordered by, higher is better; None for one that could not be trained.

    Scores that differ by less than the standard error of the best, on so many `examples`, count as equal: a slice is
    small. Of these the one nearer to what it should say is better, which is measured on every logit.
    """
    scores = [one.score for one in tried if one.score is not None]
    if not scores:
        return [None] * len(tried)
    best = max(scores)
    share = min(max(best, 0.0), 1.0)
    near = best - math.sqrt(share * (1 - share) / max(examples, 1))
    return [None if t.score is None else (min(t.score, near), -(t.distance or 0.0)) for t in tried]


@dataclass(frozen=True)
class Trials:
    """What was tried, rung by rung, and what was chosen."""

    chosen: Trial
    rungs: list[list[Tried]]
    seconds: float
    """Of all trainings, those of earlier calls included."""

    def record(self) -> list[dict[str, Any]]:
        """Plain data: each rung with its updates, and the candidates with their scores."""
        return [
            {
                "updates": rung[0].updates,
                "candidates": [{"name": t.trial.name, "score": t.score, "distance": t.distance} for t in rung],
            }
            for rung in self.rungs
        ]


Train = Callable[[Trial, Path, Options], Result]
"""Trains a trial, whose recipe is as long as the rung, on the slice's task in a folder."""
Ahead = Callable[[Sequence[Trial], int], None]
"""Is told which trials come next and for how many updates, and may have done some of them when it returns."""
Judge = Callable[[Path], float]
"""How far the model in a finished run's folder is from what it should say; lower is better."""


def climb(
    trials: Sequence[Trial],
    rungs: Sequence[int],
    task: Task,
    folder: Path,
    options: Options,
    train: Train,
    judge: Judge,
    identity: str = "",
    supplementary: int = 0,
    ahead: Ahead = lambda trials, updates: None,
) -> Trials:
    """Train every trial for the first rung's updates, the better half for the next rung's, and so on.

    Args:
        trials: the candidates, ordered by `ranks_of`. Of equal ones, the first wins.
        rungs: optimiser steps of all stages together, rising. Each training starts anew, because a learning-rate
            schedule is as long as its run.
        task: what they are trained on; its dev split decides.
        folder: where records and unfinished trainings are kept.
        options: how to run; `max_steps` has no say here.
        train: trains one.
        judge: decides between equal scores.
        identity: stands for what else the trainings depend on, a teacher's weights for one.
        supplementary: number of supplementary texts, for stages on them.
        ahead: is called before every rung; records that it leaves in the folder are read.

    UserError if none of them can be trained.
    """
    if processes.is_first():
        folder.mkdir(parents=True, exist_ok=True)
    sizes = {"task": len(task.splits["train"]), "supplementary": supplementary}
    options = replace(options, max_steps=None, trackers=())
    left, done = list(trials), []
    for number, updates in enumerate(rungs):
        ahead(left, updates)
        tried = []
        for trial in left:
            shortened = replace(trial, recipe=with_steps(trial.recipe, sizes, updates, None, 1))
            with showing(what=f"candidate {trial.name}"):
                tried.append(_once(trial, shortened, updates, task, folder, options, train, judge, identity))
        done.append(tried)
        if all(one.score is None for one in tried):
            raise UserError(f"none of the {len(tried)} candidates can be trained: {tried[0].error}")
        left = [left[i] for i in survivors(ranks_of(tried, len(task.splits["dev"])), last=number == len(rungs) - 1)]
    return Trials(left[0], done, sum(one.seconds for rung in done for one in rung))


def _once(
    trial: Trial,
    shortened: Trial,
    updates: int,
    task: Task,
    folder: Path,
    options: Options,
    train: Train,
    judge: Judge,
    identity: str,
) -> Tried:
    """What a training of this length gave, from its record if it has been done."""
    settings = settings_of(task, shortened.recipe, options, ())
    settings |= {"student_layers": trial.student_layers, "init_from": trial.init_from, "identity": identity}
    told = {key: value for key, value in settings.items() if key not in PLACES - {"init_from"}}
    place = folder / hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    file = place.with_suffix(".json")
    if not file.is_file():
        found = _trained(shortened, place, options, train, judge, task.metrics[0])
        if processes.is_first():
            write_json(file, {"name": trial.name, "updates": updates} | found)
            shutil.rmtree(place, ignore_errors=True)
        processes.wait_for_all()
    there = read_json(file)
    return Tried(trial, updates, *(there[key] for key in ("score", "distance", "seconds", "error")))


def _trained(trial: Trial, place: Path, options: Options, train: Train, judge: Judge, metric: str) -> dict[str, Any]:
    begun = time.perf_counter()
    found: dict[str, Any] = {"score": None, "distance": None, "error": None}
    try:
        with hushed():
            result = train(trial, place, options)
        found |= {"score": result.record.scores[metric], "distance": judge(place)}
    except ObjectiveError as error:  # a rate that is too high, say: a candidate like this is not chosen
        found["error"] = " ".join(str(error).split())
    return found | {"seconds": round(time.perf_counter() - begun, 2)}


@contextmanager
def hushed() -> Iterator[None]:
    """Without notes: what is to be said of the data is said once, by the run that the trials are for."""
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
