"""Classes: every example, of one or two texts, belongs to one of them."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from layerstill.errors import UserError
from layerstill.heads.answers import only_answer
from layerstill.heads.head import IGNORED, LEAST, Head, refuse_no_probability
from layerstill.heads.prediction import Prediction, softmax
from layerstill.metrics.by_name import METRICS, class_table
from layerstill.schema import Positive


class Classes(Head):
    """Softmax over classes; cross-entropy, per example."""

    word: ClassVar[str] = "classification"
    gives: ClassVar[str] = "one class per text"
    probable: ClassVar[bool] = True
    some: ClassVar[bool] = True
    problem_type: ClassVar[str | None] = "single_label_classification"
    class_weights: list[Positive] | None = None
    """What an example of each class counts in the loss on labels; None for 1 each. Scores know nothing of it."""

    def _says_so(self, config: Any) -> bool:
        # One output and no word about it is a score, as transformers has it: a cross-encoder, say.
        return super()._says_so(config) and (config.problem_type is not None or config.num_labels > 1)

    def kinds(self, labels: Sequence[Any]) -> list[int | None]:
        return [None if label == IGNORED else int(label) for label in labels]

    def weighted(self, weights: Sequence[float]) -> "Classes":
        return self.model_copy(update={"class_weights": [float(weight) for weight in weights]})

    def as_scored(self) -> "Classes":
        return self.model_copy(update={"class_weights": None})

    def in_order(self, places: Sequence[int], outputs: int) -> "Classes":
        if self.class_weights is None:
            return self
        moved = [1.0] * outputs
        for place, weight in zip(places, self.class_weights, strict=True):
            moved[place] = weight
        return self.weighted(moved)

    def logits_of(self, probabilities: Sequence[float], where: str) -> list[float]:
        refuse_no_probability(probabilities, where)
        if abs(sum(probabilities) - 1) > 1.001e-3:  # a mean of rows that sum to 1 within 1e-3 does so but for rounding
            raise UserError(
                f"{where}: the probabilities of its {len(probabilities)} classes sum to {sum(probabilities):g}, not 1"
            )
        return [math.log(max(p, LEAST)) for p in probabilities]

    def mean(self, logits: np.ndarray, weights: Sequence[float]) -> np.ndarray:
        return np.log(np.maximum(np.average(softmax(logits), 0, weights), LEAST))

    def errors(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        return F.cross_entropy(logits, labels, weights, reduction="none", ignore_index=IGNORED)

    def decide(self, logits: np.ndarray) -> np.ndarray:
        return logits.argmax(-1)

    def score(
        self, metrics: Sequence[str], labels: Sequence[str], decided: Any, gold: Any, positive: str | None = None
    ) -> dict[str, float]:
        scores = {}
        known = gold != IGNORED
        decided, gold = decided[known], gold[known]
        for name in metrics:
            pair = (gold, decided)
            if name == "f1" and positive is not None:
                # The numbers of classes follow the model, so it is the name that says which class F1 is about.
                number = list(labels).index(positive)
                pair = (gold == number, decided == number)
            scores[name] = METRICS[name](*pair)
        return scores

    def by_label(self, labels: Sequence[str], decided: Any, gold: Any) -> dict[str, dict[str, float]]:
        return class_table(labels, decided, gold)

    def predictions(self, logits: np.ndarray, labels: Sequence[str]) -> list[Prediction]:
        found = []
        for row, best in zip(softmax(logits).tolist(), self.decide(logits).tolist(), strict=True):
            found.append(Prediction(labels[best], row[best], dict(zip(labels, row, strict=True))))
        return found

    def one_answer(self, labels: Sequence[str], decided: Any, gold: Any) -> str:
        known = gold != IGNORED
        found = only_answer(decided[known].tolist(), gold[known].tolist())
        return f"{labels[found.said]!r} for {found.share:.0%} of the texts" if found else ""

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy", "f1_macro")
