"""The act `diagnose`: what a finished run overfits, how flat its minimum is, and whose layers its own resemble.

Every part of `diagnostics.json` remembers what it was made with, so that a second call adds what is missing.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from layerstill.acts.given import task_for
from layerstill.acts.remembered import Remembered
from layerstill.atomic import write_json
from layerstill.data.encode import encode, usable_length
from layerstill.data.label_agreement import agree_on_labels, fit_all, refuse_other_labels
from layerstill.data.ood import OodSet
from layerstill.data.regimes import Regime
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError, nearest
from layerstill.evaluation import flatness
from layerstill.evaluation.agreement import SCORES_DIFFER, Reader, agreement_with_teacher, sample_of
from layerstill.evaluation.curvature import hessian_of
from layerstill.evaluation.flatness import Tick, mean_loss
from layerstill.evaluation.predict import Batch, batches_of, logits_of
from layerstill.evaluation.similarity import FEWEST, layer_similarity, pooled_states
from layerstill.heads import Head
from layerstill.progress import our_bars_only
from layerstill.result import RESULT_FILE
from layerstill.studies.job import ood_of_run
from layerstill.training.lock import FolderLock
from layerstill.training.model_files import INDEX, WEIGHTS
from layerstill.training.models import (
    adopt_padding,
    fingerprint,
    load_config,
    load_fine_tuned,
    load_tokenizer,
    require_head,
)
from layerstill.training.records import JOB_FILE, RUN_FILE, SOURCE, task_fingerprint

log = logging.getLogger("layerstill")

FILE = "diagnostics.json"
FEW = 128
"""Examples for the surface and the Hessian, whose every figure costs a pass or several."""
Watch = Callable[[str, int | None], Tick]
"""Told each part and its steps (None: not known); gives what to call after every step."""


@dataclass(frozen=True)
class Subject:
    """A student, perhaps its teacher, and the examples they are looked at with."""

    student: Reader
    teacher: Reader | None
    task: Task
    splits: dict[str, Split]
    """Samples of `train`, `dev` and whatever other sets agreement is asked for."""
    seed: int
    agreed: Mapping[str, Any] = field(default_factory=dict)
    """Agreement that is known from before, by set."""

    @cached_property
    def batches(self) -> dict[str, list[Batch]]:
        """The samples of train and dev as the student reads them."""
        return {name: self.read(self.student, self.splits[name]) for name in ("train", "dev")}

    @cached_property
    def few(self) -> list[Batch]:
        """A few training examples, in smaller batches for the two backward passes of the Hessian."""
        return self.read(self.student, sample_of(self.splits["train"], FEW, self.seed, "few"), 32)

    def read(self, reader: Reader, split: Split, batch_size: int = 64) -> list[Batch]:
        """A split as batches for a model, where that model is."""
        return batches_of(split, reader.tokenizer, reader.max_length, reader.model.device, self.task.head, batch_size)

    def scores(self, name: str) -> dict[str, float]:
        """The task's metrics of the student as it stands, on the sample called `name`."""
        logits = logits_of(self.student.model, self.batches[name], self.task.head)
        return self.task.score(logits, self.task.head.gold(self.splits[name].labels))

    def loss(self, name: str) -> float:
        """The task's loss of the student as it stands, on the sample called `name`."""
        return mean_loss(self.student.model, self.batches[name], self.task.head)


def _gap(subject: Subject, watch: Watch) -> dict[str, Any]:
    watch("gap", 1)
    train, dev = subject.scores("train"), subject.scores("dev")
    return {"gap": {metric: {"train": train[metric], "dev": dev[metric]} for metric in subject.task.metrics}}


def _agreement(subject: Subject, watch: Watch) -> dict[str, Any]:
    assert subject.teacher is not None
    missing = {name: split for name, split in subject.splits.items() if name not in subject.agreed}
    tick = watch("agreement", len(missing))
    found = dict(subject.agreed)
    for name, split in missing.items():
        found[name] = agreement_with_teacher(subject.student, subject.teacher, split, subject.task.head)
        tick()
    return {"agreement": found}


def _noise(subject: Subject, watch: Watch) -> dict[str, Any]:
    metric = subject.task.metrics[0]
    tick = watch("noise", sum(flatness.DRAWS if sigma else 1 for sigma in flatness.SIGMAS))
    measures = {name: partial(lambda name: subject.scores(name)[metric], name) for name in ("train", "dev")}
    made = flatness.weight_noise(subject.student.model, measures, subject.seed, tick=tick)
    return {"weight_noise": {"sigmas": made.pop("sigmas"), "draws": made.pop("draws"), "metric": metric, **made}}


def _slices(subject: Subject, watch: Watch) -> dict[str, Any]:
    model = subject.student.model
    tick = watch("slices", len(flatness.LINE) + len(flatness.GRID) ** 2)
    measures = {name: partial(subject.loss, name) for name in ("train", "dev")}
    line = flatness.slice_1d(model, measures, subject.seed, tick=tick)
    surface = flatness.slice_2d(
        model, partial(mean_loss, model, subject.few, subject.task.head), subject.seed, tick=tick
    )
    return {"slice_1d": line, "slice_2d": {**surface, "examples": _count(subject.few)}}


def _hessian(subject: Subject, watch: Watch) -> dict[str, Any]:
    hessian = hessian_of(subject.student.model, subject.few, subject.task.head, watch("hessian", None))
    top = hessian.top_eigenvalue(subject.seed)
    trace, error = hessian.trace(subject.seed)
    figures = {"top_eigenvalue": top, "trace": trace, "trace_standard_error": error}
    return {"hessian": {**figures, "examples": _count(subject.few)}}


def _cka(subject: Subject, watch: Watch) -> dict[str, Any]:
    assert subject.teacher is not None
    watch("cka", None)
    student = pooled_states(subject.student.model, subject.batches["dev"])
    teacher = pooled_states(subject.teacher.model, subject.read(subject.teacher, subject.splits["dev"]))
    return {"cka": layer_similarity(student, teacher)}


def _count(batches: list[Batch]) -> int:
    return sum(len(batch.places) for batch in batches)


PARTS: dict[str, Callable[[Subject, Watch], dict[str, Any]]] = {
    "gap": _gap,
    "agreement": _agreement,
    "noise": _noise,
    "slices": _slices,
    "hessian": _hessian,
    "cka": _cka,
}
WITH_TEACHER = ("agreement", "cka")


@our_bars_only()
def diagnose(
    run: str | Path,
    data: Any = None,
    teacher: str | Path | None = None,
    parts: tuple[str, ...] | None = None,
    examples: int = 512,
    seed: int = 0,
    ood: Sequence[OodSet] | None = None,
    others: Mapping[str, Split] | None = None,
    watch: Watch = lambda part, steps: lambda: None,
) -> dict[str, Any]:
    """Look at a finished run and write what is found into its `diagnostics.json`, which is returned.

    Args:
        run: its folder.
        data: what it was trained on, as in `distill`, if the run does not know it. The regime of the run is applied to
            it. Other data, by their fingerprint, are refused with a UserError.
        teacher: a folder or hub id, if not where the run had it.
        parts: of `PARTS`; without it all that the run allows. Parts that are there, made with the same settings, stay.
        examples: at most so many of each split, drawn with `seed`.
        ood: out-of-domain sets for which agreement with the teacher is asked; None for those of the run's study.
        others: sets besides the task's splits for which agreement with the teacher is asked, labels not needed; they
            join those of earlier calls.
        watch: for a progress bar.
    """
    folder = Path(run)
    settings = run_settings(folder)
    _read(folder)  # refuses a damaged file before anything is loaded
    task = _task(folder, data, settings)
    others = {**_far_sets(folder, task, ood, parts), **(others or {})}
    config = load_config(str(folder), task.head)
    task, notices = agree_on_labels(task, config, f"run {folder}", subset=True)
    name = str(teacher) if teacher is not None else settings.get("teacher")
    chosen = _choose(parts, task, name)
    names = {"student": str(folder)} | ({"teacher": name} if name and {*chosen} & {*WITH_TEACHER} else {})
    configs = {
        who: config if who == "student" else _teacher_config(name, folder, task.head) for who, name in names.items()
    }
    if "teacher" in configs and "agreement" in chosen:
        refuse_other_labels(config, configs["teacher"])
    prints = {who: fingerprint(name, configs[who]) for who, name in names.items()}
    _refuse_other_data(folder, settings, task)
    for notice in [*notices, *task.notices, *_strangers(folder, settings, prints)]:
        log.warning("note: %s", notice)
    if taken := [name for name in others or () if name in task.splits]:
        raise UserError(f"--ood {taken[0]}: the task has a split of that name; call the set something else")
    splits = {**task.splits, **(others or {})}
    common = {"examples": examples, "seed": seed, "data": task_fingerprint(task), "student": prints["student"]}
    with_teacher = {**common, "teacher": prints.get("teacher")}
    made_with: dict[str, dict[str, Any]] = {
        part: {**(with_teacher if part in WITH_TEACHER else common)}
        | ({"splits": [*task.splits], "others": _texts_of(others or {})} if part == "agreement" else {})
        for part in chosen
    }
    lock = FolderLock(folder)
    lock.take()
    try:
        data = _read(folder)  # under the lock, so that what another call has found meanwhile stays
        told, agreed = data.get("made_with", {}), {}
        if "agreement" in made_with:
            agreed = _agreed_before(data, made_with["agreement"])
            texts = told.get("agreement", {}).get("others", {})
            made_with["agreement"]["others"] |= {name: texts[name] for name in texts if name in agreed}
        missing = [part for part in chosen if told.get(part) != made_with[part]]
        if kept := [part for part in chosen if part not in missing]:
            log.info("note: %s already holds %s", folder / FILE, ", ".join(kept))
        if not missing:
            return data
        readers = {who: _reader(name, configs[who], settings["max_length"], task.head) for who, name in names.items()}
        samples = {name: sample_of(split, examples, seed, name) for name, split in splits.items()}
        _say_what_is_cut(readers["student"], samples, task.head)
        subject = Subject(readers["student"], readers.get("teacher"), task, samples, seed, agreed)
        for part in missing:
            told = data.pop("made_with", {})
            data |= {**PARTS[part](subject, watch), "made_with": {**told, part: made_with[part]}}
            write_json(folder / FILE, data)
    finally:
        lock.release()
    return data


def _task(folder: Path, data: Any, settings: dict[str, Any]) -> Task:
    """What the run was trained on, its regime included."""
    run = Remembered.of(folder)
    if data is None:
        return run.read()
    task = task_for(run, str(folder), data).with_dev()
    record = settings.get("regime")
    return Regime.from_record(record).apply(task, 0) if record and not task.regime else task


def _far_sets(
    folder: Path, task: Task, ood: Sequence[OodSet] | None, parts: tuple[str, ...] | None
) -> dict[str, Split]:
    """The texts of the sets `ood`, or without them of the run's study, if agreement is asked for."""
    if ood is None and "agreement" in (parts or ("agreement",)):
        try:
            ood = ood_of_run(folder, task)
        except UserError as error:
            log.warning("note: agreement without the study's out-of-domain sets: %s", error)
    return {ood_set.name: ood_set.split for ood_set in fit_all(ood or (), task)}


def _agreed_before(before: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What holds of an earlier agreement: everything, if it was made in the same way, but sets whose texts changed."""
    made_with = before.get("made_with", {}).get("agreement")
    if made_with is None or {**made_with, "others": None} != {**wanted, "others": None}:
        return {}
    told = made_with.get("others", {})
    changed = {name for name, texts in wanted["others"].items() if told.get(name) != texts}
    return {name: found for name, found in before["agreement"].items() if name not in changed}


def run_settings(folder: Path) -> dict[str, Any]:
    """What a finished run was made with; UserError for a folder that holds none."""
    if not (folder / RESULT_FILE).is_file():
        raise UserError(f"run {folder}: no result.json in it; give the output folder of a finished distill or finetune")
    try:
        settings = json.loads((folder / RUN_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        settings = None
    known = isinstance(settings, dict) and isinstance(settings.get("max_length"), int)
    if not known or not isinstance(settings.get("task"), str) or not isinstance(settings.get("regime", {}), dict):
        raise UserError(f"run {folder}: {RUN_FILE} is missing or damaged; only a whole run folder can be diagnosed")
    if (folder / JOB_FILE).is_file() and not any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        raise UserError(
            f"run {folder}: the study deleted this run's weights (keep: results); delete the folder and run the study "
            "again with keep: models"
        )
    return settings


def _texts_of(others: Mapping[str, Split]) -> dict[str, str]:
    """A fingerprint of each set's texts."""
    return {
        name: hashlib.sha256(json.dumps(split.texts, ensure_ascii=False).encode()).hexdigest()[:12]
        for name, split in others.items()
    }


def _read(folder: Path) -> dict[str, Any]:
    """The diagnostics that are there."""
    path = folder / FILE
    if link := next((p for p in (path, folder / f".{FILE}.part") if p.is_symlink()), None):
        raise UserError(f"{link}: a symbolic link, which could lead to files elsewhere; remove it")
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text("utf-8"))
    except ValueError:
        data = None
    if not isinstance(data, dict) or not isinstance(data.get("made_with", {}), dict):
        raise UserError(f"{path}: damaged; move it away and give the same command again")
    return data


def _choose(parts: tuple[str, ...] | None, task: Task, teacher: str | None) -> list[str]:
    """The parts to make: those asked for, or all that can be."""
    for part in parts or ():
        if part not in PARTS:
            raise UserError(f"--parts {part}: {nearest(part, PARTS)}")
    reasons = {}
    if not task.head.named:
        reasons["agreement"] = SCORES_DIFFER
    if (found := len(task.splits["dev"])) < FEWEST:
        reasons["cka"] = f"it needs at least {FEWEST} dev examples, there are {found}"
    if teacher is None:
        reasons |= dict.fromkeys(WITH_TEACHER, "the run had no teacher; name one with --teacher")
    for part, reason in reasons.items():
        if part in (parts or ()):
            raise UserError(f"--parts {part}: {reason}")
        if parts is None:
            log.info("note: %s is left out: %s", part, reason)
    return [part for part in PARTS if (part in parts if parts is not None else part not in reasons)]


def _teacher_config(name: str, folder: Path, head: Head) -> PretrainedConfig:
    try:
        config = load_config(name, head)
    except UserError as error:
        raise UserError(
            f"teacher of run {folder}: {error}; give its place with --teacher, or --parts without "
            f"{' and '.join(WITH_TEACHER)}"
        ) from None
    require_head(name, config, head)
    return config


def _refuse_other_data(folder: Path, settings: dict[str, Any], task: Task) -> None:
    """UserError for data that are not the run's: what they call train would be new to it."""
    here, there = task_fingerprint(task), settings.get("data_fingerprint")
    if here != there:
        way = "give --data, --train-examples and the other data options as they were then"
        knows = JOB_FILE if (folder / JOB_FILE).is_file() else RUN_FILE if settings.get(SOURCE) else None
        if knows is not None:
            way = f"leave the data options out, since its {knows} has them; if you gave none, the files have changed"
        raise UserError(f"these are not the data of run {folder} (fingerprint {here} here and {there} there); {way}")


def _strangers(folder: Path, settings: dict[str, Any], prints: dict[str, str]) -> list[str]:
    """Notices about a teacher that is not the run's."""
    notices = []
    there = settings.get("teacher_fingerprint")
    if "teacher" in prints and there is not None and prints["teacher"] != there:
        notices.append(
            f"this is not the teacher of run {folder} (fingerprint {prints['teacher']} here and {there} there)"
        )
    return notices


def _say_what_is_cut(reader: Reader, samples: dict[str, Split], head: Head) -> None:
    for name, split in samples.items():
        for notice in encode(split, reader.tokenizer, reader.max_length, head).notices(name, reader.max_length):
            log.warning("note: %s", notice)


def _reader(name: str, config: PretrainedConfig, max_length: int, head: Head) -> Reader:
    tokenizer = load_tokenizer(name, config)
    usable_length(max_length, tokenizer, config)
    model = load_fine_tuned(name, head)
    adopt_padding(model, tokenizer)
    return Reader(model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer, max_length)
