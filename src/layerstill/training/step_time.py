"""What an optimiser step takes on this machine: a few real ones, on models of the right shapes with random weights."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch
from transformers import PretrainedConfig, PreTrainedModel

from layerstill.data.encode import Encoded
from layerstill.data.order import LengthBuckets
from layerstill.heads import Head
from layerstill.recipe import Recipe
from layerstill.students.build import set_trainable
from layerstill.training.arguments import Options, dtype_of
from layerstill.training.memories import examples_of
from layerstill.training.models import with_weights_in
from layerstill.training.module import DistillationModule

QUANTILES = (1 / 6, 1 / 2, 5 / 6)
"""Of the batches in the order of their lengths: those that are timed."""
SHARE_OF_MEMORY = 0.7


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimiser step, in the mean over lengths of batches."""

    step: float
    """All of it, with a teacher that runs."""
    teacher: float
    """The part of it that is the teacher's."""
    score: float = 0.0
    """Of an example that the student answers without being trained."""
    making: float = 0.0
    """Of the models, until they can be trained."""


def fits_in_memory(megabytes: float) -> bool:
    """Whether models of this size can be made here to be timed."""
    if torch.cuda.is_available():
        return megabytes * 2**20 < SHARE_OF_MEMORY * torch.cuda.mem_get_info()[0]
    return megabytes * 2**20 < SHARE_OF_MEMORY * psutil.virtual_memory().available


def measure_step_seconds(
    recipe: Recipe,
    number: int,
    student: PretrainedConfig,
    teacher: PretrainedConfig,
    train: Encoded,
    collate: Callable[[list[dict]], dict],
    head: Head,
    options: Options,
    teacher_tokens: list[int] | None = None,
) -> StepTime:
    """Time a few steps of a stage, forward, backward and optimiser, on real batches.

    Args:
        recipe: the recipe.
        number: of the stage, from 0.
        student, teacher: the two architectures; weights are random, which takes as long.
        train: examples of the stage, or a sample of them.
        collate, head, options, teacher_tokens: as training has them.

    One step before is not counted. The global random generator stays as it is.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stage = recipe.stages[number]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        begun = time.perf_counter()
        models = [head.auto_class.from_config(config).float().to(device) for config in (student, teacher)]
        set_trainable(models[0], recipe.student)
        taught = with_weights_in(models[1], dtype_of(options.precision)) if recipe.needs_teacher else None
        # Without their classes: a sample may have one only, and others take as long.
        examples = examples_of(None, len(train.dataset), head)
        module = DistillationModule(models[0], taught, stage, options.seed, head, teacher_tokens, examples=examples)
        module.to(device).train()
        making = time.perf_counter() - begun
        batches = _batches(train, stage.batch_size // stage.accumulation, collate, device, options)
        optimiser = _optimiser(module, models[0])
        _step(module, optimiser, batches[len(batches) // 2], options)
        times = []
        for batch in batches:
            before, begun = module.source.time.total(), time.perf_counter()
            _step(module, optimiser, batch, options)
            of_teacher = module.source.time.total() - before  # waits for a GPU
            times.append((time.perf_counter() - begun, of_teacher))
        score = _score_seconds(module, batches, options) if head.answers_texts else 0.0
    each = [stage.accumulation * sum(parts) / len(times) for parts in zip(*times, strict=True)]
    return StepTime(each[0], each[1], score, making)


@torch.no_grad()
def _score_seconds(module: DistillationModule, batches: list[dict[str, object]], options: Options) -> float:
    """Seconds of an example in the mean, as dev is scored."""
    module.eval()
    device = module.student.device.type
    begun, rows = time.perf_counter(), 0
    dtype = dtype_of(options.precision)
    for batch in batches:
        with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
            module(**batch)["logits"].cpu()  # waits for a GPU
        rows += len(batch["input_ids"])  # type: ignore[arg-type]
    return (time.perf_counter() - begun) / rows


def _batches(
    train: Encoded, rows: int, collate: Callable[[list[dict]], dict], device: torch.device, options: Options
) -> list[dict[str, object]]:
    """Batches as training makes them: short ones, middle ones and long ones."""
    order = list(LengthBuckets(train.dataset["length"], rows, options.seed))
    parts = [order[i : i + rows] for i in range(0, len(order), rows)]
    whole = [part for part in parts if len(part) == rows] or parts
    lengths = train.dataset["length"]
    whole.sort(key=lambda part: max(lengths[i] for i in part))
    chosen = [whole[int(q * len(whole))] for q in QUANTILES]
    made = [collate([train.dataset[i] for i in part]) for part in chosen]
    return [{n: v.to(device) if isinstance(v, torch.Tensor) else v for n, v in batch.items()} for batch in made]


def _optimiser(module: DistillationModule, student: PreTrainedModel) -> torch.optim.Optimizer:
    trained = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-6, fused=all(p.dtype == torch.float32 for p in student.parameters()))


def _step(
    module: DistillationModule, optimiser: torch.optim.Optimizer, batch: dict[str, object], options: Options
) -> None:
    device = module.student.device.type
    dtype = dtype_of(options.precision)
    with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
        loss = module(**batch)["loss"]
    loss.backward()
    torch.nn.utils.clip_grad_norm_((p for p in module.parameters() if p.grad is not None), 1.0)
    optimiser.step()
    optimiser.zero_grad()
    module.finish_step()
