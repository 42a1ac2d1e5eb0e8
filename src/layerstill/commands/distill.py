"""`layerstill distill`."""

from dataclasses import replace
from typing import Annotated

import typer

from layerstill.commands.common import (
    in_regime,
    read_ood_sets,
    read_options,
    read_recipe,
    read_supplementary,
    read_task,
    setup,
    show,
)
from layerstill.commands.options import (
    BatchSize,
    Cache,
    CacheBudget,
    Compile,
    Data,
    Dev,
    Epochs,
    FewSamples,
    Init,
    InitFrom,
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
    RecipeName,
    RegimeWords,
    ReportTo,
    Seed,
    Set,
    StudentLayers,
    Supplementary,
    SupplementaryColumns,
    Task_,
    TextColumns,
    TrainExamples,
)


def distill(
    teacher: Annotated[str, typer.Argument(help="A fine-tuned model: a folder or a hub id.")],
    task: Task_,
    student_layers: StudentLayers,
    output: Output,
    recipe: RecipeName = "kd",
    data: Data = None,
    dev: Dev = None,
    text_columns: TextColumns = None,
    label_column: LabelColumn = "label",
    train_examples: TrainExamples = None,
    supplementary: Supplementary = None,
    supplementary_columns: SupplementaryColumns = None,
    few_samples: FewSamples = None,
    label_noise: LabelNoise = None,
    regime: RegimeWords = None,
    ood: Ood = None,
    ood_labels: OodLabels = None,
    max_length: MaxLength = 128,
    init: Init = None,
    init_from: InitFrom = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    max_steps: MaxSteps = None,
    set_: Set = None,
    seed: Seed = 0,
    precision: PrecisionOption = Precision.auto,
    cache: Cache = "auto",
    cache_budget: CacheBudget = 4.0,
    compile_: Compile = False,
    report_to: ReportTo = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Distil a fine-tuned teacher into a student with fewer layers.

    The output folder is an ordinary model folder, which transformers loads without layerstill.
    A run that was interrupted goes on when the same command is given again. Several processes share every batch:
    `torchrun --nproc_per_node 2 -m layerstill distill ...`
    """
    setup(quiet or json_)
    from layerstill import acts
    from layerstill.training.cache_choice import CacheOptions

    the_recipe = read_recipe(recipe, set_, init, epochs, batch_size, learning_rate)
    texts = read_supplementary(the_recipe, supplementary, supplementary_columns)
    the_task = read_task(task, data, dev, text_columns, label_column, train_examples)
    the_task = in_regime(the_task, few_samples, label_noise, regime, seed)
    sets = read_ood_sets(the_task, ood, ood_labels, text_columns, label_column)
    kept = CacheOptions(cache, cache_budget)
    options = read_options(seed, max_length, max_steps, precision, quiet or json_, report_to)
    options = replace(options, cache=kept, compile=compile_)
    show(acts.distill(teacher, the_task, the_recipe, student_layers, output, options, init_from, sets, texts), json_)
