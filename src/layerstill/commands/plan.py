"""`layerstill plan`."""

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from layerstill.commands.bundled import bundled
from layerstill.commands.common import names
from layerstill.commands.more_texts import ExtraOptions, ProbabilityOptions, SupplementaryOptions, Teacher
from layerstill.commands.options import CacheOptions, OodOptions, RegimeOptions, RunOptions, TaskOptions, Verbosity
from layerstill.commands.recipe_options import RecipeOptions, StageOptions
from layerstill.commands.running_text import RunningTextOptions
from layerstill.names import TEXT_TASK, default_recipe


@bundled
def plan(
    data: TaskOptions,
    regime: RegimeOptions,
    extra: ExtraOptions,
    probabilities: ProbabilityOptions,
    supplementary: SupplementaryOptions,
    ood: OodOptions,
    recipe: RecipeOptions,
    stages: StageOptions,
    text: RunningTextOptions,
    run: RunOptions,
    cache: CacheOptions,
    verbosity: Verbosity,
    teacher: Teacher = None,
    output: Annotated[Optional[Path], typer.Option(hidden=True)] = None,
) -> None:
    """Show what `distill` with the same arguments would do: pairs, captured tensors, depth, memory. Trains nothing.

    With `--task text` also what the corpus holds; a large one is estimated from a part.

    Example:
        layerstill plan teacher --task classification --data texts.csv --student-layers 3
    """
    quiet = verbosity.setup()
    from layerstill.reporting.plan import plan_data, print_plan

    if data.task == TEXT_TASK:
        bundles = regime, extra, probabilities, supplementary, ood
        made = text.plan(teacher, data, recipe, stages, run.read(quiet, cache), bundles)
        print(json.dumps(plan_data(made), indent=2)) if verbosity.json_ else print_plan(made)
        return
    text.refuse()
    from layerstill import acts

    task = regime.read(data, run.seed)
    the_recipe = recipe.read(stages, default_recipe(task.paired))
    texts = supplementary.read(the_recipe)
    sets = ood.read(task, data)
    options = run.read(quiet, cache)
    layers, start = recipe.student_layers, recipe.init_from
    more = extra.read(data) | {"probabilities": probabilities.read(data, task), "learning_rate": stages.rate}
    more["more_teachers"] = names(probabilities.more_teachers)
    arguments = teacher, task, the_recipe, layers, options, start, sets, texts
    made = acts.plan(*arguments, student=recipe.student, **more)
    print(json.dumps(plan_data(made), indent=2)) if verbosity.json_ else print_plan(made)
