"""What is going on and how far it is: one bar on a terminal or in a notebook, and else a line every half minute.

Work that takes long says so with `task`, however deep it lies; what a user called says with `showing` whether anybody
wants to know, and what the work is part of. A task inside another has no bar of its own but stands beside the outer
one's. Only the first of several processes shows anything.
"""

import math
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

EVERY = 30.0
"""Seconds between two lines."""
BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
UNKNOWN = "{desc} {n_fmt} [{elapsed}{postfix}]"


@dataclass(frozen=True)
class _Scope:
    """Where the work is."""

    shown: bool = False
    parts: tuple[str, ...] = ()
    task: "Task | None" = None


_OUTSIDE = _Scope()
_SCOPE: ContextVar[_Scope] = ContextVar("layerstill progress", default=_OUTSIDE)


class _Lines:
    """When the last line was written: short tasks that follow each other share it."""

    last = 0.0


@contextmanager
def showing(shown: bool | None = None, what: str = "") -> Iterator[None]:
    """Inside, tasks are shown or not, as part of `what`; None leaves that as it is."""
    here = _SCOPE.get()
    parts = (*here.parts, what) if what else here.parts
    token = _SCOPE.set(replace(here, shown=here.shown if shown is None else shown, parts=parts))
    try:
        yield
    finally:
        _SCOPE.reset(token)


class Task:
    """Work of so many steps, a context; `total` None for work whose end is not known.

    `done` are steps of an earlier call, which say nothing about how long the others take.
    """

    def __init__(self, what: str, total: int | None, done: int = 0) -> None:
        self.what, self.total, self.done = what, total, done
        self._before, self._begun = done, 0.0
        self._facts: dict[str, str] = {}
        self._bar: Any = None
        self._scope = _OUTSIDE
        self._exits = ExitStack()

    def __enter__(self) -> "Task":
        self._scope = _SCOPE.get()
        token = _SCOPE.set(replace(self._scope, task=self))
        self._exits.callback(_SCOPE.reset, token)
        self._begun = time.monotonic()
        if self._speaks and self._scope.task is None:
            if has_bar():
                self._bar = self._exits.enter_context(_bar(self._name, self.total, self.done))
            elif not _Lines.last:
                _Lines.last = self._begun
        return self

    def __exit__(self, *error: object) -> None:
        if outer := self._scope.task:
            outer.say(**{self.what: None})
        self._exits.close()

    @property
    def _speaks(self) -> bool:
        return self._scope.shown and os.environ.get("RANK", "0") == "0"

    @property
    def _name(self) -> str:
        return ", ".join([*self._scope.parts, self.what])

    def advance(self, steps: int = 1) -> None:
        """So many steps more are done."""
        self.done += steps
        if outer := self._scope.task:
            outer.say(**{self.what: f"{self.done:,} of {self.total:,}" if self.total else f"{self.done:,}"})
        elif self._bar is not None:
            self._bar.update(steps)
        else:
            self._line()

    def say(self, **facts: str | None) -> None:
        """What stands beside it from now on, by name: `epoch="2 of 3"`; None takes a fact away."""
        known = self._facts | facts
        self._facts = {name: fact for name, fact in known.items() if fact is not None}
        if outer := self._scope.task:
            outer.say()
        elif self._bar is not None:
            self._bar.set_postfix_str(self._said(), refresh=False)
        else:
            self._line()

    def _said(self) -> str:
        return ", ".join(f"{name} {fact}" for name, fact in self._facts.items())

    @property
    def left(self) -> float | None:
        """Seconds until the end, if it goes on as it has since it began here; None where that is not known."""
        steps = self.done - self._before
        if not steps or self.total is None:
            return None
        return (time.monotonic() - self._begun) / steps * max(self.total - self.done, 0)

    def _line(self) -> None:
        now = time.monotonic()
        if not self._speaks or now - _Lines.last < EVERY:
            return
        _Lines.last = now
        of = f" of {self.total:,}" if self.total is not None else ""
        share = f" ({100 * self.done // self.total}%)" if self.total else ""
        left = "" if self.left is None else f"{spoken(self.left)} left"
        parts = [f"{self._name}: {self.done:,}{of}{share}", self._said(), left]
        print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)


@contextmanager
def _bar(name: str, total: int | None, done: int) -> Iterator[Any]:
    from tqdm import tqdm

    bar = tqdm(
        total=total,
        initial=done,
        desc=name,
        leave=False,
        dynamic_ncols=True,
        file=sys.stderr,
        bar_format=UNKNOWN if total is None else BAR,
    )
    try:
        yield bar
    finally:
        bar.close()


def has_bar() -> bool:
    """Whether standard error is where a bar can move: a terminal, or a notebook."""
    return sys.stderr.isatty() or in_notebook()


def in_notebook() -> bool:
    """Whether this runs in a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__)


def spoken(seconds: float) -> str:
    """A duration in words."""
    if seconds < 90:
        return f"about {math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {minutes // 60} h {minutes % 60} min"


@contextmanager
def our_bars_only() -> Iterator[None]:
    """Inside, transformers, datasets and huggingface_hub show no bars; afterwards they do what they did.

    Also a decorator.
    """
    with ExitStack() as exits, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of users whose environment insists on bars, who then get them
        for name in ("huggingface_hub", "datasets"):
            if name in sys.modules:
                utils = import_module(f"{name}.utils")
                before = utils.are_progress_bars_disabled()
                utils.disable_progress_bars()
                exits.callback(utils.disable_progress_bars if before else utils.enable_progress_bars)
        if "transformers" in sys.modules:
            logging = import_module("transformers.utils.logging")
            if logging.is_progress_bar_enabled():
                logging.disable_progress_bar()
                exits.callback(logging.enable_progress_bar)  # before the hub's, which it switches on, too
        yield
