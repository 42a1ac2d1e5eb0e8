"""Blocks of running text as batches."""

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from layerstill.data.encode import Collator
from layerstill.data.text.hiding import Hiding
from layerstill.heads import Head
from layerstill.knowledge.views import Masked


class TextCollator:
    """Pads rows of `Blocks`, hides words if a view says so, and adds the `labels` that a language model has.

    Args:
        tokenizer: of both models.
        head: what the models are asked for.
        view: how words are hidden, if they are.
        seed: of what is hidden.

    UserError for a view and a tokenizer that cannot hide words.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, head: Head, view: Masked | None, seed: int) -> None:
        self._pad = Collator(tokenizer)
        self._head = head
        self._hiding = None if view is None else Hiding(view, tokenizer, seed)

    @classmethod
    def asking(cls, tokenizer: PreTrainedTokenizerBase, head: Head) -> "TextCollator":
        """What asks for the same words in every run, so that perplexities can be compared."""
        return cls(tokenizer, head, Masked() if head.speaks and head.hides else None, 0)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self._pad(rows)
        hidden = None
        if self._hiding is not None:
            which = torch.tensor(batch["id"]), batch["epoch"]
            batch["input_ids"], hidden = self._hiding(batch["input_ids"], batch["attention_mask"], *which)
        labels = self._head.asked(batch, hidden)
        return batch if labels is None else batch | {"labels": labels}
