"""The two sides of a batch: what the student reads and what the teacher reads, and which places of either count.

Models that share a tokenizer read the same columns. Where their tokenizers differ, a batch brings the teacher's beside
the student's: `teacher_input_ids` and `teacher_attention_mask` `(B, M)`, perhaps `teacher_token_type_ids`, and
`teacher_counted` where tokens have logits. Row b is the same example on both sides.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from layerstill.data.readers import TEACHER
from layerstill.errors import UserError
from layerstill.heads import Head
from layerstill.knowledge.bound_objective import BoundObjective
from layerstill.knowledge.capture import Captured
from layerstill.knowledge.counting import Places
from layerstill.knowledge.meeting import Target


@dataclass(frozen=True)
class Side:
    """What one model reads of a batch."""

    inputs: dict[str, Tensor]
    """`input_ids` `(B, N)` and perhaps `token_type_ids`."""
    mask: Tensor
    """`(B, N)` boolean: the real tokens."""
    places: Places
    """Which of them count."""


@dataclass(frozen=True)
class Sides:
    """A batch as student and teacher read it: the same side twice where they share a tokenizer."""

    student: Side
    teacher: Side

    @property
    def apart(self) -> bool:
        """Whether the two have tokens of their own."""
        return self.teacher is not self.student

    @property
    def met(self) -> Places:
        """The student's places, of the examples that both models have."""
        places = self.student.places
        return places.only(self.teacher.places.examples) if self.apart else places

    def target(self, captured: Captured, mixed: bool) -> Target:
        """The teacher's tensors as what the student is compared with; `mixed` with those of each example's partner."""
        here, there = self.met, None
        if self.apart:  # logits were moved to where the student has them
            there = Places(self.teacher.places.tokens, here.positions)
        if mixed:
            here, there = here | here.flip(), None if there is None else there | there.flip()
        return Target(captured, here, own=there)


def sides_of(batch: dict[str, Any], head: Head) -> Sides:
    """The sides of a batch, for models with this head."""
    student = _side(batch, head)
    theirs = {name.removeprefix(TEACHER): values for name, values in batch.items() if name.startswith(TEACHER)}
    if "input_ids" not in theirs:
        return Sides(student, student)
    return Sides(student, _side({**theirs, "idle": batch.get("idle")}, head))


def _side(batch: dict[str, Any], head: Head) -> Side:
    mask, positions = batch["attention_mask"].bool(), head.positions(batch)
    inputs: dict[str, Tensor] = {name: batch[name] for name in ("input_ids", "token_type_ids") if name in batch}
    real = mask
    if batch.get("idle"):
        real, positions = torch.zeros_like(mask), torch.zeros_like(positions)
    # Where every token has logits, a token that the head does not count counts nowhere, as padding does not.
    return Side(inputs, mask, Places(positions if head.per_token else real, positions))


def refuse_token_terms(objectives: Iterable[BoundObjective]) -> None:
    """UserError for an objective that compares token by token what two tokenizers have cut."""
    for o in objectives:
        if o.spec.aligned_tokens(o.head.per_token):
            raise UserError(
                f"objective {o.name!r} compares token by token, and the batch has other tokens for the teacher "
                f"({TEACHER}input_ids); pool its states, or give both models the same tokens"
            )
