"""`layerstill evaluate`."""

import json
from typing import Annotated, Optional

import typer

from layerstill.commands.common import read_ood_sets, read_task, say, scores, setup
from layerstill.commands.options import (
    DATA,
    Data,
    Dev,
    Json,
    LabelColumn,
    MaxLength,
    Ood,
    OodLabels,
    Quiet,
    Task_,
    TextColumns,
)
from layerstill.errors import UserError


def evaluate(
    model: Annotated[str, typer.Argument(help="A fine-tuned model or a student: a folder or a hub id.")],
    task: Task_,
    data: Data = None,
    dev: Dev = None,
    text_columns: TextColumns = None,
    label_column: LabelColumn = "label",
    split: Annotated[str, typer.Option(help="Which split to score.", rich_help_panel=DATA)] = "dev",
    threshold: Annotated[
        Optional[str],
        typer.Option(
            help="Of --task multilabel: the probability from which on a label is given, 0.5 unless said; `auto` tunes "
            "it on texts of train, which the model has learnt, so a file of texts it has not seen is the better train.",
            rich_help_panel=DATA,
        ),
    ] = None,
    ood: Ood = None,
    ood_labels: OodLabels = None,
    max_length: MaxLength = 128,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a model on a split of a task, and out of its domain; a single own file is scored whole.

    A model in three classes of inference is scored in two where a set has two: its prediction is taken first, and
    neutral and contradiction then count as not_entailment. The gap is the score on the split minus the score on the
    set, both in the classes of the set.
    """
    setup(quiet or json_)
    from layerstill.data.encode import usable_length
    from layerstill.data.label_agreement import agree_on_labels, fit_all
    from layerstill.errors import nearest
    from layerstill.evaluation.ood import score_ood
    from layerstill.evaluation.predict import evaluate_split
    from layerstill.evaluation.threshold import AUTO, at_threshold, tune_threshold
    from layerstill.reporting.labels import print_by_label
    from layerstill.reporting.ood import print_ood
    from layerstill.training.models import adopt_padding, load_fine_tuned, load_tokenizer

    own_file = data is not None and data.is_file() and dev is None and split == "dev"
    the_task = read_task(task, data, data if own_file else dev, text_columns, label_column, None)
    if split not in the_task.splits:
        raise UserError(f"--split {split}: {nearest(split, the_task.splits)}")
    if threshold is not None:
        the_task = at_threshold(the_task, threshold, None if own_file else split)
    sets = read_ood_sets(the_task, ood, ood_labels, text_columns, label_column)
    loaded = load_fine_tuned(model, the_task.head)
    tokenizer = load_tokenizer(model, loaded.config)
    adopt_padding(loaded, tokenizer)
    the_task, notices = agree_on_labels(the_task, loaded.config, f"model {model}", subset=True)
    fitted = fit_all(sets, the_task)
    say([*notices, *the_task.notices, *(notice for ood_set in fitted for notice in ood_set.notices)])
    usable_length(max_length, tokenizer, loaded.config)
    tuned_on: dict[str, str] = {}
    if threshold == AUTO:
        the_task, tuned_on = tune_threshold(loaded, tokenizer, the_task, max_length)
    metrics, logits = evaluate_split(loaded, tokenizer, the_task, split, max_length)
    block = score_ood(loaded, tokenizer, the_task, fitted, max_length, logits, the_task.gold(split))
    data_out = {"model": model, "task": the_task.name, "split": split, "examples": len(logits), "metrics": metrics}
    by_label = the_task.by_label(logits, split)
    data_out |= {"head": the_task.head.record() | tuned_on, "by_label": by_label, "ood": block}
    if json_:
        print(json.dumps(data_out, indent=2))
    else:
        print(f"{split} of {the_task.name}, {len(logits)} examples: {scores(metrics)}")
        if the_task.head.rule:
            print(the_task.head.rule, *(f"It was tuned on {texts}." for texts in tuned_on.values()))
        if by_label:
            print_by_label(by_label)
        if block:
            print_ood(block)
