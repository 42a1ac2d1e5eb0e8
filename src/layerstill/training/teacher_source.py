"""Where a stage's teacher tensors come from: the teacher itself, a cache of it, or what teachers said before."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from layerstill.knowledge.capture import Captured, CapturePlan
from layerstill.knowledge.views import Mixing
from layerstill.training.clock import Stopwatch
from layerstill.training.counted_passes import CountedPasses, Flops
from layerstill.training.ready_logits import ReadyLogits
from layerstill.training.sides import Sides
from layerstill.training.teacher_cache import TeacherCache


class TeacherSource:
    """What a teacher says of a batch, from the place that has it.

    Args:
        model: the teacher, or None. Kept in evaluation mode and without gradients.
        ready: what teachers said of the training examples before, in place of the model's logits.
        tokens: the teacher's number of each of the student's tokens, if the student has fewer.
        flops: where the model's passes are counted.
    """

    def __init__(
        self, model: PreTrainedModel | None, ready: ReadyLogits | None, tokens: Sequence[int] | None, flops: Flops
    ) -> None:
        self.model = None if model is None else model.eval().requires_grad_(False)
        self.passes = None if model is None else CountedPasses(model, flops)
        self.cache: TeacherCache | None = None
        """What the model said of the training examples; it is not asked for these again."""
        self.tokens = torch.tensor(tokens) if tokens else None
        self.time = Stopwatch()
        self._ready = ready

    def read(
        self,
        plan: CapturePlan,
        sides: Sides,
        mixing: Mixing | None = None,
        content: list[int] | None = None,
        asked: Tensor | None = None,
    ) -> Captured:
        """What `plan` asks for, where the student has it; mixed inputs are always asked of the model.

        `content` are the hashes of the examples, which a cache and ready logits know them by; words are given at the
        places `asked`.
        """
        side = sides.teacher
        captured = Captured(side.mask)
        if not plan:
            return captured
        with self.time:
            if self.cache is not None and mixing is None:
                assert content is not None
                captured = self.cache.read(content, side.mask)
            elif self.model is not None:
                captured = self.ask(plan, side.inputs, side.mask, mixing, asked)
            if self._ready is not None and plan.logits and (self.model is not None or mixing is None):
                assert content is not None
                captured.logits = self._ready.read(content, side.mask).logits
        return sides.met_by(captured)

    @torch.no_grad()
    def ask(
        self,
        plan: CapturePlan,
        inputs: dict[str, Tensor],
        mask: Tensor,
        mixing: Mixing | None = None,
        asked: Tensor | None = None,
    ) -> Captured:
        """What `plan` asks for of the model, run on `inputs` under mask `(B, N)`; words at the places `asked`.

        Their tokens are the teacher's own, or the student's where these are some of them.
        """
        # no_grad and not inference_mode: tensors of the latter cannot be saved for the backward pass of a trained
        # teacher-side map.
        assert self.model is not None
        assert self.passes is not None
        if self.model.device != mask.device:
            self.model.to(mask.device)
        if self.tokens is not None:
            self.tokens = self.tokens.to(mask.device)
            inputs = {**inputs, "input_ids": self.tokens[inputs["input_ids"]]}
        captured = self.passes.run(plan, inputs, mask, mixing, asked)
        if self.tokens is not None and captured.words is not None:
            captured.words = captured.words.only(self.tokens)
        return captured
