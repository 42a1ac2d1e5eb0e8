"""From which probability on a label is given: said by the user, or tuned on training texts."""

from dataclasses import replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.evaluation.agreement import sample_of
from layerstill.evaluation.predict import predict

AUTO = "auto"
TUNED_ON = 2000
"""Texts of train that are enough for one number."""


def at_threshold(task: Task, threshold: str, scored: str | None) -> Task:
    """The task whose head decides at `--threshold`, `auto` being tuned later; UserError for what is no threshold.

    `scored` is the split that is to be scored; None if it is a single file.
    """
    if threshold == AUTO:
        task.head.at(0.5)  # refuses heads that have none
        if scored in (None, "train"):
            why = "a single file has none" if scored is None else "train cannot be scored with it"
            raise UserError(f"--threshold auto: it is tuned on train, and {why}; give a number, or another split")
        return task
    try:
        value = float(threshold)
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        raise UserError(f"--threshold {threshold}: use a number between 0 and 1, or auto")
    return replace(task, head=task.head.at(value))


def tune_threshold(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, max_length: int
) -> tuple[Task, dict[str, str]]:
    """The task at the threshold with the best first metric on at most `TUNED_ON` texts of train, and what they were."""
    train = task.splits["train"]
    some = sample_of(train, TUNED_ON, 0, "threshold")
    logits = predict(model, tokenizer, some, max_length, task.head)
    head = task.head.tuned(logits, task.head.gold(some.labels), task.metrics[0])
    told = f"{len(some)} of {len(train)} texts of train, for {task.metrics[0]}"
    return replace(task, head=head), {"threshold_tuned_on": told}
