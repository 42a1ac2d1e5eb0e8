"""Masked language models: the words that were hidden in a text, from what stands around them."""

from typing import Any, ClassVar

from torch import Tensor

from layerstill.families import shape_of
from layerstill.heads.head import IGNORED
from layerstill.heads.language import Language, architectures

WITH_OTHERS = ("BertForPreTraining", "AlbertForPreTraining")
"""Architectures that have this head and one more."""


class MaskedLM(Language):
    """Asked for the hidden words; where none are hidden, all real places count for logits and none for labels."""

    word: ClassVar[str] = "masked_lm"
    architecture: ClassVar[str] = "ForMaskedLM"
    hides: ClassVar[bool] = True
    pipeline: ClassVar[str] = "fill-mask"

    def fits(self, config: Any) -> bool:
        ours = any(self.architecture in name or name in WITH_OTHERS for name in architectures(config))
        return ours and not shape_of(config).causal

    def asked(self, batch: dict[str, Any], hidden: Tensor | None) -> Tensor | None:
        return hidden

    def positions(self, batch: dict[str, Any]) -> Tensor:
        real: Tensor = batch["attention_mask"].bool()
        return real & (batch["labels"] != IGNORED) if "labels" in batch else real
