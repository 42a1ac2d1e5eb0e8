"""How fast models are, one text at a time and in batches; they take turns, so a noisy machine is noisy for all."""

import copy
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from layerstill.data.encode import spaced
from layerstill.errors import UserError
from layerstill.heads import head_of

Runner: TypeAlias = Callable[[list[tuple[str, ...]]], object]
"""Tokenises and runs one batch of texts, each given as the splits of a task have it."""

SAMPLE = 100
"""Texts that are timed one at a time."""
BATCHES = 4
"""Batches that are timed."""
FEWEST = 20
"""Texts that are timed at least, whatever the budget."""


@dataclass(frozen=True)
class Speed:
    """How fast a model is on the CPU, tokenisation included, and how large. 1 MB is 10^6 bytes."""

    p50_ms: float
    """Milliseconds for one text, the median."""
    p99_ms: float
    """Milliseconds that 99 of 100 single texts need at most."""
    texts_per_second: float
    """In batches of `batch_size`."""
    batch_size: int
    threads: int
    disk_mb: float | None = None
    """Of the files with weights; None where it is not known."""
    memory_mb: float | None = None
    """What a fresh process takes more after it has loaded the model and run a text; None where it is not known."""

    def to_data(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def torch_runner(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Runner:
    """What runs batches of texts through a model where it is, cut at `max_length` tokens, and gives logits on the CPU.

    Texts are words where the model tags words.
    """
    head = head_of(model.config)
    tags_words = head is not None and head.per_token
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = "right"  # as in training
    model.eval()

    @torch.inference_mode()
    def run(texts: list[tuple[str, ...]]) -> object:
        columns = [[spaced(words) for words in texts]] if tags_words else [list(c) for c in zip(*texts, strict=True)]
        inputs = tokenizer(
            *columns,
            is_split_into_words=tags_words,
            padding=len(texts) > 1,
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        )
        return model(**inputs.to(model.device)).logits.cpu()

    return run


def measure_speed(
    runners: dict[str, Runner],
    texts: Sequence[tuple[str, ...]],
    *,
    threads: int = 1,
    rounds: int = 3,
    batch_size: int = 32,
    budget_seconds: float = 60.0,
) -> dict[str, Speed]:
    """Time every runner on the same texts.

    One text at a time on 100 texts, evenly spaced in the order of their lengths, and in random batches, which are drawn
    with replacement where there are fewer texts than a batch has. The runners take turns on each text and batch, and
    the order of turns rotates. The first text and the first batch, run once before, are not counted.

    Args:
        runners: by name. Torch computes with `threads` meanwhile; a runner of another library must be made for them.
        texts: as the splits of a task have them.
        rounds: how often every text is timed.
        budget_seconds: when it is spent, nothing new is begun. At least 20 texts and one batch are timed.

    UserError without texts.
    """
    if not texts:
        raise UserError("latency: there is no text to time; give a split with texts")
    clock = _Clock(runners, time.perf_counter() + budget_seconds * 2 / 3)
    with torch_threads(threads):
        singles = clock.time([[text] for text in even_sample(texts, SAMPLE)], rounds, FEWEST)
        clock.deadline += budget_seconds / 3
        batches = clock.time(_random_batches(texts, batch_size), rounds, 1)
    return {
        name: Speed(
            p50_ms=_rounded(1000 * np.median(_all(singles[name]))),
            p99_ms=_rounded(1000 * np.quantile(_all(singles[name]), 0.99)),
            # Of every batch the median over rounds, so that one slow moment does not count for all.
            texts_per_second=_rounded(batch_size / np.mean([np.median(times) for times in batches[name].values()])),
            batch_size=batch_size,
            threads=threads,
        )
        for name in runners
    }


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Have torch compute with so many threads while the context lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def even_sample(texts: Sequence[tuple[str, ...]], most: int) -> list[tuple[str, ...]]:
    """At most so many texts, evenly spaced in the order of their lengths, the shortest and the longest among them.

    They come in a random but fixed order: wherever one stops, long and short ones were there.
    """
    ordered = sorted(texts, key=lambda text: sum(map(len, text)))
    places = np.linspace(0, len(ordered) - 1, min(most, len(ordered))).round().astype(int)
    chosen = [ordered[place] for place in places]
    random.Random(0).shuffle(chosen)
    return chosen


def _random_batches(texts: Sequence[tuple[str, ...]], size: int) -> list[list[tuple[str, ...]]]:
    draw = random.Random(0)
    some = list(texts)
    if len(some) < size:
        return [draw.choices(some, k=size) for _ in range(BATCHES)]
    return [draw.sample(some, size) for _ in range(BATCHES)]


@dataclass
class _Clock:
    """Times the turns of runners until the deadline, in seconds of `time.perf_counter`."""

    runners: dict[str, Runner]
    deadline: float

    def time(
        self, batches: list[list[tuple[str, ...]]], rounds: int, at_least: int
    ) -> dict[str, dict[int, list[float]]]:
        """Seconds by runner and number of batch, one a round."""
        names = list(self.runners)
        found: dict[str, dict[int, list[float]]] = {name: {} for name in names}
        for name in names:
            self.runners[name](batches[0])
        for turn in range(rounds * len(batches)):
            if turn >= at_least and time.perf_counter() > self.deadline:
                break
            batch = turn % len(batches)
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                begun = time.perf_counter()
                self.runners[name](batches[batch])
                found[name].setdefault(batch, []).append(time.perf_counter() - begun)
        return found


def _all(times: dict[int, list[float]]) -> list[float]:
    return [value for values in times.values() for value in values]


def _rounded(value: Any) -> float:
    return round(float(value), 3)
