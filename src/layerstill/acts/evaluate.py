"""The act `evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from layerstill.acts.given import task_for
from layerstill.acts.inputs import Model, has_no_splits, model_at
from layerstill.acts.remembered import Remembered
from layerstill.data.checks import swapped_notices
from layerstill.data.encode import encode
from layerstill.data.label_agreement import agree_on_labels, fit_all
from layerstill.data.ood import OodSet
from layerstill.data.tasks import Task
from layerstill.errors import UserError, nearest
from layerstill.evaluation.latency import Speed
from layerstill.evaluation.ood import score_ood
from layerstill.evaluation.predict import predict_encoded
from layerstill.evaluation.threshold import AUTO, at_threshold, tune_threshold
from layerstill.progress import our_bars_only
from layerstill.training.models import adopt_padding, load_fine_tuned, load_tokenizer
from layerstill.training.runners import speed_of
from layerstill.training.stages import note


@dataclass(frozen=True)
class Evaluation:
    """How a model did on a split."""

    model: str
    task: Task
    """With its outputs in the model's order: what the numbers of `predictions` mean is in `task.labels`."""
    split: str
    metrics: dict[str, float]
    """The task's scores, the main one first."""
    ood: dict[str, Any]
    """By out-of-domain set: metrics, in_domain, gap, examples, truncated, classes, parts."""
    predictions: Any
    """What the head decided, one an example, in the order of the split: numbers of classes, say."""
    logits: Any
    """What it decided from, `(n, C)` for classes."""
    tuned_on: dict[str, str]
    """Which texts a threshold was tuned on; empty if it was not."""
    speed: Speed | None = None
    """On the CPU of this machine; None if it was not asked for."""

    @property
    def examples(self) -> int:
        """How many there were."""
        return len(self.logits)

    @cached_property
    def by_label(self) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and support by name of a class, label or type, of several scores those of each target;
        empty for one score."""
        return self.task.by_label(self.logits, self.split)

    def to_data(self) -> dict[str, Any]:
        """Plain data, without what the model said of each example."""
        return {
            "model": self.model,
            "task": self.task.name,
            "split": self.split,
            "examples": self.examples,
            "metrics": self.metrics,
            "head": self.task.head.record() | self.tuned_on,
            "by_label": self.by_label,
            "ood": self.ood,
            **({} if self.speed is None else {"speed": self.speed.to_data()}),
        }


@our_bars_only()
def evaluate(
    model: Model,
    data: Any = None,
    split: str | None = None,
    ood: Sequence[OodSet] = (),
    max_length: int | None = None,
    threshold: float | str | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    labels: Any = None,
    latency: bool = False,
    threads: int = 1,
) -> Evaluation:
    """Score a model on a split of a task, and out of its domain.

    Args:
        model: a folder, a hub id, or a loaded model.
        data: as in `distill`; data without splits are scored whole. Without it what the model's run was trained on.
        split: which one; without it `dev`.
        ood: out-of-domain sets. A model in three classes of inference is scored in two where a set has two.
        max_length: longest text in tokens, longer ones are cut; without it as in training, else 128 or what it allows.
        threshold: of several labels, the probability from which on one is given; `auto` tunes it on texts of train.
        tokenizer: of a loaded model; without it the one where the model was loaded from.
        labels: of a list of texts.
        latency: also measure how fast the model is on the texts of the split, and how large.
        threads: how many of the CPU it may use for that.

    UserError for data whose labels the model does not know, and for remembered ones that are gone or have changed.
    """
    with model_at(model, tokenizer) as (place, name):
        run = Remembered.of(name)
        whole = split is None and has_no_splits(data)
        task = task_for(run, place, data, labels, whole=whole)
        split = split or "dev"
        if split not in task.splits:
            raise UserError(f"--split {split}: {nearest(split, task.splits)}")
        if threshold is not None:
            single = split != "train" and task.splits["train"] == task.splits[split]
            task = at_threshold(task, str(threshold), None if single else split)
        loaded = load_fine_tuned(place, task.head)
        own = load_tokenizer(place, loaded.config)
        task.refuse_unscored(split)
        adopt_padding(loaded, own)
        task, notices = agree_on_labels(task, loaded.config, f"model {name}", subset=True)
        fitted = fit_all(ood, task)
        note([*notices, *task.notices, *(notice for ood_set in fitted for notice in ood_set.notices)])
        max_length, lengths = run.length(max_length, own, loaded.config)
        note(lengths)
        tuned_on: dict[str, str] = {}
        if threshold == AUTO:
            task, tuned_on = tune_threshold(loaded, own, task, max_length)
        encoded = encode(task.splits[split], own, max_length, task.head)
        note(encoded.notices(split, max_length))
        logits = predict_encoded(loaded, own, encoded, task.head)
        metrics = task.score(logits, task.gold(split))
        note(swapped_notices(task, split, metrics, logits))
        far = score_ood(loaded, own, task, fitted, max_length, logits, task.gold(split))
        speed = None
        if latency:
            speed = speed_of(place, loaded, own, task.splits[split].texts, max_length, threads)
    return Evaluation(name, task, split, metrics, far, task.head.decide(logits), logits, tuned_on, speed)
