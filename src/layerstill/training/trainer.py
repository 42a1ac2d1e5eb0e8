"""`DistillationTrainer`: transformers' Trainer around a distillation module.

Everything users know of the Trainer stays: callbacks, trackers, accelerate, resuming. What is added: losses divided
once, over accumulation and processes; the value of each objective in the log; checkpoints without pickle.
"""

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from layerstill.data.order import LengthBuckets
from layerstill.errors import ObjectiveError
from layerstill.training.checkpoint import (
    load_module,
    load_optimizer,
    load_random_state,
    save_module,
    save_optimizer,
    save_random_state,
    write_json,
)
from layerstill.training.module import DistillationModule

log = logging.getLogger("layerstill")

ALIGNERS_FILE = "aligners.safetensors"
AVERAGE_FILE = "average.safetensors"


class ProgressBar(ProgressCallback):
    """The Trainer's progress bar with the loss beside it, and no log lines on standard output."""

    def on_log(self, args: TrainingArguments, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.training_bar is not None and "loss" in (logs or {}):
            self.training_bar.set_postfix(loss=f"{logs['loss']:.4g}")


class _AfterStep(TrainerCallback):
    def __init__(self, module: DistillationModule) -> None:
        self.module = module

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self.module.finish_step()


class DistillationTrainer(Trainer):
    """A Trainer whose model is a `DistillationModule`.

    Args are those of `Trainer`, with the module as `model`. `training_arguments` makes arguments that fit a stage; own
    ones need `label_names=["labels"]` and `remove_unused_columns=False`. Before training, what no objective reaches is
    frozen, and an objective that is zero or not finite stops the run.
    """

    def __init__(self, module: DistillationModule, args: TrainingArguments, **kwargs: Any) -> None:
        super().__init__(module, args, **kwargs)
        self.module = module
        self.loss_is_scaled_for_ga = True
        self._tokens_seen: Tensor | float = 0
        self._cost_before = {"seconds": 0.0, "tokens": 0.0, "teacher_seconds": 0.0}
        self._started = time.perf_counter()
        self._term_sums: dict[str, Tensor] = {}
        self._sums_since = 0
        self.add_callback(_AfterStep(module))
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)  # it prints every log on standard output
        if not args.disable_tqdm:
            self.add_callback(ProgressBar)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Freeze what no objective reaches, then train as `Trainer.train` does."""
        with torch.random.fork_rng(devices=[]):
            first = self._prepare_inputs(next(iter(self.get_train_dataloader())))
            if frozen := self.module.freeze_unreached(first):
                some = ", ".join(frozen[:3]) + (", ..." if len(frozen) > 3 else "")
                log.info("no objective reaches %d of the parameter tensors, frozen: %s", len(frozen), some)
        self._started = time.perf_counter()
        return super().train(*args, **kwargs)

    def cost(self) -> dict[str, float]:
        """Seconds, real tokens and the teacher's seconds so far, earlier parts of a resumed run included."""
        now = {
            "seconds": time.perf_counter() - self._started,
            "tokens": float(self._tokens_seen),
            "teacher_seconds": self.module.teacher_time.total(),
        }
        return {name: self._cost_before[name] + value for name, value in now.items()}

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthBuckets:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        lengths = dataset["length"] if "length" in dataset.column_names else [len(row) for row in dataset["input_ids"]]
        # Whole optimiser steps are bucketed, so that the order does not depend on accumulation or processes.
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthBuckets(lengths, step, self.args.seed)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | None]:
        """The micro-batches of one optimiser step, and the units of each objective in all of them."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        if not batches:
            return batches, None
        counts = [self.module.count_units(batch["attention_mask"]) for batch in batches]
        totals = torch.stack(counts).sum(0).to(device)
        # The gradients of processes are averaged, so each divides by the mean of their totals.
        return batches, self.accelerator.reduce(totals, reduction="mean")

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """The stage's loss on a micro-batch, as its share of the whole step."""
        state, clock = self.state, self.module.clock
        clock.step, clock.steps = state.global_step, state.max_steps
        clock.epoch, clock.epochs = int((state.epoch or 0) + 1e-6), state.num_train_epochs
        outputs = model(units=num_items_in_batch, **inputs)
        for name, term in outputs["terms"].items():
            self._add_up(f"objective/{name}", term.value)
            if term.spread is not None:
                self._add_up(f"teacher spread/{name}", term.spread)
        self._tokens_seen = self._tokens_seen + inputs["attention_mask"].sum()
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def _add_up(self, name: str, value: Tensor) -> None:
        # Sums stay on the device; reading them here would wait for the GPU at every step.
        if not self._term_sums:
            self._sums_since = self.state.global_step
        value = value.detach().float()
        self._term_sums[name] = self._term_sums[name] + value if name in self._term_sums else value

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; with the loss go the means of every objective since the last time."""
        if "loss" in logs and self._term_sums:
            steps = max(self.state.global_step - self._sums_since, 1)
            values = self.accelerator.reduce(torch.stack(list(self._term_sums.values())), reduction="mean") / steps
            logs.update(zip(self._term_sums, values.tolist(), strict=True))
            self._term_sums.clear()
            # Objectives come before their sum, so that the one at fault is named.
            for name, value in sorted(logs.items(), key=lambda entry: not entry[0].startswith("objective/")):
                if isinstance(value, float) and not abs(value) < float("inf"):
                    raise ObjectiveError(
                        f"{name} became {value} at step {self.state.global_step}; the last checkpoint is kept. "
                        "Lower the learning rate, or the objective's weight"
                    )
        super().log(logs, start_time)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[None, Tensor, Tensor]:
        """The student's logits and the labels; evaluation needs no teacher."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**inputs)["logits"]
        return None, logits.detach().float(), inputs["labels"]

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        student = self.module.student
        weights = None
        if state_dict is not None:
            weights = {k.removeprefix("student."): v for k, v in state_dict.items() if k.startswith("student.")}
        student.save_pretrained(folder, state_dict=weights)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)
        if any(True for _ in self.module.aligners.parameters()):
            save_module(self.module.aligners, folder / ALIGNERS_FILE)
        if self.module.average is not None:
            save_module(self.module.average, folder / AVERAGE_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        load_module(self.module.student, folder / "model.safetensors")
        if (folder / ALIGNERS_FILE).is_file():
            load_module(self.module.aligners, folder / ALIGNERS_FILE)
        if self.module.average is not None:
            load_module(self.module.average, folder / AVERAGE_FILE)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            write_json(Path(output_dir) / "cost.json", self.cost())
            save_optimizer(self.optimizer, self.lr_scheduler, Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._cost_before = json.loads((Path(checkpoint) / "cost.json").read_text("utf-8"))
            load_optimizer(self.optimizer, self.lr_scheduler, Path(checkpoint))

    def _save_rng_state(self, output_dir: str) -> None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        save_random_state(Path(output_dir), self.args.process_index)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_random_state(Path(checkpoint), self.args.process_index)
