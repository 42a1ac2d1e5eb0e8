"""Tokens: every word of a sentence has a tag (named entities, parts of speech)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from layerstill.heads.answers import only_answer
from layerstill.heads.head import IGNORED, Head
from layerstill.heads.prediction import Prediction, softmax
from layerstill.metrics.entities import Found, by_type, count_entities, leave_one_out, over_all

UNSAID = -1
"""The decision on a word that was cut off: none, which is never right and no entity."""


class Tokens(Head):
    """Softmax over tags at the first piece of every word; cross-entropy, per word.

    A batch has `counted` `(B, N)`, 1 at first pieces, and `labels` `(B, N)`.
    """

    word: ClassVar[str] = "tokens"
    gives: ClassVar[str] = "a tag per word"
    architecture: ClassVar[str] = "ForTokenClassification"
    per_token: ClassVar[bool] = True
    single: ClassVar[bool] = False
    some: ClassVar[bool] = True
    far_sets: ClassVar[bool] = False
    answer: ClassVar[str] = "tags"
    pipeline: ClassVar[str] = "token-classification"

    def _says_so(self, config: Any) -> bool:
        return True

    def numbered(self, labels: Sequence[Any], names: Sequence[str], where: str) -> list[Any]:
        return [super(Tokens, self).numbered(row, names, f"{where}, sentence {i}") for i, row in enumerate(labels, 1)]

    def renumbered(self, labels: Sequence[Any], places: Sequence[int], outputs: int) -> list[Any]:
        return [[tag if tag == IGNORED else places[tag] for tag in row] for row in labels]

    def absent(self, labels: Sequence[Any], outputs: int) -> list[int]:
        return super().absent([tag for row in labels for tag in row], outputs)

    def pad_labels(self, labels: Sequence[Any], tokens: int) -> Tensor:
        return torch.tensor([[*row, *[IGNORED] * (tokens - len(row))] for row in labels])

    def positions(self, batch: dict[str, Any]) -> Tensor:
        return batch["counted"].bool() & batch["attention_mask"].bool()

    def unknown(self, texts: Sequence[str], outputs: int) -> list[int]:
        return [IGNORED] * len(texts)

    def errors(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)

    def rows(self, logits: Tensor, batch: dict[str, Any]) -> list[np.ndarray]:
        said, counted = logits.float().cpu().numpy(), self.positions(batch).cpu().numpy()
        return [row[at] for row, at in zip(said, counted, strict=True)]

    def join(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(rows)

    def gathered(self, logits: np.ndarray, labels: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        known = [row != IGNORED for row in labels]
        return (
            [row[at] for row, at in zip(logits, known, strict=True)],
            [row[at] for row, at in zip(labels, known, strict=True)],
        )

    def decide(self, logits: list[np.ndarray]) -> list[np.ndarray]:
        return [row.argmax(-1) for row in logits]

    def gold(self, labels: Sequence[Any]) -> list[np.ndarray]:
        return [np.array(row) for row in labels]

    def score(
        self, metrics: Sequence[str], labels: Sequence[str], decided: Any, gold: Any, positive: str | None = None
    ) -> dict[str, float]:
        return {
            name: float(part.sum() / max(whole.sum(), 1))
            for name, (part, whole) in self._shares(metrics, labels, decided, gold).items()
        }

    def contributions(self, metric: str, labels: Sequence[str], decided: Any, gold: Any) -> np.ndarray:
        """What each sentence adds to a metric, `(n,)`, with the metric as mean: see `Predictions.contributions`."""
        return leave_one_out(*self._shares([metric], labels, decided, gold)[metric])

    def by_label(self, labels: Sequence[str], decided: Any, gold: Any) -> dict[str, dict[str, float]]:
        found = by_type(_found(labels, *_of_known(decided, gold)))
        return {
            kind: {"precision": one.precision, "recall": one.recall, "f1": one.f1, "support": one.there}
            for kind, one in found.items()
        }

    def predictions(self, logits: list[np.ndarray], labels: Sequence[str]) -> list[Prediction]:
        found = []
        for row, tags in zip(logits, self.decide(logits), strict=True):
            own = softmax(row).max(-1).tolist() if len(row) else []
            found.append(Prediction(tuple(labels[tag] for tag in tags), tuple(own)))
        return found

    def one_answer(self, labels: Sequence[str], decided: Any, gold: Any) -> str:
        said, there = (np.concatenate([*rows, np.array([], int)]).tolist() for rows in _of_known(decided, gold))
        pairs = [pair for pair in zip(said, there, strict=True) if pair[0] != UNSAID]
        found = only_answer([word for word, _ in pairs], [tag for _, tag in pairs])
        if found is None:
            return ""
        if labels[found.said] == "O":  # entities are rare, so nearly none can still be some
            return "no entity at all" if found.share == 1 else f"no entity for {found.share:.1%} of the words"
        return f"{labels[found.said]!r} for {found.share:.0%} of the words"

    def _shares(
        self, metrics: Sequence[str], labels: Sequence[str], decided: Any, gold: Any
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Each metric as what every sentence has of a part and of a whole, `(n,)` each: their sums' ratio is it."""
        decided, gold = _of_known(decided, gold)
        words = [said == there for said, there in zip(decided, gold, strict=True)]
        shares = {"accuracy_tokens": (np.array([row.sum() for row in words]), np.array([len(row) for row in words]))}
        if set(metrics) - set(shares):
            counts = [over_all(found.values()) for found in _found(labels, decided, gold)]
            right, said, there = np.array(counts).T
            shares["f1_entities"] = 2 * right, said + there
            shares["precision_entities"] = right, said
            shares["recall_entities"] = right, there
        return {name: shares[name] for name in metrics}

    def metrics_of(self, labels: Sequence[str]) -> tuple[str, ...]:
        return self.metrics if any(name.startswith("B-") for name in labels) else ("accuracy_tokens",)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("f1_entities", "precision_entities", "recall_entities", "accuracy_tokens")


def _found(labels: Sequence[str], decided: Any, gold: Any) -> list[dict[str, Found]]:
    """What was found of the entities of every sentence, by type."""
    names = [*labels, "O"]  # the last is UNSAID's
    return [
        count_entities([names[tag] for tag in there], [names[tag] for tag in said])
        for said, there in zip(decided, gold, strict=True)
    ]


def _of_known(decided: Any, gold: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Decisions on all words whose tags are known, and these."""
    pairs = [(_whole(said, len(there)), there, there != IGNORED) for said, there in zip(decided, gold, strict=True)]
    return [said[known] for said, _, known in pairs], [there[known] for _, there, known in pairs]


def _whole(said: np.ndarray, words: int) -> np.ndarray:
    """Decisions on all words of a sentence, of which the last may have been cut off."""
    return np.concatenate([said, np.full(words - len(said), UNSAID)])
