"""What a distillation would do, worked out from configurations alone: nothing is trained and no weights are read."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import PretrainedConfig

from layerstill.errors import UserError
from layerstill.families import depth_of, layers_of, shape_of
from layerstill.heads import Head
from layerstill.knowledge.bound_objective import BoundObjective
from layerstill.knowledge.capture import CapturePlan
from layerstill.knowledge.meeting import MAP_ELEMENTS, PART_ELEMENTS
from layerstill.knowledge.word_logits import PART_ELEMENTS as PART_OF_WORDS
from layerstill.knowledge.word_logits import WHOLE_ELEMENTS
from layerstill.recipe import Recipe
from layerstill.sizes import size_in_words
from layerstill.students.build import chosen_layers, student_config
from layerstill.students.vocabulary import Vocabulary
from layerstill.training.accounting import forward_flops
from layerstill.training.cache_choice import CacheOptions, contents_to_cache
from layerstill.training.length import steps_of
from layerstill.training.memories import memory_bytes
from layerstill.training.misfits import refuse_misfits
from layerstill.training.module import bind_objectives, union
from layerstill.training.step_time import StepTime
from layerstill.training.teacher_cache import DTYPES, Arithmetic

BYTES = 4


@dataclass(frozen=True)
class StagePlan:
    """One stage: what each objective pairs, what is captured, how deep the teacher runs, how many steps."""

    objectives: list[dict[str, Any]]
    student_capture: CapturePlan
    teacher_capture: CapturePlan
    teacher_depth: int
    teacher_layers: int
    data: str
    """`task` or `supplementary`: what the stage trains on."""
    steps: int | None
    aligner_parameters: int
    memory_mb: float
    """What distances remember of the training examples, if their number is known."""
    capture_mb: float
    """Captured tensors and the maps computed from them, at full length."""
    student_tflop: float | None
    """10^12 floating-point operations of the student's passes in all steps, if the length of the texts is known."""
    teacher_tflop: float | None
    """Of a teacher that runs in every step."""
    teacher_tflop_cached: float | None
    """Of one that runs over every example once; None where none would be cached."""
    cache_gb: float | None
    """What that cache takes in 10^9 bytes."""
    no_cache: str
    """Why there is none; empty if there is one or nobody asked."""
    step_seconds: float | None = None
    """Of an optimiser step with a live teacher, measured on this machine; None where that was not done."""
    teacher_seconds: float | None = None
    """The teacher's part of them."""
    seconds: float | None = None
    """Of the whole stage: all steps, with the teacher once for each example if it is cached."""

    @property
    def cached(self) -> bool:
        """Whether training would read its teacher from a cache."""
        return self.teacher_tflop_cached is not None

    def timed(self, time: StepTime, epochs: float) -> "StagePlan":
        """The same stage with what its steps take; `epochs` are its passes over the examples."""
        if self.steps is None:
            return self
        passes = self.steps if not self.cached else self.steps / max(epochs, 1.0)
        seconds = self.steps * (time.step - time.teacher) + passes * time.teacher
        return replace(self, step_seconds=time.step, teacher_seconds=time.teacher, seconds=seconds)


@dataclass(frozen=True)
class ExpectedSpeed:
    """What a student takes on the CPU, one text at a time; an untrained one, which is as fast, was timed."""

    p50_ms: float
    """Milliseconds for one text of the data, the median, tokenisation included."""
    teacher_ms: float | None
    """The teacher's, timed in turns with it; None where there is none."""
    times_as_fast: float | None
    """The teacher's milliseconds over the student's."""
    mb: float
    """10^6 bytes of its weights in 32 bits."""
    teacher_mb: float | None
    threads: int = 1


@dataclass(frozen=True)
class Plan:
    """The whole recipe bound to two architectures."""

    teacher_parameters: int
    student_parameters: int
    student_layers: int
    initialisation: list[int] | None
    stages: list[StagePlan]
    memory_mb: float
    """Weights of both models, gradients, Adam's two moments, activations of the student, captured tensors, memories."""
    source: str = "teacher"
    """What the student is cut from."""
    left_out: list[str] = field(default_factory=list)
    """Objectives that two tokenizers leave out, a line each with the reason."""
    speed: ExpectedSpeed | None = None
    """None where it was not measured."""
    seconds: dict[str, float] | None = None
    """Of the run by what they go to: start, training, evaluation, saving, trials; None where steps were not timed."""
    not_measured: str = ""
    """Why neither was; empty if they were."""
    text: dict[str, Any] | None = None
    """Of running text: documents, blocks and tokens as a run records them, and `estimated_from`: of what, or None."""
    teachers: int = 0
    """How many answer every text once before training, so that none runs in it; 0 where that is not so."""
    told: list[str] = field(default_factory=list)
    """About running text, how much there is and how long it is trained on, a line each."""


def make_plan(
    recipe: Recipe,
    teacher: PretrainedConfig,
    source: PretrainedConfig,
    depth: int,
    head: Head,
    seed: int,
    max_length: int,
    examples: int | None = None,
    max_steps: int | None = None,
    vocabulary: Vocabulary | None = None,
    supplementary: int | None = None,
    tokens: float | None = None,
    arithmetic: Arithmetic = "bf16",
    cache: CacheOptions | None = None,
    teacher_tokens: float | None = None,
    extra: int = 0,
    ready: bool = False,
) -> Plan:
    """Bind `recipe` to a teacher's configuration and a student of `depth` layers cut from `source`.

    `vocabulary` is what the student keeps of the teacher's tokens; `examples` and `supplementary` are how many examples
    and supplementary texts there are, `tokens` how many an example has in the mean, `arithmetic` what training
    multiplies in, `cache` what is asked of a teacher cache; `teacher_tokens` are like `tokens` where the teacher has
    others, `extra` is how many texts without labels join the examples, and `ready` says that the teacher's logits are
    there and no teacher is. UserError for what `distill` would refuse.
    """
    refuse_misfits(recipe, teacher, source, depth, seed, head)
    chosen = chosen_layers(source, depth, recipe.student, seed)
    student = student_config(source, depth, recipe.student, seed)
    if vocabulary is not None:
        vocabulary.renumber(student)
    bound = [bind_objectives(stage, student, teacher, head, seed) for stage in recipe.stages]
    stages = []
    for stage, objectives in zip(recipe.stages, bound, strict=True):
        size = examples if stage.data == "task" else supplementary
        if size is not None and stage.takes_unlabelled:
            size += extra
        steps = None if size is None else steps_of(stage, size, max_steps)
        rows = max(stage.batch_size // stage.accumulation, 1)
        work = None
        if steps is not None and size is not None and tokens is not None and stage.data == "task" and not ready:
            seen, lengths = steps * stage.batch_size, (tokens, teacher_tokens or tokens)
            work = _Work(head, seen, size, *lengths, arithmetic, cache or CacheOptions())
        planned = _plan_stage(objectives, student, teacher, stage.data, steps, rows, max_length, work, size or 0)
        stages.append(replace(planned, teacher_depth=0) if ready else planned)
    teacher_parameters, student_parameters = 0 if ready else _count(teacher, head), _count(student, head)
    rows = max(s.batch_size // s.accumulation for s in recipe.stages)
    trained = student_parameters + max(s.aligner_parameters for s in stages)
    activations = rows * max_length * depth * _activation_width(student) * BYTES
    uses_teacher = any(s.teacher_capture for s in stages)
    of_teacher = teacher_parameters * uses_teacher * DTYPES[arithmetic].itemsize
    weights = of_teacher + 4 * trained * BYTES
    memory = (weights + activations) / 2**20 + max(s.capture_mb + s.memory_mb for s in stages)
    return Plan(teacher_parameters, student_parameters, depth, chosen, stages, round(memory, 1))


def _plan_stage(
    objectives: list[BoundObjective],
    student: PretrainedConfig,
    teacher: PretrainedConfig,
    data: str,
    steps: int | None,
    rows: int,
    max_length: int,
    work: "_Work | None",
    examples: int,
) -> StagePlan:
    student_capture = union(o.student_plan for o in objectives)
    teacher_capture = union(o.target_plan for o in objectives if not o.spec.consistent)
    with torch.random.fork_rng(devices=[]):
        owned = [parameter for o in objectives for parameter in o.build().parameters()]
    table = [{"objective": o.name, "pairs": o.describe_pairs(), **o.spec.model_dump()} for o in objectives]
    tokens = rows * max_length
    sides = (student_capture, student), (teacher_capture, teacher)
    captured: float = sum(_capture_elements(plan, config, tokens) for plan, config in sides)
    captured += sum(_map_elements(o, rows, max_length) for o in objectives)
    captured += _word_elements([o for o in objectives if o.over_words], student, tokens)
    layers = depth_of(teacher)
    costs = (
        (None, None, None, None, "")
        if work is None
        else work.costs(objectives, student, teacher, teacher_capture.depth(layers))
    )
    return StagePlan(
        table,
        student_capture,
        teacher_capture,
        teacher_capture.depth(layers),
        layers,
        data,
        steps,
        sum(p.numel() for p in owned),
        round(memory_bytes(objectives, examples) / 2**20, 4),
        round(captured * BYTES / 2**20, 1),
        *costs,
    )


@dataclass(frozen=True)
class _Work:
    """How often examples are seen, how many there are, how long in the mean, and in what training multiplies."""

    head: Head
    seen: int
    examples: int
    tokens: float
    teacher_tokens: float
    arithmetic: Arithmetic
    cache: CacheOptions

    def costs(
        self, objectives: list[BoundObjective], student: PretrainedConfig, teacher: PretrainedConfig, depth: int
    ) -> tuple[float, float, float | None, float | None, str]:
        """TFLOP of student, live teacher and cached teacher, the cache's size in GB, and why there is none."""
        each = forward_tflop(teacher, self.head, depth, self.teacher_tokens)
        # A backward pass takes two forward passes' operations; a consistency target is a forward pass of its own.
        passes = 3 + any(o.spec.consistent for o in objectives)
        used = passes * self.seen * forward_tflop(student, self.head, depth_of(student), self.tokens), self.seen * each
        try:
            contents = contents_to_cache(objectives, teacher, self.seen / self.examples, self.cache)
        except UserError as error:
            return *used, None, None, str(error)
        if contents is None:
            return *used, None, None, ""
        shape = shape_of(teacher)
        widths = shape.width, shape.inner, teacher.num_labels
        size = contents.bytes_per_example(self.teacher_tokens, *widths, self.arithmetic) * self.examples / 1e9
        if size > self.cache.budget_gb:
            return (
                *used,
                None,
                None,
                f"it takes {size_in_words(size)}, and --cache-budget is {self.cache.budget_gb:g} GB",
            )
        return *used, self.examples * each, size, ""


def forward_tflop(config: PretrainedConfig, head: Head, depth: int, tokens: float) -> float:
    """10^12 operations of `depth` layers on a text of so many tokens, as `forward_flops` counts them."""
    with torch.device("meta"):
        layers = layers_of(head.auto_class.from_config(config))[:depth]
    return forward_flops(layers, shape_of(config).inner, 1, tokens) / 1e12


def _capture_elements(plan: CapturePlan, config: PretrainedConfig, tokens: int) -> int:
    return tokens * config.hidden_size * (len(plan.hidden) + 3 * len(plan.attention))


def _map_elements(objective: BoundObjective, rows: int, max_length: int) -> int:
    """Attention and relation maps: scores and distributions of every pair, for both models. Large ones, and those whose
    factors are compared, are made a part at a time."""
    if not objective.signal.maps or objective.by_factors:
        return 0
    heads = objective.signal.relation_heads or objective.student.heads
    elements = rows * heads * max_length**2
    if elements > MAP_ELEMENTS:
        return 2 * 2 * max(PART_ELEMENTS, max_length**2)
    return len(objective.groups(0, 0)) * 2 * 2 * elements


def _word_elements(objectives: list[BoundObjective], student: PretrainedConfig, tokens: int) -> float:
    """Logits over a vocabulary: those of both models, and for every term two distributions; many are made in parts."""
    if not objectives:
        return 0
    hidden = [o.spec.view.share for o in objectives if o.spec.view is not None and o.spec.view.hides]
    everywhere = not hidden or any(o.signal.everywhere for o in objectives)
    elements = tokens * student.vocab_size * (1.0 if everywhere else max(hidden))
    return 2 * (1 + len(objectives)) * (elements if elements <= WHOLE_ELEMENTS else PART_OF_WORDS)


def _activation_width(config: PretrainedConfig) -> int:
    inner = getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", 4 * config.hidden_size)
    return 8 * config.hidden_size + 2 * inner


def _count(config: PretrainedConfig, head: Head) -> int:
    with torch.device("meta"):
        return head.auto_class.from_config(config).num_parameters()
