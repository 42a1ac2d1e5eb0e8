"""Dropout whose random numbers cost little on CPUs.

Torch draws a number of its own for every element, which takes a fifth of a small student's training step, and its
fused attention kernels know no dropout on CPUs. Here one draw of 64 bits serves four elements, and attention with
dropout stays in the precision of its inputs.
"""

import threading
from collections import Counter
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

_LEVELS = 1 << 16
_torch_dropout, _torch_attention = F.dropout, F.scaled_dot_product_attention


class CheapDropout:
    """While it is entered, `dropout` and attention with dropout on CPU tensors use `keep_mask`, in this thread alone.

    Nothing else changes, least of all the model. The two functions are replaced in `torch.nn.functional`, where models
    find them: a mode that sees every function costs a tenth of a small model's step. What a backward pass computes
    again (gradient checkpointing) would come after it was left and must not be run under it.
    """

    _entered: ClassVar[Counter[int]] = Counter()
    """How often each thread is inside."""
    _lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._entered[threading.get_ident()] += 1
            F.dropout, F.scaled_dot_product_attention = _dropout, _attention

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._entered.subtract([threading.get_ident()])
            if not any(self._entered.values()):
                self._entered.clear()
                F.dropout, F.scaled_dot_product_attention = _torch_dropout, _torch_attention

    @classmethod
    def is_entered(cls) -> bool:
        """Whether this thread is inside."""
        return cls._entered.get(threading.get_ident(), 0) > 0


@torch._dynamo.assume_constant_result
def _cheap() -> bool:
    return CheapDropout.is_entered()


@torch.compiler.disable  # torch's compiler knows no way to read a draw of 64 bits as four
def keep_mask(like: Tensor, p: float) -> Tensor:
    """What dropout multiplies by: 0 with probability `p`, else 1 / (1 - p), in the shape and type of `like`.

    Drawn from torch's default generator. `p` is rounded to a multiple of 2^-16, and the scale belongs to the rounded
    one, so that means are exact.
    """
    dropped = round(p * _LEVELS)
    if dropped == _LEVELS:
        return torch.zeros_like(like)
    draws = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    levels = draws.view(torch.int16)[: like.numel()].view(like.shape)
    mask = torch.empty(like.shape, dtype=like.dtype)
    torch.ge(levels, dropped - _LEVELS // 2, out=mask)
    return mask.mul_(_LEVELS / (_LEVELS - dropped))


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or not 0 < p <= 1 or input.device.type != "cpu" or not _cheap():
        return _torch_dropout(input, p, training, inplace)
    return input * keep_mask(input, p)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if not 0 < dropout_p <= 1 or query.device.type != "cpu" or enable_gqa or not _cheap():
        return _torch_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query * scale) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            # Rows that see nothing (padding in a causal model) must stay finite, so not minus infinity.
            least = torch.finfo(scores.dtype).min / 2
            attn_mask = torch.zeros(attn_mask.shape, dtype=scores.dtype).masked_fill_(~attn_mask, least)
        scores = scores + attn_mask
    probabilities = scores.softmax(-1)
    return (probabilities * keep_mask(probabilities, dropout_p)) @ value
