"""`layerstill augment`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from layerstill.commands.common import names, setup
from layerstill.commands.options import RUN, MaxLength, Quiet, Seed, TextColumns

COPIES = "Copies"


def augment(
    data: Annotated[
        Path,
        typer.Argument(
            help="A file (.tsv .csv .jsonl .parquet), a folder with train and dev files, or with --task a folder in "
            "the GLUE layout."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="Where to write: for a file a new file of the same kind, else a folder with the augmented train "
            "file and the other files unchanged. --data reads it.",
        ),
    ],
    task: Annotated[Optional[str], typer.Option(help="A GLUE task; your own files need none.")] = None,
    text_columns: TextColumns = None,
    method: Annotated[
        Optional[list[str]],
        typer.Option(
            help="replace (by --model's proposals), delete, swap or duplicate words. Repeatable: copies take turns. "
            "Default: replace.",
        ),
    ] = None,
    model: Annotated[
        Optional[str],
        typer.Option(help="Masked language model for replace: a folder or a hub id."),
    ] = None,
    copies: Annotated[int, typer.Option(min=1, help="Copies of each example; duplicates are left out.")] = 20,
    probability: Annotated[
        Optional[float],
        typer.Option(help="Share of words that are changed: 0.4 for replace, else 0.1.", rich_help_panel=COPIES),
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=1, help="A word is replaced by one of the model's best K.", rich_help_panel=COPIES)
    ] = 15,
    originals: Annotated[
        bool, typer.Option("--originals/--no-originals", help="Keep the examples too.", rich_help_panel=COPIES)
    ] = True,
    max_length: MaxLength = 128,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts the model reads at a time.", rich_help_panel=RUN)] = 64,
    seed: Seed = 0,
    json_: Annotated[
        bool, typer.Option("--json", help="Print what was made as JSON, and nothing else.", rich_help_panel=RUN)
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Make copies of training examples with some words changed, as TinyBERT does; labels and other columns stay.

    Labels of copies can be wrong, so they are best taught by recipes that learn from the teacher, such as tinybert.

    Example:
        layerstill augment texts.csv --output more.csv --model bert-base-uncased --copies 5
    """
    setup(quiet or json_)
    from rich.console import Console
    from rich.progress import Progress

    from layerstill import acts
    from layerstill.data.augmentation import Augmentation

    how = Augmentation(tuple(method or ("replace",)), copies, probability, seed, originals)
    with Progress(console=Console(stderr=True), disable=quiet or json_ or not sys.stderr.isatty()) as bar:
        shown = bar.add_task("augment", total=None)
        made = acts.augment(
            data,
            output,
            how,
            model,
            task,
            names(text_columns),
            candidates,
            max_length,
            batch_size,
            lambda more, total: bar.update(shown, advance=more, total=total),
        )
    if json_:
        about = {"output": str(output), "methods": list(how.methods), "copies": copies, "seed": seed}
        print(json.dumps(about | {"examples": made.examples, "rows": made.rows}, indent=2))
    else:
        print(f"{made.path}: {made.rows} rows from {made.examples} examples")
