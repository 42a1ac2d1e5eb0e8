"""`layerstill finetune`."""

from typing import Annotated

import typer

from layerstill.commands.bundled import bundled
from layerstill.commands.common import show
from layerstill.commands.options import OodOptions, Output, RegimeOptions, RunOptions, TaskOptions, Verbosity
from layerstill.commands.push import PushOptions
from layerstill.commands.recipe_options import StageOptions


@bundled
def finetune(
    model: Annotated[str, typer.Argument(help="A pre-trained model: a folder or a hub id.")],
    data: TaskOptions,
    regime: RegimeOptions,
    ood: OodOptions,
    stages: StageOptions,
    output: Output,
    run: RunOptions,
    push: PushOptions,
    verbosity: Verbosity,
) -> None:
    """Fine-tune a pre-trained model on a task: this makes a teacher.

    Example:
        layerstill finetune bert-base-uncased --task classification --data texts.csv --output teacher
    """
    quiet = verbosity.setup()
    push.check()
    from layerstill import acts

    recipe = stages.read("finetune")
    task = regime.read(data, run.seed)
    sets = ood.read(task, data)
    result = acts.finetune(model, task, output, recipe, run.read(quiet), sets, learning_rate=stages.rate)
    show(result, verbosity.json_)
    push.push(result.folder)
