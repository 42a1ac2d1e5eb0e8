"""Micro-batches, and each process's share of them, so that many processes learn what one would."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Sampler


class Order(Protocol):
    """The rows of an epoch, in the order in which they are trained on."""

    @property
    def lengths(self) -> Sequence[int]:
        """Of every row, in tokens."""
        ...

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


def share(rows: int, processes: int, process: int) -> list[int]:
    """The rows of a micro-batch that a process takes: row i and its mirror image B-1-i stay together.

    Mixup's partners are mirror images. In a share they are again, so every process mixes the pairs that one process
    would mix.
    """
    pairs = (rows + 1) // 2
    left = range(pairs * process // processes, pairs * (process + 1) // processes)
    return [*left, *(rows - 1 - i for i in reversed(left) if rows - 1 - i != i)]


class MicroBatches(Sampler[list[int]]):
    """Indices of this process's share of every micro-batch of an epoch, in the order of `order`.

    With several processes the longest row of the whole micro-batch rides along as the last index, so that all pad
    alike. A process without a row of its own gets only that one.
    """

    def __init__(self, order: Order, rows: int, processes: int, process: int) -> None:
        self.order = order
        self.rows = rows
        self.processes = processes
        self.process = process

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.order.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self.order) // self.rows)

    def __iter__(self) -> Iterator[list[int]]:
        order = iter(self.order)
        while whole := list(islice(order, self.rows)):
            if self.processes == 1:
                yield whole
            else:
                longest = max(whole, key=lambda i: self.order.lengths[i])
                yield [*(whole[i] for i in share(len(whole), self.processes, self.process)), longest]


class ShareCollator:
    """Collates a share and takes off the row that rode along; `idle` says that there was no other."""

    def __init__(self, collate: Callable[[list], Any]) -> None:
        self.collate = collate

    def __call__(self, rows: list) -> dict[str, Any]:
        batch = self.collate(rows)
        idle = len(rows) == 1
        return {name: values if idle else values[:-1] for name, values in batch.items()} | {"idle": idle}


class MicroBatchLoader(DataLoader):
    """A data loader over `MicroBatches` that takes nothing from the global random generators."""

    def __init__(self, dataset: Any, batches: MicroBatches, collate: Callable[[list], Any], **settings: Any) -> None:
        if batches.processes > 1:
            collate = ShareCollator(collate)
        super().__init__(
            dataset, batch_sampler=batches, collate_fn=collate, generator=torch.Generator().manual_seed(0), **settings
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        assert isinstance(self.batch_sampler, MicroBatches)
        self.batch_sampler.set_epoch(epoch)


def lengths_of(dataset: Any) -> Sequence[int]:
    """Length of every row in tokens."""
    return dataset["length"] if "length" in dataset.column_names else [len(row) for row in dataset["input_ids"]]
