"""Logits over a vocabulary, at the places that count and a few places at a time, so that `B x N x V` never exists."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

WHOLE_ELEMENTS = 32 * 2**20
"""Logits of one model up to which they are computed once and kept."""
PART_ELEMENTS = 10 * 2**20
"""Logits of a part otherwise; comparing takes several tensors of its size. These are above 32 MB, below which the C
library keeps what is freed, in a heap with ever more holes."""


@dataclass
class WordLogits:
    """What a language model says at P places of a batch `(B, N)`, whose logits `(P, V)` are computed when asked for."""

    states: Tensor
    """`(P, d)`: the last hidden states there, example by example."""
    places: Tensor
    """`(P,)`: which places of the flattened batch they are."""
    real: Tensor
    """`(P,)` boolean; a batch without a place has one that does not count, so that gradients reach every weight."""
    vocabulary: int
    """How many logits a place has, V."""
    head: Callable[[Tensor], Tensor]
    """From states `(p, d)` to logits `(p, V)`."""
    _whole: Tensor | None = field(default=None, repr=False)

    @classmethod
    def gathered(
        cls, states: Tensor, positions: Tensor, vocabulary: int, head: Callable[[Tensor], Tensor]
    ) -> "WordLogits":
        """Those of the last hidden states `(B, N, d)` where `positions` `(B, N)` is true."""
        places = positions.flatten().nonzero().squeeze(1)
        real = torch.ones_like(places, dtype=torch.bool)
        if not len(places):
            places, real = places.new_zeros(1), real.new_zeros(1)
        # Its head runs in the arithmetic in which the model ran, whoever asks for it later.
        kind = states.device.type
        enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

        def said(some: Tensor) -> Tensor:
            with torch.autocast(kind, dtype=dtype, enabled=enabled):
                return head(some)

        return cls(states.flatten(0, 1)[places], places, real, vocabulary, said)

    def only(self, words: Tensor) -> "WordLogits":
        """The same without the logits of other words than these, `(W,)`, in their order: what the model would say if
        it knew no other."""
        return WordLogits(self.states, self.places, self.real, len(words), lambda some: self.head(some)[:, words])

    def whole(self) -> Tensor:
        """All logits `(P, V)`, computed once."""
        if self._whole is None:
            self._whole = self.head(self.states)
        return self._whole


class Rows(NamedTuple):
    """Some places as a comparison takes them."""

    student: Tensor
    """Logits `(p, V)`."""
    teacher: Tensor | None
    """Logits `(p, V')`, without gradient."""
    real: Tensor
    """`(p,)` boolean: which are real tokens."""
    asked: Tensor
    """`(p,)` boolean: for which of them the head asks."""
    labels: Tensor | None
    """`(p,)`: the words that were asked for."""


Compare = Callable[[Rows], tuple[Tensor, Tensor]]
"""Sum and count of a term over some places."""


def add_up(
    compares: Sequence[Compare],
    student: WordLogits,
    teacher: WordLogits | None,
    labels: Tensor | None,
    positions: Tensor | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Sum and count of several terms over all places; `labels` `(B, N)` are the words asked for.

    `positions` `(B, N)` are where the head asks, if these are not all places.

    More logits than `WHOLE_ELEMENTS` are computed a part at a time, for all terms at once, and again in the backward
    pass, so memory does not grow with their number.
    """
    there = None if labels is None else labels.flatten()[student.places]
    asked = student.real if positions is None else positions.flatten()[student.places]
    widest = max(student.vocabulary, teacher.vocabulary if teacher is not None else 0)
    size = len(student.states)

    def over(said: Tensor, taught: Tensor | None, some: slice) -> tuple[Tensor, ...]:
        rows = Rows(said, taught, student.real[some], asked[some], None if there is None else there[some])
        return tuple(number for compare in compares for number in compare(rows))

    if size * widest <= WHOLE_ELEMENTS:
        with torch.no_grad():
            taught = None if teacher is None else teacher.whole()
        found = over(student.whole(), taught, slice(0, size))
    else:
        some = max(PART_ELEMENTS // widest, 1)

        def part(states: Tensor, begin: int) -> tuple[Tensor, ...]:
            rows = slice(begin, begin + some)
            with torch.no_grad():
                taught = None if teacher is None else teacher.head(teacher.states[rows])
            return over(student.head(states), taught, rows)

        parts = [
            checkpoint(part, student.states[i : i + some], i, use_reentrant=False, preserve_rng_state=False)
            for i in range(0, size, some)
        ]
        found = tuple(torch.stack(numbers).sum(0) for numbers in zip(*parts, strict=True))
    return list(zip(found[::2], found[1::2], strict=True))
