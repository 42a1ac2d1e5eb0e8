"""Rows of all processes in one batch, for terms that relate the examples of a batch to each other."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]  # torch declares *args
        parts = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, x.contiguous())
        ctx.rows = len(x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]  # as above
        # Every process has computed the whole term, so the gradient of a row is the sum of what all say of it. The
        # mean over processes, which follows, then is the gradient of one term.
        gradient = gradient.contiguous()
        distributed.all_reduce(gradient)
        start = distributed.get_rank() * ctx.rows
        return gradient[start : start + ctx.rows]


def gather_rows(x: Tensor) -> Tensor:
    """Rows `(B, ...)` of every process, one after the other, on all of them alike, with gradients.

    Shares may differ in size; missing rows are zeros, and False in a mask. All processes must come here.
    """
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return x
    most = torch.tensor(len(x), device=x.device)
    distributed.all_reduce(most, distributed.ReduceOp.MAX)
    missing = int(most) - len(x)
    filled = torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x
    if x.dtype == torch.bool:
        return _Gathered.apply(filled.to(torch.uint8)).bool()  # type: ignore[no-any-return]
    return _Gathered.apply(filled)  # type: ignore[no-any-return]


def gather_numbers(numbers: Sequence[int], device: torch.device) -> list[int]:
    """Numbers of -1 or more of the rows of every process, in the order of `gather_rows`; -1 for missing rows."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return list(numbers)
    found: list[int] = (gather_rows(torch.tensor(numbers, device=device) + 1) - 1).tolist()
    return found


def mean_of_processes(x: Tensor) -> Tensor:
    """The mean of a tensor over all processes, the same on each of them; without gradients."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return x
    total = x.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
