"""`layerstill cache`."""

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from layerstill.commands.bundled import bundled
from layerstill.commands.more_texts import ExtraOptions, SupplementaryOptions
from layerstill.commands.options import (
    CacheBudget,
    CacheOptions,
    FineTuned,
    OodOptions,
    RegimeOptions,
    RunOptions,
    TaskOptions,
    Verbosity,
)
from layerstill.commands.recipe_options import RecipeOptions, StageOptions
from layerstill.names import default_recipe


@bundled
def cache(
    teacher: FineTuned,
    where: Annotated[str, typer.Option("--cache", help="Directory of the cache.")],
    data: TaskOptions,
    regime: RegimeOptions,
    extra: ExtraOptions,
    supplementary: SupplementaryOptions,
    ood: OodOptions,
    recipe: RecipeOptions,
    stages: StageOptions,
    run: RunOptions,
    verbosity: Verbosity,
    cache_budget: CacheBudget = 4.0,
    output: Annotated[Optional[Path], typer.Option(hidden=True)] = None,
) -> None:
    """Compute a teacher's outputs once, ahead of the runs that share them with `distill --cache DIR`.

    Takes the arguments of `distill`; the data and the recipe that they name decide what is cached. If it is
    interrupted, the same command resumes, and what is there is not computed again. Recipes, seeds and
    subsets of the data share what they have in common: a folder below DIR belongs to one teacher, one set of tensors,
    one vocabulary of the student and one precision.

    Example:
        layerstill cache teacher --task classification --data my.csv --student-layers 3 --cache kept
    """
    quiet = verbosity.setup()
    from layerstill import acts

    task = regime.read(data, run.seed)
    the_recipe = recipe.read(stages, default_recipe(task.paired))
    texts = supplementary.read(the_recipe, needed=False)
    sets = ood.read(task, data)
    options = run.read(quiet, CacheOptions(where, cache_budget))
    layers, start, more = recipe.student_layers, recipe.init_from, extra.read(data)
    arguments = teacher, task, the_recipe, layers, options, start, sets, texts
    found = acts.cache(*arguments, student=recipe.student, **more)
    if verbosity.json_:
        print(json.dumps([filled.to_data() for filled in found], indent=2))
        return
    for filled in found:
        print(filled)
