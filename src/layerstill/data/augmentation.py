"""Augmentation: copies of texts with some words changed, as TinyBERT (arXiv 1909.10351) and EDA (1901.11196) make them.

A word is a run of letters, an apostrophe inside allowed; everything else stays where it is. Copies are pure functions
of the seed, the line that a text stands in and the number of the copy.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from layerstill.data.files import ORIGIN, Table
from layerstill.errors import UserError, nearest
from layerstill.randomness import generator

METHODS: dict[str, float] = {"replace": 0.4, "delete": 0.1, "swap": 0.1, "duplicate": 0.1}
"""What is done to words, and with which probability if none is given: TinyBERT's p_t, EDA's alpha."""
_WORD = re.compile(r"(?<!\w)[^\W\d_]+(?:['’][^\W\d_]+)*(?!\w)")
CHUNK = 64
"""Rows that are read, asked about and written at a time."""

Candidates = list[list[str]]
"""For each word of a text the words that may take its place."""


class Proposer(Protocol):
    """What proposes words, such as `Replacement`."""

    def candidates(self, texts: Sequence[str]) -> list[Candidates]:
        """Candidates for every word of every text."""


def words_of(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end."""
    return [match.span() for match in _WORD.finditer(text)]


def replace_words(text: str, candidates: Candidates, probability: float, rng: random.Random) -> str:
    """Each word with `probability` replaced by one of its candidates (TinyBERT, algorithm 1)."""
    words = []
    for (start, end), choices in zip(words_of(text), candidates, strict=True):
        keeps = rng.random() >= probability or not choices
        words.append(text[start:end] if keeps else rng.choice(choices))
    return _with_words(text, words)


def delete_words(text: str, probability: float, rng: random.Random) -> str:
    """Each word deleted with `probability`, and one space with it; one word stays in any case."""
    spans = words_of(text)
    gone = [rng.random() < probability for _ in spans]
    if spans and all(gone):
        gone[rng.randrange(len(spans))] = False
    for (start, end), deleted in reversed(list(zip(spans, gone, strict=True))):
        if deleted:
            before, after = text[:start], text[end:]
            if before[-1:].isspace():
                before = before[:-1]
            elif after[:1].isspace():
                after = after[1:]
            text = before + after
    return text


def swap_words(text: str, probability: float, rng: random.Random) -> str:
    """Two words trade places, as many times as `probability` times the number of words, at least once."""
    words = [text[start:end] for start, end in words_of(text)]
    for _ in range(max(1, round(probability * len(words))) if len(words) > 1 else 0):
        a, b = rng.sample(range(len(words)), 2)
        words[a], words[b] = words[b], words[a]
    return _with_words(text, words)


def duplicate_words(text: str, probability: float, rng: random.Random) -> str:
    """Each word written twice with `probability`."""
    words = [text[start:end] for start, end in words_of(text)]
    return _with_words(text, [f"{word} {word}" if rng.random() < probability else word for word in words])


def _with_words(text: str, words: Sequence[str]) -> str:
    """The text with its words exchanged for others, one for one."""
    parts, at = [], 0
    for (start, end), word in zip(words_of(text), words, strict=True):
        parts += [text[at:start], word]
        at = end
    return "".join([*parts, text[at:]])


@dataclass(frozen=True)
class Augmentation:
    """How copies are made: which methods take turns, how many copies of an example, how many words are changed."""

    methods: tuple[str, ...] = ("replace",)
    copies: int = 20
    """Copies of an example (TinyBERT's N_a); those equal to the example or an earlier copy are left out."""
    probability: float | None = None
    """Of a word to be changed; without it the method's own."""
    seed: int = 0
    originals: bool = True
    """Whether the examples themselves come before their copies."""

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                raise UserError(f"--method {method}: unknown method: {nearest(method, METHODS)}")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise UserError(f"--method: name each method once, at least one of {', '.join(METHODS)}")
        if self.copies < 1:
            raise UserError(f"--copies {self.copies}: at least 1")
        if self.probability is not None and not 0 < self.probability <= 1:
            raise UserError(f"--probability {self.probability}: more than 0 and at most 1")

    def copy(self, texts: Sequence[str], candidates: Sequence[Candidates], line: int, number: int) -> tuple[str, ...]:
        """Copy `number` of the example in `line`: every text changed by the method whose turn it is."""
        method = self.methods[number % len(self.methods)]
        probability = METHODS[method] if self.probability is None else self.probability
        rng = generator(self.seed, "augment", line, number)
        if method == "replace":
            both = zip(texts, candidates, strict=True)
            return tuple(replace_words(text, choices, probability, rng) for text, choices in both)
        change = {"delete": delete_words, "swap": swap_words, "duplicate": duplicate_words}[method]
        return tuple(change(text, probability, rng) for text in texts)

    def examples(self, texts: tuple[str, ...], candidates: Sequence[Candidates], line: int) -> list[tuple[str, ...]]:
        """The example, if originals are wanted, and its different copies."""
        copies = (self.copy(texts, candidates, line, number) for number in range(self.copies))
        found = dict.fromkeys([texts, *copies])
        return [example for example in found if self.originals or example != texts]


def augmented_rows(
    table: Table, columns: Sequence[str], augmentation: Augmentation, proposer: Proposer | None
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """How many rows of `table` were read, and the rows they became, a few at a time.

    Every row keeps its other columns, its label among them, and gets `origin`: the line that it was made from.
    `proposer` is needed for the method `replace`.
    """
    if ORIGIN in table.columns:
        raise UserError(
            f"{table.path}: it has a column {ORIGIN!r}, so it is augmented already; "
            "if the column means something else, rename it"
        )
    if "replace" in augmentation.methods and proposer is None:
        raise UserError("--method replace needs --model, a masked language model; or --method delete, swap, duplicate")
    for start in range(0, len(table.lines), CHUNK):
        here = range(start, min(start + CHUNK, len(table.lines)))
        texts = [tuple(table.columns[c][i] for c in columns) for i in here]
        flat = [text for example in texts for text in example]
        proposed = iter(proposer.candidates(flat) if proposer else [[] for _ in flat])
        rows = []
        for i, example in zip(here, texts, strict=True):
            row = {name: values[i] for name, values in table.columns.items()} | {ORIGIN: table.lines[i]}
            candidates = [next(proposed) for _ in example]
            for copy in augmentation.examples(example, candidates, table.lines[i]):
                rows.append(row | dict(zip(columns, copy, strict=True)))
        yield len(here), rows
