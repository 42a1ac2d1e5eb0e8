"""`layerstill predict`."""

import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from layerstill.commands.common import names, setup
from layerstill.commands.options import Quiet, TextColumns
from layerstill.commands.run_data import MaxLengthOrRun

ANSWERS = "Answers"


def predict(
    model: Annotated[
        str,
        typer.Argument(help="A run's folder, any fine-tuned model (a folder or a hub id), or an exported folder."),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="FILE|-",
            help="Texts: .csv .tsv .jsonl .parquet, or .txt with one per line; for tags also .conll and the like. "
            "With - they come from standard input, one per line or as JSON lines; a tab separates the two texts "
            "of a pair.",
        ),
    ],
    text_columns: TextColumns = None,
    max_length: MaxLengthOrRun = None,
    output: Annotated[
        Optional[Path],
        typer.Option(help="A new file, .jsonl .csv or .tsv. Without it, JSON lines go to standard output."),
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities", help="Give the probabilities of all classes or labels, not only of the answer."
        ),
    ] = False,
    threshold: Annotated[
        Optional[float],
        typer.Option(
            help="For several labels: a label is given if its probability is at least this. Without it, the "
            "model's own or 0.5.",
            rich_help_panel=ANSWERS,
        ),
    ] = None,
    file: Annotated[
        Optional[str],
        typer.Option(help="Which file of an exported folder (default: model.onnx).", rich_help_panel=ANSWERS),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Ask a model about texts: labels and probabilities for every row of a file, in its order.

    Every column of the file is kept, labels are not needed, and a file may be larger than memory. A run's folder knows
    its text columns and its longest text.

    Example:
        layerstill predict student --data new.csv --output answers.csv
    """
    setup(quiet)
    from layerstill.acts.predict import predict_file

    source = sys.stdin.buffer if data == "-" else Path(data)
    columns = names(text_columns)
    try:
        found = predict_file(model, source, output or sys.stdout, columns, probabilities, max_length, threshold, file)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if output is not None and not quiet:
        print(f"{output}: {found.rows:,} rows")
