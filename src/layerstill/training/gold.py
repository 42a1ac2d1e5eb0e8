"""The gold labels of a batch, and what each example counts in a loss on them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from layerstill.errors import UserError
from layerstill.heads import Head
from layerstill.knowledge.counting import Places
from layerstill.knowledge.views import Mixing

WEIGHTS = "weights"
"""The column of a batch, `(B,)`, that says what its examples count; without it all count the same."""


@dataclass(frozen=True)
class Gold:
    """Labels as the head has them, and weights `(B,)` or None."""

    labels: Tensor
    weights: Tensor | None = None

    @classmethod
    def of(cls, batch: dict[str, Any], places: Places, head: Head) -> "Gold":
        """Those of a batch; `places` are the student's. UserError for a batch without labels."""
        if "labels" not in batch:
            raise UserError("the stage compares with gold labels, and the batch has no `labels`")
        labels: Tensor = batch["labels"]
        # What has no text is no example, whatever label fills its row; nor is a word that is asked for in no place.
        there = places.positions if head.speaks else places.examples.view(-1, *(1,) * (labels.ndim - 1))
        return cls(torch.where(there, labels, head.without_labels(labels)), batch.get(WEIGHTS))

    def shares(self, mixing: Mixing | None) -> list[tuple[float, Tensor, Tensor | None]]:
        """What the loss is of: a share each, with labels and weights; under mixup also the partners'."""
        if mixing is None:
            return [(1.0, self.labels, self.weights)]
        partners = None if self.weights is None else mixing.partner(self.weights)
        return [
            (mixing.lam, self.labels, self.weights),
            (1 - mixing.lam, mixing.partner(self.labels), partners),
        ]

    def count(self, head: Head) -> Tensor:
        """How many labels there are, whatever they weigh: a float64 number."""
        return head.labelled(self.labels).sum(dtype=torch.float64)

    def teaches(self, head: Head) -> bool:
        """Whether any label counts for more than nothing."""
        known = head.labelled(self.labels)
        if self.weights is not None:
            known = known & (self.weights > 0).view(-1, *(1,) * (known.ndim - 1))
        return bool(known.any())
