"""The act `finetune`."""

from collections.abc import Sequence
from pathlib import Path

from layerstill.data.ood import OodSet
from layerstill.data.tasks import Task
from layerstill.recipe import Recipe
from layerstill.reporting.model_card import card_writer
from layerstill.result import Result
from layerstill.training import run
from layerstill.training.arguments import Options


def finetune(
    model: str,
    task: Task,
    output: str | Path,
    recipe: Recipe | None = None,
    options: Options = Options(),
    ood: Sequence[OodSet] = (),
) -> Result:
    """Fine-tune `model` (folder or hub id) on a task: the recipe `finetune`; `ood` as in `distill`.

    `output` becomes a plain model folder with a model card and the record of the run. UserError for everything that
    does not fit together.
    """
    recipe = recipe or Recipe.load("finetune")
    return run.finetune(model, task, output, recipe, options, ood, card_writer(recipe, task.head))
