"""A word of every kind, as somebody outside would write them, and a recipe made of them."""

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from layerstill.heads import Classes
from layerstill.knowledge.alignment import Aligner, Alignment
from layerstill.knowledge.capture import CapturePlan, repeat_heads
from layerstill.knowledge.counting import count_pairs
from layerstill.knowledge.distances import Distance
from layerstill.knowledge.mappings import Group, Mapping, MappingState
from layerstill.knowledge.precision import wide
from layerstill.knowledge.relate import Relate
from layerstill.knowledge.signals import Signal
from layerstill.knowledge.weights import Schedule
from layerstill.recipe import Recipe
from layerstill.schema import NonNegative


class Gaps(Signal):
    """How far every query is from every key, `(B, H, N, N)`: a signal of the attention kind."""

    inside = True
    maps = True

    def plan(self, layers):
        return CapturePlan(attention=frozenset(layers))

    def count(self, counts, places, reaches, padding, reads):
        return count_pairs(places.tokens, places.tokens, [], counts == "rows")

    def read(self, captured, layer, places, padding, reads):
        record, real = captured.attention[layer], places.tokens
        query, key = wide(record.query), wide(repeat_heads(record.key, record.query.shape[1]))
        gaps = (query[..., :, None, :] - key[..., None, :, :]).square().mean(-1)
        return gaps, real[:, None, :, None] & real[:, None, None, :]


class Added(Signal):
    """What a layer adds to its input, for every token `(B, N, d)`."""

    inside = True
    vectors = True
    per: ClassVar = "tokens"

    def plan(self, layers):
        return CapturePlan(hidden=frozenset(layers) | {k - 1 for k in layers})

    def read(self, captured, layer, places, padding, reads):
        added = wide(captured.hidden[layer]) - wide(captured.hidden[layer - 1])
        return added, places.tokens[..., None]


class Running(MappingState):
    """Running means of the costs of groups `(groups,)`."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.costs = nn.Buffer(torch.zeros(groups, dtype=torch.float64))
        self.seen: torch.Tensor | None = None

    def finish_step(self) -> None:
        if self.seen is not None:
            self.costs.lerp_(self.seen.to(self.costs), 0.5)
        self.seen = None


class Easiest(Mapping):
    """Every student layer with every teacher layer; those that were easy so far weigh more."""

    weighs = True
    sharpness: NonNegative = 1.0

    def groups(self, S, T, rng):
        return [Group((i,), (j,)) for i in range(1, S + 1) for j in range(1, T + 1)]

    def state(self, S, T):
        return Running(S * T)

    def weigh(self, costs, state):
        state.seen = costs
        return (-self.sharpness * state.costs).softmax(0).to(costs)


class Scales(Aligner):
    """One trained factor for each dimension of the student's vectors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.ones(width))

    def of_student(self, x, layer):
        return x * self.factors.to(x)


class Scaled(Alignment):
    """Scale the student's dimensions."""

    def build(self, student_width, teacher_width, layers):
        return Scales(student_width)


class Dots(Relate):
    """Scaled dot products of vectors, `(..., i, j)`."""

    def __call__(self, x, mask):
        x = wide(x).masked_fill(~mask[..., None], 0)
        return x @ x.transpose(-1, -2) / x.shape[-1], self.mask(mask)


class LogCosh(Distance):
    """log cosh of the difference, per element."""

    def __call__(self, student, teacher, mask):
        difference = (wide(student) - wide(teacher)).masked_fill(~mask, 0)
        error = difference.abs() + F.softplus(-2 * difference.abs()) - torch.log(torch.tensor(2.0))
        mask = mask.expand(error.shape)
        return error.masked_fill(~mask, 0).sum(), mask.sum()


class Halving(Schedule):
    """Half as much in every epoch."""

    start: NonNegative = 1.0

    def at(self, epoch, epochs, step, steps):
        return self.start * 0.5**epoch


class Smoothed(Classes):
    """Classes whose labels are smoothed."""

    smoothing: NonNegative = 0.1

    def errors(self, logits, labels):
        return F.cross_entropy(logits, labels, reduction="none", ignore_index=-100, label_smoothing=self.smoothing)


WORDS = [Gaps, Added, Easiest, Scaled, Dots, LogCosh, Halving]
RECIPE = """
name: all mine
stages:
  - epochs: 2
    learning_rate: 1e-3
    batch_size: 8
    objectives:
      task: {signal: labels, weight: {halving: {start: 2}}}
      soft targets: {signal: logits, distance: kl}
      gaps: {signal: gaps, mapping: uniform, distance: log_cosh}
      added: {signal: added, mapping: {easiest: {sharpness: 0.5}}, alignment: scaled, distance: mse}
      between: {signal: added, mapping: last, relate: {dots: {over: tokens}}, distance: log_cosh}
"""


def recipe(folder) -> Recipe:
    """The recipe, read from a file in `folder`."""
    path = folder / "mine.yaml"
    path.write_text(RECIPE, "utf-8")
    return Recipe.load(path, words=WORDS)
