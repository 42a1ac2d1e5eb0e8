"""`layerstill report`."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from layerstill.errors import UserError


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A study's folder, or any folder with runs below it.")],
    output: Annotated[Optional[Path], typer.Option(help="Write the whole report to this HTML file.")] = None,
    against: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Recipe (or value of the axis that the study compares) that all others are compared with. "
            "Repeatable; without it the one of the study's file, or finetune and kd."
        ),
    ] = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Measure how long each kind of model takes for a text, on this machine.")
    ] = False,
) -> None:
    """Compare runs: means over seeds, differences with intervals and tests, in words; as one HTML page with --output.

    The page holds everything it needs: tables to sort and filter, quality against cost, learning curves, out-of-domain
    scores, diagnostics, and the commands that make each run again.
    """
    from layerstill.atomic import write_text
    from layerstill.reporting.arms import CONTROLS, cells, compare_all
    from layerstill.reporting.choice import choice_of, compared_by, with_main_metric
    from layerstill.reporting.page import PAGE_MARK, report_page
    from layerstill.reporting.plots import require_matplotlib
    from layerstill.reporting.runs import read_runs
    from layerstill.reporting.speed import known_latency
    from layerstill.reporting.summary import print_summary

    if output is not None:
        require_matplotlib()
        _refuse_to_overwrite(output, PAGE_MARK)
    choice = choice_of(folder)
    runs = with_main_metric(read_runs(folder), choice.metric)
    runs = compared_by(runs, choice.by)
    chosen = (choice.against,) if choice.against else CONTROLS
    controls = tuple(against or chosen)
    names = {run.recipe for run in runs if run.status == "finished"}
    for control in against or ():
        if control not in names:
            raise UserError(
                f"--against {control}: no finished run of it; there are {', '.join(sorted(names)) or 'none'}"
            )
    if latency:
        _measure(folder, runs)
    found = cells(runs)
    findings = compare_all(found, controls)
    if not findings.comparisons and not findings.left_out and len(found) > 1:
        findings.left_out.append(f"no two arms differ in nothing but their {choice.by}")
    print_summary(runs, found, findings)
    if output is not None:
        milliseconds, note = known_latency(folder, runs)
        write_text(output, report_page(folder.resolve().name, runs, found, findings, milliseconds, note))
        print(f"written: {output}")


def _measure(folder: Path, runs: list[Any]) -> None:
    """Write `latency.json`: one model of each kind, three rounds in which they take turns."""
    from statistics import median

    from layerstill.atomic import write_json
    from layerstill.data.tasks import Task
    from layerstill.evaluation.latency import latency_ms
    from layerstill.reporting.speed import LATENCY_FILE, one_of_each
    from layerstill.training.models import load_tokenizer, load_with_its_head

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
