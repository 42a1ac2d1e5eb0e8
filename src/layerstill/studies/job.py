"""One job, a teacher or a student, from plain data: the same in a worker process, on a cluster and in a test."""

import json
import math
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

from layerstill.data.ood import OodSet, read_ood
from layerstill.data.supplementary import Supplementary, read_supplementary
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.evaluation.predictions import PREDICTIONS_FILE, TEACHER_FILE
from layerstill.recipe import Recipe
from layerstill.result import Record
from layerstill.training.length import epochs_of, steps_of
from layerstill.training.records import JOB_FILE

Job = dict[str, Any]
"""Every job: kind (`teacher`, `tuning` or `run`), hash, label, folder, source, data (its fingerprint), regime,
regime_seed, held_out, recipe, share, total_steps, max_steps, seed, max_length, precision. A teacher's: model. A
student's: teacher, init_from, student_layers, own_teacher, cache, cache_budget, cache_runs, ood, ood_examples,
ood_data; where a stage trains on such texts supplementary, supplementary_columns and supplementary_texts (their
fingerprint)."""


def supplementary_of(job: Job) -> Supplementary | None:
    """The supplementary texts of a job, if it has any; UserError if they are no longer what the study began with."""
    if "supplementary" not in job:
        return None
    texts = read_supplementary(job["supplementary"], tuple(job["supplementary_columns"]))
    if texts.fingerprint != job["supplementary_texts"]:
        raise UserError(f"supplementary {job['supplementary']}: changed since the study began; start the study again")
    return texts


def with_steps(recipe: Recipe, sizes: dict[str, int], total: int | None, most: int | None, share: float) -> Recipe:
    """The recipe with its stages as long as they shall be.

    Args:
        recipe: the recipe.
        sizes: number of examples of what a stage may train on, by its `data`.
        total: optimiser steps of all stages together, divided in proportion to their epochs; None for the recipe's.
        most: largest number of steps of a stage, if there is no total.
        share: part of that length, for tuning.
    """
    if total is None and share == 1:
        return recipe
    if total is None:
        steps = [steps_of(stage, sizes[stage.data], most) for stage in recipe.stages]
    else:
        steps = divided(total, [epochs_of(stage, sizes[stage.data]) for stage in recipe.stages])
    epochs = []
    for stage, number in zip(recipe.stages, steps, strict=True):
        # Half a step less than wanted, so that rounding up ends at the number whatever the division gives.
        wanted = max(1, round(number * share)) - 0.5
        epochs.append(wanted / math.ceil(sizes[stage.data] / stage.batch_size))
    return recipe.with_epochs(epochs)


def divided(total: int, parts: list[float]) -> list[int]:
    """`total` as whole numbers in proportion to `parts`, none below 1; the largest remainders are rounded up."""
    if total < len(parts):
        raise UserError(f"total_steps {total}: the recipe has {len(parts)} stages, and each takes at least one step")
    exact = [Fraction(part) * total / sum(map(Fraction, parts)) for part in parts]
    whole = [int(x) for x in exact]
    order = sorted(range(len(parts)), key=lambda i: (whole[i] - exact[i], i))
    for i in order[: total - sum(whole)]:
        whole[i] += 1
    while 0 in whole:
        whole[whole.index(max(whole))] -= 1
        whole[whole.index(0)] = 1
    return whole


def out_of_domain(job: Job, task: Task) -> dict[str, Any]:
    """The arguments of `distill` that carry the job's out-of-domain sets; none if it has none."""
    if not job["ood"]:
        return {}
    if job["ood_data"] is None:
        raise UserError(f"ood {', '.join(job['ood'])}: give --ood-data, the folder that these sets are in")
    folder = Path(job["ood_data"])
    specs = [spec.partition("=") for spec in job["ood"]]
    places = [f"{name}={folder / path}" if path else str(folder / name) for name, _, path in specs]
    columns = tuple(job["source"]["text_columns"]), job["source"]["label_column"]
    sets = [read_ood(place, task, None, *columns) for place in places]
    return {"ood": [ood_set.sample(job["ood_examples"]) for ood_set in sets]}


def ood_of_run(folder: Path, task: Task) -> tuple[OodSet, ...]:
    """The out-of-domain sets that a study's run was scored on; none for another run."""
    path = folder / JOB_FILE
    job = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return tuple(out_of_domain(job, task)["ood"]) if job.get("ood") else ()


def scores_on(teacher: Path, job: Job) -> dict[str, float] | None:
    """The scores on dev of a teacher that the study made itself, from its record; None if the job's dev is another."""
    if job["held_out"] is not None or not job["own_teacher"]:
        return None
    record = Record.read(teacher, f"delete {teacher} and the same command makes it again")
    return record.scores if record is not None else None


def forget_model(folder: Path) -> None:
    """Delete the weights of a finished run; its record and what it and its teacher said of each dev example stay."""
    for weights in folder.glob("*.safetensors"):
        if weights.name not in {PREDICTIONS_FILE, TEACHER_FILE}:
            weights.unlink(missing_ok=True)


def forget_cache(folder: Path) -> None:
    """Delete what a teacher gave away."""
    shutil.rmtree(folder, ignore_errors=True)
