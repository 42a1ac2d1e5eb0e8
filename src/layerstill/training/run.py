"""The two acts: `finetune` a model on a task, `distill` a teacher into a student."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EarlyStoppingCallback, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers import TrainingArguments, set_seed

from layerstill.data.encode import Collator, Encoded, encode, usable_length
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.evaluation.metrics import score
from layerstill.evaluation.predict import evaluate_split
from layerstill.families import depth_of
from layerstill.recipe import Recipe, Stage
from layerstill.students.build import build_student, chosen_layers
from layerstill.training.checkpoint import last_checkpoint, load_module, save_module, write_text
from layerstill.training.models import (
    agree_on_labels,
    fingerprint,
    load_config,
    load_fine_tuned,
    load_for_finetuning,
    load_tokenizer,
)
from layerstill.training.module import DistillationModule, bind_objectives
from layerstill.training.records import Result, RunFolder, environment, peak_memory_mb, task_fingerprint
from layerstill.training.trainer import ALIGNERS_FILE, DistillationTrainer

log = logging.getLogger("layerstill")


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what."""

    seed: int = 0
    max_length: int = 128
    max_steps: int | None = None
    """Stop every stage after this many optimiser steps."""
    precision: str = "auto"
    """`fp32`, `bf16`, or `auto`: bf16 where the hardware multiplies it natively."""
    progress: bool = True
    trackers: tuple[str, ...] = ()
    """Names for the Trainer's `report_to`: tensorboard, wandb, ..."""


@dataclass
class _Spent:
    examples: int = 0
    steps: int = 0
    epochs: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    teacher_seconds: float = 0.0
    evaluations: int = 0
    selected: list[str] = field(default_factory=list)


def distill(
    teacher: str,
    task: Task,
    recipe: Recipe,
    student_layers: int,
    output: str | Path,
    options: Options = Options(),
    init_from: str | None = None,
) -> Result:
    """Distil a fine-tuned `teacher` (folder or hub id) into a student of `student_layers` layers.

    The student is cut from the teacher, or from the model `init_from` (its pre-trained parent, say), as the recipe's
    `student` section says. `output` becomes a plain model folder with the record of the run beside it. Running the
    same thing again in the same folder resumes what was interrupted and returns what is finished.
    """
    config = load_config(teacher)
    task, notices = agree_on_labels(task, config, f"teacher {teacher}")
    check_fit(recipe, config, student_layers, init_from, options.seed, task)
    settings = _settings(task, recipe, options) | {
        "teacher": teacher,
        "teacher_fingerprint": fingerprint(teacher, config),
        "student_layers": student_layers,
        "init_from": init_from,
    }
    folder = RunFolder(output, settings)
    if done := _already(folder):
        return done
    tokenizer = load_tokenizer(teacher)
    max_length = usable_length(options.max_length, tokenizer, config)
    teacher_model = load_fine_tuned(teacher)
    source = teacher_model if init_from is None else load_for_finetuning(init_from, task)
    _say(notices + list(task.notices))
    teacher_metrics = _score_teacher(teacher_model, tokenizer, task, max_length) if recipe.needs_teacher else {}
    set_seed(options.seed)
    student = build_student(source, student_layers, recipe.student, options.seed, labels=config)
    chosen = chosen_layers(source.config, student_layers, recipe.student, options.seed)
    init = {"layers": chosen or "random weights", "from": init_from or "teacher"}
    used = teacher_model if recipe.needs_teacher else None
    return _train(folder, student, used, tokenizer, task, recipe, options, teacher_metrics, init)


def finetune(
    model: str, task: Task, output: str | Path, recipe: Recipe | None = None, options: Options = Options()
) -> Result:
    """Fine-tune `model` (folder or hub id) on a task: the recipe `finetune` on all its layers."""
    config = load_config(model)
    recipe = recipe or Recipe.load("finetune")
    if recipe.needs_teacher:
        raise UserError("finetune takes a recipe without a teacher; use distill")
    settings = _settings(task, recipe, options) | {"model": model, "model_fingerprint": fingerprint(model, config)}
    folder = RunFolder(output, settings)
    if done := _already(folder):
        return done
    tokenizer = load_tokenizer(model)
    usable_length(options.max_length, tokenizer, config)
    _say(list(task.notices))
    set_seed(options.seed)
    student = load_for_finetuning(model, task)
    init = {"layers": "all", "from": model}
    return _train(folder, student, None, tokenizer, task, recipe, options, {}, init)


def check_fit(
    recipe: Recipe, teacher: PretrainedConfig, depth: int, init_from: str | None, seed: int, task: Task
) -> None:
    """Refuse, before anything is loaded or written, a depth or an objective that the two models cannot meet."""
    source = teacher if init_from is None else load_config(init_from)
    total = depth_of(source)
    if not 1 <= depth <= total:
        raise UserError(f"--student-layers {depth}: {init_from or 'the teacher'} has {total} layers; choose 1 to {total}")
    from layerstill.students.build import student_config

    student = student_config(source, chosen_layers(source, depth, recipe.student, seed), depth)
    for stage in recipe.stages:
        for objective in bind_objectives(stage, student, teacher, task.kind == "regression", seed):
            with torch.random.fork_rng(devices=[]):
                objective.build_aligner()


def _settings(task: Task, recipe: Recipe, options: Options) -> dict[str, Any]:
    return {
        "task": task.name,
        "data_fingerprint": task_fingerprint(task),
        "recipe": recipe.model_dump(mode="json"),
        "seed": options.seed,
        "max_length": options.max_length,
        "max_steps": options.max_steps,
        "precision": options.precision,
    }


def _already(folder: RunFolder) -> Result | None:
    result = folder.finished
    if result:
        log.warning("%s already holds this run, finished; nothing to do", folder.path)
    return result


def _say(notices: list[str]) -> None:
    for notice in notices:
        log.warning("note: %s", notice)


def _score_teacher(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, max_length: int
) -> dict[str, float]:
    metrics, _ = evaluate_split(teacher, tokenizer, task, "dev", max_length)
    log.info("teacher on dev: %s", ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
    if task.kind == "classification":
        labels = np.array(task.splits["dev"].labels)
        majority = np.bincount(labels).max() / len(labels)
        if metrics.get("accuracy", 1.0) <= majority:
            log.warning(
                "note: the teacher's accuracy on dev, %.4f, is not above always answering %r (%.4f)",
                metrics["accuracy"], task.labels[int(np.bincount(labels).argmax())], majority,
            )
    return metrics


def _train(
    folder: RunFolder,
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    recipe: Recipe,
    options: Options,
    teacher_metrics: dict[str, float],
    init: dict[str, Any],
) -> Result:
    write_text(folder.path / "recipe.yaml", recipe.to_yaml())
    train = encode(task.splits["train"], tokenizer, options.max_length)
    dev = encode(task.splits["dev"], tokenizer, options.max_length)
    if train.truncated:
        _say([f"{train.truncated} of {len(train.dataset)} training texts are longer than {options.max_length} tokens and were cut"])
    spent = _Spent()
    for number, stage in enumerate(recipe.stages, 1):
        done = folder.checkpoints / f"stage-{number}-done"
        if (done / "spent.json").is_file():
            load_module(student, done / "student.safetensors")
            spent = _Spent(**json.loads((done / "spent.json").read_text("utf-8")))
            continue
        module = _train_stage(folder, number, stage, student, teacher, tokenizer, task, options, train, dev, spent)
        done.mkdir(parents=True, exist_ok=True)
        save_module(student, done / "student.safetensors")
        if any(True for _ in module.aligners.parameters()):
            save_module(module.aligners, folder.path / (ALIGNERS_FILE if len(recipe.stages) == 1 else f"stage-{number}-{ALIGNERS_FILE}"))
        write_text(done / "spent.json", json.dumps(spent.__dict__))
    student.requires_grad_(True)
    student.save_pretrained(folder.path)
    tokenizer.save_pretrained(folder.path)
    return folder.finish(_result(student, tokenizer, task, recipe, options, teacher_metrics, init, spent, folder))


def _train_stage(
    folder: RunFolder,
    number: int,
    stage: Stage,
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    options: Options,
    train: Encoded,
    dev: Encoded,
    spent: _Spent,
) -> DistillationModule:
    seed = options.seed
    student.requires_grad_(True)
    set_seed(seed + 1000 * (number - 1))
    module = DistillationModule(student, teacher, stage, seed, task.kind == "regression")
    where = folder.checkpoints / f"stage-{number}"
    args = training_arguments(stage, where, options, task)
    resume = last_checkpoint(where)
    step = int(resume.name.split("-")[1]) if resume else 0
    stopping = [EarlyStoppingCallback(stage.patience)] if stage.patience else []
    trainer = DistillationTrainer(
        module,
        args,
        train_dataset=train.dataset,
        eval_dataset=dev.dataset,
        data_collator=Collator(tokenizer),
        processing_class=tokenizer,
        compute_metrics=_metrics_function(task),
        callbacks=[folder.metrics_log(number, step), *stopping],
    )
    first = next(iter(trainer.get_train_dataloader()))
    frozen = module.freeze_unreached({k: v.to(student.device) for k, v in first.items()})
    if frozen:
        log.info("stage %d: no objective reaches %d parameters, frozen: %s", number, len(frozen), ", ".join(frozen[:4]))
    set_seed(seed + 1000 * (number - 1))
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    state = trainer.state
    spent.seconds += time.perf_counter() - start
    spent.steps += state.global_step
    spent.epochs += round(state.epoch or 0, 4)
    spent.examples += round((state.epoch or 0) * len(train.dataset))
    spent.tokens += int(trainer.tokens_seen)
    spent.teacher_seconds += module.teacher_time.total()
    evaluations = sum("eval_runtime" in entry for entry in state.log_history)
    spent.selected.append(f"best of {evaluations}" if stage.select == "best" else "last")
    return module


def training_arguments(stage: Stage, folder: Path, options: Options, task: Task) -> TrainingArguments:
    """A stage's settings in the Trainer's words."""
    optimiser = stage.optimiser
    best = stage.select == "best"
    args = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=stage.epochs,
        max_steps=options.max_steps or -1,
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
        bf16=_bf16(options.precision),
        logging_steps=0.05,
        logging_nan_inf_filter=False,
        eval_strategy="epoch" if best or stage.evaluate == "epoch" else "no",
        save_strategy="epoch",
        save_total_limit=2 if best else 1,
        load_best_model_at_end=best,
        metric_for_best_model=task.metrics[0] if best else None,
        greater_is_better=True if best else None,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=list(options.trackers),
        disable_tqdm=not options.progress,
        use_cpu=not torch.cuda.is_available(),
    )
    args._n_gpu = min(args.n_gpu, 1)  # several visible GPUs without a launcher would mean DataParallel
    args.per_device_train_batch_size = max(1, args.per_device_train_batch_size // args.world_size)
    return args


def _bf16(precision: str) -> bool:
    if precision not in {"auto", "fp32", "bf16"}:
        raise UserError(f"--precision {precision}: use fp32, bf16 or auto")
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("amx_bf16"))


def _metrics_function(task: Task) -> Callable[[Any], dict[str, float]]:
    return lambda p: score(task.metrics, task.kind, np.asarray(p.predictions), np.asarray(p.label_ids))


def _result(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    recipe: Recipe,
    options: Options,
    teacher_metrics: dict[str, float],
    init: dict[str, Any],
    spent: _Spent,
    folder: RunFolder,
) -> dict[str, Any]:
    metrics, _ = evaluate_split(student, tokenizer, task, "dev", options.max_length)
    seconds = max(spent.seconds, 1e-9)
    return {
        "recipe": recipe.to_data(),
        "recipe_hash": recipe.hash,
        "teacher": folder.settings.get("teacher"),
        "task": task.name,
        "seed": options.seed,
        "student": {
            "layers": depth_of(student.config),
            "hidden_size": student.config.hidden_size,
            "parameters": student.num_parameters(),
            "init": init,
        },
        "metrics": metrics | {"selected": spent.selected[-1]},
        "teacher_metrics": teacher_metrics,
        "ood": {},
        "train": {
            "examples": spent.examples,
            "steps": spent.steps,
            "epochs": spent.epochs,
            "seconds": round(spent.seconds, 2),
            "examples_per_second": round(spent.examples / seconds, 2),
            "tokens_per_second": round(spent.tokens / seconds, 1),
            "teacher_share": round(spent.teacher_seconds / seconds, 4),
            "peak_memory_mb": peak_memory_mb(),
            "precision": "bf16" if _bf16(options.precision) else "fp32",
        },
        "environment": environment(),
    }
