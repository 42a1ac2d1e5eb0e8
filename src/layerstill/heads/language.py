"""Language models: what those have in common that say the words of a text."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from layerstill.heads.head import IGNORED, Head
from layerstill.knowledge.precision import wide


class Language(Head):
    """Softmax over a vocabulary at many places of a text; cross-entropy, per place.

    A batch has `labels` `(B, N)`: the word that each place is asked for, -100 where it is asked for none. Logits are
    those of P places, `(P, V)`, and so are the labels `(P,)` of `errors`.
    """

    gives: ClassVar[str] = "the words of a text"
    speaks: ClassVar[bool] = True
    named: ClassVar[bool] = False
    single: ClassVar[bool] = False
    far_sets: ClassVar[bool] = False
    answers_texts: ClassVar[bool] = False

    def outputs(self, labels: Sequence[str]) -> int:
        return 0

    def describe(self, config: Any, labels: Sequence[str]) -> None:
        pass

    def errors(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(wide(logits), labels, reduction="none", ignore_index=IGNORED)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("perplexity",)


def architectures(config: Any) -> list[str]:
    """The names of models that a configuration has."""
    named = config.architectures or []
    return [named] if isinstance(named, str) else [str(name) for name in named]
