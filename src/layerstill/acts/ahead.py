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
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from layerstill.acts.distill import distill
from layerstill.acts.rungs import Trial
from layerstill.acts.trials import run_trials
from layerstill.data.plain import from_plain
from layerstill.progress import showing
from layerstill.recipe import Recipe
from layerstill.training.arguments import Options
from layerstill.training.cache_choice import CacheOptions

log = logging.getLogger("layerstill")

WORKER = "layerstill.acts.ahead_worker"
SAID = "said "
"""Begins a note of a process, before its level; other lines are about progress, tracebacks, or from libraries."""


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
        task: dict[str, Any],
        trials: Sequence[Trial],
        output: Path,
        options: Options,
        updates: int | None = None,
        student: str | None = None,
    ) -> "Errand":
        """The errand as plain data."""
        told = [
            {"name": one.name, "recipe": one.recipe.to_data(), "hash": one.recipe.hash, "layers": one.student_layers}
            for one in trials
        ]
        return cls(what, teacher, task, tuple(told), str(output), asdict(options), updates, student)

    def do(self) -> None:
        """Do it, in this process."""
        task, output = from_plain(self.task), Path(self.output)
        options = Options(**{**self.options, "cache": CacheOptions(**self.options["cache"])})
        trials = [_trial(told) for told in self.trials]
        if self.updates is not None:
            run_trials(self.teacher, task, trials, [self.updates], output, options)
            return
        one = trials[0]
        with showing(what=self.what):
            distill(self.teacher, task, one.recipe, one.student_layers, output, options, student=self.student)


def _trial(told: dict[str, Any]) -> Trial:
    recipe = Recipe.from_data(told["recipe"])
    if recipe.hash != told["hash"]:  # with words of somebody's own, say
        raise ValueError(f"recipe {recipe.name!r} is another one in this process")
    return Trial(told["name"], recipe, told["layers"])


class Crew:
    """`count` processes with `threads` threads each, which are started when there is something to do.

    A context: at its end the processes are gone, and whatever they were at is gone on with another time.
    """

    def __init__(self, count: int, threads: int) -> None:
        self.count = count
        self._threads = threads
        self._processes: list[_Process] = []
        self._heard: set[str] = set()

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.end()

    def do(self, errands: Sequence[Errand]) -> None:
        """Have errands done, the first ones first; those that fail are left for the caller."""
        waiting: queue.SimpleQueue[Errand] = queue.SimpleQueue()
        for errand in errands:
            waiting.put(errand)
        self._start(min(self.count, len(errands)))
        some = self._processes[: len(errands)]
        threads = [threading.Thread(target=process.work, args=(waiting,), daemon=True) for process in some]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _start(self, wanted: int) -> None:
        """Have so many processes that are alive, or as many as can be started."""
        for process in [one for one in self._processes if not one.alive]:
            process.end()
            self._processes.remove(process)
        while len(self._processes) < wanted:
            try:
                self._processes.append(_Process(self._threads, self._heard))
            except OSError as error:  # no memory, or too many processes
                log.info("note: another process cannot be started (%s)", error.strerror)
                return


class _Process:
    """One process; what it says to the user is shown, but for what another has said (`heard`)."""

    def __init__(self, threads: int, heard: set[str]) -> None:
        several = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            # Modules of the working directory must not stand in for those of Python.
            env=os.environ | several | {"PYTHONSAFEPATH": "1"},
            start_new_session=True,  # Ctrl-C is for the process that was called, which ends the others itself
        )
        self._heard = heard
        self._what = ""
        self._ended = False
        self._relaying = threading.Thread(target=self._relay, daemon=True)
        self._relaying.start()

    @property
    def alive(self) -> bool:
        """Whether it can be asked for something."""
        return self._process.poll() is None

    def work(self, waiting: "queue.SimpleQueue[Errand]") -> None:
        """Do errands until none is left, or until the process is gone."""
        while True:
            try:
                errand = waiting.get_nowait()
            except queue.Empty:
                return
            self._what = errand.what
            error = self._ask(errand)
            if error is not None and not self._ended:
                log.info("note: %s could not be trained beside others, so it is done alone (%s)", errand.what, error)
            if not self.alive:
                return

    def _ask(self, errand: Errand) -> str | None:
        """Why an errand was not done; None if it was."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(asdict(errand)) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (OSError, ValueError):
            line = ""
        if line.endswith("\n"):
            said: str | None = json.loads(line)["error"]
            return said
        return f"its process ended with status {self._process.wait()}"

    def _relay(self) -> None:
        """Show how far it is, and every note once."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            line = line.rstrip("\n")
            with suppress(OSError, ValueError):  # nobody listens, which must not stop the process
                if self._what and line.startswith(self._what):
                    print(line, file=sys.stderr, flush=True)
                elif line.startswith(SAID) and line not in self._heard:
                    self._heard.add(line)
                    level, _, message = line.removeprefix(SAID).partition(" ")
                    log.log(int(level), "%s", message)

    def end(self) -> None:
        """End the process, whatever it is at."""
        self._ended = True
        self._process.kill()
        self._process.wait()
        self._relaying.join(5)  # a tracker that it has started may hold the pipe for longer
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
