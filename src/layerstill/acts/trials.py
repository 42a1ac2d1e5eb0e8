"""Candidates of a distillation compared by short trainings on a slice of train."""

from dataclasses import replace
from pathlib import Path

from layerstill.acts.distill import trainer_for
from layerstill.acts.inputs import Model, model_at
from layerstill.acts.rungs import Ahead, Trial, Trials, Tried, climb
from layerstill.data.label_agreement import agree_on_labels
from layerstill.data.slices import slice_of
from layerstill.data.supplementary import Supplementary
from layerstill.data.tasks import Task
from layerstill.training.arguments import Options
from layerstill.training.models import fingerprint, load_config, require_head

__all__ = ["Trial", "Trials", "Tried", "run_trials", "slice_of"]


def run_trials(
    teacher: Model,
    task: Task,
    trials: list[Trial],
    rungs: list[int],
    folder: Path,
    options: Options = Options(),
    supplementary: Supplementary | None = None,
    ahead: Ahead = lambda trials, updates: None,
) -> Trials:
    """Train students of `teacher` for a few updates each, the better half for longer, and choose the best.

    Args:
        teacher: a fine-tuned model.
        task: what they are trained on, and a dev split that decides: `slice_of` makes one of a task's train split.
        trials: the candidates.
        rungs: optimiser steps, rising; see `climb`.
        folder: keeps a record of every finished training, so that the same call goes on where it was interrupted, and
            unless `options.cache` says otherwise the cache of what the teacher gives away, which all trials share.
        options: how to run.
        supplementary: texts of stages with `data: supplementary`.
        ahead: as in `climb`.

    Candidates are ranked by the task's first metric, of equal ones the one nearer to the teacher's logits. UserError
    for what `distill` refuses, and if no candidate can be trained.
    """
    folder = Path(folder)
    with model_at(teacher) as (place, _):
        config = load_config(place, task.head)
        require_head(place, config, task.head)
        task, _ = agree_on_labels(task.with_dev(), config, f"teacher {place}")
        train, judge = trainer_for(place, task, options, supplementary=supplementary)
        cache = options.cache
        if cache.where == "auto":
            cache = replace(cache, where=str(folder / "teacher-cache"), runs=len(trials))

        return climb(
            trials,
            rungs,
            task,
            folder,
            replace(options, cache=cache),
            train,
            judge,
            identity=fingerprint(place, config),
            supplementary=len(supplementary.texts) if supplementary else 0,
            ahead=ahead,
        )
