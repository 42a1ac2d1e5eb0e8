"""Signals: the tensors that are read from both models and compared.

`read` returns values `(..., D)` and a boolean mask that broadcasts to them: exactly the elements that may enter a
loss. Padding is out of it as key, as query and in every mean, unless a recipe says `padding: included` in order to
reproduce a paper's code. `count` says beforehand how many of them a batch has.
"""

from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from layerstill.knowledge.capture import AttentionRecord, Captured, CapturePlan, Kept, cut_anew, repeat_heads
from layerstill.knowledge.counting import Places, Reach, count_pairs
from layerstill.knowledge.distances import Counts
from layerstill.knowledge.precision import wide
from layerstill.knowledge.products import Product
from layerstill.schema import Spec

Padding = Literal["excluded", "included"]
Reads = Literal["values", "logits"]
ValuesMask = tuple[Tensor, Tensor]
Reaches = tuple[Reach, Reach]
"""Of the student's layer and of its target's."""


class Signal(Spec):
    """What all signals share. A new one says what to capture (`plan`) and how to read it (`read`)."""

    layered: ClassVar[bool] = True
    """Whether a mapping says which layers meet."""
    inside: ClassVar[bool] = False
    """Whether the tensor lives inside a layer, so that the embeddings have none."""
    vectors: ClassVar[bool] = False
    """Whether the last axis is a model's width, which an alignment may map."""
    gold: ClassVar[bool] = False
    """Whether it is the gold labels, which are compared by the head and need no teacher."""
    everywhere: ClassVar[bool] = False
    """Whether a language model is asked at every token, whatever its head asks for."""
    of_head: ClassVar[bool] = False
    """Whether it is the head's output, whose distance the head has a say in."""
    maps: ClassVar[bool] = False
    """Whether it is token-by-token maps `(B, heads, N, N)` made of the attention record of their layer alone, which are
    large and may be compared a few examples or heads at a time."""

    @property
    def relation_heads(self) -> int | None:
        """For maps: into how many heads vectors are cut anew; None: the model's own."""
        return None

    @property
    def per(self) -> Literal["examples", "tokens", "positions"]:
        """What has one row of values: an example, a real token, or a place where the head's logits count."""
        return "examples"

    @property
    def aligned_tokens(self) -> bool:
        """Whether it is compared position by position, so that both models must cut a text into the same tokens."""
        return self.maps or self.per == "tokens"

    def plan(self, layers: list[int]) -> CapturePlan:
        """What must be captured for these layers."""
        raise TypeError(f"{type(self).__name__} is not a signal by itself")

    def keep(self, layers: list[int]) -> Kept:
        """What a teacher cache must hold for these layers; without an own answer, all that is captured."""
        return Kept.of(self.plan(layers))

    def read(self, captured: Captured, layer: int, places: Places, padding: Padding, reads: Reads) -> ValuesMask:
        """Values of `layer` and their element mask, given the places that count.

        `reads: logits` means that the distance makes a distribution of the last axis itself.
        """
        raise TypeError(f"{type(self).__name__} is not a signal by itself")

    def count(self, counts: Counts, places: Places, reaches: Reaches, padding: Padding, reads: Reads) -> Tensor:
        """What the count of a distance is proportional to (0-d, float64), so that it is known before models run."""
        if self.per == "tokens":
            return _counted(places, padding).sum(dtype=torch.float64)
        return (places.examples if self.per == "examples" else places.positions).sum(dtype=torch.float64)

    def blind_in_causal_models(self) -> str | None:
        """Why it says nothing about the text in a model that looks back only; None if it does."""
        return None

    def map_name(self) -> object:
        """For maps: the same for two signals that read the same products of the same vectors."""
        return None

    def product(self, record: AttentionRecord) -> Product:
        """For maps: the map of a layer before any mask or position bias, as its factors."""
        raise TypeError(f"{type(self).__name__} is not a product")

    def is_product(self, sees_all: bool) -> bool:
        """Whether its values are a bare product; `sees_all`: attention has no window, direction or bias."""
        return False


class Labels(Signal):
    """The gold labels: the head's own loss on the student's logits (cross-entropy, squared error, ...)."""

    layered: ClassVar[bool] = False
    gold: ClassVar[bool] = True

    def plan(self, layers: list[int]) -> CapturePlan:
        return CapturePlan(logits=True)


class Logits(Signal):
    """The head's outputs before softmax or sigmoid, `(B, C)`, or `(B, N, C)` of which the head's positions count."""

    layered: ClassVar[bool] = False
    of_head: ClassVar[bool] = True

    @property
    def per(self) -> Literal["examples", "tokens", "positions"]:
        return "positions"

    def plan(self, layers: list[int]) -> CapturePlan:
        return CapturePlan(logits=True)

    def read(self, captured: Captured, layer: int, places: Places, padding: Padding, reads: Reads) -> ValuesMask:
        assert captured.logits is not None
        return captured.logits, places.positions[..., None]


class TokenLogits(Logits):
    """A language model's logits `(B, N, V)` at every real token, also where no word is hidden."""

    everywhere: ClassVar[bool] = True

    @property
    def per(self) -> Literal["examples", "tokens", "positions"]:
        return "tokens"

    def count(self, counts: Counts, places: Places, reaches: Reaches, padding: Padding, reads: Reads) -> Tensor:
        return places.tokens.sum(dtype=torch.float64)


class HiddenStates(Signal):
    """Outputs of layers: all tokens `(B, N, d)`, or one vector an example `(B, d)`."""

    vectors: ClassVar[bool] = True
    pool: Literal["none", "first", "last", "mean"] = "none"
    """`none`: every token; `first`, `last`: the first or last real token; `mean`: the mean over real tokens."""

    @property
    def per(self) -> Literal["examples", "tokens", "positions"]:
        return "tokens" if self.pool == "none" else "examples"

    def plan(self, layers: list[int]) -> CapturePlan:
        return CapturePlan(hidden=frozenset(layers))

    def keep(self, layers: list[int]) -> Kept:
        if self.pool == "none":
            return super().keep(layers)
        return Kept(pooled=frozenset((layer, self.pool) for layer in layers))

    def read(self, captured: Captured, layer: int, places: Places, padding: Padding, reads: Reads) -> ValuesMask:
        real = places.tokens
        if (layer, self.pool) in captured.pooled:
            return captured.pooled[layer, self.pool], places.examples[:, None]
        states = captured.hidden[layer]
        counted = _counted(places, padding)
        if self.pool == "none":
            return wide(states), counted[..., None]
        pooled = pool_tokens(states, counted if self.pool == "mean" else real, self.pool)
        return wide(pooled), places.examples[:, None]

    def blind_in_causal_models(self) -> str | None:
        if self.pool != "first":
            return None
        return (
            "in a causal model the first token sees only itself, so it says nothing about the text; use pool: last or "
            "pool: mean"
        )


class Embeddings(HiddenStates):
    """Outputs of the embedding layer, `(B, N, d)`: hidden states number 0 of both models."""

    layered: ClassVar[bool] = False


class _TokenPairs(Signal):
    inside: ClassVar[bool] = True
    maps: ClassVar[bool] = True

    @property
    def vectors_read(self) -> tuple[str, str]:
        """Which two of `query`, `key`, `value` the map is made of."""
        return "query", "key"

    def products(self, captured: Captured, layer: int) -> Tensor:
        """The map `(B, heads, N, N)` of a layer before any mask or position bias."""

        def product() -> Tensor:
            left, right, scale = self.product(captured.attention[layer])
            return (wide(left) * scale) @ wide(right).transpose(-1, -2)

        return captured.map(layer, self.map_name(), product)

    def plan(self, layers: list[int]) -> CapturePlan:
        return CapturePlan(attention=frozenset(layers))

    def keep(self, layers: list[int]) -> Kept:
        vectors = frozenset((layer, name) for layer in layers for name in self.vectors_read)
        return Kept(CapturePlan(attention=frozenset(layers)), vectors=vectors)


class Attention(_TokenPairs):
    """Attention maps `(B, H, N, N)`, from queries to keys."""

    form: Literal["scores", "probabilities"] = "scores"
    """`scores`: q k^T times the model's own scaling (plus its position bias, where it has one), before mask, softmax,
    dropout; `probabilities`: after softmax."""

    def map_name(self) -> object:
        return "scores", None

    def product(self, record: AttentionRecord) -> Product:
        return Product(record.query, repeat_heads(record.key, record.query.shape[1]), record.scaling)

    def is_product(self, sees_all: bool) -> bool:
        return self.form == "scores" and sees_all

    def _zeroes(self, padding: Padding, reads: Reads) -> bool:
        """Whether what is not seen counts as 0, as released code has it."""
        return padding == "included" and self.form == "scores" and reads == "values"

    def count(self, counts: Counts, places: Places, reaches: Reaches, padding: Padding, reads: Reads) -> Tensor:
        queries, keys = _counted(places, padding), places.tokens
        if self._zeroes(padding, reads):
            return count_pairs(queries, queries, [], counts == "rows")
        seen = [reach.pattern(keys.shape[1], keys.device) for reach in reaches]
        return count_pairs(queries, keys, seen, counts == "rows")

    def read(self, captured: Captured, layer: int, places: Places, padding: Padding, reads: Reads) -> ValuesMask:
        record, mask = captured.attention[layer], places.tokens
        scores = self.products(captured, layer)
        if record.bias is not None:
            scores = scores + wide(record.bias)
        keys = mask[:, None, None, :]
        attended = record.attended()
        if attended is not None:
            # The model's own mask also hides padded keys; of its rows only what lies among real tokens matters.
            keys = keys & attended
        counted = _counted(places, padding)
        if self._zeroes(padding, reads):
            return scores.masked_fill(~keys, 0), counted[:, None, None, :]
        # As released code does it: padded keys hidden, padded queries counted.
        allowed = keys & counted[:, None, :, None]
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

    @property
    def relation_heads(self) -> int | None:
        return self.heads

    def count(self, counts: Counts, places: Places, reaches: Reaches, padding: Padding, reads: Reads) -> Tensor:
        tokens = _counted(places, padding)
        return count_pairs(tokens, tokens, [], counts == "rows")

    def read(self, captured: Captured, layer: int, places: Places, padding: Padding, reads: Reads) -> ValuesMask:
        relation = self.products(captured, layer)
        tokens = _counted(places, padding)
        return relation, tokens[:, None, None, :] & tokens[:, None, :, None]

    @property
    def vectors_read(self) -> tuple[str, str]:
        left, right = ({"Q": "query", "K": "key", "V": "value"}[letter] for letter in self.of.split("-"))
        return left, right

    def map_name(self) -> object:
        return self.of, self.heads

    def product(self, record: AttentionRecord) -> Product:
        left, right = (self._vectors(record, name) for name in self.vectors_read)
        return Product(left, right, left.shape[-1] ** -0.5)

    def is_product(self, sees_all: bool) -> bool:
        return True

    def _vectors(self, record: AttentionRecord, name: str) -> Tensor:
        x: Tensor = getattr(record, name)
        if record.relation_heads is not None:
            return x
        x = repeat_heads(x, record.query.shape[1])
        return x if self.heads is None else cut_anew(x, self.heads)


def _counted(places: Places, padding: Padding) -> Tensor:
    """`(B, N)`: which tokens count."""
    return places.with_padding().tokens if padding == "included" else places.tokens


def pool_tokens(states: Tensor, mask: Tensor, pool: str) -> Tensor:
    """One vector an example `(B, d)` from states `(B, N, d)`: the `first`, the `last`, or the `mean` over tokens."""
    if pool == "mean":
        states = wide(states)
        return states.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    numbers = torch.arange(1, mask.shape[1] + 1, device=mask.device) * mask
    token = mask.int().argmax(1) if pool == "first" else numbers.argmax(1)
    return states[torch.arange(len(states), device=states.device), token]


SIGNALS: dict[str, type[Signal]] = {
    "labels": Labels,
    "logits": Logits,
    "token_logits": TokenLogits,
    "embeddings": Embeddings,
    "hidden_states": HiddenStates,
    "attention": Attention,
    "relation": Relation,
}
