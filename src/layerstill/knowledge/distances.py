"""Distances: pure functions `(student, teacher, mask) -> (sum, count)`; dividing is someone else's job.

Every distance takes two tensors of one shape `(..., D)` and a boolean mask that broadcasts to it. Masked elements
take no part. *Element* distances count unmasked elements. *Row* distances treat the last axis as one vector or one
distribution and count rows that have an unmasked element. All arithmetic is in float32 or better.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from layerstill.schema import Positive, Spec

SumCount = tuple[Tensor, Tensor]


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _elements(error: Tensor, mask: Tensor) -> SumCount:
    mask = mask.expand(error.shape)
    return error.masked_fill(~mask, 0).sum(), mask.sum()


def _rows(error: Tensor, mask: Tensor, shape: torch.Size) -> SumCount:
    rows = mask.expand(shape).any(-1)
    return error.masked_fill(~rows, 0).sum(), rows.sum()


class Distance(Spec):
    """What all distances share."""

    reads: ClassVar[Literal["values", "logits"]] = "values"
    """`logits`: the last axis is turned into a distribution here, so a signal hands over scores, not probabilities."""
    counts: ClassVar[Literal["elements", "rows"]] = "elements"

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        """Compare `student` with `teacher`, both `(..., D)`, where `mask` is true; returns 0-d (sum, count)."""
        raise TypeError(f"{type(self).__name__} is not a distance by itself")

    def for_scores(self) -> "Distance":
        """The distance to use between two regression scores, where a distribution over one class says nothing."""
        return self


class MSE(Distance):
    """Squared error, per element."""

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        return _elements((_wide(student) - _wide(teacher)) ** 2, mask)


class L1(Distance):
    """Absolute error, per element."""

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        return _elements((_wide(student) - _wide(teacher)).abs(), mask)


class Huber(Distance):
    """Squared below `delta`, linear above, per element (smooth L1 at delta 1)."""

    delta: Positive = 1.0
    """Where the square turns into a line."""

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        return _elements(F.huber_loss(_wide(student), _wide(teacher), reduction="none", delta=self.delta), mask)


class NormalizedSquared(Distance):
    """Squared distance of unit vectors, |s/|s| - t/|t||^2 (PKD, RAIL-KD), per row."""

    counts: ClassVar[Literal["elements", "rows"]] = "rows"
    mean_over: Literal["rows", "elements"] = "rows"
    """`rows`: |.|^2 as the papers write it; `elements`: divided by the width too, as PKD's released code does."""

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        s, t = (F.normalize(_wide(x).masked_fill(~mask, 0), dim=-1) for x in (student, teacher))
        total, count = _rows(((s - t) ** 2).sum(-1), mask, s.shape)
        return (total / s.shape[-1] if self.mean_over == "elements" else total), count


class Cosine(Distance):
    """1 - cos(s, t), per row."""

    counts: ClassVar[Literal["elements", "rows"]] = "rows"

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        s, t = (_wide(x).masked_fill(~mask, 0) for x in (student, teacher))
        return _rows(1 - F.cosine_similarity(s, t, dim=-1), mask, s.shape)


class _Divergence(Distance):
    """Softmax over the unmasked part of the last axis at a temperature, then a divergence per row."""

    reads: ClassVar[Literal["values", "logits"]] = "logits"
    counts: ClassVar[Literal["elements", "rows"]] = "rows"
    temperature: Positive = 1.0
    """T: both sides are divided by it before the softmax."""
    scaled: bool = True
    """Multiply by T^2 so that the gradient does not shrink with the temperature."""

    def _log_probabilities(self, x: Tensor, mask: Tensor) -> Tensor:
        x = _wide(x)
        return (x / self.temperature).masked_fill(~mask, torch.finfo(x.dtype).min).log_softmax(-1)

    def _per_element(self, log_s: Tensor, log_t: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} is not a distance by itself")

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        log_s, log_t = self._log_probabilities(student, mask), self._log_probabilities(teacher, mask)
        error = self._per_element(log_s, log_t).masked_fill(~mask, 0).sum(-1)
        total, count = _rows(error, mask, log_s.shape)
        return (total * self.temperature**2 if self.scaled else total), count

    def for_scores(self) -> Distance:
        return _ScoreMSE(temperature=1.0 if self.scaled else self.temperature)


class KL(_Divergence):
    """KL(teacher || student) of softmaxed rows."""

    def _per_element(self, log_s: Tensor, log_t: Tensor) -> Tensor:
        return log_t.exp() * (log_t - log_s)


class SoftCrossEntropy(_Divergence):
    """-sum p_teacher log p_student: KL plus the teacher's entropy, same gradient for the student."""

    def _per_element(self, log_s: Tensor, log_t: Tensor) -> Tensor:
        return -log_t.exp() * log_s


class _ScoreMSE(Distance):
    """What a divergence becomes for regression: squared error of scores divided by T (CR-ILD's rule)."""

    temperature: Positive

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        return _elements(((_wide(student) - _wide(teacher)) / self.temperature) ** 2, mask)


DISTANCES: dict[str, type[Spec]] = {
    "mse": MSE,
    "l1": L1,
    "huber": Huber,
    "normalized_squared": NormalizedSquared,
    "cosine": Cosine,
    "kl": KL,
    "soft_cross_entropy": SoftCrossEntropy,
}
