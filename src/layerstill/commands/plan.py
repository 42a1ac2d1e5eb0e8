"""`layerstill plan`."""

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from layerstill.commands.common import in_regime, read_ood_sets, read_recipe, read_supplementary, read_task, say, setup
from layerstill.commands.options import (
    BatchSize,
    Cache,
    CacheBudget,
    Data,
    Dev,
    Epochs,
    FewSamples,
    Init,
    InitFrom,
    LabelColumn,
    LabelNoise,
    LearningRate,
    MaxLength,
    MaxSteps,
    Ood,
    OodLabels,
    Quiet,
    RecipeName,
    RegimeWords,
    Seed,
    Set,
    StudentLayers,
    Supplementary,
    SupplementaryColumns,
    Task_,
    TextColumns,
    TrainExamples,
)


def plan(
    teacher: Annotated[str, typer.Argument(help="A fine-tuned model: a folder or a hub id.")],
    task: Task_,
    student_layers: StudentLayers,
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
    output: Annotated[Optional[Path], typer.Option(hidden=True)] = None,
    precision: Annotated[Optional[str], typer.Option(hidden=True)] = None,
    cache: Cache = "auto",
    cache_budget: CacheBudget = 4.0,
    compile_: Annotated[bool, typer.Option("--compile", hidden=True)] = False,
    report_to: Annotated[Optional[list[str]], typer.Option(hidden=True)] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the plan as JSON on standard output.")] = False,
    quiet: Quiet = False,
) -> None:
    """Show what `distill` with the same arguments would do: pairs, captured tensors, depth, memory. Trains nothing."""
    setup(quiet or json_)
    import torch

    from layerstill.data.checks import data_counts, data_notices, supplementary_notices
    from layerstill.data.encode import mean_tokens, usable_length
    from layerstill.data.label_agreement import agree_on_labels, fit_all
    from layerstill.data.regimes import other_regime
    from layerstill.plan import make_plan
    from layerstill.reporting.plan import plan_data, print_plan
    from layerstill.training.accounting import matmul_peak
    from layerstill.training.arguments import arithmetic_of, dtype_of
    from layerstill.training.cache_choice import CacheOptions
    from layerstill.training.compiling import refuse_compiling
    from layerstill.training.models import (
        load_config,
        load_tokenizer,
        refuse_other_tokens,
        require_head,
        special_token_notices,
    )
    from layerstill.training.run import student_vocabulary

    the_recipe = read_recipe(recipe, set_, init, epochs, batch_size, learning_rate)
    extra = read_supplementary(the_recipe, supplementary, supplementary_columns)
    the_task = read_task(task, data, dev, text_columns, label_column, train_examples)
    the_task = in_regime(the_task, few_samples, label_noise, regime, seed)
    if extra is not None:
        extra.refuse_words(the_task)
    sets = read_ood_sets(the_task, ood, ood_labels, text_columns, label_column)
    config = load_config(teacher, the_task.head)
    require_head(teacher, config, the_task.head)
    if compile_:
        refuse_compiling(config)
    the_task, notices = agree_on_labels(the_task, config, f"teacher {teacher}")
    notices += other_regime(the_task, Path(teacher))
    notices += [notice for ood_set in fit_all(sets, the_task) for notice in ood_set.notices]
    tokenizer = load_tokenizer(teacher, config)
    usable_length(max_length, tokenizer, config)
    source = config if init_from is None else load_config(init_from, the_task.head)
    if init_from is not None:
        refuse_other_tokens(init_from, source, config, tokenizer.get_vocab())
    examples = len(the_task.splits["train"])
    vocabulary = student_vocabulary(the_recipe, tokenizer, the_task, config, extra)
    bound = (the_recipe, config, source, student_layers, the_task.head, seed)
    own = vocabulary.tokenizer if vocabulary else tokenizer
    tokens = mean_tokens(the_task.splits["train"], own, max_length, the_task.head)
    arithmetic = arithmetic_of(precision or "auto")
    counts = extra and len(extra.texts), tokens
    made = make_plan(
        *bound, max_length, examples, max_steps, vocabulary, *counts, arithmetic, CacheOptions(cache, cache_budget)
    )
    notices += [*the_task.notices, *data_notices(the_task, data_counts(the_task))]
    if extra is not None:
        notices += [*extra.notices, *supplementary_notices(the_task, extra.texts)]
    say([*notices, *special_token_notices(teacher, config, tokenizer)])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak = matmul_peak(device, dtype_of(precision or "auto"))
    print(json.dumps(plan_data(made, peak), indent=2)) if json_ else print_plan(made, peak)
