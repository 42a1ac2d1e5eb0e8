"""The act `plan` on running text."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from layerstill.acts.agree_text import TextAgreement, agree_text
from layerstill.acts.inputs import Model, model_at, read_recipe
from layerstill.acts.plan import MB
from layerstill.acts.text_corpus import shared_place
from layerstill.acts.text_length import (
    TIMED,
    Length,
    in_passes,
    in_steps,
    length_notice,
    steps_in_hours,
    time_steps,
)
from layerstill.data.text.blocks import Blocks
from layerstill.data.text.estimate import Look, look_at
from layerstill.data.text.packing import Corpus, describe
from layerstill.data.text.streams import corpus_at
from layerstill.names import DEFAULT_TEXT_RECIPE
from layerstill.progress import our_bars_only
from layerstill.recipe import Recipe
from layerstill.training.arguments import Options, arithmetic_of
from layerstill.training.cache_choice import CacheOptions
from layerstill.training.plan import Plan, make_plan
from layerstill.training.run_time import process_age, seconds_a_megabyte
from layerstill.training.stages import note
from layerstill.training.step_time import StepTime, fits_in_memory
from layerstill.training.text_time import TextPace, text_run_seconds


@our_bars_only()
def plan_text(
    teacher: Model,
    data: str | Path | Corpus,
    recipe: str | Path | Recipe = DEFAULT_TEXT_RECIPE,
    student_layers: int | None = None,
    options: Options = Options(),
    init_from: str | Path | None = None,
    length: Length = Length(),
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Plan:
    """What `distill_text` with the same arguments would do: blocks, terms, steps, memory, time. Trains nothing.

    A small corpus is packed on the side, so its numbers are those of the run. Of a large one some beginnings are read,
    and the rest is estimated. A few real steps of models with random weights are timed, unless these are too large.

    UserError for what `distill_text` would refuse before it loads weights.
    """
    begun, imports = time.perf_counter(), process_age()
    corpus = data if isinstance(data, Corpus) else corpus_at(data)
    recipe = read_recipe(recipe)
    length.agree(corpus, recipe, options)
    with model_at(teacher, tokenizer) as (place, _), tempfile.TemporaryDirectory() as folder:
        agreed = agree_text(place, recipe, student_layers, options, None if init_from is None else str(init_from))
        note([*agreed.notices, *corpus.notices])
        before = time.perf_counter()
        agreed, looked = _looked(corpus, agreed, options, length, Path(folder))
        looking = time.perf_counter() - before
        made = _made(agreed.recipe, agreed, looked, options)
        times = _times(made, agreed, looked.blocks, options)
        recipe = _settled(agreed.recipe, looked, length, times)
        made = _made(recipe, agreed, looked, options)
        made = replace(made, told=_told(made, recipe, looked, options))
        if times:
            start = imports + time.perf_counter() - begun - looking - sum(3 * t.step for t in times)
            made = _timed(made, recipe, agreed, looked, times, start)
    return made


def _looked(
    corpus: Corpus, agreed: TextAgreement, options: Options, length: Length, folder: Path
) -> tuple[TextAgreement, Look]:
    """What the corpus holds; for a smaller vocabulary it is looked at twice, first to count what it needs."""

    steps = None
    if corpus.open_ended and length.hours is not None:
        some = look_at(corpus, agreed.tokenizer, options.max_length, folder / "first").blocks
        seconds = [made.step for made in time_steps(agreed.recipe, _few(some), agreed, options)]
        steps = steps_in_hours(agreed.recipe, length.hours, seconds)
    most = length.most(corpus, agreed.recipe, options, steps)

    def look(tokenizer: PreTrainedTokenizerBase, place: Path) -> Look:
        shared = shared_place(corpus, tokenizer, options, most)
        return look_at(corpus, tokenizer, options.max_length, place, most, shared)

    first = look(agreed.tokenizer, folder / "whole")
    if agreed.recipe.student.vocabulary is None:
        return agreed, first
    whole, counts = agreed.tokenizer, first.blocks.counts()
    agreed = agreed.trimmed(counts)
    second = look(agreed.tokenizer, folder / "kept")
    assert agreed.tokens is not None
    told = agreed.vocabulary_notice(counts, second.blocks.counts(), len(whole))
    note([f"{told}; counted in {first.read}, so there may be more" if first.read else told])
    text = second.text | {"vocabulary": len(agreed.tokens)}
    return agreed, replace(second, text=text, seconds=first.seconds + second.seconds)


def _made(recipe: Recipe, agreed: TextAgreement, looked: Look, options: Options) -> Plan:
    """The plan before anything is timed; with the reason where models are too large for that."""
    made = make_plan(
        recipe,
        agreed.config,
        agreed.source,
        agreed.depth,
        agreed.head,
        options.seed,
        options.max_length,
        examples=looked.text["blocks"],
        max_steps=options.max_steps,
        tokens=looked.text["tokens"] / looked.text["blocks"],
        arithmetic=arithmetic_of(options.precision),
        vocabulary=agreed.vocabulary,
        cache=CacheOptions("off"),
    )
    if not fits_in_memory(made.memory_mb):
        made = replace(made, not_measured=f"the models need about {made.memory_mb:,.0f} MB, more than is free here")
    text = looked.text | {"estimated_from": looked.read or None}
    return replace(made, source=agreed.init_from or "teacher", text=text)


def _told(made: Plan, recipe: Recipe, looked: Look, options: Options) -> list[str]:
    """What there is to train on, for how long, and how large the student is."""
    said = describe(looked.text, options.max_length)
    return [
        f"about {said} (estimated from {looked.read})" if looked.read else said,
        length_notice(recipe, looked.text["blocks"], looked.text["tokens"], options),
        f"the student takes {MB * made.student_parameters:,.1f} MB in 32 bits",
    ]


def _times(made: Plan, agreed: TextAgreement, blocks: Blocks, options: Options) -> list[StepTime]:
    """What steps take; nothing where the models are too large to be tried."""
    if made.not_measured:
        return []
    return time_steps(agreed.recipe, _few(blocks), agreed, options)


def _few(blocks: Blocks) -> Blocks:
    """Some of them, evenly spread."""
    return blocks.part(np.arange(0, len(blocks), max(len(blocks) // TIMED, 1)))


def _settled(recipe: Recipe, looked: Look, length: Length, times: list[StepTime]) -> Recipe:
    blocks, tokens = looked.text["blocks"], looked.text["tokens"]
    if length.hours is None or not times:
        return in_passes(recipe, length, blocks, tokens)
    return in_steps(recipe, steps_in_hours(recipe, length.hours, [made.step for made in times]), blocks)


def _timed(
    made: Plan, recipe: Recipe, agreed: TextAgreement, looked: Look, times: list[StepTime], start: float
) -> Plan:
    """The plan with the time that its stages take here, and the whole run."""
    blocks = looked.text["blocks"]
    stages = [
        planned.timed(taken, (planned.steps or 0) * stage.batch_size / blocks)
        for stage, planned, taken in zip(recipe.stages, made.stages, times, strict=True)
    ]
    pace = TextPace(start, looked.seconds, seconds_a_megabyte())
    held_out, size = looked.text["held_out_blocks"], MB * made.student_parameters
    seconds = text_run_seconds(recipe.stages, stages, times, held_out, size, agreed.head.speaks, pace)
    return replace(made, stages=stages, seconds=seconds)
