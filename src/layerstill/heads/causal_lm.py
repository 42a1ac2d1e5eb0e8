"""Causal language models: the next word of a text, from what stands before it."""

from typing import Any, ClassVar

from torch import Tensor

from layerstill.families import shape_of
from layerstill.heads.head import IGNORED
from layerstill.heads.language import Language, architectures


class CausalLM(Language):
    """Every real place is asked for the word after it. The last has a distribution to compare, and no label."""

    word: ClassVar[str] = "causal_lm"
    architecture: ClassVar[str] = "ForCausalLM"
    pipeline: ClassVar[str] = "text-generation"

    def fits(self, config: Any) -> bool:
        endings = (self.architecture, "LMHeadModel")
        ours = any(ending in name for name in architectures(config) for ending in endings)
        return ours and shape_of(config).causal

    def asked(self, batch: dict[str, Any], hidden: Tensor | None) -> Tensor | None:
        tokens: Tensor = batch["input_ids"]
        labels = tokens.new_full(tokens.shape, IGNORED)
        # The shift: place i says token i+1, if that is a real one.
        labels[:, :-1] = tokens[:, 1:].masked_fill(~batch["attention_mask"][:, 1:].bool(), IGNORED)
        return labels

    def positions(self, batch: dict[str, Any]) -> Tensor:
        return batch["attention_mask"].bool()
