"""Relations: compare not the vectors but what they are to each other, over tokens, layers or the batch.

A relation turns `n` vectors `(..., n, d)`, of which a mask `(..., n)` says which count, into numbers between them and
the mask of these. Student and teacher may have other widths. `count` says beforehand how many there are.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from layerstill.knowledge.distances import Counts, unit_rows
from layerstill.schema import Spec

Over = Literal["batch", "tokens", "layers"]


class Relate(Spec):
    """What all relations share."""

    members: ClassVar[int] = 2
    """How many vectors a number is about: the rank of what comes out."""
    over: Over = "batch"
    """What the vectors are: one an example of the whole batch (of all processes), the tokens of each example, or the
    paired layers of each token or example."""
    degenerate: Literal["excluded", "included"] = "excluded"
    """Whether numbers between a vector and itself count, which are always equal (released code counts them)."""

    def __call__(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers `(..., n, n)` (or more axes) between vectors `(..., n, d)`, and which of them count."""
        raise TypeError(f"{type(self).__name__} is not a relation by itself")

    def mask(self, mask: Tensor) -> Tensor:
        """Which numbers count: all their members do, and are different ones."""
        n = mask.shape[-1]
        found = mask[..., :, None] & mask[..., None, :]
        same = torch.eye(n, dtype=torch.bool, device=mask.device)
        if self.members == 2:
            return found if self.degenerate == "included" else found & ~same
        found = found[..., :, :, None] & mask[..., None, None, :]
        distinct = ~(same[:, :, None] | same[:, None, :] | same[None, :, :])
        return found if self.degenerate == "included" else found & distinct

    def count(self, members: Tensor, counts: Counts) -> Tensor:
        """How many numbers, or rows of them, there are among `members` vectors each (float64, summed)."""
        n = members.double()
        factors = [n] * self.members if self.degenerate == "included" else [n - i for i in range(self.members)]
        elements = torch.stack(factors).prod(0).clamp(min=0)
        if counts == "elements":
            return elements.sum()
        rows = torch.stack(factors[:-1]).prod(0)
        return torch.where(elements > 0, rows, 0).sum()


class PairDistances(Relate):
    """|x_i - x_j| divided by its mean over all pairs (RKD, arXiv 1904.05068, eq. 5 and 6)."""

    def __call__(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        lengths = _lengths(_differences(x, mask))
        pairs = mask[..., :, None] & mask[..., None, :]
        distinct = pairs & ~torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
        total = lengths.masked_fill(~distinct, 0).sum((-1, -2), keepdim=True)
        mean = total / distinct.sum((-1, -2), keepdim=True).clamp(min=1)
        return lengths / mean.masked_fill(mean == 0, 1), self.mask(mask)


class Angles(Relate):
    """Cosine of the angle at x_j between x_i and x_k, `(..., j, i, k)` (RKD, arXiv 1904.05068, eq. 7 and 8)."""

    members: ClassVar[int] = 3

    def __call__(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        differences = _differences(x, mask)
        edges = unit_rows(differences, torch.ones(1, dtype=torch.bool, device=x.device))
        return edges @ edges.transpose(-1, -2), self.mask(mask)


class Cosines(Relate):
    """Cosines between vectors, `(..., i, j)` (Contextual KD, arXiv 2109.08359); distance kl softmaxes each row."""

    def __call__(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        units = unit_rows(x, mask[..., None])
        return units @ units.transpose(-1, -2), self.mask(mask)


def _differences(x: Tensor, mask: Tensor) -> Tensor:
    """`(..., j, i, d)`: x_i - x_j, 0 for what does not count."""
    x = x.masked_fill(~mask[..., None], 0)
    return x[..., None, :, :] - x[..., :, None, :]


def _lengths(x: Tensor) -> Tensor:
    # The root has no gradient at 0, where a vector meets itself.
    squares = (x**2).sum(-1)
    zero = squares == 0
    return squares.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)


RELATIONS: dict[str, type[Relate]] = {"pair_distances": PairDistances, "angles": Angles, "cosines": Cosines}
