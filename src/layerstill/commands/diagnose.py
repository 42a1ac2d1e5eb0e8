"""`layerstill diagnose`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from layerstill.commands.bundled import bundled
from layerstill.commands.options import (
    DATA,
    RUN,
    OodLabels,
    OodOptions,
    TrainExamples,
    Verbosity,
)
from layerstill.commands.run_data import RunDataOptions


@bundled
def diagnose(
    run: Annotated[Path, typer.Argument(help="Output folder of a finished distill or finetune.")],
    data: RunDataOptions,
    verbosity: Verbosity,
    train_examples: TrainExamples = None,
    ood: Annotated[
        Optional[list[str]],
        typer.Option(
            "--ood",
            metavar="NAME=PATH|PATH",
            help="Also measure agreement with the teacher on an out-of-domain set, written as for distill --ood. "
            "Repeatable. Without it, a study's run takes those of its study.",
            rich_help_panel=DATA,
        ),
    ] = None,
    ood_labels: OodLabels = None,
    teacher: Annotated[
        Optional[str], typer.Option(help="The teacher, if it has moved since the run.", rich_help_panel=RUN)
    ] = None,
    parts: Annotated[
        Optional[str],
        typer.Option(
            help="Which parts, separated by commas: gap, agreement, noise, slices, hessian, cka. "
            "Without it, all that the run allows.",
        ),
    ] = None,
    examples: Annotated[
        int, typer.Option(min=4, help="Look at no more than N examples of each split.", rich_help_panel=RUN)
    ] = 512,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Seed of samples and random directions.", rich_help_panel=RUN)
    ] = 0,
) -> None:
    """Look into a finished run: does it overfit, does it follow its teacher, how flat is its minimum?

    Writes RUN/diagnostics.json. A second call adds what is missing. A run knows its data, and a study's run its
    out-of-domain sets; if you give data, the run's regime is applied to them.

    Example:
        layerstill diagnose student --parts gap,agreement
    """
    quiet = verbosity.setup()
    from layerstill import acts
    from layerstill.acts.diagnose import run_settings
    from layerstill.reporting.diagnostics import print_diagnostics, progress_bar

    run_settings(run)  # refuses a folder that is no run's before its data are asked for
    the_task = data.read(run, None, train_examples)
    chosen = None if parts is None else tuple(part.strip() for part in parts.split(","))
    sets = OodOptions(ood, ood_labels).read(the_task, data.columns(the_task))
    far = sets if data.given or train_examples is not None or sets else None
    with progress_bar(not quiet and sys.stderr.isatty()) as watch:
        found = acts.diagnose(run, the_task, teacher, chosen, examples, seed, far, watch=watch)
    print(json.dumps(found, indent=2)) if verbosity.json_ else print_diagnostics(found)
