"""Distances: pure functions `(student, teacher, mask) -> (sum, count)`; dividing is someone else's job.

Every distance takes two tensors of one shape `(..., D)` and a boolean mask that broadcasts to it. Masked elements
take no part, whatever they hold. *Element* distances count unmasked elements. *Row* distances treat the last axis as
one vector or one distribution and count rows that have an unmasked element. All arithmetic is in float32 or better.
"""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt, SerializeAsAny
from torch import Tensor
from torch.nn import functional as F

from layerstill.knowledge.memory import Examples, Memory, estimated
from layerstill.knowledge.precision import wide
from layerstill.schema import Number, Positive, Spec

SumCount = tuple[Tensor, Tensor]
Counts = Literal["elements", "rows"]
Temperature = Annotated[Number, Field(ge=0.01, le=100)]
"""Beyond these a softmax in float32 is a maximum, or too flat for its digits."""


def _elements(error: Tensor, mask: Tensor) -> SumCount:
    mask = mask.expand(error.shape)
    return error.masked_fill(~mask, 0).sum(), mask.sum()


def _rows(error: Tensor, mask: Tensor, shape: torch.Size) -> SumCount:
    rows = mask.expand(shape).any(-1)
    return error.masked_fill(~rows, 0).sum(), rows.sum()


def _difference(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    # Masked before anything is computed from it: the gradient of a masked nan would be nan, too.
    return (wide(student) - wide(teacher)).masked_fill(~mask, 0)


def unit_rows(x: Tensor, mask: Tensor) -> Tensor:
    """Rows divided by their length; a row of zeros, and what is masked, stays zero and gets no gradient."""
    x = wide(x).masked_fill(~mask, 0)
    zero = (x == 0).all(-1, keepdim=True)
    return F.normalize(x.masked_fill(zero, 1), dim=-1).masked_fill(zero, 0)


class Distance(Spec):
    """What all distances share."""

    reads: ClassVar[Literal["values", "logits"]] = "values"
    """`logits`: the last axis is turned into a distribution here, so a signal hands over scores, not probabilities."""
    over_batch: ClassVar[bool] = False
    """Whether rows are the examples of the whole batch (of all processes), which are compared with each other."""
    remembers: ClassVar[bool] = False
    """Whether it compares with a memory of all training examples (`memory`, `recall`), for which a step is whole."""
    squares: ClassVar[bool] = False
    """Whether it is the sum of squared differences, which need no whole maps where signals are products."""

    @property
    def counts(self) -> Counts:
        """What the count is a number of."""
        return "elements"

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        """Compare `student` with `teacher`, both `(..., D)`, where `mask` is true; returns 0-d (sum, count)."""
        raise TypeError(f"{type(self).__name__} is not a distance by itself")

    def memory(self, examples: Examples, width: int, seed: int) -> Memory:
        """What it remembers of the training examples, as it is before the first step; vectors are so wide."""
        raise TypeError(f"{type(self).__name__} remembers nothing")

    def memory_notice(self, examples: Examples) -> str:
        """What is to be known of a memory of these, in a line; UserError if there can be none."""
        return ""

    def recall(
        self,
        student: Tensor,
        teacher: Tensor,
        mask: Tensor,
        memory: Memory,
        own: Sequence[int] | None,
        others: Tensor,
    ) -> SumCount:
        """Compare as `__call__` does, and with what `memory` has of `others` `(B, K)`, drawn for each row.

        `own` are the numbers of the rows' examples, whose vectors go into the memory; None in an evaluation.
        """
        raise TypeError(f"{type(self).__name__} remembers nothing")

    def for_scores(self) -> "Distance":
        """The distance to use between two regression scores, where a distribution over one class says nothing."""
        return self

    def for_labels(self) -> "Distance":
        """The distance to use between logits of labels that exclude nothing, each a distribution of its own."""
        return self


class MSE(Distance):
    """Squared error, per element."""

    squares: ClassVar[bool] = True

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        return _elements(_difference(student, teacher, mask) ** 2, mask)


class L1(Distance):
    """Absolute error, per element."""

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        return _elements(_difference(student, teacher, mask).abs(), mask)


class Huber(Distance):
    """Squared below `delta`, linear above, per element (smooth L1 at delta 1)."""

    delta: Positive = 1.0
    """Where the square turns into a line."""

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        difference = _difference(student, teacher, mask)
        error = F.huber_loss(difference, torch.zeros_like(difference), reduction="none", delta=self.delta)
        return _elements(error, mask)


class NormalizedSquared(Distance):
    """Squared distance of unit vectors, |s/|s| - t/|t||^2 (PKD, RAIL-KD), per row."""

    mean_over: Literal["rows", "elements"] = "rows"
    """`rows`: |.|^2 as the papers write it; `elements`: divided by the width too, as PKD's released code does."""

    @property
    def counts(self) -> Counts:
        return self.mean_over

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        s, t = (unit_rows(x, mask) for x in (student, teacher))
        total, count = _rows(((s - t) ** 2).sum(-1), mask, s.shape)
        return total, (mask.expand(s.shape).sum() if self.mean_over == "elements" else count)


class Cosine(Distance):
    """1 - cos(s, t), per row; two rows of zeros are alike."""

    @property
    def counts(self) -> Counts:
        return "rows"

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        s, t = (wide(x).masked_fill(~mask, 0) for x in (student, teacher))
        zero = (s == 0).all(-1, keepdim=True), (t == 0).all(-1, keepdim=True)
        cosine = F.cosine_similarity(s.masked_fill(zero[0], 1), t.masked_fill(zero[1], 1), dim=-1)
        one, both = (zero[0] | zero[1]).squeeze(-1), (zero[0] & zero[1]).squeeze(-1)
        return _rows(1 - cosine.masked_fill(one, 0).masked_fill(both, 1), mask, s.shape)


class _Divergence(Distance):
    """Softmax over the unmasked part of the last axis at a temperature, then a divergence per row."""

    reads: ClassVar[Literal["values", "logits"]] = "logits"
    temperature: Temperature = 1.0
    """T: both sides are divided by it before the softmax; 0.01 to 100."""
    scaled: bool = True
    """Multiply by T^2 so that the gradient does not shrink with the temperature."""

    @property
    def counts(self) -> Counts:
        return "rows"

    def _log_probabilities(self, x: Tensor, mask: Tensor) -> Tensor:
        x = wide(x)
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

    def for_labels(self) -> Distance:
        return BinaryKL(temperature=self.temperature, scaled=self.scaled)


class ReverseKL(_Divergence):
    """KL(student || teacher) of softmaxed rows: the student may leave out what the teacher also says (GKD)."""

    def _per_element(self, log_s: Tensor, log_t: Tensor) -> Tensor:
        return log_s.exp() * (log_s - log_t)

    def for_labels(self) -> Distance:
        return _Each(divergence=self)


class JSD(_Divergence):
    """beta KL(teacher || M) + (1 - beta) KL(student || M), M = beta teacher + (1 - beta) student (GKD, 2306.13649).

    At beta near 0 or 1 it vanishes; divided by beta, or by 1 - beta, it comes near `kl`, or `reverse_kl`.
    """

    beta: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    """The teacher's share of the mixture."""

    def _per_element(self, log_s: Tensor, log_t: Tensor) -> Tensor:
        mixed = torch.logaddexp(log_t + math.log(self.beta), log_s + math.log(1 - self.beta))
        return self.beta * log_t.exp() * (log_t - mixed) + (1 - self.beta) * log_s.exp() * (log_s - mixed)

    def for_labels(self) -> Distance:
        return _Each(divergence=self)


class SoftCrossEntropy(_Divergence):
    """-sum p_teacher log p_student: KL plus the teacher's entropy, same gradient for the student."""

    def _per_element(self, log_s: Tensor, log_t: Tensor) -> Tensor:
        return -log_t.exp() * log_s

    def for_labels(self) -> Distance:
        return BinaryCrossEntropy(temperature=self.temperature, scaled=self.scaled)


class _ScoreMSE(Distance):
    """What a divergence becomes for regression: squared error of scores divided by T (CR-ILD's rule)."""

    temperature: Positive

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        s, t = wide(student) / self.temperature, wide(teacher) / self.temperature
        return _elements(_difference(s, t, mask) ** 2, mask)


class _Binary(Distance):
    """Sigmoid of each label's logit at a temperature, then a divergence between two yes-or-no distributions."""

    reads: ClassVar[Literal["values", "logits"]] = "logits"
    temperature: Temperature = 1.0
    """T: both sides are divided by it before the sigmoid."""
    scaled: bool = True
    """Multiply by T^2 so that the gradient does not shrink with the temperature."""

    def _per_element(self, yes_s: Tensor, no_s: Tensor, yes_t: Tensor, no_t: Tensor) -> Tensor:
        """The divergence of each label from log-probabilities of yes and of no, student's and teacher's `(..., C)`."""
        raise TypeError(f"{type(self).__name__} is not a distance by itself")

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        mask = mask.expand(student.shape)
        # Before the logarithms: what is masked may be infinite, and its gradient would not be a number.
        s, t = (wide(x).masked_fill(~mask, 0) / self.temperature for x in (student, teacher))
        error = self._per_element(F.logsigmoid(s), F.logsigmoid(-s), F.logsigmoid(t), F.logsigmoid(-t))
        total = error.masked_fill(~mask, 0).sum()
        return (total * self.temperature**2 if self.scaled else total), mask.sum()


class BinaryKL(_Binary):
    """KL(teacher || student) of each label's sigmoid: p log(p / q) + (1 - p) log((1 - p) / (1 - q)), per element."""

    def _per_element(self, yes_s: Tensor, no_s: Tensor, yes_t: Tensor, no_t: Tensor) -> Tensor:
        return yes_t.exp() * (yes_t - yes_s) + no_t.exp() * (no_t - no_s)


class BinaryCrossEntropy(_Binary):
    """-p log q - (1 - p) log(1 - q) of each label's sigmoid: `BinaryKL` plus the teacher's entropy, per element."""

    def _per_element(self, yes_s: Tensor, no_s: Tensor, yes_t: Tensor, no_t: Tensor) -> Tensor:
        return -yes_t.exp() * yes_s - no_t.exp() * no_s


class InfoNCE(Distance):
    """-log of an example's share among all pairs of the batch, by cosine over a temperature (InfoNCE), per row.

    A row is an example; the pair of its two vectors is the positive one. With the teacher as anchor its negatives are
    the other examples' student vectors, with the student as anchor their teacher vectors: CoDIR, arXiv 2009.14167;
    CILDA, arXiv 2204.07674, has the teacher as anchor. `both` is the mean of the two.
    """

    over_batch: ClassVar[bool] = True
    temperature: Temperature = 0.07
    """What cosines are divided by."""
    anchor: Literal["both", "teacher", "student"] = "both"
    """Whose vector is held while the other's are told apart."""

    @property
    def counts(self) -> Counts:
        return "rows"

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        s, t = (unit_rows(x, mask) for x in (student, teacher))
        there = mask.expand(s.shape).any(-1)
        cosines = t @ s.mT / self.temperature
        own = cosines.diagonal(dim1=-2, dim2=-1)
        sides = {"teacher": cosines, "student": cosines.mT}
        chosen = list(sides.values()) if self.anchor == "both" else [sides[self.anchor]]
        # Not -inf: a batch of which nothing counts would have gradients of nan.
        least = torch.finfo(cosines.dtype).min / 2
        errors = [torch.logsumexp(side.masked_fill(~there[..., None, :], least), -1) - own for side in chosen]
        return _rows(torch.stack(errors).mean(0), mask, s.shape)


class MemoryNCE(Distance):
    """Telling an example from stored ones of other classes, by noise-contrastive estimation (CRD), per row.

    CRD, arXiv 1910.10699, as the code of arXiv 2305.15032 has it. An anchor v is scored with stored vectors m of the
    other side: p = e^(m v / temperature) / Z, Z being n times the mean of the numerators in the first step, n the
    training examples. Of one m of its own example and K of others, with c = K / n:

        -log p / (p + c)  -  sum over others of  log c / (p + c)

    and of this the mean of both anchors. Afterwards m <- unit(momentum m + (1 - momentum) v). In an evaluation, whose
    examples have no place in the memory, an example's own m is its vector of now, and nothing is remembered.
    """

    over_batch: ClassVar[bool] = True
    remembers: ClassVar[bool] = True
    negatives: PositiveInt = 100
    """K: how many others, drawn anew in every step; fewer where fewer have another class."""
    temperature: Temperature = 0.07
    """What products are divided by."""
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.5
    """How much of a stored vector stays when its example is seen again."""

    @property
    def counts(self) -> Counts:
        return "rows"

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        raise TypeError("memory_nce compares with a memory")

    def memory(self, examples: Examples, width: int, seed: int) -> Memory:
        return Memory(examples, width, examples.negatives(self.negatives), self.momentum, seed)

    def memory_notice(self, examples: Examples) -> str:
        there = examples.negatives(self.negatives)
        if there == self.negatives:
            return ""
        return f"an example is told from {there} others, not {self.negatives}: no more are of another class"

    def recall(
        self,
        student: Tensor,
        teacher: Tensor,
        mask: Tensor,
        memory: Memory,
        own: Sequence[int] | None,
        others: Tensor,
    ) -> SumCount:
        s, t = (unit_rows(x, mask) for x in (student, teacher))
        there = mask.expand(s.shape).any(-1)
        others = others.to(s.device)
        at = None if own is None else torch.tensor(own).clamp(min=0).to(s.device)
        errors, scales = [], []
        for side, (anchor, now, stored) in enumerate(((s, t, memory.teacher), (t, s, memory.student))):
            positive = now.detach() if at is None else wide(stored[at])
            vectors = torch.cat([positive[:, None], wide(stored[others]).to(positive)], 1)
            scores = (vectors @ anchor[..., None]).squeeze(-1) / self.temperature
            scales.append(memory.scale(side, scores, there))
            errors.append(estimated(scores - scales[-1], others.shape[1] / len(stored)))
        if own is not None:
            memory.see(own, s, t, torch.stack(scales))
        return _rows(torch.stack(errors).mean(0), mask, s.shape)


class _Each(Distance):
    """A divergence between the yes and no of each label, whose sigmoid is the softmax of its logit and 0."""

    reads: ClassVar[Literal["values", "logits"]] = "logits"
    divergence: SerializeAsAny[_Divergence]

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor) -> SumCount:
        mask = mask.expand(student.shape)
        s, t = (wide(x).masked_fill(~mask, 0) for x in (student, teacher))
        s, t = (torch.stack([x, torch.zeros_like(x)], -1) for x in (s, t))
        return self.divergence(s, t, mask[..., None])


DISTANCES: dict[str, type[Distance]] = {
    "mse": MSE,
    "l1": L1,
    "huber": Huber,
    "normalized_squared": NormalizedSquared,
    "cosine": Cosine,
    "kl": KL,
    "reverse_kl": ReverseKL,
    "jsd": JSD,
    "soft_cross_entropy": SoftCrossEntropy,
    "infonce": InfoNCE,
    "memory_nce": MemoryNCE,
}
