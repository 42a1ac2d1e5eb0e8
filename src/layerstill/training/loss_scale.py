"""Loss scaling: in fp16 small gradients are 0, so the loss is multiplied before the backward pass, and divided after.

Steps whose gradients overflow under the scale are left out, and the scale is halved; after many steps without one it is
doubled (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2). torch's GradScaler does the arithmetic. A step that
was left out counts among the steps of the run, as the Trainer has it, but moves nothing else on: neither the schedule
of the learning rate nor those of weights, mappings and averages.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from layerstill.atomic import read_json, write_json
from layerstill.errors import ObjectiveError

SCALE_FILE = "loss_scale.json"
LEAST = 1.0
"""Gradients that overflow under a smaller scale would have done so without one."""


def unfused(args: TrainingArguments) -> None:
    """Take AdamW in single operations for fp16.

    The fused one leaves a step out by itself, inside of its kernel, so that nobody is told and the schedule of the
    learning rate goes on.
    """
    if args.fp16 and args.optim == OptimizerNames.ADAMW_TORCH_FUSED:
        args.optim = OptimizerNames.ADAMW_TORCH


class LossScale:
    """The scaler of an Accelerator, if it multiplies in fp16, and how many steps were left out."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.left_out = 0
        if accelerator.mixed_precision == "fp16" and accelerator.scaler is None:
            # Accelerate makes none for a CPU and would train in fp32 without a word; torch has all that it takes.
            accelerator.scaler = torch.amp.GradScaler(accelerator.device.type)
            accelerator.native_amp = True

    @property
    def used(self) -> bool:
        """Whether losses are scaled."""
        return self._accelerator.scaler is not None

    @property
    def left_last_out(self) -> bool:
        """Whether the last step was left out."""
        return self.used and bool(self._accelerator.optimizer_step_was_skipped)

    def finish_step(self, step: int) -> bool:
        """Count a step; whether it was taken. ObjectiveError if no scale is small enough for its gradients."""
        if not self.left_last_out:
            return True
        self.left_out += 1
        scale = self._accelerator.scaler.get_scale()
        if scale < LEAST:
            raise ObjectiveError(
                f"gradients do not fit into fp16 at step {step}: they overflowed under every scale of the loss down to "
                f"{2 * scale:g}; the last checkpoint is kept. Use --precision bf16 or fp32"
            )
        return False

    def told(self, logs: dict[str, float]) -> dict[str, float]:
        """A log with the scale beside the loss, and without the gradient's length where that overflowed."""
        if not self.used or "loss" not in logs:
            return logs
        logs = {name: value for name, value in logs.items() if name != "grad_norm" or not self.left_last_out}
        return logs | {"loss_scale": self._accelerator.scaler.get_scale(), "steps_left_out": self.left_out}

    def save(self, folder: Path) -> None:
        """Into a checkpoint; nothing if there is no scale."""
        if self.used:
            state: dict[str, Any] = self._accelerator.scaler.state_dict()
            write_json(folder / SCALE_FILE, {"scaler": state, "left_out": self.left_out})

    def load(self, folder: Path) -> None:
        """The inverse of `save`."""
        if self.used:
            saved = read_json(folder / SCALE_FILE)
            self._accelerator.scaler.load_state_dict(saved["scaler"])
            self.left_out = saved["left_out"]
