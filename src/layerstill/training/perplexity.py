"""How well a language model says held-out text: the mean loss of a word, and perplexity."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from layerstill.families import recorder_of
from layerstill.heads import Head
from layerstill.knowledge.capture import CapturePlan
from layerstill.knowledge.word_logits import Rows, add_up

HIGHEST = 700.0
"""A loss beyond this has no exponential in a float."""


@torch.no_grad()
def add_up_words(
    model: PreTrainedModel,
    head: Head,
    batches: Iterable[dict[str, Any]],
    device: torch.device | str,
    tokens: Tensor | None = None,
) -> Tensor:
    """`(2,)` float64: the losses, in nats, of all words that the batches ask for, added up, and their number.

    `tokens` `(W,)` are the model's numbers of the tokens in the batches, if these are some of its own; it then says no
    other words.
    """

    def compare(rows: Rows) -> tuple[Tensor, Tensor]:
        assert rows.labels is not None
        return head.errors(rows.student, rows.labels).double().sum(), head.labelled(rows.labels).sum()

    recorder, plan = recorder_of(model), CapturePlan(logits=True)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    training = model.training
    model.eval()
    try:
        for batch in batches:
            mask = batch["attention_mask"].bool()
            asked = head.positions(batch) & mask
            inputs = recorder.inputs(batch)
            if tokens is not None:
                inputs["input_ids"] = tokens[inputs["input_ids"]]
            captured = recorder.run(plan, inputs, mask, positions=asked)
            assert captured.words is not None
            words = captured.words if tokens is None else captured.words.only(tokens)
            (pair,) = add_up([compare], words, None, batch["labels"])
            sums += torch.stack([part.double() for part in pair])
    finally:
        model.train(training)
    return sums


def perplexity(loss: float) -> float:
    """The exponential of a word's mean loss in nats."""
    return math.exp(min(loss, HIGHEST))
