"""Scores: every example, of one or two texts, has one number, or one for each of several targets (regression)."""

import math
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
from layerstill.metrics.scores import mean_score, score_table

FLAT = 0.05
"""Of the gold scores' standard deviation: predictions that spread less are one and the same."""


class Scores(Head):
    """One output, or one for each target by its name; squared error, per score. A score of nan is not known.

    Labels are a number an example, or a row `(C,)` of numbers where targets have names. One target has none.
    """

    word: ClassVar[str] = "regression"
    gives: ClassVar[str] = "scores"
    problem_type: ClassVar[str | None] = "regression"
    named: ClassVar[bool] = False
    answer: ClassVar[str] = "score"
    single: ClassVar[bool] = False
    fewest: ClassVar[int] = 2  # of a correlation

    def outputs(self, labels: Sequence[str]) -> int:
        return max(len(labels), 1)

    def numbered(self, labels: Sequence[Any], names: Sequence[str], where: str) -> list[Any]:
        for i, label in enumerate(labels, 1):
            row = label if names else [label]
            if not isinstance(row, list | tuple) or len(row) != max(len(names), 1):
                raise UserError(
                    f"{where}, example {i}: {label!r} where a score is needed for each of {', '.join(names)}"
                )
            for score in row:
                if isinstance(score, bool) or not isinstance(score, int | float):
                    raise UserError(f"{where}, example {i}: score {score!r} is not a number")
        return [list(row) for row in labels] if names else list(labels)

    def renumbered(self, labels: Sequence[Any], places: Sequence[int], outputs: int) -> list[Any]:
        moved = []
        for row in labels:
            new = [math.nan] * outputs
            for place, score in zip(places, row, strict=True):
                new[place] = score
            moved.append(new)
        return moved

    def absent(self, labels: Sequence[Any], outputs: int) -> list[int]:
        return [i for i in range(outputs) if all(math.isnan(row[i]) for row in labels)]

    def refuse_far_sets(self, what: str, task: str, labels: Sequence[str] = ()) -> None:
        if labels:
            raise UserError(
                f"{what}: it is read as one score a text, and task {task} has {', '.join(labels)}; leave this set out"
            )

    def labelled(self, labels: Tensor) -> Tensor:
        return ~labels.isnan()

    def without_labels(self, labels: Tensor) -> Tensor:
        return torch.full_like(labels, float("nan"))

    def unknown(self, texts: Sequence[str], outputs: int) -> Any:
        return [math.nan] * outputs if outputs > 1 else math.nan

    def pad_labels(self, labels: Sequence[Any], tokens: int) -> Tensor:
        return torch.tensor(labels, dtype=torch.float32)

    def errors(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = self.labelled(labels)
        said = logits if labels.ndim == logits.ndim else logits.squeeze(-1)
        return (said - labels.to(logits.dtype)).masked_fill(~known, 0) ** 2

    def distance(self, distance: Distance) -> Distance:
        return distance.for_scores()

    def decide(self, logits: np.ndarray) -> np.ndarray:
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def gold(self, labels: Sequence[Any]) -> np.ndarray:
        return np.array(labels, dtype=np.float64)

    def score(
        self, metrics: Sequence[str], labels: Sequence[str], decided: Any, gold: Any, positive: str | None = None
    ) -> dict[str, float]:
        return {name: mean_score(METRICS[name], decided, gold) for name in metrics}

    def by_label(self, labels: Sequence[str], decided: Any, gold: Any) -> dict[str, dict[str, float]]:
        return score_table(labels, decided, gold) if labels else {}

    def answers(self, labels: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{self.answer}_{name}" for name in labels) if len(labels) > 1 else (self.answer,)

    def predictions(self, logits: np.ndarray, labels: Sequence[str]) -> list[Prediction]:
        rows = self.decide(logits).tolist()
        return [Prediction(dict(zip(labels, row, strict=True)) if isinstance(row, list) else row) for row in rows]

    def one_answer(self, labels: Sequence[str], decided: Any, gold: Any) -> str:
        columns = [np.asarray(values, dtype=np.float64).reshape(len(values), -1).T for values in (decided, gold)]
        flat = []
        for name, said, wanted in zip(labels or ("",), *columns, strict=True):
            known = wanted[~np.isnan(wanted)]
            if len(known) < 2 or np.std(said) >= FLAT * np.std(known):
                continue
            spread = f"standard deviation {np.std(said):.2g}; of the gold scores {np.std(known):.2g}"
            whose = f" of {name!r}" if len(labels) > 1 else ""
            flat.append(f"nearly {np.mean(said):.3g}{whose} for every text ({spread})")
        return ", and ".join(flat)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("pearson", "spearman")
