"""The optimiser and the schedule of its learning rate: built from transformers' arguments, saved without pickle."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, get_scheduler

from layerstill.training.checkpoint import read_json, write_json, write_tensors

UNDECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)", re.IGNORECASE)
"""Names of the parameters that weight decay leaves alone, besides those of every LayerNorm."""


def optimizer_of(module: nn.Module, args: TrainingArguments) -> torch.optim.Optimizer:
    """The optimiser that `args.optim` names, without weight decay for biases and norms."""
    norms = {p for m in module.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for name, p in module.named_parameters():
        if p.requires_grad:
            (others if p in norms or UNDECAYED.search(name) else decayed).append(p)
    groups = [{"params": decayed, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer, settings = Trainer.get_optimizer_cls_and_kwargs(args)
    return optimizer(groups, **settings)


def schedule_of(
    optimizer: torch.optim.Optimizer, args: TrainingArguments, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule that `args.lr_scheduler_type` names, over so many steps."""
    warmup = args.get_warmup_steps(steps)
    return get_scheduler(args.lr_scheduler_type, optimizer, warmup, steps, args.lr_scheduler_kwargs)


def save_optimizer(optimizer: torch.optim.Optimizer, scheduler: Any, folder: Path) -> None:
    """State of optimiser and learning-rate schedule as `optimizer.safetensors` and `optimizer.json`."""
    state = optimizer.state_dict()
    entries = {f"{i}.{key}": value for i, values in state["state"].items() for key, value in values.items()}
    write_tensors(folder / "optimizer.safetensors", {n: v for n, v in entries.items() if isinstance(v, Tensor)})
    plain = {n: v for n, v in entries.items() if not isinstance(v, Tensor)}
    schedule = {k: v for k, v in scheduler.state_dict().items() if k != "lr_lambdas"}
    write_json(folder / "optimizer.json", {"plain": plain, "groups": state["param_groups"], "scheduler": schedule})


def load_optimizer(optimizer: torch.optim.Optimizer, scheduler: Any, folder: Path) -> None:
    """The inverse of `save_optimizer`."""
    saved = read_json(folder / "optimizer.json")
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*load_file(folder / "optimizer.safetensors").items(), *saved["plain"].items()]:
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in saved["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    scheduler.load_state_dict({**scheduler.state_dict(), **saved["scheduler"]})
