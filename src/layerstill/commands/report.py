"""`layerstill report`."""

from pathlib import Path
from typing import Annotated, Optional

import typer


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A study's folder, or any folder with runs below it.")],
    output: Annotated[Optional[Path], typer.Option(help="Write the whole report to this HTML file.")] = None,
    against: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Recipe (or value of the axis that the study compares) that all others are compared with. "
            "Repeatable; without it, the one in the study's file, or finetune and kd."
        ),
    ] = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Measure how long each kind of model takes for a text, on this machine.")
    ] = False,
) -> None:
    """Compare runs: which student, what is lost, what is gained; as one HTML page with --output.

    Means over seeds, differences with intervals and tests, in words. With one seed, students are compared with their
    teacher and with each other over the examples of dev. The page holds everything it needs: tables to sort and filter,
    quality against cost, learning curves, out-of-domain scores, diagnostics, and the commands that make each run again.

    Example:
        layerstill report runs --output report.html
    """
    from layerstill import acts
    from layerstill.reporting.summary import print_summary

    found = acts.report(folder, output, against or (), latency)
    print_summary(found.runs, found.cells, found.findings, found.cards)
    if output is not None:
        print(f"written: {output}")
