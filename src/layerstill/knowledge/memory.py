"""Memories: a vector of each side for every training example, from which other examples are told.

A distance that `remembers` has one. It is made when the number of training examples is known, moves after every
optimiser step, and is saved with checkpoints.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerstill.errors import UserError
from layerstill.randomness import distinct


@dataclass(frozen=True)
class Examples:
    """The training examples, in the order of their numbers; `kinds` has the class of each, None where it has none."""

    kinds: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.kinds)

    def negatives(self, wanted: int) -> int:
        """How many an example is told from, the same number for each: `wanted`, or as many as every one of them has.

        Those of another class; an example without a class is told from all others. UserError if there are none.
        """
        sizes: dict[int | None, int] = {}
        for kind in self.kinds:
            sizes[kind] = sizes.get(kind, 0) + 1
        largest = max((size if kind is not None else 1 for kind, size in sizes.items()), default=0)
        if largest >= len(self):
            raise UserError(
                f"its distance tells an example from those of other classes, and all {len(self)} training examples are "
                "of one; use distance: infonce"
            )
        return min(wanted, len(self) - largest)


@dataclass(frozen=True)
class Numbered:
    """Which examples the rows of a batch are."""

    numbers: Sequence[int]
    """Among the training examples, or in another split; -1 for a row that is nobody's."""
    kinds: Sequence[int | None]
    """Their classes; those of training examples are known."""
    step: int | None
    """The optimiser step that learns from them; None for an evaluation, which the memory forgets."""


def bytes_of(examples: int, width: int) -> int:
    """What the memory of so many examples takes, with vectors that wide."""
    return 2 * 4 * examples * width


class Memory(nn.Module):
    """A vector of each side for every training example, `(n, u)`, and what scores are divided by.

    Args:
        examples: the training examples.
        width: u, of the vectors of both sides.
        negatives: how many an example is told from.
        momentum: how much of an old vector stays when a new one comes.
        seed: of the vectors that it begins with: random ones of length 1 in the mean.
    """

    def __init__(self, examples: Examples, width: int, negatives: int, momentum: float, seed: int) -> None:
        super().__init__()
        self.negatives = negatives
        self.momentum = momentum
        rng, bound = torch.Generator().manual_seed(seed), math.sqrt(3 / width)
        first = [torch.empty(len(examples), width).uniform_(-bound, bound, generator=rng) for _ in range(2)]
        self.student, self.teacher = map(nn.Buffer, first)
        self.log_scales = nn.Buffer(torch.full((2,), -math.inf))
        """Logarithm of what the scores are divided by, with the student and with the teacher as anchor; from the first
        step, -inf before it."""
        self._seen: tuple[Sequence[int], Tensor, Tensor, Tensor] | None = None
        self._kinds = examples.kinds
        # All examples with those of a class side by side, so that those of other classes are numbered without gaps.
        keys = np.array([-1 - i if kind is None else kind for i, kind in enumerate(examples.kinds)])
        self._order = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[self._order], keys, "left"), np.searchsorted(keys[self._order], keys, "right")
        self._blocks = {int(key): (int(a), int(b)) for key, a, b in zip(keys, *starts, strict=True)}

    def drawn(self, rows: Numbered, seed: int, *name: object) -> Tensor:
        """The numbers of the examples that each row is told from, `(B, negatives)`, drawn for each by itself.

        They are different ones of other classes. An example of another split has no place here, so that one without a
        class may be told from any. For a row that is nobody's they are all 0. UserError for a number that no training
        example has.
        """
        if rows.step is not None and max(rows.numbers, default=0) >= len(self._order):
            raise UserError(
                f"the batch has example number {max(rows.numbers)}, and the training examples are numbered from 0 to "
                f"{len(self._order) - 1}; give each its place among DistillationModule's `examples` as `id`"
            )
        there = [row for row, number in enumerate(rows.numbers) if number >= 0]
        numbers = np.array([rows.numbers[row] for row in there], dtype=np.int64)
        blocks = np.array([self._block(rows, row) for row in there], dtype=np.int64).reshape(-1, 2)
        starts, sizes = blocks[:, :1], blocks[:, 1:] - blocks[:, :1]
        places = distinct(seed, numbers, len(self._order) - sizes[:, 0], self.negatives, *name)
        found = np.zeros((len(rows.numbers), self.negatives), dtype=np.int64)
        found[there] = self._order[places + (places >= starts) * sizes]
        return torch.from_numpy(found)

    def _block(self, rows: Numbered, row: int) -> tuple[int, int]:
        """Where in order those lie that a row is not told from: of its class, or itself alone."""
        number = rows.numbers[row]
        kind = rows.kinds[row] if rows.step is None else self._kinds[number]
        if kind is None:
            return (0, 0) if rows.step is None else self._blocks[-1 - number]
        return self._blocks.get(kind, (0, 0))

    def scale(self, side: int, scores: Tensor, counted: Tensor) -> Tensor:
        """The logarithm of what e^score is divided by: its mean over `scores` `(B, K + 1)` of the rows `counted` `(B,)`
        times the number of examples, or what the first step's was."""
        counted = counted[:, None].expand(scores.shape)
        least = torch.finfo(scores.dtype).min / 2
        total = scores.detach().masked_fill(~counted, least).flatten().logsumexp(0)
        now = total - counted.sum().clamp(min=1).to(total).log() + math.log(len(self._order))
        kept = self.log_scales[side]
        return torch.where(kept.isfinite(), kept.to(now), now)

    def see(self, numbers: Sequence[int], student: Tensor, teacher: Tensor, log_scales: Tensor) -> None:
        """What the next `finish_step` remembers: unit vectors `(B, u)` of the examples with these numbers."""
        self._seen = numbers, student.detach(), teacher.detach(), log_scales.detach()

    def forget(self) -> None:
        """Let go of what was seen since the last step."""
        self._seen = None

    @torch.no_grad()
    def finish_step(self) -> None:
        """Called after every optimiser step: m <- unit(momentum * m + (1 - momentum) * v) for all that were seen."""
        if self._seen is None:
            return
        numbers, student, teacher, log_scales = self._seen
        self._seen = None
        last = {number: row for row, number in enumerate(numbers) if number >= 0}
        if not last:
            return
        both = last.keys(), last.values()
        at, rows = (torch.tensor(list(which), dtype=torch.long, device=student.device) for which in both)
        for kept, new in ((self.student, student), (self.teacher, teacher)):
            kept[at] = F.normalize(self.momentum * kept[at] + (1 - self.momentum) * new[rows].to(kept), dim=-1)
        self.log_scales.copy_(log_scales)


def estimated(log_p: Tensor, noise: float) -> Tensor:
    """The errors `(B,)` of log-probabilities `(B, K + 1)`, an example's own first, against so much noise."""
    beside = math.log(noise + 1e-7)  # as the released code, which adds it to what it divides by
    own, others = log_p[:, 0], log_p[:, 1:]
    of_others = math.log(noise) - beside + F.logsigmoid(beside - others)
    return -F.logsigmoid(own - beside) - of_others.sum(-1)
