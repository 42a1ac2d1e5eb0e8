"""The order of training examples: shuffled, with neighbours of similar length so that batches need little padding."""

from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from layerstill.randomness import generator


class LengthBuckets(Sampler[int]):
    """Shuffle, sort stretches of `buckets` batches by length, shuffle the batches: new every epoch.

    The order is a pure function of seed and epoch, so a resumed run sees the examples that the killed one would have.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, buckets: int = 16) -> None:
        self.lengths = list(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.buckets = buckets
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = generator(self.seed, "order", self.epoch)
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        stretch = self.batch_size * self.buckets
        batches = []
        for start in range(0, len(order), stretch):
            part = sorted(order[start : start + stretch], key=lambda i: self.lengths[i])
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        # An incomplete batch must stay the last one, or every batch after it would be cut across two.
        short = [b for b in batches if len(b) < self.batch_size]
        whole = [b for b in batches if len(b) == self.batch_size]
        rng.shuffle(whole)
        yield from (i for batch in whole + short for i in batch)
