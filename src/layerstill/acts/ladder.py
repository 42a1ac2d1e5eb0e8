"""What `compress` will do, decided before anything is trained: which students, how they start, for how long."""

import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from layerstill.acts.agree import agree
from layerstill.acts.plan import plan
from layerstill.acts.start import Start
from layerstill.compression.effort import Candidate, Effort, candidates_of, effort_named, ladder_of
from layerstill.data.encode import mean_tokens
from layerstill.data.label_agreement import agree_on_labels
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.families import depth_of, family_of
from layerstill.recipe import Recipe
from layerstill.studies.capacity import AtOnce, Jobs, Machine, given, jobs_of, most_at_once, torch_threads
from layerstill.training.arguments import Options, arithmetic_of
from layerstill.training.length import settled, steps_of
from layerstill.training.models import fingerprint, load_config, load_tokenizer, require_head
from layerstill.training.plan import make_plan
from layerstill.training.stages import note

log = logging.getLogger("layerstill")

MOST_TOKENS = 2_000_000
"""Tokens that a student of effort `normal` reads in training at most, so that long texts do not take hours."""
EXPORT_SECONDS, ROW_SECONDS, TIMING_SECONDS = 10.0, 4.0, 40.0
"""What exporting a model in two forms, weighing a row, and timing all rows took for a small encoder on two cores,
without the time for the texts of dev."""
SCORING = 1.4
"""What scoring an example in all three forms takes, as a share of training on it once with as many layers."""


FEWEST_SIDE_BY_SIDE = 300
"""Updates from which on students are trained at the same time."""


@dataclass(frozen=True)
class Planned:
    """A student to be trained."""

    name: str
    """In the table."""
    folder: str
    layers: int | None
    """None for a model that is trained as it is."""
    overrides: tuple[str, ...] = ()
    """Settings of its recipe besides those of all students."""
    model: str | None = None
    """What it starts as, if it is not cut from the teacher."""
    model_fingerprint: str | None = None

    @property
    def what(self) -> str:
        """For the log."""
        return f"student of {self.name}" if self.model is None else self.name

    def to_data(self) -> dict[str, Any]:
        """Plain data."""
        return json_like(asdict(self))


def json_like(data: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, as JSON gives them back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}


@dataclass(frozen=True)
class Ladder:
    """All of it."""

    teacher: str
    config: PretrainedConfig
    task: Task
    """With its outputs in the teacher's order."""
    effort_name: str
    candidates: tuple[Candidate, ...]
    students: tuple[Planned, ...]
    updates: int
    """Of every student."""
    rungs: tuple[int, ...]
    """Updates of the trials, rung by rung."""
    options: Options
    overrides: tuple[str, ...]
    """Settings that every student's recipe gets."""

    @property
    def middle(self) -> Planned:
        """The student that trials are made as: of middle depth."""
        cut = [one for one in self.students if one.model is None and not one.overrides]
        return cut[len(cut) // 2]

    def recipe(self, candidate: Candidate, updates: int, student: Planned) -> Recipe:
        """A candidate's recipe for a student, with its stages as long as `updates` together say."""
        start: tuple[str, ...] = ()
        if student.model is not None:
            start = ("student.initialisation=first-k",)  # it keeps all its layers
            # Its tokens may be others; a stage without anything else than states of tokens would be lost with its time.
            candidate = replace(candidate, recipe="best" if candidate.recipe == "best-pairs" else candidate.recipe)
        recipe = candidate.resolved((*self.overrides, *student.overrides, *start))
        examples = len(self.task.splits["train"])
        recipe, _ = settled(recipe, {"task": examples})
        natural = sum(steps_of(stage, examples, None) for stage in recipe.stages)
        # Half a step short, so that rounding up ends at the number.
        share = (updates - 0.5) / natural
        return recipe.with_epochs([float(stage.epochs) * share for stage in recipe.stages])


def climb_down(
    teacher: str,
    task: Task,
    effort: str = "normal",
    options: Options = Options(),
    layers: Sequence[int] | None = None,
    max_mb: float | None = None,
    student: str | None = None,
) -> Ladder:
    """Decide what `compress` does; the arguments are the same. Nothing is written and no weights are read.

    UserError for what does not fit together.
    """
    spent = effort_named(effort)
    task = task.with_dev()
    config = load_config(teacher, task.head)
    require_head(teacher, config, task.head)
    task, notices = agree_on_labels(task, config, f"teacher {teacher}")
    total = depth_of(config)
    depths = sorted(set(layers), reverse=True) if layers else ladder_of(total)
    if wrong := [depth for depth in depths if not 1 <= depth <= total]:
        raise UserError(f"--layers {wrong[0]}: the teacher has {total} layers; choose 1 to {total}")
    note([*task.notices, *notices])
    students = [Planned(f"{depth} layer{'s' * (depth > 1)}", f"{depth}-layers", depth) for depth in depths]
    students += _slimmer(config, depths[(len(depths) - 1) // 2]) if spent.slimmer and not layers else []
    students += _narrower(config, depths[len(depths) // 2]) if spent.narrower else []
    if student is not None:
        students.append(_named(student, task))
    candidates = tuple(candidates_of(spent, task.paired))
    updates = _length(candidates[0], task, teacher, config, spent, options)
    rungs = tuple(sorted({min(max(round(updates * share), 20), updates) for share in spent.rungs}))
    overrides = _overrides(config, max_mb)
    made = Ladder(teacher, config, task, effort, candidates, tuple(students), updates, rungs, options, overrides)
    return replace(made, students=tuple(one for one in students if _fits(made, one)))


def _fits(ladder: Ladder, one: Planned) -> bool:
    """Whether a student can be trained; UserError where the user asked for it, before hours are spent on others."""
    start = Start.of(None, one.model)
    for candidate in ladder.candidates:
        recipe = ladder.recipe(candidate, ladder.updates, one)
        try:
            agree(ladder.teacher, ladder.task, recipe, one.layers, ladder.options, start)
        except UserError:
            if not one.overrides:
                raise
            return False  # a narrower one, which was our idea
    return True


def _slimmer(config: PretrainedConfig, depth: int) -> list[Planned]:
    """A student with half of the feed-forward units, where the family can be narrowed: as fast as one of two thirds of
    its depth, and better wherever it was tried (docs/evidence.md)."""
    widths = family_of(config).widths
    units = 0 if widths is None else getattr(config, widths.intermediate, 0)
    if units < 2:
        return []
    name = f"{depth} layer{'s' * (depth > 1)}, half feed-forward"
    return [Planned(name, f"{depth}-layers-half-feed-forward", depth, (f"student.intermediate_size={units // 2}",))]


def _narrower(config: PretrainedConfig, depth: int) -> list[Planned]:
    """A student of half the width, where the family can be narrowed."""
    if family_of(config).widths is None or config.hidden_size % 4:
        return []
    settings = [f"hidden_size={config.hidden_size // 2}", "narrowing=svd"]
    inner = family_of(config).widths
    if inner is not None and (units := getattr(config, inner.intermediate, None)):
        settings.append(f"intermediate_size={units // 2}")
    name = f"{depth} layer{'s' * (depth > 1)}, half width"
    return [Planned(name, f"{depth}-layers-half-width", depth, tuple(f"student.{one}" for one in settings))]


def _named(student: str, task: Task) -> Planned:
    config = load_config(student, task.head)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(student).name) or "student"
    return Planned(
        f"student {name}", f"student-{name}", None, model=student, model_fingerprint=fingerprint(student, config)
    )


def _length(
    candidate: Candidate, task: Task, teacher: str, config: PretrainedConfig, effort: Effort, options: Options
) -> int:
    """Updates of a student: what its recipe takes by itself, less where texts are long, times the effort."""
    train = task.splits["train"]
    recipe, _ = settled(candidate.resolved(), {"task": len(train)})
    natural = sum(steps_of(stage, len(train), None) for stage in recipe.stages)
    tokens = mean_tokens(train, load_tokenizer(teacher, config), options.max_length, task.head)
    most = MOST_TOKENS / (tokens * recipe.stages[0].batch_size)
    updates = round(min(natural, most) * effort.length)
    return max(updates if options.max_steps is None else min(updates, options.max_steps), 1)


def _overrides(config: PretrainedConfig, max_mb: float | None) -> tuple[str, ...]:
    """A smaller vocabulary where the embeddings alone, a byte a weight, leave little of the size that is allowed."""
    embeddings = config.vocab_size * getattr(config, "embedding_size", config.hidden_size) / 1e6
    if max_mb is not None and embeddings > max_mb / 2:
        log.info(
            "note: the embeddings of %d tokens take %.1f MB in int8, so students keep the tokens of the training texts",
            config.vocab_size,
            embeddings,
        )
        return ("student.vocabulary=train",)
    return ()


def side_by_side(ladder: Ladder, jobs: Jobs = "auto") -> AtOnce:
    """How many students are trained at a time; UserError for what is neither a number from 1 nor `auto`.

    `auto` is one where students are few or train for so short a time that starting a process would take as long, and
    on a GPU, which one student is taken to fill.
    """
    wanted = jobs_of(str(jobs))
    count = len(ladder.students)
    if wanted != "auto":
        return given(min(wanted, max(count, len(ladder.candidates))))
    if count == 1 or ladder.updates < FEWEST_SIDE_BY_SIDE or torch.cuda.is_available():
        return given(1)

    def megabytes() -> float:
        """Of the largest of them, which is below the teacher's depth."""
        longest = ladder.recipe(ladder.candidates[0], ladder.updates, ladder.students[0])
        options, config = ladder.options, ladder.config
        models = config, config, depth_of(config), ladder.task.head, options.seed, options.max_length
        return make_plan(longest, *models, arithmetic=arithmetic_of(options.precision)).memory_mb

    return most_at_once(Machine.here(), megabytes, count, count)


@dataclass(frozen=True)
class Step:
    """One thing that `compress` will do."""

    what: str
    updates: int | None
    """Optimiser steps; None where nothing is trained."""
    seconds: float | None
    """How long it takes here; None where models are too large to be tried."""


def foreseen(ladder: Ladder, jobs: Jobs = "auto") -> list[Step]:
    """What `compress` will do and how long it takes on this machine, by a few real optimiser steps of every student.

    Where several are trained at a time, each step has its share of the whole time.
    """
    at_once = side_by_side(ladder, jobs)
    with torch_threads(at_once.threads):
        taken = {one.name: _seconds_of(ladder, one) for one in ladder.students}
    steps = []
    left = len(ladder.candidates)
    for updates in ladder.rungs if left > 1 else ():
        whole = taken[ladder.middle.name]
        seconds = None if whole is None else -(-left // at_once.count) * updates * whole / ladder.updates
        steps.append(Step(f"{left} candidates, each as a {ladder.middle.what}", left * updates, seconds))
        left = (left + 1) // 2
    known = [seconds for seconds in taken.values() if seconds is not None]
    saved = _side_by_side_seconds(known, at_once.count) / sum(known) if known else 1.0
    for one in ladder.students:
        seconds = taken[one.name]
        steps.append(Step(one.what, ladder.updates, None if seconds is None else saved * seconds))
    models = len(ladder.students) + 1
    # Texts are scored in this process, with all threads.
    middle = taken[ladder.middle.name] if at_once.count == 1 else _seconds_of(ladder, ladder.middle)
    scoring = _scoring_seconds(ladder, middle)
    for what, fixed in (
        (f"export of {models} models, in 32 and in 8 bits", models * EXPORT_SECONDS),
        (f"scores and times of {3 * models} rows", TIMING_SECONDS + 3 * models * ROW_SECONDS),
    ):
        steps.append(Step(what, None, None if scoring is None else fixed + scoring))
    return steps


def _side_by_side_seconds(each: Sequence[float], count: int) -> float:
    """How long jobs take, so many at a time, the longest first."""
    ends = [0.0] * min(count, len(each))
    for seconds in sorted(each, reverse=True):
        ends[ends.index(min(ends))] += seconds
    return max(ends)


def _scoring_seconds(ladder: Ladder, middle: float | None) -> float | None:
    """How long it takes to score teacher and students on dev in three forms, which export and rows do once each.

    `middle` is how long the middle student trains.
    """
    if middle is None:
        return None
    total = depth_of(ladder.config)
    layers = total + sum(one.layers or total for one in ladder.students)
    seen = ladder.updates * ladder.recipe(ladder.candidates[0], ladder.updates, ladder.middle).stages[0].batch_size
    return SCORING * len(ladder.task.splits["dev"]) * middle / seen * layers / (ladder.middle.layers or total)


def _seconds_of(ladder: Ladder, one: Planned) -> float | None:
    recipe = ladder.recipe(ladder.candidates[0], ladder.updates, one)
    options = replace(ladder.options, max_steps=None)
    stages = plan(ladder.teacher, ladder.task, recipe, one.layers, options, student=one.model, speed=False).stages
    parts = [stage.seconds for stage in stages]
    return None if None in parts else sum(part for part in parts if part is not None)
