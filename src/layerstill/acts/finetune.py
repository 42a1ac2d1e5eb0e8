"""The act `finetune`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, set_seed

from layerstill.acts.inputs import Model, model_at, read_recipe, read_task
from layerstill.acts.rates import Rate, apply_rate, tuned
from layerstill.acts.rungs import Judge, Train, Trial
from layerstill.data.checks import data_counts, data_notices
from layerstill.data.encode import usable_length
from layerstill.data.label_agreement import fit_all
from layerstill.data.ood import OodSet
from layerstill.data.readers import Readers
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.evaluation.nearness import kept_predictions, loss_of
from layerstill.heads import Classes
from layerstill.progress import our_bars_only, showing
from layerstill.recipe import Recipe
from layerstill.reporting.model_card import card_writer
from layerstill.result import Result
from layerstill.training.arguments import Options
from layerstill.training.compiling import refuse_compiling
from layerstill.training.length import settled
from layerstill.training.models import (
    adopt_padding,
    fingerprint,
    load_config,
    load_for_finetuning,
    load_tokenizer,
    special_token_notices,
)
from layerstill.training.records import RunFolder, folder_for, settings_of
from layerstill.training.stages import StagedRun, note


@our_bars_only()
def finetune(
    model: Model,
    data: Any,
    output: str | Path | None = None,
    recipe: str | Path | Recipe | None = None,
    options: Options = Options(),
    ood: Sequence[OodSet] = (),
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    labels: Any = None,
    learning_rate: Rate = None,
) -> Result:
    """Fine-tune `model` on a task.

    The arguments are those of `distill`; data that say no kind of task are taken for classes, and the recipe is
    `finetune` unless another without a teacher is given. `output` becomes a plain model folder with a model card and
    the record of the run. UserError for everything that does not fit together.
    """
    recipe = apply_rate(read_recipe("finetune" if recipe is None else recipe), learning_rate)
    with showing(options.progress), model_at(model, tokenizer) as (place, name):
        task = read_task(data, place, labels, Classes()).with_dev()
        config = load_config(place, task.head)
        if recipe.needs_teacher:
            raise UserError("finetune takes a recipe without a teacher; use distill")
        if recipe.supplementary_stages:
            raise UserError("finetune trains on the task alone; stages with data: supplementary belong to distill")
        fitted = fit_all(ood, task)
        if recipe.student.narrower or recipe.student.vocabulary:
            raise UserError("finetune keeps the width of a model; student widths and vocabulary belong to distill")
        if options.compile:
            refuse_compiling(config)
        own = load_tokenizer(place, config)
        usable_length(options.max_length, own, config)
        counts = data_counts(task)
        recipe, lengths = settled(recipe, {"task": len(task.splits["train"])})
        settings = settings_of(task, recipe, options, ood)
        settings |= {"learning_rate": "auto"} if learning_rate == "auto" else {}
        settings |= {"model": name, "model_fingerprint": fingerprint(place, config), "data_checks": counts}
        set_seed(options.seed)
        student = load_for_finetuning(place, task)
        adopt_padding(student, own)
        with RunFolder(folder_for(output, recipe, settings), settings) as folder:
            if done := folder.finished:
                note([f"{done.folder} already holds this run, finished"])
                return done
            note([*task.notices, *lengths, *data_notices(task, counts), *special_token_notices(place, config, own)])
            note([notice for ood_set in fitted for notice in ood_set.notices])
            if learning_rate == "auto":
                recipe = tuned(recipe, task, options, folder, lambda cut: _trainer_for(place, cut))
                set_seed(options.seed)
                student = load_for_finetuning(place, task)  # anew, as if nothing had been tried
                adopt_padding(student, own)
            run = StagedRun(
                folder=folder,
                student=student,
                teacher=None,
                readers=Readers(own, own),
                task=task,
                recipe=recipe,
                options=options,
                teacher_metrics={},
                origin={"layers": "all", "from": name},
                ood=fitted,
                describe=card_writer(recipe, task.head),
            )
            return run.train()


def _trainer_for(model: str, task: Task) -> tuple[Train, Judge]:
    """What fine-tunes a trial on a task with its dev split, and how far it is from the gold labels there."""

    def train(trial: Trial, output: Path, how: Options) -> Result:
        return finetune(model, task, output, trial.recipe, how)

    def judge(folder: Path) -> float:
        return loss_of(kept_predictions(folder), task)

    return train, judge
