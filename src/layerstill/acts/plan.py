"""The act `plan`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from layerstill.acts.agree import agree
from layerstill.acts.inputs import Model, model_at, read_recipe, read_task
from layerstill.acts.start import Start
from layerstill.data.encode import mean_tokens
from layerstill.data.ood import OodSet
from layerstill.data.supplementary import Supplementary
from layerstill.recipe import Recipe
from layerstill.training.arguments import Options, arithmetic_of
from layerstill.training.plan import Plan, make_plan
from layerstill.training.stages import note


def plan(
    teacher: Model,
    data: Any,
    recipe: str | Path | Recipe = "kd",
    student_layers: int | None = None,
    options: Options = Options(),
    init_from: str | Path | None = None,
    ood: Sequence[OodSet] = (),
    supplementary: Supplementary | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    labels: Any = None,
    student: str | Path | None = None,
) -> Plan:
    """What `distill` with the same arguments would do: pairs, captured tensors, depth, memory. Trains nothing.

    UserError for what `distill` would refuse before it loads weights.
    """
    recipe = read_recipe(recipe)
    recipe.agree_on_supplementary(supplementary is not None)
    with model_at(teacher, tokenizer) as (place, _):
        start = Start.of(init_from, student)
        agreed = agree(
            place, read_task(data, place, labels), recipe, student_layers, options, start, ood, supplementary
        )
    train, head, readers = agreed.task.splits["train"], agreed.task.head, agreed.readers
    lengths = [mean_tokens(train, own, options.max_length, head) for own in (readers.student, readers.teacher)]
    made = make_plan(
        agreed.recipe,
        agreed.config,
        agreed.source,
        agreed.student_layers,
        head,
        options.seed,
        options.max_length,
        examples=len(train),
        max_steps=options.max_steps,
        vocabulary=agreed.vocabulary,
        supplementary=None if supplementary is None else len(supplementary.texts),
        tokens=lengths[0],
        teacher_tokens=lengths[1],
        arithmetic=arithmetic_of(options.precision),
        cache=options.cache,
    )
    made = replace(made, source=start.name or "teacher", left_out=agreed.left_out)
    if start.fresh:
        made = replace(made, initialisation=None)
    note(agreed.notices)
    return made
