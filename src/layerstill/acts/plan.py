"""The act `plan`."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from layerstill.acts.agree import Agreement, More, agree
from layerstill.acts.extra import gather, most
from layerstill.acts.inputs import Model, model_at, read_recipe, read_task, recipe_for, start_of
from layerstill.acts.rates import Rate, apply_rate, rate_notice, refuse_untaught, trials_of
from layerstill.acts.start import Start
from layerstill.data.copies import Augment
from layerstill.data.encode import evenly, mean_tokens
from layerstill.data.extra import Unlabelled
from layerstill.data.ood import OodSet
from layerstill.data.probabilities import Probabilities
from layerstill.data.slices import slice_of
from layerstill.data.supplementary import Supplementary
from layerstill.evaluation.latency import measure_speed, torch_runner
from layerstill.families import depth_of
from layerstill.heads import Classes
from layerstill.progress import our_bars_only
from layerstill.recipe import Recipe
from layerstill.students.build import student_config
from layerstill.training.arguments import Options, arithmetic_of
from layerstill.training.models import adopt_padding, load_config
from layerstill.training.plan import ExpectedSpeed, Plan, forward_tflop, make_plan
from layerstill.training.reach import reach_notices
from layerstill.training.run_time import (
    AROUND,
    COPIES,
    Amounts,
    Pace,
    RunTime,
    process_age,
    run_time,
    seconds_a_megabyte,
)
from layerstill.training.stages import note
from layerstill.training.step_time import StepTime, fits_in_memory, measure_step_seconds
from layerstill.training.teachers import MoreTeachers

MB = 4 / 1e6
"""10^6 bytes of a parameter in 32 bits."""
BUDGET = 15.0
"""Seconds for timing student and teacher."""


@our_bars_only()
def plan(
    teacher: Model | None,
    data: Any,
    recipe: str | Path | Recipe | None = None,
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
    more_teachers: Sequence[str | Path] = (),
    speed: bool = True,
) -> Plan:
    """What `distill` with the same arguments would do: pairs, captured tensors, depth, memory, time. Trains nothing.

    Unless the models are too large to be tried, a few real steps of models with random weights tell how long the run
    takes here, and with `speed` an untrained student and teacher take turns on the texts to tell how fast it will be.

    UserError for what `distill` would refuse before it loads weights.
    """
    begun = time.perf_counter()
    imports = process_age()
    named = None if recipe is None else read_recipe(recipe)
    refuse_untaught(learning_rate, probabilities)
    more, start = More(unlabelled, augment, probabilities, MoreTeachers.of(more_teachers)), Start.of(init_from, student)
    with model_at(start_of(teacher, start.name, probabilities), tokenizer) as (place, _):
        task = read_task(data, place, labels, Classes() if probabilities else None)
        recipe = apply_rate(recipe_for(named, task), learning_rate)
        recipe.agree_on_supplementary(supplementary is not None)
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
        ready=probabilities is not None or _answered(agreed),
    )
    teachers = 1 + len(agreed.more_teachers.names) if agreed.more_teachers and _answered(agreed) else 0
    made = replace(made, source=start.name or "teacher", left_out=agreed.left_out, teachers=teachers)
    if start.fresh:
        made = replace(made, initialisation=None)
    note([*agreed.notices, *(agreed.extra.notices if agreed.extra else ()), *agreed.memory_notices()])
    if most(agreed):
        note([f"--augment-model: its copies are made when the run begins; at most {most(agreed)} are counted here"])
    sizes = agreed.sizes
    if learning_rate != "auto" and agreed.recipe.needs_teacher:
        note(reach_notices(agreed.recipe, sizes, options.max_steps))
    made = _measured(made, agreed, imports + time.perf_counter() - begun, learning_rate == "auto", speed)
    if learning_rate == "auto":
        note([rate_notice(agreed.recipe, agreed.task, sizes, options)])
    return made


def _answered(agreed: Agreement) -> bool:
    """Whether several teachers say beforehand all that is asked of them, so that none runs in training."""
    return agreed.more_teachers is not None and not any(stage.beyond_logits for stage in agreed.recipe.stages)


def _measured(made: Plan, agreed: Agreement, start: float, tuned: bool, speed: bool) -> Plan:
    """The plan with what was measured here; with the reason where models are too large to be tried.

    `start` is how long it took to come here, which a run takes too.
    """
    if not fits_in_memory(made.memory_mb):
        why = f"the models need about {made.memory_mb:,.0f} MB, more than is free here"
        return replace(made, not_measured=why)
    student = student_config(agreed.source, agreed.student_layers, agreed.recipe.student, agreed.options.seed)
    if agreed.vocabulary is not None:
        agreed.vocabulary.renumber(student)
    made, taken = _timed(made, agreed, student)
    made = replace(made, seconds=_seconds(made, agreed, student, taken, start, tuned))
    return replace(made, speed=expected_speed(agreed, student)) if speed else made


def _seconds(
    made: Plan, agreed: Agreement, student: PretrainedConfig, taken: list[StepTime], start: float, tuned: bool
) -> dict[str, float] | None:
    """What the run takes by what it goes to; None without a stage that was timed."""
    task, recipe, options = agreed.task, agreed.recipe, agreed.options
    tokens = mean_tokens(task.splits["dev"], agreed.readers.student, options.max_length, task.head)
    ours, theirs = (forward_tflop(c, task.head, depth_of(c), tokens) for c in (student, agreed.config))
    taught = recipe.needs_teacher and agreed.probabilities is None
    pace = Pace(
        start=start + taken[0].making,
        score=taken[0].score,
        teacher_score=taken[0].score * theirs / ours if taught else 0.0,
        megabyte=seconds_a_megabyte(),
    )
    epochs = [
        (planned.steps or 0) * stage.batch_size / len(agreed.split(stage))
        for stage, planned in zip(recipe.stages, made.stages, strict=True)
    ]
    far = sum(len(one.split) for one in agreed.fitted)
    amounts = Amounts(MB * made.student_parameters, len(task.splits["dev"]), far, tuple(epochs))
    found = run_time(recipe.stages, made.stages, amounts, pace)
    if found is None:
        return None
    if agreed.more_teachers is not None:
        configs = [agreed.config, *(load_config(name) for name in agreed.more_teachers.names)]
        tflop = sum(forward_tflop(config, task.head, depth_of(config), tokens) for config in configs)
        texts = sum(agreed.sizes.values()) + len(task.splits["dev"])
        found = replace(found, asking=texts * taken[0].score * tflop / ours)
    if tuned:
        found = replace(found, trials=_trial_seconds(made, agreed, found, pace))
    return {name: round(value, 2) for name, value in asdict(found).items()} | {"total": round(found.total, 2)}


def _trial_seconds(made: Plan, agreed: Agreement, run: RunTime, pace: Pace) -> float:
    """Of the trainings that find a learning rate: as many updates at the run's pace, and what each takes besides."""
    trainings, updates = trials_of(agreed.recipe, agreed.sizes, agreed.options.max_steps)
    steps = sum(stage.steps or 0 for stage in made.stages)
    held = len(slice_of(agreed.task, agreed.options.seed).splits["dev"])
    each = AROUND + pace.megabyte * MB * made.student_parameters * (COPIES + 2) + 2 * pace.score * held
    return updates * run.training / max(steps, 1) + trainings * each


def _timed(made: Plan, agreed: Agreement, student: PretrainedConfig) -> tuple[Plan, list[StepTime]]:
    """The plan with the time that its stages take here, and what was measured for each."""
    recipe, head = agreed.recipe, agreed.task.head
    stages, each = [], []
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
        if agreed.probabilities is not None or _answered(agreed):
            taken = replace(taken, step=taken.step - taken.teacher, teacher=0.0)  # no teacher runs
        assert planned.steps is not None
        stages.append(planned.timed(taken, planned.steps * stage.batch_size / len(split)))
        each.append(taken)
    return replace(made, stages=stages), each


def expected_speed(agreed: Agreement, student: PretrainedConfig) -> ExpectedSpeed:
    """How fast a student of these sizes is on texts of dev, beside its teacher if there is one, and how large both are.

    Both have random weights, which take as long as others.
    """
    head, length = agreed.task.head, agreed.options.max_length
    shapes = {"student": (student, agreed.readers.student)}
    if agreed.probabilities is None:
        shapes["teacher"] = (agreed.config, agreed.teacher_tokenizer)
    runners, megabytes = {}, {}
    with torch.random.fork_rng(devices=[]):
        for name, (config, tokenizer) in shapes.items():
            model = head.auto_class.from_config(config).float()
            adopt_padding(model, tokenizer)
            megabytes[name] = round(MB * model.num_parameters(), 1)
            runners[name] = torch_runner(model, tokenizer, length)
    speeds = measure_speed(runners, agreed.task.splits["dev"].texts, budget_seconds=BUDGET)
    ours, theirs = speeds["student"], speeds.get("teacher")
    return ExpectedSpeed(
        p50_ms=ours.p50_ms,
        teacher_ms=None if theirs is None else theirs.p50_ms,
        times_as_fast=None if theirs is None else round(theirs.p50_ms / ours.p50_ms, 2),
        mb=megabytes["student"],
        teacher_mb=megabytes.get("teacher"),
        threads=ours.threads,
    )
