"""How many runs a machine takes at a time, from its cores, its memory and what one run needs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import psutil
import torch

from layerstill.errors import UserError
from layerstill.sizes import size_in_words
from layerstill.training.step_time import SHARE_OF_MEMORY

Jobs = int | str
"""`--jobs`: a number, or `auto`."""
PROCESS_MB = 1200
"""What a worker holds besides models and activations: Python, torch, transformers and the data."""
ON_CARD_MB = 600
"""What a process takes of a card before it holds anything: the context, its kernels and its libraries."""
ALLOCATOR = 1.3
"""How much more than the tensors that are alive a process keeps of a card."""


@dataclass(frozen=True)
class Machine:
    """What there is to share."""

    cores: int
    free_mb: float
    card_mb: float | None = None
    """Free memory of the card; None without one."""

    @classmethod
    def here(cls) -> "Machine":
        """This machine now. The cores are the threads that torch would take."""
        card = torch.cuda.mem_get_info()[0] / 2**20 if torch.cuda.is_available() else None
        return cls(torch.get_num_threads(), psutil.virtual_memory().available / 2**20, card)


@dataclass(frozen=True)
class AtOnce:
    """How many runs at a time, and how many threads each of them has."""

    count: int
    threads: int
    why: str = ""
    """What `auto` was decided by; empty for a number that somebody gave."""


def jobs_of(text: str) -> int | Literal["auto"]:
    """The value of `--jobs`; UserError for what is neither a number from 1 nor `auto`."""
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--jobs {text}: give a whole number from 1, or auto")
    return int(text)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Inside, torch has so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def given(count: int) -> AtOnce:
    """So many as somebody asked for; they share the cores evenly."""
    return AtOnce(count, max(1, torch.get_num_threads() // count))


def most_at_once(machine: Machine, run_mb: Callable[[], float], jobs: int, left: int) -> AtOnce:
    """As many runs at a time as give the most steps a second.

    Args:
        machine: what there is to share.
        run_mb: gives the megabytes of the largest run's models, optimiser and activations.
        jobs: how many jobs the study has in all.
        left: how many of them are still to be done.

    One core a run: several runs side by side never wait for each other, while the threads of one run do at every
    product, and on a card a run keeps a core busy with launching kernels. The threads follow from the whole study,
    not from what is left of it, because results depend a little on them; less free memory than before changes them.
    """
    cores = machine.cores
    limits = [(cores, f"{cores} cores, one for each run" if cores > 1 else "there is one core")]
    if cores > 1:
        limits += [_by_memory(machine, run_mb())]
    limits += [(jobs, f"the study has {_counted(jobs)}")]
    most, why = min(limits, key=lambda limit: limit[0])  # of equal ones the first
    most = max(1, most)
    threads = max(1, cores // most)
    if left < most:
        most, why = max(1, left), f"{_counted(left)} left"
    return AtOnce(most, threads, f"{most} at a time: {why}")


def _by_memory(machine: Machine, run_mb: float) -> tuple[int, str]:
    """How many runs the memory holds, that of the card where there is one, and the reason in words."""
    on_card = machine.card_mb is not None
    free = machine.free_mb if machine.card_mb is None else machine.card_mb
    each = ALLOCATOR * run_mb + ON_CARD_MB if on_card else run_mb + PROCESS_MB
    where = "memory of the card" if on_card else "memory"
    sizes = size_in_words(free * 2**20 / 1e9), size_in_words(each * 2**20 / 1e9)
    by_size = int(SHARE_OF_MEMORY * free / each), f"{sizes[0]} of {where} are free, and a run may take {sizes[1]}"
    if not on_card:
        return by_size
    processes = int(SHARE_OF_MEMORY * machine.free_mb / PROCESS_MB)
    own = processes, f"{size_in_words(machine.free_mb * 2**20 / 1e9)} of memory are free beside the card"
    return min(by_size, own, key=lambda limit: limit[0])


def _counted(jobs: int) -> str:
    return "1 job" if jobs == 1 else f"{jobs} jobs" if jobs else "nothing"
