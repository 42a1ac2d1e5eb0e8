"""Entities in tagged sentences and how many of them were found: precision, recall and F1 by type and over all.

The definition is that of the program conlleval (Tjong Kim Sang & Buchholz 2000) and of seqeval's default mode: an
entity is right if its type, its first and its last word are; an `I-` that continues nothing begins an entity.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

Entity = tuple[str, int, int]
"""Type, first word, last word."""


class Found(NamedTuple):
    """How many entities were said and are right, how many were said, and how many there are."""

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
    """The entities of one sentence in IOB2 tags, or in BIOES; tags of another form are outside."""
    found, kind, start, ended = set(), "", 0, False
    for at, tag in enumerate([*tags, "O"]):
        mark, _, name = tag.partition("-")
        inside = name if mark in {"B", "I", "E", "S"} else ""
        if kind and (ended or mark in {"B", "S"} or inside != kind):
            found.add((kind, start, at - 1))
            kind = ""
        if inside and not kind:
            kind, start = inside, at
        ended = mark in {"E", "S"}
    return found


def count_entities(gold: Sequence[str], said: Sequence[str]) -> dict[str, Found]:
    """For each type of entity what was found in one sentence."""
    wanted, given = entities(gold), entities(said)
    right, named, there = (Counter(kind for kind, *_ in some) for some in (wanted & given, given, wanted))
    return {kind: Found(right[kind], named[kind], there[kind]) for kind in there | named}


def by_type(sentences: Iterable[dict[str, Found]]) -> dict[str, Found]:
    """`count_entities` of all sentences added up, types in alphabetical order."""
    sums: dict[str, Found] = {}
    for counts in sentences:
        for kind, found in counts.items():
            sums[kind] = over_all((sums.get(kind, Found()), found))
    return dict(sorted(sums.items()))


def over_all(counts: Iterable[Found]) -> Found:
    """Counts added up, over types say (the micro average)."""
    return Found(*(sum(column) for column in zip(Found(), *counts, strict=True)))


def leave_one_out(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """What each example adds to the metric sum(part) / sum(whole), `(n,)`, with the metric as mean.

    These are the jackknife's pseudo-values: see `Predictions.contributions`.
    """
    n = len(part)
    metric = part.sum() / max(whole.sum(), 1)
    values = n * metric - (n - 1) * (part.sum() - part) / np.maximum(whole.sum() - whole, 1)
    return values - values.mean() + metric
