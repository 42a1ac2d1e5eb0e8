"""A stage's settings in the words of transformers' Trainer."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import TrainingArguments

from layerstill.errors import UserError
from layerstill.recipe import Stage
from layerstill.training.cache_choice import CacheOptions
from layerstill.training.length import epochs_of, steps_of
from layerstill.training.teacher_cache import DTYPES, Arithmetic

LOGGED = 0.05
"""Of a stage's steps, after which losses are logged."""


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what."""

    seed: int = 0
    max_length: int = 128
    """Longest text in tokens."""
    max_steps: int | None = None
    """Stop every stage after this many optimiser steps."""
    precision: str = "auto"
    """`fp32`, `bf16`, `fp16` (with a scaled loss), or `auto`: bf16 where the hardware multiplies it natively."""
    progress: bool = True
    """Show how far it is: a bar on a terminal and in a notebook, else a line every half minute."""
    trackers: tuple[str, ...] = ()
    """Names for the Trainer's `report_to`: tensorboard, wandb, ..."""
    cache: CacheOptions = field(default_factory=CacheOptions)
    """Whether and where the teacher's tensors are kept between epochs."""
    compile: bool = False
    """Run the layers of both models through torch.compile."""


def training_arguments(
    stage: Stage, folder: Path, options: Options, metric: str, examples: int, every: int | None = None
) -> TrainingArguments:
    """Arguments for training `stage` on `examples` examples with checkpoints below `folder`.

    `metric` says which evaluation is best. Checkpoints are written and evaluations made after every epoch, or after
    `every` steps.
    """
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        if os.environ.get(name, "").lower() in {"1", "true"}:
            raise UserError(
                f"{name}: runs are not sharded, each process holds the whole student and teacher; start it without, or "
                "shard a DistillationModule in a training loop of your own"
            )
    steps = steps_of(stage, examples, options.max_steps)
    shorter = steps < steps_of(stage, examples, None)
    optimiser = stage.optimiser
    best = stage.select == "best"
    when = "epoch" if every is None else "steps"
    args = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs_of(stage, examples),
        max_steps=(options.max_steps or -1) if shorter else -1,
        per_device_train_batch_size=stage.batch_size // stage.accumulation,
        per_device_eval_batch_size=64,
        gradient_accumulation_steps=stage.accumulation,
        learning_rate=stage.learning_rate,
        weight_decay=optimiser.weight_decay,
        adam_beta1=optimiser.beta1,
        adam_beta2=optimiser.beta2,
        adam_epsilon=optimiser.epsilon,
        warmup_steps=optimiser.warmup,
        lr_scheduler_type="constant_with_warmup" if optimiser.schedule == "constant" else optimiser.schedule,
        max_grad_norm=optimiser.clip,
        seed=options.seed,
        bf16=arithmetic_of(options.precision) == "bf16",
        fp16=arithmetic_of(options.precision) == "fp16",
        # A number of steps, not a share of them: a checkpoint has the number, and transformers warns of two settings
        # when a run is resumed.
        logging_steps=math.ceil(steps * LOGGED),
        logging_nan_inf_filter=False,
        eval_strategy=when if best or stage.evaluate != "end" else "no",
        save_strategy=when,
        eval_steps=every,
        save_steps=every or 500,
        restore_callback_states_from_checkpoint=True,
        save_total_limit=2 if best else 1,
        load_best_model_at_end=best,
        metric_for_best_model=metric if best else None,
        greater_is_better=True if best else None,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=list(options.trackers),
        disable_tqdm=not options.progress,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,  # what no objective reaches is frozen
        ddp_broadcast_buffers=False,  # all processes work them out alike, and a memory is large
    )
    args._n_gpu = min(args.n_gpu, 1)  # several visible GPUs without a launcher would mean DataParallel
    rows, processes = args.per_device_train_batch_size, args.world_size
    if rows % processes:
        micro = f"batch_size {stage.batch_size}" + (f" / accumulation {stage.accumulation}" * (stage.accumulation > 1))
        raise UserError(f"{micro} cannot be divided among {processes} processes; use a multiple of {processes}")
    args.per_device_train_batch_size = rows // processes
    return args


def arithmetic_of(precision: str) -> Arithmetic:
    """In what training steps multiply under `--precision`; UserError for an unknown word.

    `auto` never means fp16, in which large activations overflow: it is there for GPUs without bf16, by name.
    """
    if precision == "auto":
        return "bf16" if _multiplies_bf16() else "fp32"
    if precision not in DTYPES:
        raise UserError(f"--precision {precision}: use {', '.join(DTYPES)} or auto")
    return precision


def _multiplies_bf16() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def dtype_of(precision: str) -> torch.dtype:
    """The type of what training multiplies under `--precision`, and of the teacher's weights."""
    return DTYPES[arithmetic_of(precision)]
