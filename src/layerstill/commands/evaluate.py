"""`layerstill evaluate`."""

import json
from typing import Annotated, Optional

import typer

from layerstill.commands.bundled import bundled
from layerstill.commands.common import scores
from layerstill.commands.options import DATA, OodOptions, Verbosity
from layerstill.commands.run_data import MaxLengthOrRun, RunDataOptions
from layerstill.errors import UserError

SPEED = "Speed"


@bundled
def evaluate(
    model: Annotated[str, typer.Argument(help="A fine-tuned model or a student: a folder or a hub id.")],
    data: RunDataOptions,
    ood: OodOptions,
    verbosity: Verbosity,
    split: Annotated[str, typer.Option(help="Which split to score.")] = "dev",
    threshold: Annotated[
        Optional[str],
        typer.Option(
            help="For --task multilabel: a label is given if its probability is at least this (0.5 without it). `auto` "
            "tunes it on the texts of train, which works best with texts that the model was not trained on.",
            rich_help_panel=DATA,
        ),
    ] = None,
    max_length: MaxLengthOrRun = None,
    latency: Annotated[
        bool,
        typer.Option(
            help="Also measure how fast the model is on this machine's CPU, at the lengths of the split's texts, and "
            "how large.",
        ),
    ] = False,
    threads: Annotated[
        Optional[int],
        typer.Option(min=1, help="How many threads --latency may use (default: 1).", rich_help_panel=SPEED),
    ] = None,
) -> None:
    """Score a model on a split of a task, and out of its domain; a single file of your own is scored whole.

    A run's folder knows its data, so that no data option is needed: `layerstill evaluate student`.

    A model in three classes of inference is scored in two where a set has two: its prediction is taken first, and
    neutral and contradiction then count as not_entailment. The gap is the score on the split minus the score on the
    set, both in the classes of the set.

    Precision, recall and F1 of each class, label or type of entity follow, the worst first; --json has all of them.

    Example:
        layerstill evaluate student --latency
    """
    verbosity.setup()
    if threads is not None and not latency:
        raise UserError(f"--threads {threads}: nothing is timed without --latency; add it, or leave --threads out")
    from layerstill import acts
    from layerstill.reporting.label_table import print_by_label
    from layerstill.reporting.ood import print_ood
    from layerstill.reporting.speed import speed_lines

    task = data.read(model, split)
    sets = ood.read(task, data.columns(task))
    found = acts.evaluate(model, task, split, sets, max_length, threshold, latency=latency, threads=threads or 1)
    if verbosity.json_:
        print(json.dumps(found.to_data(), indent=2))
        return
    print(f"{split} of {found.task.name}, {found.examples} examples: {scores(found.metrics)}")
    if rule := found.task.head.rule:
        print(rule, *(f"It was tuned on {texts}." for texts in found.tuned_on.values()))
    if found.by_label:
        print_by_label(found.by_label)
    if found.ood:
        print_ood(found.ood)
    if found.speed:
        print("\n".join(speed_lines(found.speed)))
