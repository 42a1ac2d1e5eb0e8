"""`layerstill distill`."""

from layerstill.commands.bundled import bundled
from layerstill.commands.common import names, show
from layerstill.commands.more_texts import ExtraOptions, ProbabilityOptions, SupplementaryOptions, Teacher
from layerstill.commands.options import (
    CacheOptions,
    OodOptions,
    Output,
    RegimeOptions,
    RunOptions,
    TaskOptions,
    Verbosity,
)
from layerstill.commands.push import PushOptions
from layerstill.commands.recipe_options import RecipeOptions, StageOptions
from layerstill.commands.running_text import RunningTextOptions
from layerstill.names import TEXT_TASK, default_recipe


@bundled
def distill(
    data: TaskOptions,
    regime: RegimeOptions,
    extra: ExtraOptions,
    probabilities: ProbabilityOptions,
    supplementary: SupplementaryOptions,
    ood: OodOptions,
    recipe: RecipeOptions,
    stages: StageOptions,
    text: RunningTextOptions,
    output: Output,
    run: RunOptions,
    cache: CacheOptions,
    push: PushOptions,
    verbosity: Verbosity,
    teacher: Teacher = None,
) -> None:
    """Distil a fine-tuned teacher into a student with fewer layers.

    The output folder is an ordinary model folder, which transformers loads without layerstill.
    A run that was interrupted resumes when the same command is given again. Several processes share every batch:
    `torchrun --nproc_per_node 2 -m layerstill distill ...`

    With `--task text` the student is distilled on running text instead, before there is a task.

    Example:
        layerstill distill teacher --task classification --data my.csv --student-layers 3 --output small
    """
    quiet = verbosity.setup()
    push.check()
    if data.task == TEXT_TASK:
        bundles = regime, extra, probabilities, supplementary, ood
        result = text.distill(teacher, data, recipe, stages, output, run.read(quiet, cache), bundles)
        show(result, verbosity.json_)
        push.push(result.folder)
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
    arguments = teacher, task, the_recipe, layers, output, options, start, sets, texts
    result = acts.distill(*arguments, student=recipe.student, **more)
    show(result, verbosity.json_)
    push.push(result.folder)
