"""Forward passes of a model that record what is asked for, and the floating-point operations they cost."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from layerstill.families import recorder_of, shape_of
from layerstill.knowledge.capture import Captured, CapturePlan
from layerstill.knowledge.views import Mixing
from layerstill.training.accounting import forward_flops


@dataclass
class Flops:
    """Floating-point operations so far, of several models."""

    total: float = 0.0


class CountedPasses:
    """A model's recorder, whose passes are counted in `flops`: three times over where a backward pass will follow."""

    def __init__(self, model: PreTrainedModel, flops: Flops) -> None:
        self.recorder = recorder_of(model)
        self._inner = shape_of(model.config).inner
        self._flops = flops

    def run(
        self,
        plan: CapturePlan,
        inputs: dict[str, Tensor],
        mask: Tensor,
        mixing: Mixing | None = None,
        asked: Tensor | None = None,
    ) -> Captured:
        """As `Recorder.run`, on mixed inputs if there is a `mixing`."""
        layers = self.recorder.layers[: plan.depth(len(self.recorder.layers))]
        passes = 3 if torch.is_grad_enabled() else 1  # a backward pass takes two forward passes' operations
        self._flops.total += passes * forward_flops(layers, self._inner, *mask.shape)
        if mixing is not None:
            return self.recorder.run(plan, inputs, mixing.mask(mask), mixing.embeddings)
        captured = self.recorder.run(plan, inputs, mask, None, asked)
        if captured.words is not None:
            self._flops.total += passes * 2 * captured.words.states.numel() * captured.words.vocabulary
        return captured
