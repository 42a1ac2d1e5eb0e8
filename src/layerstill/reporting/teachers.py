"""The teacher of a cell's runs: what it scores, what it said of each example, how large it is."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from layerstill.evaluation.predictions import TEACHER_FILE
from layerstill.evaluation.statistics import Summary, summarise
from layerstill.reporting.arms import Cell
from layerstill.reporting.reading import get
from layerstill.reporting.runs import RunRecord, adds_in

_LONGEST_HEADER = 50_000_000
_DEPTHS = ("num_hidden_layers", "n_layers", "n_layer")


@dataclass(frozen=True)
class Teacher:
    """What is known of a teacher from the records of its students, and from its own folder if that is there."""

    task: str
    regime: str
    place: str
    """As its students' runs name it; empty where they do not."""
    metric: str
    score: Summary
    run: RunRecord | None
    """Its own run, if it is among those of the report."""
    students: tuple[Path, ...] = ()
    """Folders of its students' runs, of which those that asked it keep what it said."""

    @cached_property
    def folder(self) -> Path | None:
        """Where its model is."""
        if self.run is not None and self.run.folder is not None:
            return self.run.folder
        return Path(self.place) if self.place and Path(self.place).is_dir() else None

    @cached_property
    def adds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Ids `(n,)` of the examples of dev and what each adds to the score `(n,)`; None where that was not kept."""
        kept = (adds_in(folder, self.metric, self.score.mean, TEACHER_FILE) for folder in self.students)
        if (found := next((adds for adds in kept if adds is not None), None)) is not None:
            return found
        return None if self.folder is None else adds_in(self.folder, self.metric, self.score.mean)

    @cached_property
    def parameters(self) -> int | None:
        """How many, by its own record or by the header of its weights."""
        if self.run is not None:
            return self.run.checked.student.parameters
        return None if self.folder is None else _parameters_in(self.folder / "model.safetensors")

    @cached_property
    def layers(self) -> int | None:
        """How many it has."""
        config = None if self.folder is None else _json(self.folder / "config.json")
        found = next((get(config, key) for key in _DEPTHS if get(config, key) is not None), None)
        return found if isinstance(found, int) else None


def teachers_of(found: Sequence[Cell]) -> list[Teacher]:
    """Every teacher that runs of some cell learnt from and that was scored, once for each task and regime."""
    whole = [run for cell in found if cell.is_teacher for run in cell.runs]
    made: dict[tuple[str, str, str], Teacher] = {}
    for cell in found:
        if (key := key_of(cell)) is None or key in made:
            continue
        alike = [run for other in found if key_of(other) == key for run in other.runs]
        scores = [v for run in alike if (v := run.checked.teacher_metrics.get(cell.metric)) is not None]
        if scores:
            task, regime, place = key
            own = _own_run(whole, place, task, cell.metric, scores[0])
            # One model has one score, however many students noted it.
            unlike = scores if max(scores) - min(scores) > 1e-9 else scores[:1]
            folders = tuple(run.folder for run in alike if run.folder is not None)
            made[key] = Teacher(task, regime, place, cell.metric, summarise(unlike), own, folders)
    return list(made.values())


def teacher_folders(found: Sequence[Cell]) -> dict[str, Path]:
    """Folders of the teachers that are no runs of the report, by what their students call them."""
    return {t.place: t.folder for t in teachers_of(found) if t.run is None and t.folder is not None}


def key_of(cell: Cell) -> tuple[str, str, str] | None:
    """Task, regime and the teacher's name, by which cells have the same teacher; None for those without one."""
    run = cell.runs[0]
    if run.checked.teacher is None or not run.checked.teacher_metrics:
        return None
    places = {str(get(r.read("run.json"), "teacher") or r.checked.teacher or "") for r in cell.runs}
    return cell.task, cell.setting.regime, places.pop() if len(places) == 1 else ""


def _own_run(whole: Sequence[RunRecord], place: str, task: str, metric: str, score: float) -> RunRecord | None:
    """The teacher's run: where its students say, or else the one that scored the same, if folders were moved."""
    fitting = [r for r in whole if r.checked.task == task and abs(r.metrics.get(metric, math.inf) - score) < 1e-6]
    for run in fitting:
        if run.folder is not None and place and run.folder.resolve() == Path(place).resolve():
            return run
    named = [r for r in fitting if r.folder is not None and r.folder.name == Path(place).name] or fitting
    return named[0] if len(named) == 1 else None


def _parameters_in(path: Path) -> int | None:
    """Numbers in a file of weights, by its header; None if there is no such file."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= _LONGEST_HEADER else {}
        return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__") or None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
