"""The act `report`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerstill.atomic import write_json, write_text
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.evaluation.latency import measure_speed
from layerstill.reporting.arms import CONTROLS, Cell, Findings, cells, compare_all
from layerstill.reporting.card import Card, cards_of, rivals_of
from layerstill.reporting.choice import choice_of, compared_by, with_main_metric
from layerstill.reporting.family import one_family
from layerstill.reporting.forms import read_forms
from layerstill.reporting.looks import Looks
from layerstill.reporting.models import Model, models_of
from layerstill.reporting.page import PAGE_MARK, report_page
from layerstill.reporting.plots import require_matplotlib
from layerstill.reporting.runs import RunRecord, read_runs
from layerstill.reporting.speed import LATENCY_FILE, known_latency, one_of_each
from layerstill.reporting.teachers import teacher_folders
from layerstill.training.runners import load_runner

MAX_LENGTH = 128
"""Tokens of the longest text that --latency times; its texts are short ones."""


@dataclass(frozen=True)
class Report:
    """Runs below a folder, gathered by arm, and what comparing the arms found."""

    runs: Sequence[RunRecord]
    cells: Sequence[Cell]
    findings: Findings
    models: Sequence[Model]
    """Students, teachers and the files made of them, with what each lost."""
    cards: Sequence[Card]
    """For each task which student, what is lost, what is gained."""


def report(
    folder: str | Path, output: str | Path | None = None, against: Sequence[str] = (), latency: bool = False
) -> Report:
    """Compare the runs below a folder.

    Args:
        folder: a study's folder, or any with runs below it.
        output: an HTML file that the whole report is written to.
        against: the recipes (or values of the axis that the study compares) that all others are compared with;
            without them the one of the study's file, or finetune and kd.
        latency: measure how long each kind of model takes for a text, on this machine.

    UserError for a folder without runs, and for an output that is a file of somebody else's.
    """
    folder = Path(folder)
    if output is not None:
        output = Path(output)
        require_matplotlib()
        _refuse_to_overwrite(output, PAGE_MARK)
    choice = choice_of(folder)
    runs = with_main_metric(read_runs(folder), choice.metric)
    runs = compared_by(runs, choice.by)
    names = {run.recipe for run in runs if run.status == "finished"}
    for control in against:
        if control not in names:
            raise UserError(
                f"--against {control}: no finished run of it; there are {', '.join(sorted(names)) or 'none'}"
            )
    found = cells(runs)
    teachers = teacher_folders(found)
    if latency:
        _measure(folder, runs, teachers)
    controls = tuple(against) or ((choice.against,) if choice.against else CONTROLS)
    findings = compare_all(found, controls, choice.margin)
    if not findings.comparisons and not findings.left_out and len(found) > 1:
        findings.left_out.append(f"no two of the compared settings differ in their {choice.by} alone")
    milliseconds, how = known_latency(folder, runs, teachers)
    models = models_of(found, Looks(found), read_forms(folder, runs), milliseconds)
    findings, models, rivals = one_family(findings, models, rivals_of(models))
    cards = cards_of(models, rivals, findings.margin)
    if output is not None:
        write_text(output, report_page(folder.resolve().name, runs, found, findings, milliseconds, how, models, cards))
    return Report(runs, found, findings, models, cards)


def _measure(folder: Path, runs: Sequence[RunRecord], teachers: Mapping[str, Path]) -> None:
    """Write `latency.json`: one model of each kind, which take turns on short texts."""
    places = one_of_each(runs, teachers)
    if not places:
        raise UserError(f"--latency: no run below {folder} has its model.safetensors")
    texts = [text[:1] for text in Task.demo().splits["dev"].texts[:20]]
    runners = {kind: load_runner(str(place), MAX_LENGTH) for kind, place in places.items()}
    speeds = measure_speed(runners, texts)
    write_json(
        folder / LATENCY_FILE,
        {
            "milliseconds": {kind: speed.p50_ms for kind, speed in speeds.items()},
            "texts": len(texts),
            "threads": next(iter(speeds.values())).threads,
        },
    )


def _refuse_to_overwrite(output: Path, mark: str) -> None:
    if output.is_dir() or not output.parent.is_dir():
        raise UserError(
            f"--output {output}: {'a folder' if output.is_dir() else 'its folder does not exist'}; name a file"
        )
    if output.exists() and mark not in output.read_text("utf-8", "replace")[:2000]:
        raise UserError(f"--output {output}: the file there is not a report of layerstill; choose another name")
