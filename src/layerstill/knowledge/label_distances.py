"""What divergences become between logits of several labels: every label is a yes or no of its own."""

from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from layerstill.knowledge.distances import Distance, SumCount, Temperature
from layerstill.knowledge.precision import wide


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
