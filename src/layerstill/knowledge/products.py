"""Products: token-by-token maps `left right^T`, compared as their factors so that no whole map is ever in memory."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from layerstill.knowledge.precision import wide_type

PART_ELEMENTS = {"cpu": 2**18}
"""Elements of the maps that are made at a time, by kind of device: on a CPU what its caches hold."""
OTHER_PART_ELEMENTS = 2**24
"""The same on a GPU, where few large products are faster."""


class Product(NamedTuple):
    """The map `(B, H, N, N)` that is `scale` times left right^T."""

    left: Tensor
    """`(B, H, N, w)` in any precision; arithmetic is in float32 or better."""
    right: Tensor
    """The same shape."""
    scale: float

    def factors(self, tokens: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
        """Both factors as `kind`, the scale in the left one, and nothing where a token of `(B, N)` does not count."""
        padding = ~tokens[:, None, :, None]
        left, right = (x.masked_fill(padding, 0).to(kind) for x in self[:2])
        return left * self.scale, right


def squared_error(student: Product, teacher: Product, tokens: Tensor) -> Tensor:
    """Sum of (student - teacher)^2 over all heads and pairs of real tokens, `tokens` `(B, N)`.

    Gradients reach the student's factors only. They come out of the same pass over a few maps at a time as the error
    itself, so memory grows with the factors and not with the maps. Heads may have other widths in the teacher.
    """
    part = PART_ELEMENTS.get(tokens.device.type, OTHER_PART_ELEMENTS)
    factors = *student[:2], teacher.left.detach(), teacher.right.detach()
    with torch.autocast(tokens.device.type, enabled=False):
        total: Tensor = _SquaredError.apply(*factors, tokens, (student.scale, teacher.scale), part)
    return total


class _SquaredError(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]  # torch declares *args
        ctx: Any,
        left: Tensor,
        right: Tensor,
        other_left: Tensor,
        other_right: Tensor,
        tokens: Tensor,
        scales: tuple[float, float],
        part: int,
    ) -> Tensor:
        size, heads, n, _ = left.shape
        wanted = any(ctx.needs_input_grad)
        kind = torch.promote_types(wide_type(left.dtype), wide_type(other_left.dtype))
        gradients = [torch.empty(left.shape, dtype=kind, device=left.device) for _ in range(2 * wanted)]
        # The student's scale is taken out of the difference: in it every factor would be rounded before they are
        # subtracted. What is left of the teacher's is mostly 1.
        ratio, sums = scales[1] / scales[0], []
        rows, maps = max(part // (heads * n**2), 1), max(part // n**2, 1)
        for start in range(0, size, rows):
            here = slice(start, start + rows)
            both = (left, right, 1.0), (other_left, other_right, ratio)
            student, teacher = (Product(x[here], y[here], z).factors(tokens[here], kind) for x, y, z in both)
            (a, b), (c, d) = ([x.flatten(0, 1) for x in factors] for factors in (student, teacher))
            both_left, both_right = _of_difference(a, b, c, d)
            for first in range(0, len(a), maps):
                some = slice(first, first + maps)
                error = torch.bmm(both_left[some], both_right[some].transpose(1, 2))
                sums.append(torch.dot(error.view(-1), error.view(-1)))
                if wanted:
                    of_left, of_right = (x[here].flatten(0, 1)[some] for x in gradients)
                    torch.bmm(error, b[some], out=of_left)
                    torch.bmm(error.transpose(1, 2), a[some], out=of_right)
        ctx.scale, ctx.ratio, ctx.kind = scales[0], ratio, kind
        ctx.save_for_backward(left, right, other_left, other_right, tokens, *gradients)
        return torch.stack(sums).sum() * scales[0] ** 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # as above
        left, right, other_left, other_right, tokens, of_left, of_right = ctx.saved_tensors
        twice = 2 * ctx.scale**2 * gradient
        if torch.is_grad_enabled():
            # Somebody wants second derivatives, and what was worked out ahead is constant to autograd.
            both = Product(left, right, 1.0), Product(other_left, other_right, ctx.ratio)
            (a, b), (c, d) = (product.factors(tokens, ctx.kind) for product in both)
            error = a @ b.transpose(-1, -2) - c @ d.transpose(-1, -2)
            of_left, of_right = error @ b, error.transpose(-1, -2) @ a
        return (
            (of_left * twice).to(left.dtype),
            (of_right * twice).to(right.dtype),
            *(None,) * 5,
        )


def _of_difference(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Two factors whose product is a b^T - c d^T.

    (a - c) b^T + c (b - d)^T keeps what is left exact however near both are; it takes factors of one width.
    """
    if a.shape[-1] == c.shape[-1]:
        return torch.cat([a - c, c], -1), torch.cat([b, b - d], -1)
    return torch.cat([a, -c], -1), torch.cat([b, d], -1)
