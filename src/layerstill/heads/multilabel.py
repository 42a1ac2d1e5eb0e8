"""Several labels: every example, of one or two texts, has any number of them."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from layerstill.errors import UserError
from layerstill.heads.head import Head, place_of
from layerstill.knowledge.distances import Distance
from layerstill.schema import Number


class MultiLabel(Head):
    """A sigmoid for each label; binary cross-entropy, per example and label. Unknown labels are negative numbers."""

    word: ClassVar[str] = "multilabel"
    gives: ClassVar[str] = "any number of labels a text"
    problem_type: ClassVar[str | None] = "multi_label_classification"
    single: ClassVar[bool] = False
    far_sets: ClassVar[bool] = False
    threshold: Number = Field(default=0.5, gt=0, lt=1)
    """A label is given from this probability on."""

    def _says_so(self, config: object) -> bool:
        return getattr(config, "problem_type", None) == self.problem_type  # without it a head means one class

    def numbered(self, labels: Sequence[Any], names: Sequence[str], where: str) -> list[Any]:
        found = []
        for i, row in enumerate(labels, 1):
            place = f"{where}, example {i}"
            if any(isinstance(value, str) for value in row):
                given = {place_of(name, names, place) for name in row}
                row = [int(number in given) for number in range(len(names))]
            if len(row) != len(names):
                raise UserError(
                    f"{place}: {len(row)} labels where there are {len(names)}: give a 0 or 1 for each, or names"
                )
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

    def labelled(self, labels: Tensor) -> Tensor:
        return labels >= 0

    def errors(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = self.labelled(labels)
        wanted = labels.to(logits.dtype).masked_fill(~known, 0)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").masked_fill(~known, 0)

    def distance(self, distance: Distance) -> Distance:
        return distance.for_labels()

    def pad_labels(self, labels: Sequence[Any], tokens: int) -> Tensor:
        return torch.tensor(labels, dtype=torch.float32)

    def decide(self, logits: np.ndarray) -> np.ndarray:
        # The sigmoid reaches the threshold where the logit reaches its log-odds.
        return logits >= np.log(self.threshold / (1 - self.threshold))
