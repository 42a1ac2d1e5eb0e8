"""Command lines in a process of its own, which may be killed, or be one of several that share a device."""

import multiprocessing
import os
import sys
from datetime import timedelta
from typing import Any

import torch
from accelerate.state import AcceleratorState

from tests.training.pair import follow


def started(orders: list[dict[str, Any]], device: torch.device, **environment: str) -> Any:
    """A process that follows orders as in tests/training/pair.py; with `WORLD_SIZE` one of several, over gloo.

    A launcher's number of a process on its machine chooses its card, so those that share one all have the number 0.
    """
    # A fork has everything imported, but CUDA cannot go on in it.
    context: Any = multiprocessing.get_context("fork" if device.type == "cpu" else "spawn")
    process = context.Process(target=_work, args=(orders, environment), daemon=True)
    process.start()
    return process


def _work(orders: list[dict[str, Any]], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)  # a fork has none of its parent's threads, and would wait for them
    AcceleratorState._reset_state(reset_partial_state=True)
    if "WORLD_SIZE" in environment:
        torch.distributed.init_process_group("gloo", timeout=timedelta(minutes=2))
    sys.exit(max(follow(orders), default=0))
