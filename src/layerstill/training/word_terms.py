"""The terms about logits over a vocabulary: all those of one view together, so that each logit is computed once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from layerstill.heads import Head
from layerstill.knowledge.bound_objective import BoundObjective, Term
from layerstill.knowledge.capture import Captured
from layerstill.knowledge.counting import Places
from layerstill.knowledge.word_logits import add_up
from layerstill.training.gold import Gold


def places_of_words(objectives: Sequence[BoundObjective], places: Places) -> Tensor | None:
    """Where of a batch, `(B, N)`, both models must say words for these objectives; None for nowhere."""
    found = [asked for o in objectives if (asked := o.asked(places)) is not None]
    return torch.stack(found).any(0) if found else None


def over_words(
    objectives: Sequence[BoundObjective],
    student: Captured,
    teacher: Captured,
    batch: dict[str, Any],
    places: Places,
    scales: dict[str, Tensor],
    counted: dict[str, Tensor],
) -> dict[str, Term]:
    """The terms by name of those of the objectives that are about words, against what was captured of both models.

    `scales` and `counted` as in `BoundObjective.against`.
    """
    words = [o for o in objectives if o.over_words]
    if not words:
        return {}
    assert student.words is not None
    head: Head = words[0].head
    labels = Gold.of(batch, places, head).labels if any(o.signal.gold for o in words) else None
    sums = add_up([o.against_words for o in words], student.words, teacher.words, labels, places.positions)
    return {
        o.name: o.of_words(amount, count, scales[o.name], counted[o.name])
        for o, (amount, count) in zip(words, sums, strict=True)
    }
