"""Reading q, k, v by hooks, for families whose attention bypasses the interface of transformers (MPNet, DeBERTa-v2).

Both add a position bias to their scores, which is part of what the softmax sees, so it is caught too.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn


@dataclass(frozen=True)
class Projections:
    """Where the attention of a layer has its three projections and its position bias."""

    attention: str
    """Path from a layer to its attention module."""
    query: str
    key: str
    value: str
    bias: Literal["argument", "disentangled"]
    """`argument`: the attention module is called with `position_bias` (MPNet); `disentangled`: the sum of its
    content-to-position and position-to-content scores (DeBERTa, arXiv 2006.03654, eq. 4)."""

    def watch(self, layer: nn.Module, keep: Callable[[dict[str, Any]], None], undo: ExitStack) -> None:
        """Hook `layer` until `undo` is closed; after each of its attention's calls `keep` gets the arguments of an
        `AttentionRecord` but for mask and causality."""
        attention: Any = layer.get_submodule(self.attention)
        found: dict[str, Tensor] = {}

        def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
            found.clear()
            if self.bias == "argument":
                found["bias"] = args[2] if len(args) > 2 else kwargs["position_bias"]

        def projected(name: str) -> Callable:
            def hook(module: nn.Module, args: Any, output: Tensor) -> None:
                # DeBERTa may send its relative positions through the same projection afterwards.
                if name not in found:
                    found[name] = output.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)

            return hook

        def after(module: nn.Module, args: Any, output: Any) -> None:
            width = found["query"].shape[-1] * self._terms(attention)
            keep({**found, "scaling": width**-0.5})

        undo.callback(attention.register_forward_pre_hook(before, with_kwargs=True).remove)
        for name, path in (("query", self.query), ("key", self.key), ("value", self.value)):
            undo.callback(attention.get_submodule(path).register_forward_hook(projected(name)).remove)
        if self.bias == "disentangled" and attention.relative_attention:
            self._catch_disentangled(attention, found, undo)
        undo.callback(attention.register_forward_hook(after).remove)

    def _terms(self, attention: Any) -> int:
        """How many products DeBERTa adds up; its scores are divided by the root of that many head widths."""
        if self.bias != "disentangled":
            return 1
        return 1 + sum(kind in attention.pos_att_type for kind in ("c2p", "p2c"))

    @staticmethod
    def _catch_disentangled(attention: Any, found: dict[str, Tensor], undo: ExitStack) -> None:
        method = attention.disentangled_attention_bias

        def catching(*args: Any, **kwargs: Any) -> Tensor:
            bias = method(*args, **kwargs)
            if isinstance(bias, Tensor):  # the number 0 if no kind of position score is switched on
                found["bias"] = bias.unflatten(0, (-1, attention.num_attention_heads))
            return bias

        # The bias is the value of a method and of no module, so the method is replaced for this pass, on this object.
        attention.__dict__["disentangled_attention_bias"] = catching
        undo.callback(attention.__dict__.pop, "disentangled_attention_bias")
