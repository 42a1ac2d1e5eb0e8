"""Blocks: the tokens of a corpus in memory-mapped files, so that memory does not grow with them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from layerstill.randomness import named_seed

TOKENS_FILE, LENGTHS_FILE = "tokens.bin", "lengths.bin"
SPAN = 16
"""Neighbouring blocks that are held out together."""
SHARD = 1 << 16
"""Blocks that are shuffled at a time."""
COUNTED = 1 << 24
"""Tokens that are counted at a time."""


class Blocks(Dataset):
    """Stretches of text as rows `id`, `epoch`, `input_ids`, `length`; none has tokens of two documents.

    Args:
        folder: where packing has written them.
        count, tokens: how many there are.
        width: bytes of a token's number.
        before, after: special tokens that surround every block.
        rows: which of them, by number; all without it.
    """

    column_names = ("id", "epoch", "input_ids", "length")

    def __init__(
        self,
        folder: Path,
        count: int,
        tokens: int,
        width: int,
        before: list[int],
        after: list[int],
        rows: np.ndarray | None = None,
    ) -> None:
        self.before, self.after = before, after
        self.epoch = 0
        """What rows say of the pass in which they are read."""
        self._tokens = np.memmap(folder / TOKENS_FILE, np.dtype(f"<u{width}"), "r", shape=(tokens,))
        bare = np.fromfile(folder / LENGTHS_FILE, np.uint16, count)
        self._ends = np.cumsum(bare, dtype=np.int64)
        self._rows = np.arange(count) if rows is None else rows
        self.lengths = bare[self._rows].astype(np.int32) + len(before) + len(after)
        """Of every row, in tokens."""
        self._source = folder, count, tokens, width, before, after

    def part(self, rows: np.ndarray) -> "Blocks":
        """Some of the rows."""
        return Blocks(*self._source, self._rows[rows])

    @property
    def tokens(self) -> int:
        """Of all rows together."""
        return int(self.lengths.sum(dtype=np.int64))

    def counts(self) -> dict[int, int]:
        """How often each token is in the whole corpus, without the special ones around blocks."""
        found = np.zeros(0, np.int64)
        for begin in range(0, len(self._tokens), COUNTED):
            part = np.bincount(self._tokens[begin : begin + COUNTED], minlength=len(found))
            part[: len(found)] += found
            found = part
        return {int(token): int(found[token]) for token in np.flatnonzero(found)}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, which: Any) -> Any:
        if which == "length":
            return self.lengths
        number = int(self._rows[which])
        end = int(self._ends[number])
        begin = int(self._ends[number - 1]) if number else 0
        ids = [*self.before, *self._tokens[begin:end].tolist(), *self.after]
        return {"id": number, "epoch": self.epoch, "input_ids": ids, "length": len(ids)}


def held_out_count(count: int) -> int:
    """How many of so many blocks are kept for evaluation."""
    return min(max(count // 100, 64), 1024, max(count // 10, 1))


def held_out(count: int) -> np.ndarray:
    """`(count,)` boolean: which blocks are kept for evaluation, a hundredth but 64 to 1,024, in evenly spread spans.

    Of a small corpus a tenth at most, and one at least. Neighbours are held out together, so that few of them are
    seen in training.
    """
    wanted = held_out_count(count)
    chosen = np.zeros(count, bool)
    spans = -(-wanted // SPAN)
    for i in range(spans):
        begin = (2 * i + 1) * count // (2 * spans)
        chosen[begin : begin + min(SPAN, wanted - i * SPAN)] = True
    return chosen


class ShuffledBlocks(Sampler[int]):
    """The order of an epoch over blocks: shuffled, with neighbours of similar length, so that little is padded.

    A shard is every k-th block, so each is a sample of the whole corpus; only one of them is shuffled at a time. The
    order is a pure function of seed and epoch, so a resumed run sees the blocks that the interrupted one would have.

    `lengths` are those of the blocks; `blocks`, if given, are told of every epoch.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        seed: int,
        buckets: int = 16,
        shard: int = SHARD,
        blocks: Blocks | None = None,
    ) -> None:
        self.lengths = lengths
        self.blocks = blocks
        self.batch_size = batch_size
        self.seed = seed
        self.stretch = batch_size * buckets
        self.shards = -(-len(lengths) // shard)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch
        if self.blocks is not None:
            self.blocks.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(named_seed(self.seed, "blocks", self.epoch))
        left = np.empty(0, np.int64)
        for shard in rng.permutation(self.shards):
            left = np.concatenate([left, rng.permutation(np.arange(shard, len(self.lengths), self.shards))])
            whole = len(left) // self.stretch * self.stretch
            yield from self._by_length(left[:whole], rng)
            left = left[whole:]
        yield from self._by_length(left, rng)

    def _by_length(self, rows: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
        """Whole batches in random order, each of similar lengths, and what is left over in the end."""
        for begin in range(0, len(rows), self.stretch):
            part = rows[begin : begin + self.stretch]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            whole = len(part) // self.batch_size
            for batch in rng.permutation(whole):
                yield from part[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()
            yield from part[whole * self.batch_size :].tolist()
