"""Initialisations: which layers of the source start the student (How to Distill your BERT, section 4)."""

import random

from pydantic import Field, field_validator

from layerstill.errors import UserError
from layerstill.knowledge.mappings import spread
from layerstill.schema import Spec


class Initialisation(Spec):
    """What all initialisations share: `choose` gives the source layer (1-based) of each student layer."""

    def choose(self, S: int, T: int, rng: random.Random) -> list[int] | None:
        """Source layers for a student of `S` layers from a source of `T`; None for fresh random weights."""
        raise TypeError(f"{type(self).__name__} is not an initialisation by itself")


class FirstK(Initialisation):
    """Layers 1..S."""

    def choose(self, S: int, T: int, rng: random.Random) -> list[int] | None:
        return list(range(1, S + 1))


class LastK(Initialisation):
    """Layers T-S+1..T."""

    def choose(self, S: int, T: int, rng: random.Random) -> list[int] | None:
        return list(range(T - S + 1, T + 1))


class EveryK(Initialisation):
    """Every (T/S)-th layer, ending with the last: {4, 8, 12} for 12 to 3."""

    def choose(self, S: int, T: int, rng: random.Random) -> list[int] | None:
        if T % S:
            fits = ", ".join(str(d) for d in range(1, T + 1) if T % d == 0)
            raise UserError(
                f"initialisation every-k: {S} student layers do not divide {T} source layers; "
                f"use {fits} layers, spread, first-k, or explicit layers such as 1,3,{T}"
            )
        return [i * (T // S) for i in range(1, S + 1)]


class Spread(Initialisation):
    """Evenly spaced layers for any S and T, the last among them: {2, 3, 5, 6} for 6 to 4, every-k where S divides T."""

    def choose(self, S: int, T: int, rng: random.Random) -> list[int] | None:
        return spread(S, T)


class RandomK(Initialisation):
    """S layers of the source drawn at random, in order."""

    def choose(self, S: int, T: int, rng: random.Random) -> list[int] | None:
        return sorted(rng.sample(range(1, T + 1), S))


class RandomWeights(Initialisation):
    """Fresh random weights in every layer."""

    def choose(self, S: int, T: int, rng: random.Random) -> list[int] | None:
        return None


class ExplicitLayers(Initialisation):
    """Source layers written out, one for each student layer."""

    layers: list[int] = Field(min_length=1)
    """1-based, in the student's order, for example [1, 8, 12]."""

    @field_validator("layers")
    @classmethod
    def _positive(cls, value: list[int]) -> list[int]:
        if min(value) < 1:
            raise ValueError("layers are counted from 1")
        return value

    def choose(self, S: int, T: int, rng: random.Random) -> list[int] | None:
        if len(self.layers) != S:
            raise UserError(f"initialisation names {len(self.layers)} layers, but the student has {S}")
        if max(self.layers) > T:
            raise UserError(f"initialisation names layer {max(self.layers)}, but the source has {T} layers")
        return self.layers


INITIALISATIONS: dict[str, type[Spec]] = {
    "first-k": FirstK,
    "last-k": LastK,
    "every-k": EveryK,
    "spread": Spread,
    "random-k": RandomK,
    "random": RandomWeights,
    "explicit": ExplicitLayers,
}


def parse_initialisation(text: str) -> dict | str:
    """`--init`: a name, or layers such as `1,8,12`, in the form a recipe has it."""
    if text.replace(",", "").replace(" ", "").isdecimal() and len(text) < 1000:
        return {"explicit": {"layers": [int(part) for part in text.split(",") if part.strip()]}}
    return text
