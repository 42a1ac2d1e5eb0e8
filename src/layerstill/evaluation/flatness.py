"""How flat the minimum is that training ended in: scores under weight noise, and slices of the loss surface.

A step in weight space is made of *filters*: the weights that lead into one unit, that is a row of a weight matrix, or
a row of an embedding. Every filter of a random direction is scaled to the length of the model's own filter (Li et al.,
arXiv 1712.09913), so that models whose weights differ in scale can be compared. Biases and the weights of norms stay
where they are.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from layerstill.evaluation.predict import Batch
from layerstill.heads import Head
from layerstill.randomness import named_seed

SIGMAS = (0.0, 0.01, 0.02, 0.05, 0.1)
"""Lengths of the noise, in lengths of the filter it is added to."""
DRAWS = 10
LINE = tuple(float(x) for x in np.linspace(-1, 1, 21))
GRID = tuple(float(x) for x in np.linspace(-1, 1, 11))
"""Where slices are cut, in lengths of the filters; 0 is the model itself."""

Measure = Callable[[], float]
"""A figure of the model as its weights stand."""
Tick = Callable[[], None]
"""Called after every figure, for a progress bar."""


class Weights:
    """The filters of a model, to be moved and put back bit for bit."""

    def __init__(self, model: nn.Module) -> None:
        # GPT-2 keeps its matrices transposed, so that the weights into a unit are a column.
        transposed = {id(module.weight) for module in model.modules() if isinstance(module, Conv1D)}
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        self._places = [(p, (0,) if id(p) in transposed else tuple(range(1, p.ndim))) for p in matrices]
        self._origin = [p.detach().clone() for p in matrices]

    def direction(self, seed: int, *name: object) -> list[Tensor]:
        """A random Gaussian direction, each filter as long as the model's; the same for the same seed and name."""
        rng = torch.Generator().manual_seed(named_seed(seed, *name))
        made = []
        for (_, axes), origin in zip(self._places, self._origin, strict=True):
            noise = torch.randn(origin.shape, generator=rng).to(origin)
            lengths = [torch.linalg.vector_norm(x, dim=axes, keepdim=True) for x in (origin, noise)]
            made.append(noise * (lengths[0] / lengths[1]))
        return made

    @contextmanager
    @torch.no_grad()
    def moved(self, *steps: tuple[float, list[Tensor]]) -> Iterator[None]:
        """Inside, the weights stand so many of each direction away from where they were."""
        try:
            for i, (parameter, _) in enumerate(self._places):
                for amount, direction in steps:
                    parameter.add_(direction[i], alpha=amount)
            yield
        finally:
            for (parameter, _), origin in zip(self._places, self._origin, strict=True):
                parameter.copy_(origin)


def weight_noise(
    model: nn.Module,
    measures: Mapping[str, Measure],
    seed: int,
    sigmas: Sequence[float] = SIGMAS,
    draws: int = DRAWS,
    tick: Tick = lambda: None,
) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) of each measure over `draws` noises of each length.

    A draw is one random direction, at all lengths. A length of 0 is measured once.
    """
    weights = Weights(model)
    values = {name: np.zeros((len(sigmas), draws)) for name in measures}
    for draw in range(draws):
        direction = weights.direction(seed, "weight noise", draw)
        for i, sigma in enumerate(sigmas):
            if sigma == 0 and draw:
                continue
            with weights.moved((sigma, direction)):
                for name, measure in measures.items():
                    values[name][i, draw if sigma else slice(None)] = measure()
            tick()
    spread = {name: {"mean": v.mean(1).tolist(), "sd": v.std(1, ddof=1).tolist()} for name, v in values.items()}
    return {"sigmas": list(sigmas), "draws": draws, **spread}


def slice_1d(
    model: nn.Module,
    measures: Mapping[str, Measure],
    seed: int,
    alpha: Sequence[float] = LINE,
    tick: Tick = lambda: None,
) -> dict[str, Any]:
    """Each measure along one filter-normalised random direction; None where it is not finite."""
    weights = Weights(model)
    direction = weights.direction(seed, "slice", 0)
    values: dict[str, list[float | None]] = {name: [] for name in measures}
    for a in alpha:
        with weights.moved((a, direction)):
            for name, measure in measures.items():
                values[name].append(_finite(measure()))
        tick()
    return {"alpha": list(alpha), **values}


def slice_2d(
    model: nn.Module,
    measure: Measure,
    seed: int,
    alpha: Sequence[float] = GRID,
    beta: Sequence[float] = GRID,
    tick: Tick = lambda: None,
) -> dict[str, Any]:
    """`loss[i][j]`: the measure at alpha i along the direction of `slice_1d` and beta j along a second one."""
    weights = Weights(model)
    first, second = (weights.direction(seed, "slice", k) for k in range(2))
    surface: list[list[float | None]] = []
    for a in alpha:
        surface.append([])
        for b in beta:
            with weights.moved((a, first), (b, second)):
                surface[-1].append(_finite(measure()))
            tick()
    return {"alpha": list(alpha), "beta": list(beta), "loss": surface}


@torch.no_grad()
def mean_loss(model: nn.Module, batches: list[Batch], head: Head) -> float:
    """The task's loss over all labels, as the model stands."""
    sums = [
        head.errors(model(**batch.inputs).logits.float(), batch.known["labels"]).sum(dtype=torch.float64)
        for batch in batches
    ]
    return float(torch.stack(sums).sum()) / labels_in(batches, head)


def labels_in(batches: list[Batch], head: Head) -> int:
    """How many labels there are that have an error."""
    return sum(int(head.labelled(batch.known["labels"]).sum()) for batch in batches)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
