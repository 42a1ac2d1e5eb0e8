"""`layerstill demo`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from layerstill.commands.common import setup
from layerstill.commands.options import Json, Quiet, Seed


def demo(
    output: Annotated[Path, typer.Option(help="Where models and results are kept; a second run is fast.")] = Path(
        "runs/demo"
    ),
    seed: Seed = 0,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """The whole story on a small task, in minutes: fine-tune a teacher, distil it, export both, compare.

    Example:
        layerstill demo --output runs/demo
    """
    setup(quiet or json_)
    from layerstill.demo import print_demo, run_demo

    rows, choice = run_demo(output, seed, progress=not (quiet or json_))
    print(json.dumps([row.to_data() for row in rows], indent=2)) if json_ else print_demo(rows, choice)
