"""The runs below a folder, as their records say: finished, failed, unfinished, damaged, or unscored."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from layerstill.errors import UserError
from layerstill.evaluation.predictions import PREDICTIONS_FILE, load_predictions
from layerstill.result import RESULT_FILE, Record

Status = Literal["finished", "failed", "unfinished", "damaged", "unscored"]
REGIME_SETTINGS = ("few_samples", "stratified", "keep", "long_tail", "label_noise", "noise", "transitions")
"""What is a setting of a regime; the rest of its record are counts."""
WHOLE = "whole model"
NO_RUNS_IN = {"checkpoints", "teacher-cache", "cache", "tuning"}
"""Folders that hold no results."""
AXIS = "as named"
"""Stands for what differs between arms whose names say it."""
_COORDINATES = {"task", "recipe", "seed", "init", "initialisation", "regime"}


@dataclass(frozen=True)
class RunRecord:
    """One run: `result` is its `result.json`, `coordinates` are its place in a study."""

    name: str
    folder: Path | None
    status: Status
    result: dict[str, Any] = field(default_factory=dict)
    coordinates: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    study: str = ""
    """The study's folder, if it is not the one that was asked for."""
    by: str = ""
    """The axis whose value stands in the recipe's place, if another one is compared."""

    @cached_property
    def checked(self) -> Record:
        """The result with its fields in their types; only a finished run has one."""
        return Record.model_validate(self.result)

    @property
    def metrics(self) -> dict[str, float]:
        """Scores on dev by name; the first one is what runs are compared by."""
        return self.checked.scores

    @property
    def metric(self) -> str:
        """Name of the first metric."""
        return next(iter(self.metrics))

    @property
    def score(self) -> float:
        """Value of the first metric."""
        return self.metrics[self.metric]

    @property
    def selected(self) -> str:
        """`last`, or `best of n`."""
        return self.checked.selected

    @property
    def recipe(self) -> str:
        """The recipe's name; in a study, the name of the arm."""
        return word(self.coordinates["recipe"]) if "recipe" in self.coordinates else self.checked.recipe

    @property
    def seed(self) -> int | None:
        """The run's seed, if known."""
        return self.checked.seed if self.status == "finished" else self.coordinates.get("seed")

    @property
    def size(self) -> str:
        """Depth and width in words."""
        if self.by:
            return AXIS  # whatever differs in it, other coordinates say
        student = self.checked.student
        return f"{student.layers} layers" + (f" × {student.hidden_size}" if student.hidden_size else "")

    @property
    def start(self) -> str:
        """Where the student's weights came from, in words."""
        for axis in ("initialisation", "init"):
            if axis in self.coordinates:
                return word(self.coordinates[axis])
        if self.by:
            return AXIS
        init = self.checked.student.init
        if not isinstance(init, dict):
            return WHOLE if init == "all" else "unknown" if init is None else word(init)
        layers, source = init.get("layers"), init.get("from")
        if layers == "all":
            return WHOLE
        which = f"layers {', '.join(map(str, layers))}" if isinstance(layers, list) else word(layers)
        return which if source in ("teacher", None) else f"{which} of {Path(str(source)).name}"

    @property
    def regime(self) -> str:
        """What was done to the training data, in words; `full` for nothing."""
        if "regime" in self.coordinates:
            return word(self.coordinates["regime"]) or "full"
        settings = {k: v for k, v in self.checked.regime.items() if k in REGIME_SETTINGS and v}
        if "label_noise" not in settings:
            settings.pop("noise", None)
        return word(settings) or "full"

    @property
    def variant(self) -> str:
        """What else tells this run from others of its study: the axes that have no column of their own."""
        more = {axis: value for axis, value in self.coordinates.items() if axis not in _COORDINATES}
        return word(more)

    @property
    def is_teacher(self) -> bool:
        """Whether a whole model was fine-tuned, rather than a student made."""
        return self.checked.teacher is None and self.start == WHOLE

    @cached_property
    def adds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Ids `(n,)` of the run's examples, and what each adds to its score `(n,)`, if it kept what it said of them."""
        return adds_in(self.folder, self.metric, self.score) if self.folder else None

    def read(self, name: str) -> Any:
        """A JSON file of the run's folder; None if it is not there or not JSON."""
        try:
            return json.loads((self.folder / name).read_text("utf-8")) if self.folder else None
        except (OSError, ValueError, RecursionError):
            return None

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        """The objects in a file of JSON lines; lines that are none are passed over."""
        try:
            text = (self.folder / name).read_text("utf-8", "replace") if self.folder else ""
        except OSError:
            return
        for line in text.split("\n"):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict):
                yield entry

    def text(self, name: str) -> str | None:
        """A text file of the run's folder, if it is there."""
        try:
            return (self.folder / name).read_text("utf-8", "replace") if self.folder else None
        except OSError:
            return None


def adds_in(
    folder: Path, metric: str, score: float, file: str = PREDICTIONS_FILE
) -> tuple[np.ndarray, np.ndarray] | None:
    """Ids `(n,)` and what each example adds to a metric `(n,)`, from the predictions in a folder.

    None if there are none, or if they are not those that gave this score.
    """
    found = load_predictions(folder, file)
    values = found.contributions(metric) if found is not None else None
    if found is None or values is None or abs(values.mean() - score) > 1e-6:
        return None
    return found.ids, values


def word(value: Any) -> str:
    """A value as a label: `{"a": 1, "b": [2, 3]}` as `a 1, b 2+3`."""
    if isinstance(value, dict):
        return ", ".join(key if v is True else f"{key} {word(v)}" for key, v in value.items())
    if isinstance(value, list | tuple):
        return "+".join(word(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_runs(folder: Path) -> list[RunRecord]:
    """Every run below `folder`: a study's from its `records.jsonl`, others from every `result.json`.

    UserError if there is no such folder, or no trace of a run in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: {'a file, not a folder' if folder.is_file() else 'no such folder'}")
    records = folder / "records.jsonl"
    runs = list(_from_folders(folder))
    if not runs:
        where = "records.jsonl there is empty" if records.is_file() else "no result.json in it or below it"
        raise UserError(f"{folder}: no runs to report ({where})")
    return runs


def _from_study(folder: Path, study: str) -> list[RunRecord]:
    """The runs of the study in `folder`, which is called `study` if it lies below the folder that was asked for."""
    runs: dict[str, RunRecord] = {}
    before = f"{study}/" if study else ""
    try:
        text = (folder / "records.jsonl").read_text("utf-8", "replace")
    except OSError as problem:
        name = f"{before}records.jsonl"
        return [RunRecord(name, None, "damaged", error=f"cannot be read: {problem}", study=study)]
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        name = f"{before}records.jsonl line {number}"
        try:
            entry = json.loads(line)
            key = str(entry["hash"])
        except (ValueError, RecursionError):
            runs[name] = RunRecord(name, None, "damaged", error="not JSON", study=study)
            continue
        except (TypeError, LookupError):
            runs[name] = RunRecord(name, None, "damaged", error="no hash", study=study)
            continue
        place = folder / "runs" / key if key.isalnum() else None
        coordinates = entry.get("coordinates")
        runs[key] = _run(
            before + key,
            place if place and place.is_dir() else None,
            "failed" if entry.get("status") == "failed" else "finished",
            entry.get("result"),
            coordinates if isinstance(coordinates, dict) else {},
            str(entry.get("error") or ""),
            study,
        )  # of several lines about one run, the last
    return list(runs.values())


def _from_folders(folder: Path) -> Iterator[RunRecord]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in NO_RUNS_IN and not f.startswith("."))
        here = Path(place)
        name = str(here.relative_to(folder)) if here != folder else here.resolve().name
        if "records.jsonl" in files:
            folders.clear()  # teachers, tuning and runs: the records say which of them are the study's results
            yield from _from_study(here, name if here != folder else "")
        elif RESULT_FILE in files:
            try:
                data, error = json.loads((here / RESULT_FILE).read_text("utf-8")), ""
            except (OSError, ValueError, RecursionError) as problem:
                data, error = None, f"result.json cannot be read: {problem}"
            yield _run(name, here, "finished", data, {}, error)
        elif "run.json" in files:
            yield RunRecord(name, here, "unfinished", error="no result.json yet")


def _run(
    name: str, folder: Path | None, status: Status, data: Any, place: dict[str, Any], error: str, study: str = ""
) -> RunRecord:
    if status == "failed":
        return RunRecord(name, folder, status, {}, place, error or "no reason is recorded", study)
    run = RunRecord(name, folder, status, data if isinstance(data, dict) else {}, place, error, study)
    if not error and run.result.get("text"):
        why = (
            "running text gives losses, of which less is better; fine-tune the student on a task, and compare that run"
        )
        return RunRecord(name, folder, "unscored", {}, place, why, study)
    if not error:
        try:
            if not run.metrics or not all(abs(v) < float("inf") for v in run.metrics.values()):
                error = "result.json: metrics holds no score, or one that is not finite"
        except ValidationError as problem:
            first = problem.errors()[0]
            error = f"result.json: {'.'.join(map(str, first['loc'])) or 'top level'}: {first['msg']}"
    return RunRecord(name, folder, "damaged", {}, place, error, study) if error else run
