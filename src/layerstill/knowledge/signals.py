"""Signals: the tensors that are read from both models and compared.

`read` returns values `(..., D)` and a boolean mask that broadcasts to them: exactly the elements that may enter a
loss. Padding is out of it as key, as query and in every mean, unless a recipe says `padding: included` in order to
reproduce a paper's code.
"""

from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from layerstill.knowledge.capture import AttentionRecord, Captured, CapturePlan, cut_anew, repeat_heads
from layerstill.knowledge.products import Product
from layerstill.schema import Spec

Padding = Literal["excluded", "included"]
Unit = Literal["examples", "tokens", "token_pairs", "causal_pairs"]
ValuesMask = tuple[Tensor, Tensor]


class Signal(Spec):
    """What all signals share."""

    layered: ClassVar[bool] = True
    """Whether a mapping says which layers meet."""
    inside: ClassVar[bool] = False
    """Whether the tensor lives inside a layer, so that the embeddings have none."""
    vectors: ClassVar[bool] = False
    """Whether the last axis is a model's width, which an alignment may map."""

    def plan(self, layers: list[int]) -> CapturePlan:
        """What must be captured for these layers."""
        raise TypeError(f"{type(self).__name__} is not a signal by itself")

    def read(
        self, captured: Captured, layer: int, mask: Tensor, padding: Padding, reads: Literal["values", "logits"]
    ) -> ValuesMask:
        """Values of `layer` and their element mask, given the tokens `mask` `(B, N)` that count.

        `reads: logits` means that the distance makes a distribution of the last axis itself.
        """
        raise TypeError(f"{type(self).__name__} is not a signal by itself")

    def unit(self, counts: Literal["elements", "rows"]) -> Unit:
        """What the count of a distance is proportional to, so that it is known before the forward pass."""
        return "examples"


class Labels(Signal):
    """The gold labels: the ordinary loss of the task on the student's logits (cross-entropy, or MSE for regression)."""

    layered: ClassVar[bool] = False

    def plan(self, layers: list[int]) -> CapturePlan:
        return CapturePlan(logits=True)

    def read(
        self, captured: Captured, layer: int, mask: Tensor, padding: Padding, reads: Literal["values", "logits"]
    ) -> ValuesMask:
        return _of_examples(captured.logits)


class Logits(Signal):
    """The task head's outputs before the softmax, `(B, C)`."""

    layered: ClassVar[bool] = False

    def plan(self, layers: list[int]) -> CapturePlan:
        return CapturePlan(logits=True)

    def read(
        self, captured: Captured, layer: int, mask: Tensor, padding: Padding, reads: Literal["values", "logits"]
    ) -> ValuesMask:
        return _of_examples(captured.logits)


class HiddenStates(Signal):
    """Outputs of layers: all tokens `(B, N, d)`, or one vector an example `(B, d)`."""

    vectors: ClassVar[bool] = True
    pool: Literal["none", "first", "last", "mean"] = "none"
    """`none`: every token; `first`, `last`: the first or last real token; `mean`: the mean over real tokens."""

    def plan(self, layers: list[int]) -> CapturePlan:
        return CapturePlan(hidden=frozenset(layers))

    def read(
        self, captured: Captured, layer: int, mask: Tensor, padding: Padding, reads: Literal["values", "logits"]
    ) -> ValuesMask:
        if (layer, self.pool) in captured.pooled:
            return _of_examples(captured.pooled[layer, self.pool])
        states = captured.hidden[layer]
        tokens = torch.ones_like(mask) if padding == "included" else mask
        if self.pool == "none":
            return _wide(states), tokens[..., None]
        return _of_examples(_wide(pool_tokens(states, tokens if self.pool == "mean" else mask, self.pool)))

    def unit(self, counts: Literal["elements", "rows"]) -> Unit:
        return "tokens" if self.pool == "none" else "examples"


class Embeddings(HiddenStates):
    """Outputs of the embedding layer, `(B, N, d)`: hidden states number 0 of both models."""

    layered: ClassVar[bool] = False


class _TokenPairs(Signal):
    inside: ClassVar[bool] = True

    @property
    def vectors_read(self) -> tuple[str, str]:
        """Which two of `query`, `key`, `value` the map is made of."""
        return "query", "key"

    def product(self, record: AttentionRecord) -> Product:
        """The map `(B, heads, N, N)` of a layer before any mask or position bias, as its factors."""
        raise TypeError(f"{type(self).__name__} is not a signal by itself")

    @property
    def map_name(self) -> tuple[str, int | None]:
        """The same for two signals that read the same products of the same vectors."""
        raise TypeError(f"{type(self).__name__} is not a signal by itself")

    def products(self, captured: Captured, layer: int) -> Tensor:
        """The map `(B, heads, N, N)` of a layer before any mask or position bias."""

        def product() -> Tensor:
            left, right, scale = self.product(captured.attention[layer])
            return (_wide(left) * scale) @ _wide(right).transpose(-1, -2)

        return captured.map(layer, self.map_name, product)

    def plan(self, layers: list[int]) -> CapturePlan:
        return CapturePlan(attention=frozenset(layers))

    def unit(self, counts: Literal["elements", "rows"]) -> Unit:
        return "token_pairs" if counts == "elements" else "tokens"


class Attention(_TokenPairs):
    """Attention maps `(B, H, N, N)`, from queries to keys."""

    form: Literal["scores", "probabilities"] = "scores"
    """`scores`: q k^T times the model's own scaling (plus its position bias, where it has one), before mask, softmax,
    dropout; `probabilities`: after softmax."""

    @property
    def map_name(self) -> tuple[str, int | None]:
        return "scores", None

    def product(self, record: AttentionRecord) -> Product:
        return Product(record.query, repeat_heads(record.key, record.query.shape[1]), record.scaling)

    def read(
        self, captured: Captured, layer: int, mask: Tensor, padding: Padding, reads: Literal["values", "logits"]
    ) -> ValuesMask:
        record = captured.attention[layer]
        scores = self.products(captured, layer)
        if record.bias is not None:
            scores = scores + _wide(record.bias)
        keys = mask[:, None, None, :]
        attended = record.attended()
        if attended is not None:
            # The model's own mask also hides padded keys; of its rows only what lies among real tokens matters.
            keys = keys & attended
        if padding == "included":
            # As released code does it: padded keys hidden or set to zero, padded queries counted.
            if self.form == "scores" and reads == "values":
                return scores.masked_fill(~keys, 0), torch.ones_like(keys)
            allowed = keys.expand(*keys.shape[:2], scores.shape[-2], -1)
        else:
            allowed = keys & mask[:, None, :, None]
        if self.form == "scores" or reads == "logits":
            return scores, allowed
        return scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1), allowed


class Relation(_TokenPairs):
    """Scaled dot products between token vectors of one layer, `(B, heads, N, N)` (MiniLM, MiniLMv2, CR-ILD's Q, K, V).

    R_XY = X Y^T / sqrt(width of a relation head), with the vectors of all attention heads concatenated and cut anew
    into `heads` relation heads.
    """

    of: Literal["Q-Q", "K-K", "V-V", "Q-K"]
    """Which vectors: queries, keys or values."""
    heads: PositiveInt | None = None
    """Relation heads; without it, the model's own attention heads."""

    def read(
        self, captured: Captured, layer: int, mask: Tensor, padding: Padding, reads: Literal["values", "logits"]
    ) -> ValuesMask:
        relation = self.products(captured, layer)
        tokens = torch.ones_like(mask) if padding == "included" else mask
        return relation, tokens[:, None, None, :] & tokens[:, None, :, None]

    @property
    def vectors_read(self) -> tuple[str, str]:
        left, right = ({"Q": "query", "K": "key", "V": "value"}[letter] for letter in self.of.split("-"))
        return left, right

    @property
    def map_name(self) -> tuple[str, int | None]:
        return self.of, self.heads

    def product(self, record: AttentionRecord) -> Product:
        left, right = (self._vectors(record, name) for name in self.vectors_read)
        return Product(left, right, left.shape[-1] ** -0.5)

    def _vectors(self, record: AttentionRecord, name: str) -> Tensor:
        x: Tensor = getattr(record, name)
        if record.relation_heads is not None:
            return x
        x = repeat_heads(x, record.query.shape[1])
        return x if self.heads is None else cut_anew(x, self.heads)


def pool_tokens(states: Tensor, mask: Tensor, pool: str) -> Tensor:
    """One vector an example `(B, d)` from states `(B, N, d)`: the `first`, the `last`, or the `mean` over tokens."""
    if pool == "mean":
        states = _wide(states)
        return states.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device) * mask
    token = mask.int().argmax(1) if pool == "first" else places.argmax(1)
    return states[torch.arange(len(states), device=states.device), token]


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _of_examples(x: Tensor | None) -> ValuesMask:
    assert x is not None
    return x, torch.ones(1, dtype=torch.bool, device=x.device).expand(x.shape[:1])[:, None]


def units(mask: Tensor, unit: Unit) -> Tensor:
    """How many examples, real tokens, or ordered pairs of real tokens (causal: the second not after the first) a token
    mask `(B, N)` holds (0-d, float64)."""
    if unit == "examples":
        return torch.tensor(float(len(mask)), dtype=torch.float64, device=mask.device)
    tokens = mask.sum(1, dtype=torch.float64)
    return {"tokens": tokens, "token_pairs": tokens**2, "causal_pairs": tokens * (tokens + 1) / 2}[unit].sum()


SIGNALS: dict[str, type[Spec]] = {
    "labels": Labels,
    "logits": Logits,
    "embeddings": Embeddings,
    "hidden_states": HiddenStates,
    "attention": Attention,
    "relation": Relation,
}
