"""The act `plan`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from layerstill.acts.agree import Agreement, More, agree
from layerstill.acts.extra import gather, most
from layerstill.acts.inputs import Model, model_at, read_recipe, read_task, start_of
from layerstill.acts.rates import Rate, apply_rate, rate_notice, refuse_untaught
from layerstill.acts.start import Start
from layerstill.data.copies import Augment
from layerstill.data.encode import evenly, mean_tokens
from layerstill.data.extra import Unlabelled
from layerstill.data.ood import OodSet
from layerstill.data.probabilities import Probabilities
from layerstill.data.supplementary import Supplementary
from layerstill.heads import Classes
from layerstill.progress import our_bars_only
from layerstill.recipe import Recipe
from layerstill.students.build import student_config
from layerstill.training.arguments import Options, arithmetic_of
from layerstill.training.plan import Plan, make_plan
from layerstill.training.reach import reach_notices
from layerstill.training.stages import note
from layerstill.training.step_time import StepTime, fits_in_memory, measure_step_seconds


@our_bars_only()
def plan(
    teacher: Model | None,
    data: Any,
    recipe: str | Path | Recipe = "best",
    student_layers: int | None = None,
    options: Options = Options(),
    init_from: str | Path | None = None,
    ood: Sequence[OodSet] = (),
    supplementary: Supplementary | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    labels: Any = None,
    student: str | Path | None = None,
    learning_rate: Rate = None,
    unlabelled: Unlabelled | None = None,
    augment: Augment | None = None,
    probabilities: Probabilities | None = None,
) -> Plan:
    """What `distill` with the same arguments would do: pairs, captured tensors, depth, memory. Trains nothing.

    UserError for what `distill` would refuse before it loads weights.
    """
    recipe = apply_rate(read_recipe(recipe), learning_rate)
    recipe.agree_on_supplementary(supplementary is not None)
    refuse_untaught(learning_rate, probabilities)
    more, start = More(unlabelled, augment, probabilities), Start.of(init_from, student)
    with model_at(start_of(teacher, start.name, probabilities), tokenizer) as (place, _):
        task = read_task(data, place, labels, Classes() if probabilities else None)
        agreed = agree(place, task, recipe, student_layers, options, start, ood, supplementary, more)
        agreed = agreed.joined_by(gather(agreed, ask_models=False))
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
        extra=most(agreed) + (len(agreed.extra.rows) if agreed.extra else 0),
        supplementary=None if supplementary is None else len(supplementary.texts),
        tokens=lengths[0],
        teacher_tokens=lengths[1],
        arithmetic=arithmetic_of(options.precision),
        cache=options.cache,
        ready=probabilities is not None,
    )
    made = replace(made, source=start.name or "teacher", left_out=agreed.left_out)
    if start.fresh:
        made = replace(made, initialisation=None)
    note([*agreed.notices, *(agreed.extra.notices if agreed.extra else ())])
    if most(agreed):
        note([f"--augment-model: its copies are made when the run begins; at most {most(agreed)} are counted here"])
    sizes = agreed.sizes
    if learning_rate != "auto" and agreed.recipe.needs_teacher:
        note(reach_notices(agreed.recipe, sizes, options.max_steps))
    made = _timed(made, agreed)
    if learning_rate == "auto":
        note([rate_notice(agreed.recipe, agreed.task, sizes, options)])
    return made


def _timed(made: Plan, agreed: Agreement) -> Plan:
    """The plan with the time that its stages take here, unless the models are too large to be tried."""
    if not fits_in_memory(made.memory_mb):
        return made
    recipe, head = agreed.recipe, agreed.task.head
    student = student_config(agreed.source, agreed.student_layers, recipe.student, agreed.options.seed)
    if agreed.vocabulary is not None:
        agreed.vocabulary.renumber(student)
    stages = []
    for number, (stage, planned) in enumerate(zip(recipe.stages, made.stages, strict=True)):
        split = agreed.split(stage)
        some = agreed.readers.encode(evenly(split).unweighted(), agreed.options.max_length, head)
        taken = measure_step_seconds(
            recipe,
            number,
            student,
            agreed.config,
            some,
            agreed.readers.collator(head),
            head,
            agreed.options,
            agreed.tokens,
        )
        if agreed.probabilities is not None:
            taken = StepTime(taken.step - taken.teacher, 0.0)  # no teacher runs
        assert planned.steps is not None
        stages.append(planned.timed(taken, planned.steps * stage.batch_size / len(split)))
    return replace(made, stages=stages)
