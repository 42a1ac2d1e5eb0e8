"""Capture: read planned hidden states and planned q, k, v from a model that keeps its fast attention kernel.

One attention function is registered with transformers. It records q, k, v, scaling, mask and causality of planned
layers and calls the stock scaled-dot-product kernel. Families that bypass it are read by hooks on their projections.
Hidden states come from hooks on planned layers only. Nothing stays on the model between two forward passes except the
name of the attention function, which is never saved.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from layerstill.errors import ObjectiveError, UserError
from layerstill.knowledge.mappings import layer_name
from layerstill.knowledge.projections import Projections
from layerstill.knowledge.word_logits import WordLogits

ATTENTION_NAME = "layerstill"
MapName = tuple[int, Hashable]
"""A layer, and what its signal calls the map."""
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


VECTORS = ("query", "key", "value")


@dataclass(frozen=True)
class Kept:
    """What a teacher cache holds of each example: whole hidden states and logits of a capture plan, of its attention
    only the vectors `(layer, name)` that are read, and pooled hidden states `(layer, pool)`."""

    plan: CapturePlan = CapturePlan()
    pooled: frozenset[tuple[int, str]] = frozenset()
    vectors: frozenset[tuple[int, str]] = frozenset()

    @classmethod
    def of(cls, plan: CapturePlan) -> "Kept":
        """Everything that the plan captures."""
        return cls(plan, vectors=frozenset((layer, name) for layer in plan.attention for name in VECTORS))

    def __or__(self, other: "Kept") -> "Kept":
        return Kept(self.plan | other.plan, self.pooled | other.pooled, self.vectors | other.vectors)


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
    bias: Tensor | None = None
    """`(B or 1, H, N, N)` what the model adds to the scaled products before mask and softmax; None means nothing."""
    relation_heads: int | None = None
    """Into how many relation heads the vectors were cut; None: they are the model's own heads."""

    def attended(self) -> Tensor | None:
        """`(B or 1, 1, N, N)` boolean: the pairs that this layer's attention looks at; None means all."""
        if self.mask is not None:
            return self.mask
        if not self.causal:
            return None
        n = self.query.shape[-2]
        return torch.ones(n, n, dtype=torch.bool, device=self.query.device).tril()[None, None]

    @property
    def separable(self) -> bool:
        """Whether every head has a key and a value of its own."""
        return self.query.shape[1] == self.key.shape[1] == self.value.shape[1]

    def part(self, rows: slice, heads: slice, relation_heads: int | None = None) -> "AttentionRecord":
        """The record of some examples of the batch, and of some heads (all of them unless it is `separable`); given
        a number of relation heads, it is cut anew into them first."""
        mask, bias = (t if t is None or len(t) == 1 else t[rows] for t in (self.mask, self.bias))
        vectors = self.query[rows], self.key[rows], self.value[rows]
        part = replace(self, query=vectors[0], key=vectors[1], value=vectors[2], mask=mask, bias=bias)
        if relation_heads is not None:
            part = part.recut(relation_heads)
        bias = part.bias if part.bias is None or part.bias.shape[1] == 1 else part.bias[:, heads]
        q, k, v = part.query[:, heads], part.key[:, heads], part.value[:, heads]
        return replace(part, query=q, key=k, value=v, bias=bias)

    def recut(self, heads: int) -> "AttentionRecord":
        """The vectors of all heads concatenated and cut anew into so many relation heads (MiniLMv2)."""
        if self.relation_heads is not None:
            return self
        own = self.query.shape[1]
        # A cache leaves what nobody reads empty.
        q, k, v = (
            cut_anew(repeat_heads(x, own), heads) if x.numel() else x for x in (self.query, self.key, self.value)
        )
        return replace(self, query=q, key=k, value=v, bias=None, relation_heads=heads)


def repeat_heads(x: Tensor, heads: int) -> Tensor:
    """Vectors `(B, H_kv, N, d_h)` of grouped heads as `(B, heads, N, d_h)`."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def cut_anew(x: Tensor, heads: int) -> Tensor:
    """Vectors `(B, H, N, d_h)` as `(B, heads, N, H d_h / heads)`."""
    batch, own, tokens, width = x.shape
    if (own * width) % heads:
        raise UserError(
            f"relation: {heads} relation heads do not divide the width {own * width}; use a divisor of {own * width}"
        )
    return x.transpose(1, 2).reshape(batch, tokens, heads, -1).transpose(1, 2)


@dataclass
class Captured:
    """What one forward pass gave away, and the token mask `(B, N)` (true = real token) it ran under."""

    mask: Tensor
    hidden: dict[int, Tensor] = field(default_factory=dict)
    attention: dict[int, AttentionRecord] = field(default_factory=dict)
    logits: Tensor | None = None
    words: WordLogits | None = None
    """What a language model says where it was asked to, in place of `logits`."""
    pooled: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    """One vector an example `(B, d)` by layer and kind of pooling, where they were pooled ahead (the teacher cache)."""
    shared: frozenset[MapName] = frozenset()
    """Which maps more than one comparison reads."""
    maps: dict[MapName, Tensor] = field(default_factory=dict)
    """Those of them that were computed already, `(B, heads, N, N)`."""

    def map(self, layer: int, name: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """A map of a layer; computed once where it is `shared`, and not kept otherwise."""
        if (layer, name) not in self.shared:
            return compute()
        if (layer, name) not in self.maps:
            self.maps[layer, name] = compute()
        return self.maps[layer, name]


@torch.compiler.disable  # a graph would be traced without a slot and never look for one again
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
    running: _Pass | None = module.__dict__.get(_SLOT)
    if running is not None:
        # A missing mask means "causal" in decoders and "everything" in encoders; only the module knows which.
        causal = bool(module.is_causal if is_causal is None else is_causal)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        running.keep(AttentionRecord(query, key, value, scale, attention_mask, causal))
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
    )


# Without the mask function the model would build no mask and padding would be attended, without any error.
AttentionInterface.register(ATTENTION_NAME, _recording_attention)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


class _DeepEnough(Exception):  # noqa: N818 (a signal, not an error)
    """Raised inside a forward pass to leave the layers nobody asked for uncomputed."""


class _Pass:
    """One forward pass under a plan: knows which layer is running and keeps what the plan wants of it."""

    def __init__(
        self,
        layers: Sequence[nn.Module],
        plan: CapturePlan,
        mask: Tensor,
        edit: Callable[[Tensor], Tensor] | None,
        scaled_query: bool,
    ) -> None:
        self.plan = plan
        self.scaled_query = scaled_query
        self.edit = edit
        self.captured = Captured(mask)
        self.records: dict[int, list[AttentionRecord]] = {k: [] for k in plan.attention}
        self.last = plan.depth(len(layers))
        self.layer = 0
        # A module that serves several layers is called for them in this order.
        self.numbers: dict[nn.Module, list[int]] = {}
        for number, module in enumerate(layers, 1):
            self.numbers.setdefault(module, []).append(number)
        self.calls: dict[nn.Module, int] = dict.fromkeys(self.numbers, 0)

    def watch(
        self, projections: Projections | None, inside: dict[nn.Module, tuple[nn.Module, ...]], undo: ExitStack
    ) -> None:
        """Put hooks on the layers that the plan needs, until `undo` is closed; `inside` keeps the modules of each."""
        wanted = {1, self.last} | self.plan.hidden | self.plan.attention
        for module, numbers in self.numbers.items():
            if not wanted.intersection(numbers):
                continue
            undo.callback(module.register_forward_pre_hook(self._before, with_kwargs=True).remove)
            undo.callback(module.register_forward_hook(self._after).remove)
            if not self.plan.attention.intersection(numbers):
                continue
            if projections is not None:
                projections.watch(module, self._keep_projected, undo)
                continue
            if module not in inside:
                inside[module] = tuple(module.modules())
            undo.callback(_forget, inside[module])
            for inner in inside[module]:
                inner.__dict__[_SLOT] = self

    def keep(self, record: AttentionRecord) -> None:
        """Called by the attention of a watched layer."""
        if self.scaled_query:
            root = record.query.shape[-1] ** 0.5
            record = replace(record, query=record.query * root, scaling=record.scaling / root)
        if self.layer in self.records:
            self.records[self.layer].append(record)

    def _keep_projected(self, found: dict[str, Any]) -> None:
        self.keep(AttentionRecord(**found, mask=None, causal=False))

    def _before(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        self.layer = self.numbers[module][self.calls[module]]
        self.calls[module] += 1
        if self.layer != 1:
            return None
        x = args[0] if args else kwargs["hidden_states"]
        if self.edit is not None:
            x = self.edit(x)
        if 0 in self.plan.hidden:
            self.captured.hidden[0] = x
        if self.last == 0:
            raise _DeepEnough
        return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.layer in self.plan.hidden:
            self.captured.hidden[self.layer] = output[0] if isinstance(output, tuple) else output
        if self.layer == self.last and not self.plan.logits:
            raise _DeepEnough


def _forget(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        module.__dict__.pop(_SLOT, None)


class Recorder:
    """Runs a model and returns what a plan asks for.

    Holds references to the inner modules, so it keeps working when the model is wrapped (DDP, FSDP).

    Args:
        model: the model.
        layers: its layers, first to last; one module several times where layers share their weights.
        projections: where q, k, v are read if the family's attention bypasses the interface of transformers.
        call: arguments of every forward pass.
        scaled_query: whether attention gets its queries scaled already; they are recorded as they were before.
        reads: names of what the model reads of a batch, besides its mask.
        body: the part of a language model whose last hidden states its head turns into logits; without it the base
            model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layers: Sequence[nn.Module],
        projections: Projections | None = None,
        call: Mapping[str, Any] = MappingProxyType({}),
        scaled_query: bool = False,
        reads: Sequence[str] = ("input_ids", "token_type_ids"),
        body: nn.Module | None = None,
    ) -> None:
        self.model = model
        self.layers = list(layers)
        # Of layers that were watched before: walking through them takes as long as some of their operations.
        self._inside: dict[nn.Module, tuple[nn.Module, ...]] = {}
        self.projections = projections
        self.call = dict(call)
        self.scaled_query = scaled_query
        self.reads = tuple(reads)
        self.body: nn.Module = model.base_model if body is None else body

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What this model reads of a batch, besides its mask."""
        return {name: batch[name] for name in self.reads if name in batch}

    def say(self, states: Tensor) -> Tensor:
        """Logits `(p, V)` that a language model's head makes of last hidden states `(p, d)`."""
        # Heads are built otherwise in every family, so the model runs with a body that knows the answer.
        body, answer = self.body, BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states[None])
        own = vars(body).get("forward")
        body.forward = lambda *args, **kwargs: answer
        try:
            blank = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
            return self.model(input_ids=blank, **self.call).logits[0]
        finally:
            del body.forward
            if own is not None:
                body.forward = own

    def prepare(self, plan: CapturePlan) -> None:
        """Switch the model to the recording attention function if the plan needs q, k or v, and check the switch."""
        if plan.attention and self.projections is None and self.model.config._attn_implementation != ATTENTION_NAME:
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
        positions: Tensor | None = None,
    ) -> Captured:
        """One forward pass on `inputs` under token mask `mask` `(B, N)`; what the model does not read is left out.

        `edit_embeddings` replaces the output of the embedding layer `(B, N, d)`. Stops after the deepest planned
        layer when the plan has no logits. `positions` `(B, N)` are where a language model is asked for `words`; its
        logits are computed nowhere else.
        """
        self.prepare(plan)
        running = _Pass(self.layers, plan, mask, edit_embeddings, self.scaled_query)
        captured = running.captured
        with ExitStack() as undo:
            running.watch(self.projections, self._inside, undo)
            try:
                given = {**self.inputs(inputs), **self.call, "attention_mask": mask.long()}
                if positions is None or not plan.logits:
                    logits = self.model(**given).logits
                    captured.logits = logits if plan.logits else None
                else:
                    states = self.model.base_model(**given).last_hidden_state
                    captured.words = WordLogits.gathered(states, positions, self.model.config.vocab_size, self.say)
            except _DeepEnough:
                pass
        for k, records in running.records.items():
            if len(records) != 1:
                raise ObjectiveError(
                    f"layer {k} of {type(self.model).__name__} recorded attention {len(records)} times instead of "
                    "once; its q, k, v cannot be used"
                )
            captured.attention[k] = records[0]
        if missing := plan.hidden - captured.hidden.keys():
            raise ObjectiveError(f"{type(self.model).__name__} gave no hidden state for {_names(missing)}")
        return captured
