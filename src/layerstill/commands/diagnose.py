"""`layerstill diagnose`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from layerstill.commands.common import read_ood_sets, read_task, say, setup
from layerstill.commands.options import (
    DATA,
    RUN,
    TASK_HELP,
    Data,
    Dev,
    LabelColumn,
    OodLabels,
    Quiet,
    TextColumns,
    TrainExamples,
)
from layerstill.errors import UserError


def diagnose(
    run: Annotated[Path, typer.Argument(help="Output folder of a finished distill or finetune.")],
    task: Annotated[
        Optional[str], typer.Option(help=f"{TASK_HELP} Without it, the run's.", rich_help_panel=DATA)
    ] = None,
    data: Data = None,
    dev: Dev = None,
    text_columns: TextColumns = None,
    label_column: LabelColumn = "label",
    train_examples: TrainExamples = None,
    ood: Annotated[
        Optional[list[str]],
        typer.Option(
            "--ood",
            metavar="NAME=PATH|PATH",
            help="Measure agreement with the teacher on an out-of-domain set, too, as distill --ood. Repeatable. "
            "Without it a study's run takes those of its study.",
            rich_help_panel=DATA,
        ),
    ] = None,
    ood_labels: OodLabels = None,
    teacher: Annotated[
        Optional[str], typer.Option(help="The teacher, if not where the run had it.", rich_help_panel=RUN)
    ] = None,
    parts: Annotated[
        Optional[str],
        typer.Option(
            help="Which, by commas: gap, agreement, noise, slices, hessian, cka. Without it all that the run allows.",
            rich_help_panel=RUN,
        ),
    ] = None,
    examples: Annotated[
        int, typer.Option(min=4, help="Look at no more than N examples of each split.", rich_help_panel=RUN)
    ] = 512,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Seed of samples and random directions.", rich_help_panel=RUN)
    ] = 0,
    json_: Annotated[
        bool, typer.Option("--json", help="Print diagnostics.json on standard output, and nothing else.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Look into a finished run: does it overfit, does it follow its teacher, how flat is its minimum?

    Writes RUN/diagnostics.json. A second call adds what is missing. Give the data that the run was trained on; its
    regime is applied to them, and a study's run knows its data itself, out-of-domain sets included.
    """
    setup(quiet or json_)
    from layerstill import diagnostics
    from layerstill.data.label_agreement import fit_all
    from layerstill.data.regimes import Regime
    from layerstill.reporting.diagnostics import print_diagnostics, progress_bar
    from layerstill.studies.job import ood_of_run
    from layerstill.studies.tasks import task_of_run

    settings = diagnostics.run_settings(run)
    given = (task, data, dev, text_columns, train_examples) != (None,) * 5 or label_column != "label"
    the_task = None if given else task_of_run(run)
    if the_task is None:
        the_task = read_task(task or settings["task"], data, dev, text_columns, label_column, train_examples)
        if record := settings.get("regime"):
            the_task = Regime.from_record(record).apply(the_task, 0)
    chosen = None if parts is None else tuple(part.strip() for part in parts.split(","))
    sets = read_ood_sets(the_task, ood, ood_labels, text_columns, label_column)
    if not given and not sets and "agreement" in (chosen or ["agreement"]):
        try:
            sets = ood_of_run(run, the_task)
        except UserError as error:
            say([f"agreement without the study's out-of-domain sets: {error}"])
    others = {ood_set.name: ood_set.split for ood_set in fit_all(sets, the_task)}
    with progress_bar(not (quiet or json_) and sys.stderr.isatty()) as watch:
        found = diagnostics.diagnose(run, the_task, teacher, chosen, examples, seed, others, watch)
    print(json.dumps(found, indent=2)) if json_ else print_diagnostics(found)
