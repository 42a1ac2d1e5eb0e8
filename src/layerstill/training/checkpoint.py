"""Checkpoints without pickle: tensors in safetensors, everything else in JSON, written whole or not at all."""

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, "utf-8")
    os.replace(temporary, path)


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write safetensors atomically."""
    temporary = path.with_name(f".{path.name}.part")
    save_file({name: t.detach().contiguous().clone() for name, t in tensors.items()}, temporary)
    os.replace(temporary, path)


def save_module(module: nn.Module, path: Path) -> None:
    """A module's parameters and buffers; tied tensors are written once for each name."""
    write_tensors(path, dict(module.state_dict()))


def load_module(module: nn.Module, path: Path) -> None:
    """The inverse of `save_module`; every name must be there."""
    module.load_state_dict(load_file(path), strict=True)


def save_optimizer(optimizer: torch.optim.Optimizer, scheduler: Any, folder: Path) -> None:
    """State of optimiser and learning-rate schedule as `optimizer.safetensors` and `optimizer.json`."""
    state = optimizer.state_dict()
    tensors, plain = {}, {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                plain[f"{index}.{key}"] = value
    write_tensors(folder / "optimizer.safetensors", tensors)
    schedule = {k: v for k, v in scheduler.state_dict().items() if k != "lr_lambdas"}
    write_json(folder / "optimizer.json", {"plain": plain, "groups": state["param_groups"], "scheduler": schedule})


def load_optimizer(optimizer: torch.optim.Optimizer, scheduler: Any, folder: Path) -> None:
    """The inverse of `save_optimizer`."""
    saved = json.loads((folder / "optimizer.json").read_text("utf-8"))
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*load_file(folder / "optimizer.safetensors").items(), *saved["plain"].items()]:
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in saved["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    scheduler.load_state_dict({**scheduler.state_dict(), **saved["scheduler"]})


def save_random_state(folder: Path, process: int) -> None:
    """The global generators of Python, NumPy and torch (CPU and CUDA)."""
    python = random.getstate()
    kind, keys, *rest = np.random.get_state()
    numpy_state = [kind, np.asarray(keys).tolist(), *rest]
    write_json(folder / f"random-{process}.json", {"python": python, "numpy": numpy_state})
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    write_tensors(folder / f"random-{process}.safetensors", tensors)


def load_random_state(folder: Path, process: int) -> None:
    """The inverse of `save_random_state`; a process that saved none keeps its own."""
    path = folder / f"random-{process}.json"
    if not path.is_file():
        return
    saved = json.loads(path.read_text("utf-8"))
    version, state, gauss = saved["python"]
    random.setstate((version, tuple(state), gauss))
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    tensors = load_file(folder / f"random-{process}.safetensors")
    torch.set_rng_state(tensors["cpu"])
    if torch.cuda.is_available() and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"])


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint below `folder`; the trainer's state is written last, so it marks completeness."""
    found = [p for p in folder.glob("checkpoint-*") if p.name.split("-")[1].isdigit()]
    for path in sorted(found, key=lambda p: int(p.name.split("-")[1]), reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text("utf-8"))
        except (OSError, ValueError):
            continue
        return path
    return None
