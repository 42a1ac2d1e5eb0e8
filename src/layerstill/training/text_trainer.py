"""The trainer on running text: blocks in place of examples, objectives on held-out blocks in place of scores."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from layerstill.data.text.blocks import Blocks, ShuffledBlocks
from layerstill.training.module import DistillationModule
from layerstill.training.perplexity import add_up_words, perplexity
from layerstill.training.trainer import DistillationTrainer

GLANCE = 256
"""Held-out blocks that are looked at on the way; in the end all are."""


class TextTrainer(DistillationTrainer):
    """A `DistillationTrainer` whose data sets are `Blocks`.

    `asking` makes the batches of which perplexity is measured, where the models are language models.
    """

    def __init__(
        self, module: DistillationModule, *args: Any, asking: Callable[[list], dict[str, Any]], **kwargs: Any
    ) -> None:
        super().__init__(module, *args, **kwargs)
        self.asking = asking

    def order(self, step: int) -> Any:
        """Blocks shuffled shard by shard."""
        assert isinstance(self.train_dataset, Blocks)
        return ShuffledBlocks(self.train_dataset.lengths, step, self.args.seed, blocks=self.train_dataset)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Log the objectives and the perplexity on some held-out blocks, and leave the random state as it was."""
        found = self.perplexity_of(self.module.student, GLANCE)
        self.log(self.on_held_out(GLANCE) | {f"dev_{name}": value for name, value in found.items()})
        return {}

    def on_held_out(self, most: int | None = None) -> dict[str, float]:
        """`dev objective/NAME` on the first `most` held-out blocks, or all of them."""
        dev: Any = self.eval_dataset
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            return self.objective_values("dev", dev, range(min(len(dev), most or len(dev))))

    def perplexity_of(self, model: PreTrainedModel, most: int | None = None) -> dict[str, float]:
        """The `perplexity` of a language model on as many; empty for another model, and where no word is asked for.

        With several processes all of them must ask.
        """
        if not self.module.head.speaks:
            return {}
        dev: Any = self.eval_dataset
        batches = self.shared_batches(dev, range(min(len(dev), most or len(dev))), self.asking)
        with self.compute_loss_context_manager():
            tokens = self.module.source.tokens if model is self.module.teacher else None
            sums = add_up_words(model.to(self.args.device), self.module.head, batches, self.args.device, tokens)
        loss, words = self.accelerator.reduce(sums, reduction="sum").tolist()
        return {"perplexity": perplexity(loss / words)} if words else {}
