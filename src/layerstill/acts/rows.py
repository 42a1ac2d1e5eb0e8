"""The rows of `compress`: a teacher and its students in every form, scored on the same texts and timed in turns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from layerstill.compression.rows import Row, kept_interval, kept_percent
from layerstill.data.tasks import Task
from layerstill.evaluation.footprint import memory_mb
from layerstill.evaluation.latency import Runner, Speed, measure_speed
from layerstill.evaluation.predict import predict
from layerstill.evaluation.predictions import contributions_of
from layerstill.export.exported import FP32, INT8, Export, ExportedFile
from layerstill.export.runner import LIBRARIES, OnnxRunner
from layerstill.export.session import OnnxModel
from layerstill.families import depth_of
from layerstill.progress import Task as Work
from layerstill.training.models import load_fine_tuned, load_tokenizer
from layerstill.training.runners import load_runner, weights_mb

FORM_OF = {FP32: "onnx", INT8: "int8"}


@dataclass(frozen=True)
class Contender:
    """A model, and what it was exported to."""

    name: str
    """`teacher`, or `3 layers`."""
    folder: str
    export: Export
    teaches: bool = False
    """Whether it is the teacher."""


@dataclass(frozen=True)
class _Measured:
    """One form of a contender before it is compared with the teacher."""

    of: Contender
    form: str
    logits: Any
    file: ExportedFile | None
    """None in PyTorch."""
    layers: int
    parameters: int


def measure_rows(
    contenders: Sequence[Contender], task: Task, split: str, max_length: int, threads: int, home: Path
) -> list[Row]:
    """A row for every contender in every form, the first contender's first form being what others are held against.

    `task` has its outputs in the models' order. Models are scored on the whole `split` and timed on a sample of its
    texts, all in turns. Paths in the rows are relative to `home` where they lie below it.
    """
    measured: list[_Measured] = []
    with Work("scoring models", len(contenders)) as work:
        for contender in contenders:
            measured += _forms_of(contender, task, split, max_length)
            work.advance()
    runners, sizes = {}, {}
    texts = task.splits[split].texts
    with Work("weighing models", len(measured)) as work:
        for number, one in enumerate(measured):
            key = str(number)
            runners[key] = _runner(one, max_length, threads)
            sizes[key] = _sizes(one, max_length, texts[0], threads)
            work.advance()
    speeds = measure_speed(runners, texts, threads=threads)
    reference = _Reference.of(measured[0].logits, task, split)
    return [
        reference.row(one, replace(speeds[key], disk_mb=sizes[key][0], memory_mb=sizes[key][1]), home)
        for one, key in zip(measured, runners, strict=True)
    ]


def _forms_of(contender: Contender, task: Task, split: str, max_length: int) -> list[_Measured]:
    """Every form with its answers, which all cores work out: only times are taken with the threads asked for."""
    model = load_fine_tuned(contender.folder, task.head)
    tokenizer = load_tokenizer(contender.folder, model.config)
    layers, parameters = depth_of(model.config), model.num_parameters()
    logits = predict(model, tokenizer, task.splits[split], max_length, task.head)
    found = [_Measured(contender, "torch", logits, None, layers, parameters)]
    for kind, file in contender.export.files.items():
        run = OnnxModel(contender.export.folder, file.path.name)
        logits = run.logits(task.splits[split].texts)
        found.append(_Measured(contender, FORM_OF[kind], logits, file, layers, parameters))
    return found


def _runner(one: _Measured, max_length: int, threads: int) -> Runner:
    if one.file is None:
        return load_runner(one.of.folder, max_length)
    return OnnxRunner(one.of.export.folder, one.file.path.name, threads)


def _sizes(one: _Measured, max_length: int, text: tuple[str, ...], threads: int) -> tuple[float | None, float]:
    """On disk and in memory, in MB."""
    if one.file is None:
        return weights_mb(one.of.folder), memory_mb(load_runner, (one.of.folder, max_length), text)
    return one.file.mb, memory_mb(OnnxRunner, (str(one.of.export.folder), one.file.path.name, threads), text, LIBRARIES)


@dataclass(frozen=True)
class _Reference:
    """The teacher in PyTorch, which every row is compared with."""

    task: Task
    split: str
    metric: str
    score: float
    adds: np.ndarray | None
    decided: Any

    @classmethod
    def of(cls, logits: Any, task: Task, split: str) -> "_Reference":
        metric = task.metrics[0]
        score = task.score(logits, task.gold(split))[metric]
        return cls(task, split, metric, score, contributions_of(logits, task, split, metric), task.head.decide(logits))

    def row(self, one: _Measured, speed: Speed, home: Path) -> Row:
        score = self.task.score(one.logits, self.task.gold(self.split))[self.metric]
        adds = contributions_of(one.logits, self.task, self.split, self.metric)
        place = one.of.export.folder / one.file.path.name if one.file else Path(one.of.folder)
        return Row(
            model=one.of.name,
            form=one.form,
            layers=one.layers,
            parameters=one.parameters,
            score=score,
            kept=kept_percent(score, self.score),
            interval=kept_interval(adds, self.adds),
            agreement=agreement_of(self.task.head.decide(one.logits), self.decided),
            p50_ms=speed.p50_ms,
            p99_ms=speed.p99_ms,
            texts_per_second=speed.texts_per_second,
            disk_mb=speed.disk_mb or 0.0,
            memory_mb=speed.memory_mb,
            # A loss in 8 bits is part of the score; what an unfit file in 32 bits says is not the model's.
            fit=one.file is None or one.file.fit or one.form == FORM_OF[INT8],
            teaches=one.of.teaches,
            note=_note(one.file),
            path=str(place.relative_to(home)) if place.is_relative_to(home) else str(place),
        )


def _note(file: ExportedFile | None) -> str:
    if file is None:
        return ""
    kept = f"{', '.join(file.kept_fp32)} stayed in 32 bits" if file.kept_fp32 else ""
    return "; ".join(part for part in (file.reason, kept) if part)


def agreement_of(decided: Any, teacher: Any) -> float | None:
    """Share of the examples of which both models say the same; None for scores, which are never equal."""
    if not len(teacher) or np.issubdtype(np.asarray(teacher[0]).dtype, np.floating):
        return None
    same = [np.array_equal(ours, theirs) for ours, theirs in zip(decided, teacher, strict=True)]
    return float(np.mean(same))
