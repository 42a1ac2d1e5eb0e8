"""Entities in tagged sentences and how many of them were found: precision, recall and F1 by type and over all.

The definition is that of the program conlleval (Tjong Kim Sang & Buchholz 2000) and of seqeval's default mode: an
entity is right if its type, its first and its last word are; an `I-` that continues nothing begins an entity.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Entity = tuple[str, int, int]
"""Type, first word, last word."""


class Found(NamedTuple):
    """How many entities there are, how many were said, and how many of these are right."""

    right: int = 0
    said: int = 0
    there: int = 0

    @property
    def precision(self) -> float:
        """Share of what was said that is right; 0 if nothing was said."""
        return self.right / self.said if self.said else 0.0

    @property
    def recall(self) -> float:
        """Share of what is there that was found; 0 if nothing is there."""
        return self.right / self.there if self.there else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if nothing is right."""
        return 2 * self.right / (self.said + self.there) if self.right else 0.0


def entities(tags: Sequence[str]) -> set[Entity]:
    """The entities of one sentence in IOB2 tags; tags without `B-` or `I-` are outside."""
    found, kind, start = set(), "", 0
    for at, tag in enumerate([*tags, "O"]):
        mark, _, name = tag.partition("-")
        inside = name if mark in {"B", "I"} else ""
        if kind and (mark == "B" or inside != kind):
            found.add((kind, start, at - 1))
            kind = ""
        if inside and not kind:
            kind, start = inside, at
    return found


def count_entities(gold: Iterable[Sequence[str]], said: Iterable[Sequence[str]]) -> dict[str, Found]:
    """For each type of entity, in alphabetical order, what was found in all sentences."""
    right, found, there = Counter[str](), Counter[str](), Counter[str]()
    for mine, theirs in zip(gold, said, strict=True):
        wanted, given = entities(mine), entities(theirs)
        there.update(kind for kind, *_ in wanted)
        found.update(kind for kind, *_ in given)
        right.update(kind for kind, *_ in wanted & given)
    return {kind: Found(right[kind], found[kind], there[kind]) for kind in sorted(there | found)}


def over_all(counts: Iterable[Found]) -> Found:
    """The sum over types (the micro average)."""
    return Found(*(sum(column) for column in zip(Found(), *counts, strict=True)))
