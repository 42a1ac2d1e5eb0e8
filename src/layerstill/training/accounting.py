"""What a run costs: examples, tokens, padding, floating-point operations, and how near to the machine's limit it is."""

import time
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from layerstill.training.records import peak_memory_mb

_counted: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def _matrix_weights(layer: nn.Module) -> int:
    # Counted once: walking through a layer at every step is a measurable part of a small model's.
    if layer not in _counted:
        _counted[layer] = sum(p.numel() for p in layer.parameters() if p.ndim == 2)
    return _counted[layer]


def forward_flops(layers: list[nn.Module], inner: int, rows: int, tokens: float) -> float:
    """Floating-point operations of a forward pass through `layers` on `rows` x `tokens` places, padding included.

    Two for every weight of a matrix and place, and 4 N^2 times the width `inner` of all heads for the two products of
    attention. Left out: embeddings, head, norms, activations, position terms.
    """
    weights = sum(map(_matrix_weights, layers))
    return 2.0 * weights * rows * tokens + 4.0 * len(layers) * inner * rows * tokens**2


@torch.no_grad()
def matmul_peak(device: torch.device, dtype: torch.dtype, size: int | None = None, rounds: int = 5) -> float:
    """Floating-point operations per second of the best of some square matrix products of this process.

    Without a `size`, one that takes long enough to be measured: 1024 on CPUs, 8192 on GPUs. The numbers are random,
    because where all are alike a GPU takes less power and is faster than with any real weights.
    """
    size = size or (8192 if device.type == "cuda" else 1024)
    rng = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, device=device, generator=rng).to(dtype) for _ in "ab")
    best = float("inf")
    with torch.autocast(device.type, enabled=False):
        for _ in range(rounds + 1):
            _wait(device)
            begun = time.perf_counter()
            a @ b
            _wait(device)
            best = min(best, time.perf_counter() - begun)
    return 2.0 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class Spent:
    """What the stages so far have cost, kept with their checkpoints."""

    examples: int = 0
    steps: int = 0
    epochs: float = 0.0
    seconds: float = 0.0
    """From the start of a training to its end: steps, evaluations, checkpoints, filling a teacher cache."""
    tokens: int = 0
    """Real ones, of the student's inputs."""
    places: int = 0
    """Tokens and padding."""
    flops: float = 0.0
    """Of the student's forward and backward passes and the teacher's forward passes."""
    teacher_seconds: float = 0.0
    selected: list[str] = field(default_factory=list)

    def record(self, precision: str, peak: float) -> dict[str, Any]:
        """The `train` block of `result.json`; `peak` is `matmul_peak` in the training's precision, of all processes."""
        seconds = max(self.seconds, 1e-9)
        return {
            "examples": self.examples,
            "steps": self.steps,
            "epochs": self.epochs,
            "seconds": round(self.seconds, 2),
            "examples_per_second": round(self.examples / seconds, 2),
            "tokens_per_second": round(self.tokens / seconds, 1),
            "padding_share": round(1 - self.tokens / max(self.places, 1), 4),
            "teacher_share": round(self.teacher_seconds / seconds, 4),
            "gflops_per_second": round(self.flops / seconds / 1e9, 1),
            "matmul_peak_gflops_per_second": round(peak / 1e9, 1),
            "share_of_peak": round(self.flops / seconds / peak, 4),
            "peak_memory_mb": peak_memory_mb(),
            "precision": precision,
        }
