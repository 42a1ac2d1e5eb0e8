"""`layerstill evaluate`."""

import json
from typing import Annotated

import typer

from layerstill.commands.bundled import bundled
from layerstill.commands.common import scores
from layerstill.commands.options import DATA, MaxLength, OodOptions, TaskOptions, Verbosity


@bundled
def evaluate(
    model: Annotated[str, typer.Argument(help="A fine-tuned model or a student: a folder or a hub id.")],
    data: TaskOptions,
    ood: OodOptions,
    verbosity: Verbosity,
    split: Annotated[str, typer.Option(help="Which split to score.", rich_help_panel=DATA)] = "dev",
    max_length: MaxLength = 128,
) -> None:
    """Score a model on a split of a task, and out of its domain; a single own file is scored whole.

    A model in three classes of inference is scored in two where a set has two: its prediction is taken first, and
    neutral and contradiction then count as not_entailment. The gap is the score on the split minus the score on the
    set, both in the classes of the set.
    """
    verbosity.setup()
    from layerstill import acts
    from layerstill.reporting.ood import print_ood

    own_file = data.data is not None and data.data.is_file() and data.dev is None and split == "dev"
    task = data.read(dev=data.data if own_file else None)
    found = acts.evaluate(model, task, split, ood.read(task, data), max_length)
    if verbosity.json_:
        print(json.dumps(found.to_data(), indent=2))
        return
    print(f"{split} of {found.task.name}, {found.examples} examples: {scores(found.metrics)}")
    if found.ood:
        print_ood(found.ood)
