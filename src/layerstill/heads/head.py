"""What every head answers: its models, its labels, its errors, its decisions and its scores."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from layerstill.errors import UserError
from layerstill.heads.prediction import Prediction
from layerstill.knowledge.distances import Distance
from layerstill.schema import Spec

IGNORED = -100
"""The label of what has none, as in torch and transformers."""
LEAST = 1e-6
"""A probability of 0 has no logarithm; this one stands for it."""


def place_of(label: Any, names: Sequence[str], where: str) -> int:
    """The number of an output that is given by name or number; UserError that begins with `where` if there is none."""
    if isinstance(label, str) and label in names:
        return names.index(label)
    if isinstance(label, int) and (0 <= label < len(names) or label == IGNORED):
        return int(label)
    known = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
    raise UserError(f"{where}: label {label!r} is not one of {known}, which are numbered 0 to {len(names) - 1}")


def refuse_no_probability(values: Sequence[float], where: str) -> None:
    """UserError that begins with `where` for a number that is no probability."""
    if odd := [value for value in values if not 0 <= value <= 1]:
        raise UserError(f"{where}: {odd[0]:g} is not a probability; it must be from 0 to 1")


class Head(Spec):
    """A kind of output. A new one is a subclass that overrides what differs.

    A batch has `input_ids` and `attention_mask` `(B, N)`, and `labels` where they are known. Logits are `(B, C)`, or
    `(B, N, C)` where `per_token` says so.
    """

    word: ClassVar[str]
    """Its name in `--task`, in records and in messages."""
    gives: ClassVar[str]
    """What an example has, in messages: `one class per text`."""
    architecture: ClassVar[str] = "ForSequenceClassification"
    """How the names of its models in `config.json` end."""
    problem_type: ClassVar[str | None] = None
    """What `config.json` says of its labels."""
    per_token: ClassVar[bool] = False
    """Logits of every token, not of the whole text."""
    named: ClassVar[bool] = True
    """Outputs have names (classes, tags), so that teacher and task can be compared by them."""
    single: ClassVar[bool] = True
    """Exactly one label an example, so that classes can be counted, drawn, made rare or made wrong."""
    some: ClassVar[bool] = False
    """A task need not have all of its teacher's labels: rare ones may be in no example, and the student keeps them."""
    speaks: ClassVar[bool] = False
    """It says words of a vocabulary at many places, `(B, N)` in `positions`, whose logits are never all there."""
    hides: ClassVar[bool] = False
    """Its models may be given texts some of whose words are hidden (`view: masked`)."""
    probable: ClassVar[bool] = False
    """Its logits are those of probabilities, which may be given instead (`logits_of`)."""
    far_sets: ClassVar[bool] = True
    """Out-of-domain sets can be scored."""
    answers_texts: ClassVar[bool] = True
    """Its models have outputs, so that they can be scored."""
    fewest: ClassVar[int] = 1
    """Rows of dev that its metrics need."""
    answer: ClassVar[str] = "label"
    """What files call that which a model says of a text."""
    pipeline: ClassVar[str] = "text-classification"
    """What the hub calls its models."""

    @property
    def auto_class(self) -> Any:
        """The class of transformers that loads and saves its models."""
        import transformers

        return getattr(transformers, f"AutoModel{self.architecture}")

    def outputs(self, labels: Sequence[str]) -> int:
        """How many outputs a model has for these label names."""
        return len(labels)

    def describe(self, config: Any, labels: Sequence[str]) -> None:
        """Write number, names and kind of the outputs into a model's configuration."""
        config.num_labels = self.outputs(labels)
        config.problem_type = self.problem_type
        if labels:
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: i for i, label in enumerate(labels)}

    def fits(self, config: Any) -> bool:
        """Whether a model of this configuration has this head."""
        named = config.architectures or []
        names = [named] if isinstance(named, str) else list(named)
        ours = any(self.architecture in str(name) for name in names)
        return ours and self._says_so(config)

    def _says_so(self, config: Any) -> bool:
        return config.problem_type in (None, self.problem_type)

    def record(self) -> dict[str, Any]:
        """What `result.json` says of it: its word and its settings."""
        return {"kind": self.word, **self.model_dump(exclude_none=True)}

    # What data ask.

    def numbered(self, labels: Sequence[Any], names: Sequence[str], where: str) -> list[Any]:
        """The labels of a split as training reads them: names of outputs as their numbers, numbers as they are.

        UserError that begins with `where` for a label that can be none of `names`.
        """
        return [place_of(label, names, f"{where}, example {i}") for i, label in enumerate(labels, 1)]

    def renumbered(self, labels: Sequence[Any], places: Sequence[int], outputs: int) -> list[Any]:
        """The labels of a split when output i has become output `places[i]` of so many."""
        return [label if label == IGNORED else places[int(label)] for label in labels]

    def kinds(self, labels: Sequence[Any]) -> list[int | None]:
        """The one class of each example by its label; None where it has none, or where this is not about classes."""
        return [None] * len(labels)

    def refuse_classes(self, what: str, task: str, way_out: str) -> None:
        """UserError where `what` is about the one class of every example, and task `task` has none."""
        if not self.single:
            raise UserError(f"{what}: it is about classes, and task {task} has {self.gives}; {way_out}")

    def refuse_far_sets(self, what: str, task: str, labels: Sequence[str] = ()) -> None:
        """UserError where sets of another domain cannot be scored; `labels` are the names of the outputs."""
        if not self.far_sets:
            raise UserError(
                f"{what}: it is read as one class or one score a text, and task {task} has {self.gives}; "
                "leave this set out"
            )

    def absent(self, labels: Sequence[Any], outputs: int) -> list[int]:
        """Which of so many outputs no label of a split is about."""
        return sorted(set(range(outputs)) - set(labels))

    def start(self, labels: Sequence[Any]) -> Tensor | None:
        """What the biases of new outputs `(C,)` start at, by the training labels; None for what transformers does."""
        return None

    def weighted(self, weights: Sequence[float]) -> "Head":
        """The same head with a weight in the loss for each class; UserError where an example has no class."""
        raise UserError(f"class weights: they are for one class per text, and task {self.word} has {self.gives}")

    def as_scored(self) -> "Head":
        """The same head without what only losses know."""
        return self

    def in_order(self, places: Sequence[int], outputs: int) -> "Head":
        """The same head when output i has become output `places[i]` of so many."""
        return self

    # What training asks.

    def pad_labels(self, labels: Sequence[Any], tokens: int) -> Tensor:
        """The labels of a batch whose longest example has so many tokens, as one tensor."""
        return torch.tensor(labels)

    def asked(self, batch: dict[str, Any], hidden: Tensor | None) -> Tensor | None:
        """Of running text: the `labels` of a batch; `hidden` `(B, N)` has the words that were hidden, if any were."""
        return None

    def positions(self, batch: dict[str, Any]) -> Tensor:
        """Where the logits of a batch count, `(B,)` or `(B, N)` boolean; padding never does."""
        return batch["attention_mask"].bool().any(1)

    def labelled(self, labels: Tensor) -> Tensor:
        """Which labels there are, boolean, in the shape of `errors`."""
        return labels != IGNORED

    def without_labels(self, labels: Tensor) -> Tensor:
        """The same labels, none of which is there."""
        return torch.full_like(labels, IGNORED)

    def unknown(self, texts: Sequence[str], outputs: int) -> Any:
        """The label of an example that has none, as a split holds it; `texts` are its texts, or its words."""
        return IGNORED

    def refuse_probabilities(self, where: str) -> None:
        """UserError that begins with `where` unless probabilities can say what a teacher gives for a text."""
        if not self.probable:
            raise UserError(
                f"{where}: probabilities are of classes or labels of a text, and this task has {self.gives}"
            )

    def logits_of(self, probabilities: Sequence[float], where: str) -> list[float]:
        """The logits `(C,)` of an example's probabilities; UserError that begins with `where` if they are none."""
        raise TypeError(f"{type(self).__name__} has no probabilities of a text")

    def refuse_mean(self, where: str) -> None:
        """UserError that begins with `where` unless the answers of several models have a mean."""
        if self.per_token:
            raise UserError(
                f"{where}: answers of several teachers are averaged for whole texts, and this task has {self.gives}; "
                "leave the option out"
            )

    def mean(self, logits: np.ndarray, weights: Sequence[float]) -> np.ndarray:
        """The logits `(n, C)` of the mean of several models' answers `(models, n, C)`, weighted with what sums to 1."""
        return np.average(logits, 0, weights)

    def errors(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The task's own error of every label, in the shape of `labelled` and 0 where that is false."""
        raise TypeError(f"{type(self).__name__} is not a head by itself")

    def distance(self, distance: Distance) -> Distance:
        """What a distance between logits becomes for these outputs."""
        return distance

    # What evaluation asks.

    def rows(self, logits: Tensor, batch: dict[str, Any]) -> list[np.ndarray]:
        """What the head says of every example of a batch: `(C,)` each, or `(positions, C)` where tokens have logits."""
        return list(logits.float().cpu().numpy())

    def join(self, rows: Sequence[np.ndarray]) -> Any:
        """`rows` of all examples as what `decide` takes: `(n, C)`, or the list where tokens have logits."""
        return np.stack(rows)

    def gathered(self, logits: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
        """What a Trainer has gathered over batches, padded with -100, as `decide` and `score` take it."""
        return logits, labels

    def decide(self, logits: Any) -> Any:
        """Decisions from `join`ed logits, one an example."""
        raise TypeError(f"{type(self).__name__} is not a head by itself")

    def gold(self, labels: Sequence[Any]) -> Any:
        """The labels of a split as `score` compares them with decisions."""
        return np.array(labels)

    def score(
        self, metrics: Sequence[str], labels: Sequence[str], decided: Any, gold: Any, positive: str | None = None
    ) -> dict[str, float]:
        """The metrics of these names; `labels` are the names of the outputs, `positive` the one that `f1` is about."""
        raise TypeError(f"{type(self).__name__} is not a head by itself")

    def by_label(self, labels: Sequence[str], decided: Any, gold: Any) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and support of each output by its name, of each of several scores its correlations,
        error and support; empty for one score."""
        return {}

    def metrics_of(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Those of `metrics` that outputs of these names can have."""
        return self.metrics

    def contributions(self, metric: str, labels: Sequence[str], decided: Any, gold: Any) -> np.ndarray | None:
        """What each example adds to a metric, `(n,)`, with the metric as mean, if that is kept with the predictions."""
        return None

    def predictions(self, logits: Any, labels: Sequence[str]) -> list[Prediction]:
        """What is said of each example, by logits as `join` has them; `labels` are the names of the outputs."""
        raise TypeError(f"{type(self).__name__} is not a head by itself")

    def answers(self, labels: Sequence[str]) -> tuple[str, ...]:
        """What files call what is said of a text; several where a prediction's `label` is a dictionary of several."""
        return (self.answer,)

    def one_answer(self, labels: Sequence[str], decided: Any, gold: Any) -> str:
        """What is said of nearly every example though gold differs, as words after "says"; empty if nothing is."""
        return ""

    def at(self, threshold: float) -> "Head":
        """The same head deciding at another threshold; UserError where nothing is decided by one."""
        raise UserError(f"--threshold: task {self.word} decides without one; it is for --task multilabel")

    def tuned(self, logits: Any, gold: Any, metric: str) -> "Head":
        """The same head deciding at the threshold that is best for a metric on these logits; UserError as `at`."""
        return self.at(0.5)

    @property
    def rule(self) -> str:
        """How an output is decided, in a sentence, where its user must know."""
        return ""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics of own files; the first decides which evaluation is best."""
        raise TypeError(f"{type(self).__name__} is not a head by itself")
