"""`layerstill compress`."""

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from layerstill.commands.bundled import bundled
from layerstill.commands.options import RUN, FineTuned, RunOptions, TaskOptions, Verbosity
from layerstill.errors import UserError

NOTHING_FITS = 1


@bundled
def compress(
    teacher: FineTuned,
    data: TaskOptions,
    run: RunOptions,
    verbosity: Verbosity,
    output: Annotated[
        Optional[Path],
        typer.Option(help="Folder for everything: students, files, table and page. Not needed with --dry-run."),
    ] = None,
    max_ms: Annotated[Optional[float], typer.Option(help="Most milliseconds for one text (the median).")] = None,
    max_mb: Annotated[Optional[float], typer.Option(help="Largest file, in megabytes (10^6 bytes).")] = None,
    max_drop: Annotated[
        float,
        typer.Option(
            help="Most points (of 100) of the main metric that may be lost. Without --max-ms and --max-mb the "
            "fastest model within this limit is named, with them the one that scores best.",
        ),
    ] = 2.0,
    effort: Annotated[
        str, typer.Option(help="`quick`, `normal` or `thorough`: minutes, tens of minutes, hours.")
    ] = "normal",
    layers: Annotated[
        Optional[str],
        typer.Option(
            help="Depths of the students: `4,3,2`. Without it, chosen by the teacher's depth, "
            "and one more student has half of the feed-forward units.",
            rich_help_panel=RUN,
        ),
    ] = None,
    student: Annotated[
        Optional[str],
        typer.Option(
            help="Train this model as one more student, as it is: for example a small public encoder.",
            rich_help_panel=RUN,
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads to time the models with.", rich_help_panel=RUN)] = 1,
    jobs: Annotated[
        str,
        typer.Option(
            help="Students trained at a time, each with its share of the cores: a number, or `auto`.",
            rich_help_panel=RUN,
        ),
    ] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and how long it takes here; train nothing.")
    ] = False,
) -> None:
    """Find the smallest, fastest student of a teacher that keeps its quality, as ONNX files beside it.

    Short trials choose how students are trained; a student of every depth is trained, exported and measured; one table
    has the teacher in PyTorch, in ONNX and in int8 beside them, and one model is named. The same command resumes what
    was interrupted; another budget is applied without training again. Exit status 1: no model fits the budget.

    Example:
        layerstill compress teacher --task classification --data texts.csv --output small --max-ms 5
    """
    quiet = verbosity.setup()
    from layerstill import acts
    from layerstill.acts.ladder import climb_down, foreseen
    from layerstill.compression.choice import Budget
    from layerstill.reporting.compression import print_rows

    budget = Budget(max_ms, max_mb, max_drop)
    depths = None if layers is None else _depths(layers)
    task, options = data.read(), run.read(quiet)
    if dry_run:
        from layerstill.reporting.compression import print_steps

        print_steps(
            foreseen(climb_down(teacher, task, effort, options, depths, max_mb, student), jobs), verbosity.json_
        )
        return
    if output is None:
        raise UserError("compress: say where to write everything (--output DIR), or ask what would be done (--dry-run)")
    found = acts.compress(teacher, task, output, budget, effort, options, depths, threads, student, jobs=jobs)
    if verbosity.json_:
        print(json.dumps(found.record, indent=2))
    else:
        print_rows(found.rows, found.choice, found.record["title"], found.record["how"])
    if found.choice.row is None:
        raise typer.Exit(NOTHING_FITS)


def _depths(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 4 for part in parts):
        raise UserError(f"--layers {text}: write numbers of layers, such as 4,3,2")
    return [int(part) for part in parts]
