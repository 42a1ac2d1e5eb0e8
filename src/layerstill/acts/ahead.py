"""Distillations that are done ahead, several at a time, each by a process with cores of its own.

Small models keep few cores busy, so they are trained sooner side by side than one after the other. A process leaves
what the same call would leave here: a finished run, or the records of trials. Whoever needs these makes the call
nevertheless and finds it done; what no process could do is then done here, and says what is wrong with it.
"""

import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from layerstill.acts.distill import distill
from layerstill.acts.rungs import Trial
from layerstill.acts.trials import run_trials
from layerstill.data.plain import as_plain, from_plain
from layerstill.data.tasks import Task
from layerstill.progress import showing
from layerstill.recipe import Recipe
from layerstill.training.arguments import Options
from layerstill.training.cache_choice import CacheOptions

log = logging.getLogger("layerstill")

WORKER = "layerstill.acts.ahead_worker"


@dataclass(frozen=True)
class Errand:
    """What a process is asked to do: distil one student into `output`, or make trials of `updates` steps in it."""

    what: str
    """Which lines about progress begin with, and messages name it by."""
    teacher: str
    task: dict[str, Any]
    """As `as_plain` has it."""
    trials: tuple[dict[str, Any], ...]
    """For a student one, with its recipe and depth."""
    output: str
    options: dict[str, Any]
    updates: int | None = None
    """Of trials; None for a student."""
    student: str | None = None
    """What a student starts as, if it is not cut from the teacher."""

    @classmethod
    def of(
        cls,
        what: str,
        teacher: str,
        task: Task,
        trials: Sequence[Trial],
        output: Path,
        options: Options,
        updates: int | None = None,
        student: str | None = None,
    ) -> "Errand | None":
        """The errand as plain data; None where a process would not get the same task or recipes."""
        plain = as_plain(task)
        recipes = [json.loads(json.dumps(trial.recipe.to_data())) for trial in trials]
        same = all(
            Recipe.from_data(data).hash == trial.recipe.hash for data, trial in zip(recipes, trials, strict=True)
        )
        if plain is None or not same:
            return None
        told = [
            {"name": trial.name, "recipe": recipe, "student_layers": trial.student_layers}
            for trial, recipe in zip(trials, recipes, strict=True)
        ]
        return cls(what, teacher, plain, tuple(told), str(output), asdict(options), updates, student)

    def do(self) -> None:
        """Do it, in this process."""
        task, output = from_plain(self.task), Path(self.output)
        options = Options(**{**self.options, "cache": CacheOptions(**self.options["cache"])})
        trials = [Trial(**{**told, "recipe": Recipe.from_data(told["recipe"])}) for told in self.trials]
        if self.updates is not None:
            run_trials(self.teacher, task, trials, [self.updates], output, options)
            return
        one = trials[0]
        with showing(what=self.what):
            distill(self.teacher, task, one.recipe, one.student_layers, output, options, student=self.student)


class Crew:
    """`count` processes with `threads` threads each, which are started for their first errands.

    A context: at its end the processes are gone, and whatever they were at is gone on with another time.
    """

    def __init__(self, count: int, threads: int) -> None:
        self.count = count
        self._threads = threads
        self._processes: list[_Process] = []

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.end()

    def do(self, errands: Sequence[Errand | None]) -> None:
        """Have errands done, the first ones first; None are left for the caller, as are those that fail."""
        waiting: queue.SimpleQueue[Errand] = queue.SimpleQueue()
        for errand in errands:
            if errand is not None:
                waiting.put(errand)
        wanted = min(self.count, waiting.qsize())
        self._processes += [_Process(self._threads) for _ in range(len(self._processes), wanted)]
        threads = [threading.Thread(target=p.work, args=(waiting,), daemon=True) for p in self._processes[:wanted]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


class _Process:
    """One process and what it says."""

    def __init__(self, threads: int) -> None:
        several = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=os.environ | several,
            start_new_session=True,  # Ctrl-C is for the process that was called, which ends the others itself
        )
        self._what = ""
        threading.Thread(target=self._relay, daemon=True).start()

    def work(self, waiting: "queue.SimpleQueue[Errand]") -> None:
        """Do errands until none is left, or until the process is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        while True:
            try:
                errand = waiting.get_nowait()
            except queue.Empty:
                return
            self._what = errand.what
            try:
                self._process.stdin.write(json.dumps(asdict(errand)) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except (OSError, ValueError):  # it died, or was ended
                line = ""
            if not line.endswith("\n"):
                log.info("note: the process for %s is gone, so this is done alone later", errand.what)
                return

    def _relay(self) -> None:
        """Show the lines about progress; the others are said again where the errand is found done."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if self._what and line.startswith(self._what):
                print(line.rstrip("\n"), file=sys.stderr, flush=True)

    def end(self) -> None:
        """End the process, whatever it is at."""
        self._process.kill()
        self._process.wait()
