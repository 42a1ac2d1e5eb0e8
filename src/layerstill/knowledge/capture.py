"""Capture: read planned hidden states and planned q, k, v from a model that keeps its fast attention kernel.

One attention function is registered with transformers. It records q, k, v, scaling, mask and causality of planned
layers and calls the stock scaled-dot-product kernel. Hidden states come from hooks on planned layers only. Nothing
stays on the model between two forward passes except the name of the attention function, which is never saved.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from layerstill.errors import ObjectiveError, UserError
from layerstill.knowledge.mappings import layer_name

ATTENTION_NAME = "layerstill"
_SLOT = "_layerstill_slot"


@dataclass(frozen=True)
class CapturePlan:
    """What one model must give away in one forward pass. Layers are numbered as in `mappings`."""

    hidden: frozenset[int] = frozenset()
    attention: frozenset[int] = frozenset()
    logits: bool = False

    def __or__(self, other: "CapturePlan") -> "CapturePlan":
        return CapturePlan(self.hidden | other.hidden, self.attention | other.attention, self.logits or other.logits)

    def __bool__(self) -> bool:
        return bool(self.hidden or self.attention or self.logits)

    def depth(self, layers: int) -> int:
        """How many of `layers` layers must run: all for logits, else up to the deepest planned one."""
        return layers if self.logits else max(self.hidden | self.attention, default=0)

    def __str__(self) -> str:
        parts = [f"hidden states of {_names(self.hidden)}"] if self.hidden else []
        parts += [f"q, k, v of {_names(self.attention)}"] if self.attention else []
        return ", ".join(parts + ["logits"] * self.logits) or "nothing"


def _names(layers: frozenset[int]) -> str:
    return ", ".join(layer_name(k) for k in sorted(layers))


@dataclass(frozen=True)
class AttentionRecord:
    """What entered the attention kernel of one layer: q `(B, H, N, d_h)`, k and v `(B, H_kv, N, d_h)`."""

    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float
    mask: Tensor | None
    """`(B, 1, N, N)` boolean, true where the model lets a query see a key; None means everywhere."""
    causal: bool

    def attended(self) -> Tensor | None:
        """`(B or 1, 1, N, N)` boolean: the pairs that this layer's attention looks at; None means all."""
        if self.mask is not None:
            return self.mask
        if not self.causal:
            return None
        n = self.query.shape[-2]
        return torch.ones(n, n, dtype=torch.bool, device=self.query.device).tril()[None, None]


@dataclass
class Captured:
    """What one forward pass gave away, and the token mask `(B, N)` (true = real token) it ran under."""

    mask: Tensor
    hidden: dict[int, Tensor] = field(default_factory=dict)
    attention: dict[int, AttentionRecord] = field(default_factory=dict)
    logits: Tensor | None = None


def _recording_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    slot: list[AttentionRecord] | None = module.__dict__.get(_SLOT)
    if slot is not None:
        # A missing mask means "causal" in decoders and "everything" in encoders; only the module knows which.
        causal = bool(module.is_causal if is_causal is None else is_causal)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        slot.append(AttentionRecord(query, key, value, scale, attention_mask, causal))
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
    )


# Without the mask function the model would build no mask and padding would be attended, without any error.
AttentionInterface.register(ATTENTION_NAME, _recording_attention)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


class _DeepEnough(Exception):  # noqa: N818 (a signal, not an error)
    """Raised inside a forward pass to leave the layers nobody asked for uncomputed."""


class Recorder:
    """Runs a model and returns what a plan asks for. `layers` are the model's layers, first to last.

    Holds references to the inner modules, so it keeps working when the model is wrapped (DDP, FSDP).
    """

    def __init__(self, model: PreTrainedModel, layers: Sequence[nn.Module]) -> None:
        self.model = model
        self.layers = list(layers)

    def prepare(self, plan: CapturePlan) -> None:
        """Switch the model to the recording attention function if the plan needs q, k or v, and check the switch."""
        if plan.attention and self.model.config._attn_implementation != ATTENTION_NAME:
            self.model.set_attn_implementation(ATTENTION_NAME)
            if self.model.config._attn_implementation != ATTENTION_NAME:
                raise UserError(
                    f"model family {self.model.config.model_type!r} bypasses the attention interface of transformers, "
                    "so its q, k, v cannot be recorded; use hidden states or logits"
                )

    def run(
        self,
        plan: CapturePlan,
        inputs: dict[str, Tensor],
        mask: Tensor,
        edit_embeddings: Callable[[Tensor], Tensor] | None = None,
    ) -> Captured:
        """One forward pass on `inputs` under token mask `mask` `(B, N)`.

        `edit_embeddings` replaces the output of the embedding layer `(B, N, d)`. Stops after the deepest planned
        layer when the plan has no logits.
        """
        self.prepare(plan)
        captured = Captured(mask=mask)
        slots: dict[int, list[AttentionRecord]] = {k: [] for k in plan.attention}
        with ExitStack() as undo:
            self._watch_hidden(plan, captured, edit_embeddings, undo)
            for k in plan.attention:
                for module in self.layers[k - 1].modules():
                    module.__dict__[_SLOT] = slots[k]
                    undo.callback(module.__dict__.pop, _SLOT, None)
            try:
                logits = self.model(**inputs, attention_mask=mask.long()).logits
                captured.logits = logits if plan.logits else None
            except _DeepEnough:
                pass
        for k, records in slots.items():
            if len(records) != 1:
                raise ObjectiveError(
                    f"layer {k} of {type(self.model).__name__} recorded attention {len(records)} times instead of "
                    "once; its q, k, v cannot be used"
                )
            captured.attention[k] = records[0]
        if missing := plan.hidden - captured.hidden.keys():
            raise ObjectiveError(f"{type(self.model).__name__} gave no hidden state for {_names(missing)}")
        return captured

    def _watch_hidden(
        self,
        plan: CapturePlan,
        captured: Captured,
        edit_embeddings: Callable[[Tensor], Tensor] | None,
        undo: ExitStack,
    ) -> None:
        def first_input(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            x = args[0] if args else kwargs["hidden_states"]
            if edit_embeddings is not None:
                x = edit_embeddings(x)
            if 0 in plan.hidden:
                captured.hidden[0] = x
            if plan.depth(len(self.layers)) == 0:
                raise _DeepEnough
            return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})

        def output_of(k: int) -> Callable:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                if k in plan.hidden:
                    captured.hidden[k] = output[0] if isinstance(output, tuple) else output
                if k == plan.depth(len(self.layers)) and not plan.logits:
                    raise _DeepEnough

            return hook

        undo.callback(self.layers[0].register_forward_pre_hook(first_input, with_kwargs=True).remove)
        for k in (plan.hidden | {plan.depth(len(self.layers))}) - {0}:
            undo.callback(self.layers[k - 1].register_forward_hook(output_of(k)).remove)
