"""Input views: what the models are fed in place of the clean batch."""

import random
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field
from torch import Tensor

from layerstill.schema import Number, Positive, Spec


class View(Spec):
    """What all input views share."""

    mixes: ClassVar[bool] = False
    """Whether an example's input depends on the rest of its micro-batch."""
    hides: ClassVar[bool] = False
    """Whether words of the input are hidden, which is done where batches are made."""

    def draw(self, rng: random.Random) -> "Mixing | None":
        """What is done to the embeddings in this step; None for nothing."""
        return None


class Clean(View):
    """The batch as it is."""


class Mixup(View):
    """Mix embeddings of two examples, in both models alike (CR-ILD, arXiv 2302.01530).

    e_b <- lambda e_b + (1 - lambda) e_partner(b) on the output of the embedding layer; the attention mask becomes the
    OR of both. One lambda a batch, lambda ~ Beta(alpha, alpha), replaced by max(lambda, 1 - lambda).
    """

    mixes: ClassVar[bool] = True
    alpha: Positive = 1.0
    """Parameter of the Beta distribution."""
    partner: Literal["reversed"] = "reversed"
    """The partner of example b of B is example B-1-b."""

    def draw(self, rng: random.Random) -> "Mixing":
        """Draw this step's lambda."""
        lam = rng.betavariate(self.alpha, self.alpha)
        return Mixing(max(lam, 1 - lam))


class Masked(View):
    """Hide some words of running text from both models alike, others in every epoch (BERT, arXiv 1810.04805).

    Of the hidden tokens 80 % become the mask token, 10 % another token, and 10 % stay. A causal model, which is asked
    for the next word, reads the text as it is.
    """

    hides: ClassVar[bool] = True
    share: Number = Field(default=0.15, gt=0, lt=1)
    """How many of the tokens are hidden, special ones aside."""
    unit: Literal["tokens", "words"] = "tokens"
    """`words`: a word's tokens are hidden together."""


class Mixing(NamedTuple):
    """A drawn mixup: tensors whose first axis is the batch go in, mixed ones come out."""

    lam: float

    def partner(self, x: Tensor) -> Tensor:
        """`x` of each example's partner."""
        return x.flip(0)

    def embeddings(self, x: Tensor) -> Tensor:
        """lambda x + (1 - lambda) partner(x)."""
        return self.lam * x + (1 - self.lam) * self.partner(x)

    def mask(self, mask: Tensor) -> Tensor:
        """A position counts if it is real in either example."""
        return mask | self.partner(mask)


VIEWS: dict[str, type[Spec]] = {"clean": Clean, "mixup": Mixup, "masked": Masked}
