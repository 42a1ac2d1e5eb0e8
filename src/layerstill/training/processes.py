"""The processes of one run: torchrun or accelerate starts several; all of them train, the first one writes.

They must see the same output folder, because every process reads the checkpoint that the first one wrote.
"""

import atexit
import os
from datetime import timedelta

import torch
from accelerate import PartialState

PATIENCE = timedelta(days=2)


def count() -> int:
    """How many processes train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def number() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def is_first() -> bool:
    """Whether this process writes files and speaks to the user."""
    return number() == 0


def first_succeeded(here: bool) -> bool:
    """What the first process says of its preparations; the others wait for it. `here` is this process's own answer."""
    if count() == 1:
        return here
    answer = torch.tensor(float(here), device=_state().device)
    torch.distributed.broadcast(answer, src=0)
    return bool(answer.item())


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if count() > 1:
        _state().wait_for_everyone()


def was_left(error: BaseException) -> bool:
    """Whether an error says no more than that another process has gone."""
    text = str(error)
    return isinstance(error, RuntimeError) and ("closed by peer" in text or "reset by peer" in text)


def _state() -> PartialState:
    # Made before anything of transformers needs it, with the back end that it would choose.
    known = torch.distributed.is_initialized()
    # The others wait while the first packs a corpus, fills a cache or asks several teachers, which may take hours.
    patience = {} if known else {"timeout": PATIENCE}
    state = PartialState(**patience) if torch.cuda.is_available() else PartialState(cpu=True, **patience)
    if not known:
        atexit.register(torch.distributed.destroy_process_group)
    return state
