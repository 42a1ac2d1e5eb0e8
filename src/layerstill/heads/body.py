"""The body: a model without any output, for distillation on running text, before there is a task."""

from collections.abc import Sequence
from typing import Any, ClassVar

from layerstill.heads.head import Head


class Body(Head):
    """Nothing is asked of its models but what happens inside them. Every model has a body, whatever its head."""

    word: ClassVar[str] = "text"
    gives: ClassVar[str] = "no labels"
    architecture: ClassVar[str] = ""
    named: ClassVar[bool] = False
    single: ClassVar[bool] = False
    far_sets: ClassVar[bool] = False
    answers_texts: ClassVar[bool] = False
    hides: ClassVar[bool] = True
    pipeline: ClassVar[str] = "feature-extraction"

    def outputs(self, labels: Sequence[str]) -> int:
        return 0

    def describe(self, config: Any, labels: Sequence[str]) -> None:
        pass

    def fits(self, config: Any) -> bool:
        return True

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("loss",)
