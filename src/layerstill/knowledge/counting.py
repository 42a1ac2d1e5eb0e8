"""Counting: how many units of a term a batch holds, worked out from masks and labels before any model runs.

A term is a sum divided by a count over the whole optimiser step: all of its micro-batches and all processes. What a
distance counts in one micro-batch is known only after the forward pass; what it is proportional to is known before.
Here that is counted, exactly: which tokens are real, where the head's logits count, how far each layer's attention
reaches.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


class Reach(NamedTuple):
    """Which keys a query of a layer's attention sees: so many places `back` and `ahead` of its own; None: all."""

    back: int | None = None
    ahead: int | None = None

    def pattern(self, tokens: int, device: torch.device) -> Tensor | None:
        """`(N, N)` boolean, queries by keys; None if every query sees every key."""
        if self.back is None and self.ahead is None:
            return None
        places = torch.arange(tokens, device=device)
        distance = places[:, None] - places[None, :]
        seen = torch.ones(tokens, tokens, dtype=torch.bool, device=device)
        if self.back is not None:
            seen &= distance <= self.back
        if self.ahead is not None:
            seen &= -distance <= self.ahead
        return seen


@dataclass(frozen=True)
class Places:
    """What of a batch may count, boolean: tokens `(B, N)`, which are the real ones or, under a head of every token,
    those that it counts; and where the head's logits do, `(B,)` or `(B, N)`."""

    tokens: Tensor
    positions: Tensor

    @property
    def examples(self) -> Tensor:
        """`(B,)`: rows with a real token."""
        return self.tokens.any(1)

    def flip(self) -> "Places":
        """Those of the partners under mixup, which are mirror images."""
        return Places(self.tokens.flip(0), self.positions.flip(0))

    def __or__(self, other: "Places") -> "Places":
        return Places(self.tokens | other.tokens, self.positions | other.positions)

    def rows(self, some: slice) -> "Places":
        """Those of some examples."""
        return Places(self.tokens[some], self.positions[some])

    def only(self, examples: Tensor) -> "Places":
        """Those of the examples `(B,)` that are true; nothing of the others counts."""
        seen = examples.view(-1, *(1,) * (self.positions.ndim - 1))
        return Places(self.tokens & examples[:, None], self.positions & seen)

    def with_padding(self) -> "Places":
        """The same where padding counts like real tokens; a row without any stays out."""
        return replace(self, tokens=self.examples[:, None].expand_as(self.tokens))


def count_pairs(queries: Tensor, keys: Tensor, patterns: list[Tensor | None], rows: bool) -> Tensor:
    """How many pairs of a counted query and a key that it sees a batch has (0-d, float64).

    `queries` and `keys` are `(B, N)` boolean, `patterns` those of `Reach`, all of which must allow a pair. With
    `rows`, how many queries see any key.
    """
    q, k = queries.double(), keys.double()
    seen: Tensor | None = None
    for pattern in patterns:
        if pattern is not None:
            seen = pattern if seen is None else seen & pattern
    visible = k.sum(1, keepdim=True).expand_as(q) if seen is None else k @ seen.double().T
    return (q * (visible > 0)).sum() if rows else (q * visible).sum()
