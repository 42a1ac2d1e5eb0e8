"""Several labels: every example, of one or two texts, has any number of them."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from layerstill.errors import UserError
from layerstill.heads.answers import only_answer
from layerstill.heads.head import IGNORED, LEAST, Head, place_of, refuse_no_probability
from layerstill.heads.prediction import Prediction
from layerstill.knowledge.distances import Distance
from layerstill.metrics.multilabel import (
    LABEL_METRICS,
    label_contributions,
    label_table,
    log_odds,
    tuned_threshold,
)
from layerstill.schema import Number


class MultiLabel(Head):
    """A sigmoid for each label; binary cross-entropy, per example and label. Unknown labels are negative numbers.

    Labels of an example are a row `(C,)` of 1 and 0.
    """

    word: ClassVar[str] = "multilabel"
    gives: ClassVar[str] = "any number of labels per text"
    probable: ClassVar[bool] = True
    problem_type: ClassVar[str | None] = "multi_label_classification"
    single: ClassVar[bool] = False
    far_sets: ClassVar[bool] = False
    answer: ClassVar[str] = "labels"
    threshold: Number = Field(default=0.5, gt=0, lt=1)
    """A label is given from this probability on."""

    def _says_so(self, config: object) -> bool:
        return getattr(config, "problem_type", None) == self.problem_type  # without it a head means one class

    def numbered(self, labels: Sequence[Any], names: Sequence[str], where: str) -> list[Any]:
        found = []
        for i, row in enumerate(labels, 1):
            place = f"{where}, example {i}"
            if not len(row) or any(isinstance(value, str) for value in row):
                given = {place_of(name, names, place) for name in row}
                row = [int(number in given) for number in range(len(names))]
            if len(row) != len(names):
                raise UserError(
                    f"{place}: {len(row)} labels where there are {len(names)}: give a 0 or 1 for each, or names"
                )
            if odd := [value for value in row if value is None or (value not in (0, 1) and not value < 0)]:
                raise UserError(f"{place}: {odd[0]!r} where 1 (it has the label), 0, or {IGNORED} (not known) can be")
            found.append(list(row))
        return found

    def renumbered(self, labels: Sequence[Any], places: Sequence[int], outputs: int) -> list[Any]:
        moved = []
        for row in labels:
            new: list[Any] = [0] * outputs
            for place, value in zip(places, row, strict=True):
                new[place] = value
            moved.append(new)
        return moved

    def absent(self, labels: Sequence[Any], outputs: int) -> list[int]:
        return [i for i in range(outputs) if not any(row[i] > 0 for row in labels)]

    def start(self, labels: Sequence[Any]) -> Tensor:
        # The log-odds of each label's share (arXiv 1708.02002, section 4.1): most labels are rare, and from 0 on a
        # model first learns to say no to everything, by making all texts alike, which it may never leave again.
        gold = self.gold(labels)
        there, known = (gold > 0).sum(0) + 1, (gold >= 0).sum(0) + 2
        return torch.tensor(np.log(there / (known - there)), dtype=torch.float32)

    def labelled(self, labels: Tensor) -> Tensor:
        return labels >= 0

    def unknown(self, texts: Sequence[str], outputs: int) -> list[int]:
        return [IGNORED] * outputs

    def logits_of(self, probabilities: Sequence[float], where: str) -> list[float]:
        refuse_no_probability(probabilities, where)
        return [log_odds(min(max(p, LEAST), 1 - LEAST)) for p in probabilities]

    def mean(self, logits: np.ndarray, weights: Sequence[float]) -> np.ndarray:
        likely = 1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64).clip(-500)))
        mean = np.average(likely, 0, weights).clip(LEAST, 1 - LEAST)
        return np.log(mean) - np.log1p(-mean)

    def errors(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = self.labelled(labels)
        wanted = labels.to(logits.dtype).masked_fill(~known, 0)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").masked_fill(~known, 0)

    def distance(self, distance: Distance) -> Distance:
        return distance.for_labels()

    def pad_labels(self, labels: Sequence[Any], tokens: int) -> Tensor:
        return torch.tensor(labels, dtype=torch.float32)

    def decide(self, logits: np.ndarray) -> np.ndarray:
        return logits >= log_odds(self.threshold)

    def gold(self, labels: Sequence[Any]) -> np.ndarray:
        return np.array(labels, dtype=np.int64)

    def score(
        self, metrics: Sequence[str], labels: Sequence[str], decided: Any, gold: Any, positive: str | None = None
    ) -> dict[str, float]:
        return {name: LABEL_METRICS[name](decided, gold) for name in metrics}

    def by_label(self, labels: Sequence[str], decided: Any, gold: Any) -> dict[str, dict[str, float]]:
        return label_table(labels, decided, gold)

    def predictions(self, logits: np.ndarray, labels: Sequence[str]) -> list[Prediction]:
        likely = 1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64).clip(-500)))
        found = []
        for row, said in zip(likely.tolist(), self.decide(logits), strict=True):
            given = np.flatnonzero(said).tolist()
            names, own = tuple(labels[i] for i in given), tuple(row[i] for i in given)
            found.append(Prediction(names, own, dict(zip(labels, row, strict=True))))
        return found

    def one_answer(self, labels: Sequence[str], decided: Any, gold: Any) -> str:
        said = [tuple(np.flatnonzero(row)) for row in decided]
        found = only_answer(said, [tuple(np.flatnonzero(row > 0)) for row in gold])
        if found is None:
            return ""
        names = ", ".join(repr(labels[i]) for i in found.said) or "no label at all"
        return f"{names} for {found.share:.0%} of the texts"

    def contributions(self, metric: str, labels: Sequence[str], decided: Any, gold: Any) -> np.ndarray:
        return label_contributions(metric, decided, gold)

    def at(self, threshold: float) -> "MultiLabel":
        return MultiLabel(threshold=threshold)

    def tuned(self, logits: np.ndarray, gold: np.ndarray, metric: str) -> "MultiLabel":
        return self.at(tuned_threshold(logits, gold, metric))

    @property
    def rule(self) -> str:
        return (
            f"A text has each label whose probability, the sigmoid of its logit, reaches threshold {self.threshold:g}."
        )

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("f1_micro", "f1_macro", "subset_accuracy")
