"""`layerstill finetune`."""

from dataclasses import replace
from typing import Annotated

import typer

from layerstill.commands.common import in_regime, read_ood_sets, read_options, read_task, setup, show
from layerstill.commands.options import (
    BatchSize,
    Compile,
    Data,
    Dev,
    Epochs,
    FewSamples,
    Json,
    LabelColumn,
    LabelNoise,
    LearningRate,
    MaxLength,
    MaxSteps,
    Ood,
    OodLabels,
    Output,
    Precision,
    PrecisionOption,
    Quiet,
    RegimeWords,
    ReportTo,
    Seed,
    Set,
    Task_,
    TextColumns,
    TrainExamples,
)


def finetune(
    model: Annotated[str, typer.Argument(help="A pre-trained model: a folder or a hub id.")],
    task: Task_,
    output: Output,
    data: Data = None,
    dev: Dev = None,
    text_columns: TextColumns = None,
    label_column: LabelColumn = "label",
    train_examples: TrainExamples = None,
    few_samples: FewSamples = None,
    label_noise: LabelNoise = None,
    regime: RegimeWords = None,
    ood: Ood = None,
    ood_labels: OodLabels = None,
    max_length: MaxLength = 128,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    max_steps: MaxSteps = None,
    set_: Set = None,
    seed: Seed = 0,
    precision: PrecisionOption = Precision.auto,
    compile_: Compile = False,
    report_to: ReportTo = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a pre-trained model on a task: this makes a teacher."""
    setup(quiet or json_)
    from layerstill import acts
    from layerstill.recipe import Recipe

    recipe = Recipe.load("finetune", tuple(set_ or ())).limited(epochs, batch_size, learning_rate)
    the_task = read_task(task, data, dev, text_columns, label_column, train_examples)
    the_task = in_regime(the_task, few_samples, label_noise, regime, seed)
    sets = read_ood_sets(the_task, ood, ood_labels, text_columns, label_column)
    options = read_options(seed, max_length, max_steps, precision, quiet or json_, report_to)
    options = replace(options, compile=compile_)
    show(acts.finetune(model, the_task, output, recipe, options, sets), json_)
