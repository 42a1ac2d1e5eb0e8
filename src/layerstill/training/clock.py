"""Where a stage's training stands, and how long parts of it take."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Clock:
    """Where training stands: optimiser steps and epochs of this stage, counted from 0."""

    epoch: int = 0
    epochs: float = 1
    step: int = 0
    steps: int = 1


@dataclass
class Stopwatch:
    """Adds up the time spent in a block, without waiting for a GPU while training runs."""

    seconds: float = 0.0
    _events: list[tuple[Any, Any]] = field(default_factory=list)
    _start: Any = None

    def __enter__(self) -> None:
        if torch.cuda.is_available():
            self._start = torch.cuda.Event(enable_timing=True)
            self._start.record()
        else:
            self._start = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        if torch.cuda.is_available():
            end = torch.cuda.Event(enable_timing=True)
            end.record()
            self._events.append((self._start, end))
        else:
            self.seconds += time.perf_counter() - self._start

    def total(self) -> float:
        """Seconds so far; waits for the GPU if there is one."""
        if self._events:
            torch.cuda.synchronize()
            self.seconds += sum(a.elapsed_time(b) for a, b in self._events) / 1000
            self._events.clear()
        return self.seconds
