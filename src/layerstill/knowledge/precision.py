"""In which numbers losses are computed: float32, or float64 where the models are."""

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """`x` in the type of `wide_type`."""
    return x.to(wide_type(x.dtype))


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for anything else."""
    return dtype if dtype == torch.float64 else torch.float32
