"""The data of a run: a task from its source, sampled, under a regime, and for tuning a slice of its train split."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from layerstill.data.kept import task_once
from layerstill.data.regimes import Regime
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError
from layerstill.heads import HEADS
from layerstill.randomness import generator
from layerstill.recipe import validated
from layerstill.schema import Spec
from layerstill.training.records import JOB_FILE, task_fingerprint


class Source(Spec):
    """Where the data of a job are; of a task in a study file what the name alone does not say."""

    name: str
    kind: str
    data: str | None
    dev: str | None
    text_columns: list[str]
    label_column: str
    weight_column: str | None = None
    train_examples: int | None
    dev_examples: int | None


class JobData(Spec):
    """The part of a job that says what it is trained on."""

    source: Source
    regime: dict[str, Any]
    regime_seed: int
    held_out: float | None


def read_source(where: dict[str, Any]) -> Task:
    """The task of a job's `source`: kind, data, dev, columns, and the sizes of its samples."""
    kind, data = where["kind"], where["data"]
    if kind == "tickets":
        task = Task.demo()
    elif kind in HEADS:
        if data is None:
            raise UserError(
                f"tasks.{where['name']}: kind {kind} needs data: a folder with train and dev files, or one file"
            )
        columns = tuple(where["text_columns"]), where["label_column"], where.get("weight_column")
        task = Task.from_files(kind, data, where["dev"], *columns)
    else:
        task = Task.glue(kind, data)
    splits = dict(task.splits)
    for split in ("train", "dev"):
        splits[split] = _sample(splits[split], where[f"{split}_examples"], split)
    return replace(task, name=where["name"], splits=splits)


def _sample(split: Split, examples: int | None, name: str) -> Split:
    """So many examples, the same ones every time, in the order of the data."""
    if examples is None or examples >= len(split):
        return split
    chosen = sorted(generator(0, "study sample", name).sample(range(len(split)), examples))
    return split.take(chosen)


def under_regime(task: Task, regime: dict[str, Any], seed: int) -> Task:
    """The task in a data regime; the empty one leaves it as it is."""
    if not regime:
        return task
    return validated(Regime, regime, "regime").apply(task, seed)


def hold_out(task: Task, share: float) -> Task:
    """The task with a slice of its train split as dev, the same every time; every other split is left out."""
    train = task.splits["train"]
    count = round(share * len(train))
    if count < 2 or len(train) - count < 2:
        raise UserError(f"tune.held_out {share:g} of {len(train)} training examples is too little to choose by")
    held = set(generator(0, "tuning slice").sample(range(len(train)), count))
    kept = [i for i in range(len(train)) if i not in held]
    splits = {"train": train.take(kept), "dev": train.take(sorted(held)).unweighted()}
    # Made anew, because what a task remembers of its regime is about the whole train split.
    return Task(task.name, task.head, splits, task.labels, task.metrics, task.positive)


def task_of(job: dict[str, Any]) -> Task:
    """What a job trains on; UserError if the data are no longer what the study was planned with."""
    said = {key: job[key] for key in (*JobData.model_fields, "data")}
    return task_once(said, lambda: _read(job))


def _read(job: dict[str, Any]) -> Task:
    task = read_source(job["source"])
    if task_fingerprint(task) != job["data"]:
        raise UserError(f"task {task.name}: its data have changed since the study began; start the study again")
    return _as_trained_on(task, job)


def _as_trained_on(task: Task, job: dict[str, Any]) -> Task:
    task = under_regime(task, job["regime"], job["regime_seed"])
    return task if job["held_out"] is None else hold_out(task, job["held_out"])


def task_of_run(folder: Path) -> Task | None:
    """What a study's run was trained on, by its `job.json`; None for a run without one.

    The data are read as they are now: whether they are still the run's is for their fingerprint to say.
    """
    path = folder / JOB_FILE
    if not path.is_file():
        return None
    try:
        job = json.loads(path.read_text("utf-8"))
    except ValueError:
        job = None
    if not isinstance(job, dict):
        raise UserError(f"{path}: damaged; give the run's data with --task and --data")
    said = {key: job.get(key) for key in JobData.model_fields}
    data = validated(JobData, said, str(path)).model_dump()
    return _as_trained_on(read_source(data["source"]), data)
