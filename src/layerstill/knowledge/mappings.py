"""Mappings: which teacher layer teaches which student layer.

Layers are numbered by what they put out: 0 is the embeddings, k the output of layer k, L the last. Attention and
relations of layer k are those computed inside layer k, so the same number names them, and 0 has none.
"""

import random
import re
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator

from layerstill.errors import UserError
from layerstill.schema import Spec


class Pair(NamedTuple):
    """Layer `student` of the student learns from layer `teacher` of the teacher, with a share `weight` of the term."""

    student: int
    teacher: int
    weight: float = 1.0


def layer_name(number: int) -> str:
    """`embeddings` or `layer k`."""
    return "embeddings" if number == 0 else f"layer {number}"


def layer_number(name: str) -> int:
    """The inverse of `layer_name`; ValueError for anything else."""
    if name == "embeddings":
        return 0
    if match := re.fullmatch(r"layer ([1-9][0-9]*)", name):
        return int(match[1])
    raise ValueError(f"{name!r} names no layer; write 'embeddings' or 'layer 3'")


class Mapping(Spec):
    """What all mappings share. `S` and `T` are the depths of student and teacher."""

    redraws: ClassVar[bool] = False

    def draw_pairs(self, S: int, T: int, rng: random.Random) -> list[Pair]:
        """The pairs of one period; `rng` is only used by mappings that draw."""
        raise TypeError(f"{type(self).__name__} is not a mapping by itself")

    def candidates(self, S: int, T: int) -> tuple[list[int], list[int]]:
        """All student layers and all teacher layers that `draw_pairs` may ever name."""
        pairs = self.draw_pairs(S, T, random.Random(0))
        return sorted({p.student for p in pairs}), sorted({p.teacher for p in pairs})

    def period(self, epoch: int, step: int) -> int:
        """Number of the drawing in force; a new number means a new drawing."""
        return 0


def _ratio(S: int, T: int) -> int:
    if T % S:
        fits = [d for d in range(1, T + 1) if T % d == 0]
        raise UserError(
            f"a uniform mapping needs the student's depth to divide the teacher's: {S} does not divide {T}; "
            f"use a student of {', '.join(map(str, fits))} layers, `uniform: {{uneven: segments}}`, or explicit pairs"
        )
    return T // S


class Uniform(Mapping):
    """Student layer i learns from teacher layer i*T/S (TinyBERT, How to Distill, CR-ILD's U-ILD, PKD-skip)."""

    embeddings: bool = False
    """Pair the embeddings too."""
    final_layer: Literal["included", "excluded"] = "included"
    """PKD leaves the last pair out."""
    uneven: Literal["refuse", "segments"] = "refuse"
    """If S does not divide T: refuse, or take the last layer of each of S near-equal segments."""

    def draw_pairs(self, S: int, T: int, rng: random.Random) -> list[Pair]:
        if self.uneven == "segments":
            longer = T % S
            ends = [i * (T // S) + min(i, longer) for i in range(1, S + 1)]
        else:
            ends = [i * _ratio(S, T) for i in range(1, S + 1)]
        pairs = [Pair(0, 0)] * self.embeddings + [Pair(i, t) for i, t in enumerate(ends, 1)]
        return pairs[:-1] if self.final_layer == "excluded" else pairs


class Last(Mapping):
    """The last `layers` student layers learn from the last `layers` teacher layers (L-ILD, MiniLM, PKD-last)."""

    layers: int | Literal["all"] = Field(default=1, union_mode="left_to_right")
    """How many; `all` is the student's depth."""
    final_layer: Literal["included", "excluded"] = "included"
    """PKD leaves the last pair out."""

    @field_validator("layers")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1")
        return value

    def draw_pairs(self, S: int, T: int, rng: random.Random) -> list[Pair]:
        n = S if self.layers == "all" else self.layers
        if n > min(S, T):
            raise UserError(f"mapping last: {n} layers asked for, but the student has {S} and the teacher {T}")
        pairs = [Pair(S - n + i, T - n + i) for i in range(1, n + 1)]
        return pairs[:-1] if self.final_layer == "excluded" else pairs


class First(Mapping):
    """Student layer i learns from teacher layer i (a control)."""

    def draw_pairs(self, S: int, T: int, rng: random.Random) -> list[Pair]:
        if S > T:
            raise UserError(f"mapping first: the student has {S} layers, more than the teacher's {T}")
        return [Pair(i, i) for i in range(1, S + 1)]


class Reversed(Mapping):
    """Uniform with the teacher's order reversed: the first student layer learns from the last (arXiv 2502.04499)."""

    def draw_pairs(self, S: int, T: int, rng: random.Random) -> list[Pair]:
        ratio = _ratio(S, T)
        return [Pair(i, (S + 1 - i) * ratio) for i in range(1, S + 1)]


class Explicit(Mapping):
    """Pairs written out."""

    pairs: dict[str, str] = Field(min_length=1)
    """Student layer: the teacher layer it learns from, for example `{layer 1: layer 4, layer 3: layer 12}`."""

    @field_validator("pairs")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for student, teacher in value.items():
            layer_number(student)
            layer_number(teacher)
        return value

    def draw_pairs(self, S: int, T: int, rng: random.Random) -> list[Pair]:
        pairs = [Pair(layer_number(s), layer_number(t)) for s, t in self.pairs.items()]
        for pair in pairs:
            for side, layer, depth in (("student", pair.student, S), ("teacher", pair.teacher, T)):
                if layer > depth:
                    raise UserError(
                        f"explicit mapping names {side} layer {layer}, but the {side} has {depth} layers; "
                        f"use layer 1 to layer {depth}"
                    )
        return pairs


class Random(Mapping):
    """RAIL-KD (arXiv 2109.10164): draw teacher layers without replacement, sort them, pair them in order."""

    redraws: ClassVar[bool] = True
    redraw: Literal["epoch", "step", "never"] = "epoch"
    """When a new drawing is made; the paper redraws every epoch."""
    final_layer: Literal["included", "excluded"] = "excluded"
    """Whether the last layer of each model takes part (excluded: student layers 1..S-1, candidates 1..T-1)."""

    def candidates(self, S: int, T: int) -> tuple[list[int], list[int]]:
        last = self.final_layer == "included"
        student, teacher = list(range(1, S + last)), list(range(1, T + last))
        if not student:
            raise UserError(
                f"random mapping without the final layer leaves no layer in a student of {S}; "
                "use at least 2 student layers or final_layer: included"
            )
        if len(student) > len(teacher):
            raise UserError(f"random mapping: {len(student)} student layers but only {len(teacher)} candidates")
        return student, teacher

    def draw_pairs(self, S: int, T: int, rng: random.Random) -> list[Pair]:
        student, teacher = self.candidates(S, T)
        return [Pair(i, j) for i, j in zip(student, sorted(rng.sample(teacher, len(student))), strict=True)]

    def period(self, epoch: int, step: int) -> int:
        return {"epoch": epoch, "step": step, "never": 0}[self.redraw]


MAPPINGS: dict[str, type[Spec]] = {
    "uniform": Uniform,
    "last": Last,
    "first": First,
    "reversed": Reversed,
    "explicit": Explicit,
    "random": Random,
}
