"""Copies of training texts with some words changed, made while a run begins: texts that the teacher labels.

Words are replaced by others of the training texts, as often as these use them, or by what a masked language model
proposes; they are left out, trade places, or stand twice (`augmentation`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from layerstill.data.augmentation import CHUNK, METHODS, Augmentation, Candidates, Proposer, words_of
from layerstill.errors import UserError, nearest


@dataclass(frozen=True)
class Augment:
    """How many copies of each training example join it, and how they are made."""

    copies: int
    """Of each example; those that are the same as another text are left out."""
    model: str | None = None
    """A masked language model that proposes words, a folder or a hub id; without it words are drawn from the texts."""
    methods: tuple[str, ...] = ()
    """What is done to words, by turns: replace, delete, swap, duplicate. Empty for all, with a `model` for replace."""
    probability: float | None = None
    """Of a word to be changed; without it the method's own."""

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise UserError(f"--augment {self.copies}: at least one copy of an example; or leave it out")
        if wrong := [method for method in self.methods if method not in METHODS]:
            raise UserError(f"augment: unknown method {wrong[0]!r}: {nearest(wrong[0], METHODS)}")
        if self.model is not None and "replace" not in self.turns:
            raise UserError(
                f"--augment-model {self.model}: it proposes words for replace; add that method, or leave it out"
            )

    @property
    def turns(self) -> tuple[str, ...]:
        """The methods in force."""
        return self.methods or (tuple(METHODS) if self.model is None else ("replace",))

    def how(self, seed: int) -> Augmentation:
        """The same in the words of `augmentation`."""
        return Augmentation(self.turns, self.copies, self.probability, seed, originals=False)

    def record(self) -> dict[str, Any]:
        """The settings, as plain data; a model is told apart by its fingerprint, not by where it lies."""
        return {"copies": self.copies, "methods": list(self.turns), "probability": self.probability}


class OwnWords:
    """Proposes for every word all words of some texts, each as often as they use it: a draw from their unigrams."""

    def __init__(self, texts: Sequence[tuple[str, ...]]) -> None:
        self._words = [text[begin:end] for row in texts for text in row for begin, end in words_of(text)]

    def candidates(self, texts: Sequence[str]) -> list[Candidates]:
        """The same list for every word of every text."""
        return [[self._words] * len(words_of(text)) for text in texts]


def make_copies(
    texts: Sequence[tuple[str, ...]], how: Augmentation, proposer: Proposer, words: bool = False
) -> list[tuple[str, ...]]:
    """The copies of all examples, those of each together.

    `words`: the texts of an example are the words of a sentence. It is changed as a text, and white space sets the
    words of its copies apart.
    """
    rows = [(" ".join(row),) for row in texts] if words else list(texts)
    made: list[tuple[str, ...]] = []
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        proposed = iter(proposer.candidates([text for row in some for text in row]))
        for number, row in enumerate(some, start):
            made += how.examples(row, [next(proposed) for _ in row], number)
    return [tuple(text.split()) for (text,) in made] if words else made
