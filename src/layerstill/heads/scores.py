"""Scores: every example, of one or two texts, has one number (regression)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from layerstill.errors import UserError
from layerstill.heads.head import Head
from layerstill.heads.prediction import Prediction
from layerstill.knowledge.distances import Distance
from layerstill.metrics.by_name import METRICS

FLAT = 0.05
"""Of the gold scores' standard deviation: predictions that spread less are one and the same."""


class Scores(Head):
    """One output; squared error, per example. A score of nan is one that is not known."""

    word: ClassVar[str] = "regression"
    gives: ClassVar[str] = "scores"
    problem_type: ClassVar[str | None] = "regression"
    named: ClassVar[bool] = False
    answer: ClassVar[str] = "score"
    single: ClassVar[bool] = False
    fewest: ClassVar[int] = 2  # of a correlation

    def outputs(self, labels: Sequence[str]) -> int:
        return 1

    def numbered(self, labels: Sequence[Any], names: Sequence[str], where: str) -> list[Any]:
        for i, label in enumerate(labels, 1):
            if isinstance(label, bool) or not isinstance(label, int | float):
                raise UserError(f"{where}, example {i}: score {label!r} is no number")
        return list(labels)

    def labelled(self, labels: Tensor) -> Tensor:
        return ~labels.isnan()

    def without_labels(self, labels: Tensor) -> Tensor:
        return torch.full_like(labels, float("nan"))

    def unknown(self, texts: Sequence[str], outputs: int) -> float:
        return float("nan")

    def errors(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = self.labelled(labels)
        difference = logits.squeeze(-1) - labels.to(logits.dtype)
        return difference.masked_fill(~known, 0) ** 2

    def distance(self, distance: Distance) -> Distance:
        return distance.for_scores()

    def decide(self, logits: np.ndarray) -> np.ndarray:
        return logits[:, 0]

    def score(
        self, metrics: Sequence[str], labels: Sequence[str], decided: Any, gold: Any, positive: str | None = None
    ) -> dict[str, float]:
        known = ~np.isnan(gold)
        return {name: METRICS[name](gold[known], decided[known]) for name in metrics}

    def predictions(self, logits: np.ndarray, labels: Sequence[str]) -> list[Prediction]:
        return [Prediction(score) for score in self.decide(logits).tolist()]

    def one_answer(self, labels: Sequence[str], decided: Any, gold: Any) -> str:
        spread, wanted = float(np.std(decided)), float(np.nanstd(gold))
        if len(decided) < 2 or spread >= FLAT * wanted:
            return ""
        mean = float(np.mean(decided))
        return f"nearly {mean:.3g} for every text (standard deviation {spread:.2g}; of the gold scores {wanted:.2g})"

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("pearson", "spearman")
