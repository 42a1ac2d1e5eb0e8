"""`layerstill plan`."""

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from layerstill.commands.bundled import bundled
from layerstill.commands.options import (
    CacheOptions,
    OodOptions,
    RecipeOptions,
    RegimeOptions,
    RunOptions,
    StageOptions,
    SupplementaryOptions,
    TaskOptions,
    Verbosity,
)


@bundled
def plan(
    teacher: Annotated[str, typer.Argument(help="A fine-tuned model: a folder or a hub id.")],
    data: TaskOptions,
    regime: RegimeOptions,
    supplementary: SupplementaryOptions,
    ood: OodOptions,
    recipe: RecipeOptions,
    stages: StageOptions,
    run: RunOptions,
    cache: CacheOptions,
    verbosity: Verbosity,
    output: Annotated[Optional[Path], typer.Option(hidden=True)] = None,
) -> None:
    """Show what `distill` with the same arguments would do: pairs, captured tensors, depth, memory. Trains nothing."""
    quiet = verbosity.setup()
    from layerstill import acts
    from layerstill.reporting.plan import plan_data, print_plan
    from layerstill.training.accounting import peak_here

    the_recipe = recipe.read(stages)
    texts = supplementary.read(the_recipe)
    task = regime.read(data, run.seed)
    sets = ood.read(task, data)
    options = run.read(quiet, cache)
    arguments = teacher, task, the_recipe, recipe.student_layers, options, recipe.init_from, sets, texts
    made = acts.plan(*arguments, student=recipe.student)
    peak = peak_here(options.precision)
    print(json.dumps(plan_data(made, peak), indent=2)) if verbosity.json_ else print_plan(made, peak)
