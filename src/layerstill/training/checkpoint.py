"""Checkpoints without pickle: tensors in safetensors, everything else in JSON, written whole or not at all."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from layerstill.atomic import read_json, sync, write_json, write_tensors
from layerstill.errors import UserError


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
    saved = read_json(folder / "optimizer.json")
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*load_file(folder / "optimizer.safetensors").items(), *saved["plain"].items()]:
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in saved["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    scheduler.load_state_dict({**scheduler.state_dict(), **saved["scheduler"]})


def random_tensors() -> dict[str, Tensor]:
    """States of torch's global generators: `cpu`, and `cuda` if there is one; each a row of bytes."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors


def save_random_state(folder: Path, tensors: dict[str, Tensor]) -> None:
    """The global generators: torch's of every process, `(processes, bytes)` each, and Python's and NumPy's."""
    python = random.getstate()
    kind, keys, *rest = np.random.get_state()
    numpy_state = [kind, np.asarray(keys).tolist(), *rest]
    write_json(folder / "random.json", {"python": python, "numpy": numpy_state})
    write_tensors(folder / "random.safetensors", tensors)


def load_random_state(folder: Path, process: int) -> None:
    """The inverse of `save_random_state`; a process more than there were keeps torch's generators as they are."""
    saved = read_json(folder / "random.json")
    version, state, gauss = saved["python"]
    random.setstate((version, tuple(state), gauss))
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    tensors = load_file(folder / "random.safetensors")
    if process < len(tensors["cpu"]):
        # Clones, because torch reads the memory as a structure of its own, which must start at an even address.
        torch.set_rng_state(tensors["cpu"][process].clone())
        if torch.cuda.is_available() and "cuda" in tensors:
            torch.cuda.set_rng_state(tensors["cuda"][process].clone())


MODULE_FILE = "model.safetensors"
"""The whole distillation module, under the name at which the Trainer looks when it resumes or loads the best."""
STATE_FILE = "trainer_state.json"


def checkpoints_in(folder: Path) -> list[Path]:
    """Checkpoints below `folder`, oldest first, complete or not."""
    found = [p for p in folder.glob("checkpoint-*") if p.name.split("-")[1].isdigit()]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: the trainer's state comes last and is whole."""
    try:
        read_json(checkpoint / STATE_FILE)
    except (OSError, ValueError):
        return False
    return True


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint below `folder`."""
    return next((path for path in reversed(checkpoints_in(folder)) if is_complete(path)), None)


def best_checkpoint(folder: Path, step: int | None) -> Path | None:
    """The checkpoint of the best step below `folder`, if it is there."""
    path = folder / f"checkpoint-{step}"
    return path if step and path.is_dir() else None


def ended_training(checkpoint: Path) -> bool:
    """Whether the training that wrote a checkpoint had come to its end: all its steps, or patience."""
    state = read_json(checkpoint / STATE_FILE)
    return bool(state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"])


def remove_old(folder: Path, keep: int | None, best: str | None) -> None:
    """Remove the oldest checkpoints until `keep` are left (None: all); the newest and the `best` stay in any case."""
    checkpoints = checkpoints_in(folder)
    surplus = 0 if keep is None else len(checkpoints) - keep
    for path in checkpoints[:-1]:
        if surplus > 0 and (best is None or path.name != Path(best).name):
            shutil.rmtree(path, ignore_errors=True)
            surplus -= 1


def refuse_pickles(checkpoint: Path) -> None:
    """UserError for a checkpoint with files that the Trainer would unpickle; none are ever written there."""
    if found := sorted(p.name for p in checkpoint.iterdir() if p.suffix in {".pt", ".pth", ".bin", ".pkl", ".pickle"}):
        raise UserError(
            f"{checkpoint}: {found[0]} in it is a pickle, which is never loaded, and no run has written it; "
            f"remove it and run the same command again"
        )


def make_durable(checkpoint: Path) -> None:
    """Wait until a checkpoint is on the disk with everything in it."""
    for path in checkpoint.rglob("*"):
        sync(path)
    sync(checkpoint)
    sync(checkpoint.parent)
