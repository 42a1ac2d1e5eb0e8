"""`--learning-rate auto`: rates tried on short trainings of the same recipe, and scored on a slice of train."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from layerstill.acts.rungs import Judge, Train, Trial, Trials, climb
from layerstill.data.probabilities import OPTION, Probabilities
from layerstill.data.slices import slice_of
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.recipe import Recipe
from layerstill.training.arguments import Options
from layerstill.training.length import steps_of
from layerstill.training.records import PLACES, RunFolder

log = logging.getLogger("layerstill")

Rate = float | Literal["auto"] | None
"""A peak learning rate for every stage, `auto` to find one, or None for the recipe's own."""
RATES = (2e-5, 5e-5, 1e-4, 2e-4, 4e-4, 8e-4)
"""What is tried."""
SHARES = (0.1, 0.25)
"""Of the run's updates, that the rungs take."""
FEWEST, MOST = 40, 300
"""Bounds of a rung in updates; it is never longer than the run."""


def apply_rate(recipe: Recipe, rate: Rate) -> Recipe:
    """The recipe with a rate that is a number in every stage; UserError for another word than `auto`."""
    _refuse_word(rate)
    return recipe if rate is None or rate == "auto" else recipe.limited(None, None, rate)


def _refuse_word(rate: Rate) -> None:
    if isinstance(rate, str) and rate != "auto":
        raise UserError(f"learning_rate {rate!r}: give a number, or auto")


def refuse_untaught(rate: Rate, probabilities: Probabilities | None) -> None:
    """UserError for what is no rate, and for rates that would be tried where probabilities take the place of a
    teacher."""
    _refuse_word(rate)
    if rate == "auto" and probabilities is not None:
        raise UserError(
            f"--learning-rate auto: rates are tried with a teacher, and {OPTION} has none; give a number, such as 3e-4"
        )


def rungs_for(recipe: Recipe, sizes: dict[str, int], max_steps: int | None) -> list[int]:
    """How many updates of all stages together each rung takes, rising, for a run over so many examples."""
    whole = sum(steps_of(stage, sizes[stage.data], max_steps) for stage in recipe.stages)
    least = len(recipe.stages)
    lengths = {max(min(max(round(share * whole), FEWEST), MOST, whole), least) for share in SHARES}
    return sorted(lengths)


def trials_of(recipe: Recipe, sizes: dict[str, int], max_steps: int | None) -> tuple[int, int]:
    """How many trainings find a rate, and how many updates these take together."""
    left, trainings, total = len(RATES), 0, 0
    for updates in rungs_for(recipe, sizes, max_steps):
        trainings, total = trainings + left, total + left * updates
        left = (left + 1) // 2
    return trainings, total


def rate_notice(recipe: Recipe, task: Task, sizes: dict[str, int], options: Options) -> str:
    """What finding a rate will take, in a line."""
    _, total = trials_of(recipe, sizes, options.max_steps)
    held = len(slice_of(task, options.seed).splits["dev"])
    return f"learning rate: {len(RATES)} are tried first, on {held} held-out training texts, in {total:,} updates"


def tuned(
    recipe: Recipe,
    task: Task,
    options: Options,
    folder: RunFolder,
    prepare: Callable[[Task], tuple[Train, Judge]],
    supplementary: int = 0,
) -> Recipe:
    """The recipe with the learning rate that is best for it, found once for a run and kept in its `run.json`.

    Args:
        recipe: of settled length.
        task: the run's.
        options: the run's.
        folder: the run's. Trainings lie in it under `tuning` until the run is finished.
        prepare: from the task with a slice held out to what trains a trial on it and what decides between equal scores.
        supplementary: number of supplementary texts, for stages on them.
    """
    record = folder.kept("tuning")
    if record is None:
        record = _find(recipe, task, options, folder, prepare, supplementary)
        folder.keep("tuning", record)
        log.info(rate_line(record))
    return recipe.limited(None, None, record["learning_rate"])


def _find(
    recipe: Recipe,
    task: Task,
    options: Options,
    folder: RunFolder,
    prepare: Callable[[Task], tuple[Train, Judge]],
    supplementary: int,
) -> dict[str, Any]:
    cut = slice_of(task, options.seed)
    held = len(cut.splits["dev"])
    sizes = {"task": len(task.splits["train"]), "supplementary": supplementary}
    rungs = rungs_for(recipe, sizes, options.max_steps)
    trials = [Trial(f"{rate:g}", recipe.limited(None, None, rate)) for rate in RATES]
    lengths = " and ".join(f"{updates}" for updates in rungs)
    log.info("learning rate: trying %d on short runs of %s updates", len(trials), lengths)
    told = {key: value for key, value in folder.settings.items() if key not in PLACES}
    identity = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    cache = options.cache
    if cache.where == "auto":  # where the run itself will look for it
        cache = replace(cache, where=str(folder.teacher_cache), runs=len(trials))
    train, judge = prepare(cut)
    found = climb(
        trials,
        rungs,
        cut,
        folder.tuning,
        replace(options, cache=cache),
        train,
        judge,
        identity,
        supplementary,
    )
    return _record(found, held, task.metrics[0])


def _record(found: Trials, held_out: int, metric: str) -> dict[str, Any]:
    """What `run.json` and `result.json` keep."""
    rungs = found.record()
    for rung in rungs:
        for candidate in rung["candidates"]:
            candidate["learning_rate"] = float(candidate.pop("name"))
    return {
        "learning_rate": float(found.chosen.name),
        "held_out": held_out,
        "metric": metric,
        "rungs": rungs,
        "seconds": round(found.seconds, 2),
    }


def rate_line(record: dict[str, Any]) -> str:
    """What was chosen among how many, by what, and the next best."""
    chosen = record["learning_rate"]
    first, last = record["rungs"][0]["candidates"], record["rungs"][-1]["candidates"]
    scores = {c["learning_rate"]: c["score"] for c in last if c["score"] is not None}
    others = [c for c in last if c["score"] is not None and c["learning_rate"] != chosen]
    found = f"learning rate {_short(chosen)} (of {len(first)} tried on {record['held_out']} held-out texts; "
    found += f"{100 * scores[chosen]:.1f}"
    if others:
        second = max(others, key=lambda c: (c["score"], -c["distance"]))
        other = f"{100 * second['score']:.1f} at {_short(second['learning_rate'])}"
        better = second["score"] > scores[chosen]  # by less than a standard error, or it had been chosen
        found += f", closer to the wanted answers than {other}" if better else f", next best {other}"
    return f"{found})"


def _short(rate: float) -> str:
    """`2e-4`."""
    digits, power = f"{rate:.10e}".split("e")
    return f"{float(digits):g}e{int(power)}"
