"""Splits: the examples of one part of a task, train or dev, and what each counts in the loss on labels."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from layerstill.data.objects import as_list
from layerstill.errors import UserError
from layerstill.heads import Head


@dataclass(frozen=True)
class Split:
    """Examples: one or two texts each and a label, as the head of the task has it.

    That is a class number, a score or several, a 0 or 1 for each label, or the numbers of tags; these belong to an
    example whose texts are its words. A plain string is taken for an example of one text, an array for a list; names of
    labels become numbers in a `Task`, which knows them.
    """

    texts: list[tuple[str, ...]]
    labels: list[Any]
    """Empty for texts without labels."""
    weights: list[float] = field(default_factory=list)
    """What each example counts in the loss on labels, measured by the others; empty where all count the same."""

    def __post_init__(self) -> None:
        texts = as_list(self.texts)
        if any(type(text) is not tuple for text in texts):
            texts = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
        for what in ("labels", "weights"):
            values = as_list(getattr(self, what))
            if values and len(values) != len(texts):
                raise UserError(f"a split has {len(texts)} examples and {len(values)} {what}; one each is needed")
            object.__setattr__(self, what, values)
        if (odd := next((i for i, w in enumerate(self.weights) if not is_weight(w)), None)) is not None:
            raise UserError(f"a split: the weight of example {odd + 1} is {self.weights[odd]!r}, and not a number >= 0")
        object.__setattr__(self, "texts", texts)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Iterable[int]) -> "Split":
        """The examples of these numbers, in this order."""
        rows = list(rows)
        return Split(*([values[i] for i in rows] if values else [] for values in self._columns))

    def joined(self, texts: Iterable[tuple[str, ...]], labels: Iterable[Any]) -> "Split":
        """These examples, and after them others; what those count is 1, as the mean of `relative_weights` is."""
        more = list(texts)
        weights = [*self.weights, *[1.0] * len(more)] if self.weights else []
        return Split([*self.texts, *more], [*self.labels, *labels], weights)

    def relabelled(self, labels: list[Any]) -> "Split":
        """The same texts with other labels."""
        return replace(self, labels=labels)

    def unweighted(self) -> "Split":
        """The same examples, which all count the same."""
        return replace(self, weights=[])

    def relative_weights(self, head: Head) -> list[float]:
        """The weights divided by their mean over the examples that have a label, so that losses stay as large as they
        were and no learning rate has to change; exactly 1 each where all are the same.

        Empty without weights. UserError if no example that has a label counts anything.
        """
        if not self.weights:
            return []
        labelled = [head.labelled(torch.as_tensor(label)).any() for label in self.labels]
        counting = [weight for weight, known in zip(self.weights, labelled, strict=True) if known]
        if not any(counting):
            raise UserError(
                f"the weights of all {len(counting)} training examples that have a label are 0, so nothing would be "
                "learnt from them; take other examples, or leave the weights out"
            )
        # Of weights that are all the same the mean may be rounded, and a quotient of nearly 1 is another loss.
        mean = counting[0] if min(counting) == max(counting) else math.fsum(counting) / len(counting)
        return [weight / mean for weight in self.weights]

    @property
    def _columns(self) -> tuple[list, list, list]:
        return self.texts, self.labels, self.weights


def is_weight(value: Any) -> bool:
    """Whether a value is a finite number of 0 or more."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
