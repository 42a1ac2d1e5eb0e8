"""The act `report`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from layerstill.atomic import write_json, write_text
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.evaluation.latency import latency_ms
from layerstill.reporting.arms import CONTROLS, Cell, Findings, cells, compare_all
from layerstill.reporting.choice import choice_of, compared_by, with_main_metric
from layerstill.reporting.page import PAGE_MARK, report_page
from layerstill.reporting.plots import require_matplotlib
from layerstill.reporting.runs import RunRecord, read_runs
from layerstill.reporting.speed import LATENCY_FILE, known_latency, one_of_each
from layerstill.training.models import load_tokenizer, load_with_its_head


@dataclass(frozen=True)
class Report:
    """Runs below a folder, gathered by arm, and what comparing the arms found."""

    runs: Sequence[RunRecord]
    cells: Sequence[Cell]
    findings: Findings


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
    if latency:
        _measure(folder, runs)
    found = cells(runs)
    findings = compare_all(found, tuple(against) or ((choice.against,) if choice.against else CONTROLS))
    if not findings.comparisons and not findings.left_out and len(found) > 1:
        findings.left_out.append(f"no two arms differ in nothing but their {choice.by}")
    if output is not None:
        milliseconds, how = known_latency(folder, runs)
        write_text(output, report_page(folder.resolve().name, runs, found, findings, milliseconds, how))
    return Report(runs, found, findings)


def _measure(folder: Path, runs: Sequence[RunRecord]) -> None:
    """Write `latency.json`: one model of each kind, three rounds in which they take turns."""
    places = one_of_each(runs)
    if not places:
        raise UserError(f"--latency: no run below {folder} has its model.safetensors")
    texts = [text[:1] for text in Task.demo().splits["dev"].texts[:20]]
    models = {kind: load_with_its_head(str(place)) for kind, place in places.items()}
    tokenizers = {kind: load_tokenizer(str(place), models[kind].config) for kind, place in places.items()}
    times: dict[str, list[float]] = {kind: [] for kind in places}
    for _ in range(3):
        for kind, model in models.items():
            times[kind].append(latency_ms({kind: model}, tokenizers[kind], texts, rounds=1)[kind])
    write_json(
        folder / LATENCY_FILE,
        {"milliseconds": {k: round(median(v), 3) for k, v in times.items()}, "texts": len(texts)},
    )


def _refuse_to_overwrite(output: Path, mark: str) -> None:
    if output.is_dir() or not output.parent.is_dir():
        raise UserError(
            f"--output {output}: {'a folder' if output.is_dir() else 'its folder does not exist'}; name a file"
        )
    if output.exists() and mark not in output.read_text("utf-8", "replace")[:2000]:
        raise UserError(f"--output {output}: there is a file that is no report of layerstill; choose another name")
