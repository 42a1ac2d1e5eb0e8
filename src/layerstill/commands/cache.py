"""`layerstill cache`."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from layerstill.commands.common import read_options, read_recipe, read_task, setup
from layerstill.commands.options import (
    RUN,
    CacheBudget,
    Data,
    Dev,
    LabelColumn,
    MaxLength,
    Precision,
    PrecisionOption,
    Quiet,
    RecipeName,
    Seed,
    Set,
    StudentLayers,
    Task_,
    TextColumns,
    TrainExamples,
)
from layerstill.errors import UserError


def cache(
    teacher: Annotated[str, typer.Argument(help="A fine-tuned model: a folder or a hub id.")],
    task: Task_,
    student_layers: StudentLayers,
    where: Annotated[Path, typer.Option("--cache", help="Directory of the cache.", rich_help_panel=RUN)],
    recipe: RecipeName = "kd",
    data: Data = None,
    dev: Dev = None,
    text_columns: TextColumns = None,
    label_column: LabelColumn = "label",
    train_examples: TrainExamples = None,
    max_length: MaxLength = 128,
    set_: Set = None,
    seed: Seed = 0,
    precision: PrecisionOption = Precision.auto,
    cache_budget: CacheBudget = 4.0,
    json_: Annotated[bool, typer.Option("--json", help="Print what was cached as JSON on standard output.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compute what a teacher gives away once, ahead of the runs that share it with `distill --cache DIR`.

    A filling that was interrupted goes on when the same command is given again, and what is there is not computed
    anew. Recipes, seeds and subsets of the data share what they have in common: a folder below DIR belongs to one
    teacher, one set of tensors and one precision.
    """
    setup(quiet or json_)
    from layerstill.training.cache_choice import CacheOptions
    from layerstill.training.prefill import fill_cache

    if where.name in {"auto", "off"} and len(where.parts) == 1:
        raise UserError(f"--cache {where}: name a directory, such as ./{where}, which runs then share")
    the_recipe = read_recipe(recipe, set_, None, None, None, None)
    the_task = read_task(task, data, dev, text_columns, label_column, train_examples)
    options = read_options(seed, max_length, None, precision, quiet or json_, None)
    options = replace(options, cache=CacheOptions(str(where), cache_budget))
    found = fill_cache(teacher, the_task, the_recipe, student_layers, options)
    if json_:
        print(json.dumps([asdict(f) | {"folder": str(f.folder)} for f in found], indent=2))
        return
    for f in found:
        print(
            f"stage {f.stage}: {f.contents} of {f.examples} examples ({f.new} new), {f.megabytes:.1f} MB in {f.folder}"
        )
