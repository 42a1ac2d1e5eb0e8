"""The trainer on running text: blocks in place of examples, objectives on held-out blocks in place of scores."""

from typing import Any

import torch

from layerstill.data.text.blocks import Blocks, ShuffledBlocks
from layerstill.training.trainer import DistillationTrainer

GLANCE = 256
"""Held-out blocks that are looked at on the way; in the end all are."""


class TextTrainer(DistillationTrainer):
    """A `DistillationTrainer` whose data sets are `Blocks`."""

    def order(self, step: int) -> Any:
        """Blocks shuffled shard by shard."""
        assert isinstance(self.train_dataset, Blocks)
        return ShuffledBlocks(self.train_dataset.lengths, step, self.args.seed)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Log the objectives on some held-out blocks, and leave the random state as it was."""
        self.log(self.on_held_out(GLANCE))
        return {}

    def on_held_out(self, most: int | None = None) -> dict[str, float]:
        """`dev objective/NAME` on the first `most` held-out blocks, or all of them."""
        dev: Any = self.eval_dataset
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            return self.objective_values("dev", dev, range(min(len(dev), most or len(dev))))
