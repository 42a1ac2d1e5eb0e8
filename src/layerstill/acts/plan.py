"""The act `plan`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from layerstill.acts.agree import More, agree
from layerstill.acts.extra import gather, most
from layerstill.acts.inputs import Model, model_at, read_recipe, read_task, start_of
from layerstill.data.copies import Augment
from layerstill.data.encode import mean_tokens
from layerstill.data.extra import Unlabelled
from layerstill.data.ood import OodSet
from layerstill.data.probabilities import Probabilities
from layerstill.data.supplementary import Supplementary
from layerstill.heads import Classes
from layerstill.recipe import Recipe
from layerstill.training.arguments import Options, arithmetic_of
from layerstill.training.plan import Plan, make_plan
from layerstill.training.stages import note


def plan(
    teacher: Model | None,
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
    unlabelled: Unlabelled | None = None,
    augment: Augment | None = None,
    probabilities: Probabilities | None = None,
) -> Plan:
    """What `distill` with the same arguments would do: pairs, captured tensors, depth, memory. Trains nothing.

    UserError for what `distill` would refuse before it loads weights.
    """
    recipe = read_recipe(recipe)
    recipe.agree_on_supplementary(supplementary is not None)
    more = More(unlabelled, augment, probabilities)
    with model_at(start_of(teacher, init_from, probabilities), tokenizer) as (place, _):
        start = None if init_from is None else str(init_from)
        task = read_task(data, place, labels, Classes() if probabilities else None)
        agreed = agree(place, task, recipe, student_layers, options, start, ood, supplementary, more)
        agreed = agreed.joined_by(gather(agreed, ask_models=False))
    train, head = agreed.task.splits["train"], agreed.task.head
    made = make_plan(
        recipe,
        agreed.config,
        agreed.source,
        agreed.student_layers,
        head,
        options.seed,
        options.max_length,
        examples=len(train),
        max_steps=options.max_steps,
        vocabulary=agreed.vocabulary,
        extra=most(agreed) + (len(agreed.extra.rows) if agreed.extra else 0),
        supplementary=None if supplementary is None else len(supplementary.texts),
        tokens=mean_tokens(train, agreed.tokenizer, options.max_length, head),
        arithmetic=arithmetic_of(options.precision),
        cache=options.cache,
        ready=probabilities is not None,
    )
    note([*agreed.notices, *(agreed.extra.notices if agreed.extra else ())])
    if most(agreed):
        note([f"--augment-model: its copies are made when the run begins; at most {most(agreed)} are counted here"])
    return made
