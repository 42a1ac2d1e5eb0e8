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
    by_word: bool = False
    """Whether they meet word by word, because every token has logits and the first piece of each word counts."""

    @property
    def apart(self) -> bool:
        """Whether the two have tokens of their own."""
        return self.teacher is not self.student

    @property
    def met(self) -> Places:
        """The student's places, of the examples that both models have."""
        places = self.student.places
        return places.only(self.teacher.places.examples) if self.apart else places

    def met_by(self, captured: Captured) -> Captured:
        """The teacher's tensors, those of words at the places where the student has the words."""
        if not (self.apart and self.by_word):
            return captured
        there, here = self.teacher.places.tokens, self.student.places.positions
        captured.mask = self.student.mask
        captured.hidden = {layer: at_words(states, there, here) for layer, states in captured.hidden.items()}
        if captured.logits is not None:
            captured.logits = at_words(captured.logits, there, here)
        return captured

    def target(self, captured: Captured, mixed: bool) -> Target:
        """The teacher's tensors as what the student is compared with; `mixed` with those of each example's partner."""
        here = self.met
        there = self.teacher.places if self.apart and not self.by_word else None
        if mixed:
            here, there = here | here.flip(), None if there is None else there | there.flip()
        return Target(captured, here, own=there)


def sides_of(batch: dict[str, Any], head: Head) -> Sides:
    """The sides of a batch, for models with this head."""
    student = _side(batch, head)
    theirs = {name.removeprefix(TEACHER): values for name, values in batch.items() if name.startswith(TEACHER)}
    if "input_ids" not in theirs:
        return Sides(student, student)
    return Sides(student, _side({**theirs, "idle": batch.get("idle")}, head), head.per_token)


def at_words(values: Tensor, there: Tensor, here: Tensor) -> Tensor:
    """Values `(B, M, C)` of words that begin at `there` `(B, M)`, moved to where they begin `here` `(B, N)`; else 0.

    Both have the same words in the same order: the k-th of one is the k-th of the other.
    """
    begins = there.long().argsort(dim=1, descending=True, stable=True)
    word = (here.long().cumsum(1) - 1).clamp(0, there.shape[1] - 1)
    found = begins.gather(1, word)[..., None].expand(-1, -1, values.shape[-1])
    return values.gather(1, found).masked_fill(~here[..., None], 0)


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
