"""Files made of a teacher and its students, as `compress.json` and `export.json` below a folder tell of them."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerstill.compression.rows import Row
from layerstill.reporting.reading import get, number
from layerstill.reporting.runs import NO_RUNS_IN, RunRecord

COMPRESS_FILE, EXPORT_FILE = "compress.json", "export.json"
FORM_WORDS = {"torch": "PyTorch", "onnx": "ONNX", "int8": "ONNX int8"}
"""A form, and how a reader is told of it."""


@dataclass(frozen=True)
class Form:
    """A model in one form, scored on dev."""

    owner: str
    """Name of the run whose model it is; empty for the teacher."""
    form: str
    """`torch`, `onnx` or `int8`."""
    task: str
    metric: str
    score: float
    mb: float | None
    """Of 10^6 bytes."""
    ms: float | None
    """Median for one text; None where it was not timed."""
    kept: float | None
    """Percent of the teacher's score."""
    interval: tuple[float, float] | None
    """Of `kept`, 95 %, paired over examples."""
    parameters: int | None
    layers: int | None
    fit: bool
    path: str
    """Of its folder or file."""
    ship: bool = False
    """Whether `compress` named it as the one to ship."""
    verdict: tuple[str, ...] = ()
    """What `compress` said when it chose, with the form that it named."""


def read_forms(folder: Path, runs: Sequence[RunRecord]) -> list[Form]:
    """Every form below `folder` that belongs to one of `runs` or to the teacher of one; records that are damaged, or
    of other data than dev, are passed over."""
    by_place = {run.folder.resolve(): run for run in runs if run.folder and run.status == "finished"}
    found: list[Form] = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in NO_RUNS_IN and not f.startswith("."))
        here = Path(place)
        if COMPRESS_FILE in files:
            found += _from_compress(here, by_place)
    told = {Path(form.path).resolve() for form in found}
    for run in by_place.values():
        assert run.folder is not None
        found += _from_export(run.folder / "onnx", run, told)
    teachers = {fingerprint for run in by_place.values() if (fingerprint := _teacher_print(run))}
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in NO_RUNS_IN and not f.startswith("."))
        if EXPORT_FILE in files and get(_json(Path(place) / EXPORT_FILE), "source") in teachers:
            found += _from_export(Path(place), None, told)
    for outside in _teachers_outside(folder, by_place.values()):
        if get(_json(outside / EXPORT_FILE), "source") in teachers:
            found += _from_export(outside, None, told)
    return found


def _teacher_print(run: RunRecord) -> str | None:
    return get(run.read("run.json"), "teacher_fingerprint")


def _teachers_outside(folder: Path, runs: Any) -> list[Path]:
    """Where the exports of teachers that do not lie below `folder` would be."""
    named = {str(get(run.read("run.json"), "teacher") or "") for run in runs}
    places = sorted(Path(name) / "onnx" for name in named if name)
    return [place for place in places if not place.resolve().is_relative_to(folder.resolve())]


def _from_compress(here: Path, by_place: dict[Path, RunRecord]) -> Iterator[Form]:
    record = _json(here / COMPRESS_FILE)
    rows = get(record, "rows")
    task, metric = get(record, "task"), get(record, "metric")
    if not isinstance(rows, list) or not isinstance(task, str) or not isinstance(metric, str):
        return
    known = [row for data in rows if (row := _row(data)) is not None]
    owners = {row.model: by_place.get((here / row.path).resolve()) for row in known if row.form == "torch"}
    said = get(record, "verdict")
    verdict = tuple(map(str, said)) if isinstance(said, list) else ()
    for row in known:
        owner = owners.get(row.model)
        if not row.teaches and owner is None:
            continue
        ship = row.path == get(record, "ship")
        yield Form(
            "" if row.teaches or owner is None else owner.name,
            row.form,
            task,
            metric,
            row.score,
            row.disk_mb,
            row.p50_ms,
            row.kept,
            row.interval,
            row.parameters,
            row.layers,
            row.fit,
            str(here / row.path),
            ship,
            verdict if ship else (),
        )


def _row(data: Any) -> Row | None:
    """A row of the table, if it has what is needed of one."""
    try:
        row = Row.from_data(data)
    except (TypeError, LookupError, AttributeError):
        return None
    numbers = (number(data, key) for key in ("score", "p50_ms", "disk_mb", "parameters", "layers"))
    texts = (row.model, row.form, row.path)
    whole = all(value is not None for value in numbers) and all(isinstance(text, str) for text in texts)
    return row if whole and row.form in FORM_WORDS else None


def _from_export(place: Path, owner: RunRecord | None, told: set[Path]) -> Iterator[Form]:
    record = _json(place / EXPORT_FILE)
    files = get(record, "files")
    if get(record, "split") != "dev" or not isinstance(files, dict):
        return
    for name, form in (("fp32", "onnx"), ("int8", "int8")):
        entry = get(files, name)
        scores = get(get(entry, "parity"), "scores")
        metric = next(iter(scores), None) if isinstance(scores, dict) else None
        score = number(scores, str(metric))
        path = place / str(get(entry, "path"))
        if score is None or metric is None or path.resolve() in told:
            continue
        told.add(path.resolve())
        reference = number(get(get(entry, "parity"), "torch_scores"), metric) if owner is None else None
        yield Form(
            owner.name if owner else "",
            form,
            str(get(record, "task")),
            metric,
            score,
            number(entry, "mb"),
            None,
            100 * score / reference if reference else None,
            None,
            None,
            None,
            get(entry, "fit") is not False,
            str(path),
        )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
