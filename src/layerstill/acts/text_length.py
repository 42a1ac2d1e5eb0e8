"""How long a student trains on running text: passes, tokens or hours, as epochs of a recipe's stages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from layerstill.acts.agree_text import TextAgreement
from layerstill.data.encode import Encoded
from layerstill.data.text.blocks import Blocks
from layerstill.data.text.collator import TextCollator
from layerstill.data.text.packing import Corpus
from layerstill.errors import UserError
from layerstill.recipe import Recipe
from layerstill.students.build import student_config
from layerstill.training.arguments import Options
from layerstill.training.length import steps_of
from layerstill.training.step_time import StepTime, measure_step_seconds

TIMED = 512
"""Blocks of which a few batches are timed."""


@dataclass(frozen=True)
class Length:
    """How long training takes, in place of the recipe's epochs."""

    tokens: float | None = None
    """Tokens of the student's inputs, repetitions counted. No more are packed, so a corpus may be larger than that."""
    hours: float | None = None
    """On this machine, by the time of a few real steps; evaluations and checkpoints come on top."""

    def __post_init__(self) -> None:
        if self.tokens is not None and self.hours is not None:
            raise UserError(f"--max-tokens {self.tokens:g} and --max-hours {self.hours:g}: give one of them")
        for option, value in (("--max-tokens", self.tokens), ("--max-hours", self.hours)):
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"{option} {value:g}: it must be above 0")

    def agree(self, corpus: Corpus, recipe: Recipe, options: Options) -> None:
        """UserError for a corpus without an end and no length, and for one that would have to be read twice."""
        if not corpus.open_ended:
            return
        if self.tokens is None and self.hours is None and options.max_steps is None:
            raise UserError(
                f"--data {corpus.path}: a stream, and nobody knows how long it is; say how long to train with "
                "--max-tokens, --max-steps or --max-hours"
            )
        if not corpus.once:
            return
        for what, given in (("--max-hours", self.hours), ("student.vocabulary", recipe.student.vocabulary)):
            if given is not None:
                raise UserError(
                    f"--data {corpus.path}: {what} {given} looks at the texts before they are packed, and standard "
                    "input can be read once; write it into a file, or leave that out"
                )

    def most(self, corpus: Corpus, recipe: Recipe, options: Options, steps: Sequence[int] | None = None) -> int | None:
        """Tokens of the corpus that are read at most; None for all. `steps` are those of each stage, where known."""
        if self.tokens is not None:
            return math.ceil(self.tokens)
        if not corpus.open_ended:
            return None
        if steps is None:
            assert options.max_steps is not None
            steps = [options.max_steps] * len(recipe.stages)
        blocks = max(n * stage.batch_size for n, stage in zip(steps, recipe.stages, strict=True))
        # What is held out is on top: a hundredth, but 64 blocks at least.
        return (math.ceil(1.02 * blocks) + 64) * options.max_length


def in_passes(recipe: Recipe, length: Length, blocks: int, tokens: float) -> Recipe:
    """The recipe with its stages as long as epochs or tokens say, in the proportions that it has.

    `blocks` are trained on, and have so many `tokens`.
    """
    numbers = _numbers(recipe)
    if length.tokens is None:
        return recipe.with_epochs(numbers)
    share = length.tokens / tokens / sum(numbers)
    # At least half a step, which is rounded up to one.
    least = [0.5 * stage.batch_size / blocks for stage in recipe.stages]
    return recipe.with_epochs([max(n * share, few) for n, few in zip(numbers, least, strict=True)])


def steps_in_hours(recipe: Recipe, hours: float, seconds: Sequence[float]) -> list[int]:
    """Steps of each stage in so many hours, if one of them takes so many `seconds`."""
    numbers, whole = _numbers(recipe), 3600 * hours
    return [max(round(whole * n / sum(numbers) / s), 1) for n, s in zip(numbers, seconds, strict=True)]


def in_steps(recipe: Recipe, steps: Sequence[int], blocks: int) -> Recipe:
    """The recipe with stages of so many steps over so many blocks."""
    # Half a step short, so that rounding up ends at the number.
    sizes = [math.ceil(blocks / stage.batch_size) for stage in recipe.stages]
    return recipe.with_epochs([(n - 0.5) / size for n, size in zip(steps, sizes, strict=True)])


def _numbers(recipe: Recipe) -> list[float]:
    return [float(stage.automatic or stage.epochs) for stage in recipe.stages]


def time_steps(recipe: Recipe, some: Blocks, agreed: TextAgreement, options: Options) -> list[StepTime]:
    """What a step of each stage takes here, measured on some blocks."""
    encoded = Encoded(some, 0, some.tokens, 0)  # type: ignore[arg-type]  # read as rows and lengths only
    student = student_config(agreed.source, agreed.depth, recipe.student, options.seed)
    if agreed.vocabulary is not None:
        agreed.vocabulary.renumber(student)
    times = []
    for number, stage in enumerate(recipe.stages):
        collate: Any = TextCollator(agreed.tokenizer, agreed.head, stage.hiding, options.seed)
        times.append(
            measure_step_seconds(
                recipe, number, student, agreed.config, encoded, collate, agreed.head, options, agreed.tokens
            )
        )
    return times


def length_notice(recipe: Recipe, blocks: int, tokens: float, options: Options) -> str:
    """How long training is, in steps, tokens and passes."""
    steps = [steps_of(stage, blocks, options.max_steps) for stage in recipe.stages]
    told = " and ".join(
        f"{n:,} steps of {stage.batch_size} blocks" for n, stage in zip(steps, recipe.stages, strict=True)
    )
    seen = sum(n * stage.batch_size for n, stage in zip(steps, recipe.stages, strict=True))
    return (
        f"training takes {told}, about {seen * tokens / blocks:,.0f} tokens, {seen / blocks:.2g} passes over the corpus"
    )
