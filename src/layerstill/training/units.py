"""What an objective is a mean over, counted: examples, tokens, labels, pairs, of a batch and of a whole step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from layerstill.heads import Head
from layerstill.knowledge.bound_objective import BoundObjective
from layerstill.training.clock import Clock
from layerstill.training.gold import Gold
from layerstill.training.sides import sides_of


class Units:
    """Counts the units of a stage's objectives, for every target and every group of layers compared at a time."""

    def __init__(self, objectives: Sequence[BoundObjective], head: Head) -> None:
        self._objectives = objectives
        self._head = head

    def of(self, batch: dict[str, Any], clock: Clock) -> dict[str, Tensor]:
        """Of each objective on a batch, `(targets, comparisons)` float64; a batch may bring its row as `own_units`."""
        if "own_units" in batch:
            return self._by_objective(batch["own_units"], clock)
        sides = sides_of(batch, self._head)
        counted = {}
        for o in self._objectives:
            targets = _targets_of(o)
            if o.signal.gold:
                each = Gold.of(batch, sides.student.places, self._head).count(self._head)
                counted[o.name] = each.expand(targets, 1)
                continue
            places = sides.student.places if o.spec.consistent else sides.met
            seen = [places | places.flip()] if o.spec.mixes else [places]
            if targets > 1:
                seen = [places, places.flip()]
            counted[o.name] = o.count(seen, clock.epoch, clock.step)
        return counted

    def row(self, batch: dict[str, Any], clock: Clock) -> Tensor:
        """All counts of a batch in one row (float64), which can be added up over batches."""
        return torch.cat([count.flatten() for count in self.of(batch, clock).values()])

    def weights(self, batch: dict[str, Any], clock: Clock) -> Tensor:
        """`(objectives,)` float64: how much a batch weighs in each objective's mean over several batches."""
        counted = self.of(batch, clock)
        examples = batch["attention_mask"].any(1).sum(dtype=torch.float64)
        over_batch = {o.name for o in self._objectives if o.spec.over_batch}
        return torch.stack([examples if n in over_batch else count.mean() for n, count in counted.items()])

    def shares(self, counted: dict[str, Tensor], step: Tensor | None, kind: torch.dtype) -> dict[str, Tensor]:
        """A batch's share of the whole optimiser step, whose row is `step`, in the shapes of `counted`."""
        if step is None:
            return {name: torch.ones_like(count, dtype=kind) for name, count in counted.items()}
        own = torch.cat([count.flatten() for count in counted.values()])
        # A step without any of a unit has nothing to divide.
        shares = (own / step.to(own).clamp(min=1e-12)).to(kind)
        parts = shares.split([count.numel() for count in counted.values()])
        return {name: part.view_as(counted[name]) for name, part in zip(counted, parts, strict=True)}

    def _by_objective(self, row: Tensor, clock: Clock) -> dict[str, Tensor]:
        """A row as what it was made of."""
        now = clock.epoch, clock.step
        shapes = {o.name: (_targets_of(o), o.comparisons(*now)) for o in self._objectives}
        parts = row.split([targets * comparisons for targets, comparisons in shapes.values()])
        return {name: part.view(shapes[name]) for name, part in zip(shapes, parts, strict=True)}


def _targets_of(o: BoundObjective) -> int:
    # Under mixup an example has two labels, and a consistency term two clean examples.
    return 2 if o.spec.mixes and (o.signal.gold or o.spec.consistent) else 1
