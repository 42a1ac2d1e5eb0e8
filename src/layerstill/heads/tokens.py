"""Tokens: every word of a sentence has a tag (named entities, parts of speech)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from layerstill.evaluation.entities import Found, count_entities, over_all
from layerstill.heads.head import IGNORED, Head

UNSAID = -1
"""The decision on a word that was cut off: none, which is never right and no entity."""


class Tokens(Head):
    """Softmax over tags at the first piece of every word; cross-entropy, per word.

    A batch has `counted` `(B, N)`, 1 at first pieces, and `labels` `(B, N)`.
    """

    word: ClassVar[str] = "tokens"
    architecture: ClassVar[str] = "ForTokenClassification"
    per_token: ClassVar[bool] = True
    single: ClassVar[bool] = False

    def _says_so(self, config: Any) -> bool:
        return True

    def pad_labels(self, labels: Sequence[Any], tokens: int) -> Tensor:
        return torch.tensor([[*row, *[IGNORED] * (tokens - len(row))] for row in labels])

    def positions(self, batch: dict[str, Any]) -> Tensor:
        return batch["counted"].bool() & batch["attention_mask"].bool()

    def errors(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)

    def rows(self, logits: Tensor, batch: dict[str, Any]) -> list[np.ndarray]:
        said, counted = logits.float().cpu().numpy(), self.positions(batch).cpu().numpy()
        return [row[at] for row, at in zip(said, counted, strict=True)]

    def join(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(rows)

    def decide(self, logits: list[np.ndarray]) -> list[np.ndarray]:
        return [row.argmax(-1) for row in logits]

    def gold(self, labels: Sequence[Any]) -> list[np.ndarray]:
        return [np.array(row) for row in labels]

    def score(
        self, metrics: Sequence[str], labels: Sequence[str], decided: Any, gold: Any, positive: str | None = None
    ) -> dict[str, float]:
        decided = [_whole(said, len(there)) for said, there in zip(decided, gold, strict=True)]
        found = over_all(count_entities(_names(gold, labels), _names(decided, labels)).values())
        values = {
            "f1_entities": found.f1,
            "precision_entities": found.precision,
            "recall_entities": found.recall,
            "accuracy_tokens": float((np.concatenate(decided) == np.concatenate(gold)).mean()),
        }
        return {name: values[name] for name in metrics}

    def table(self, labels: Sequence[str], decided: Any, gold: Any) -> dict[str, Found]:
        """For each type of entity how many are there, were said, and are right; empty for tags without entities."""
        decided = [_whole(said, len(there)) for said, there in zip(decided, gold, strict=True)]
        return count_entities(_names(gold, labels), _names(decided, labels))

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("f1_entities", "precision_entities", "recall_entities", "accuracy_tokens")


def _whole(said: np.ndarray, words: int) -> np.ndarray:
    """Decisions on all words of a sentence, of which the last may have been cut off."""
    return np.concatenate([said, np.full(words - len(said), UNSAID)])


def _names(sentences: Sequence[np.ndarray], labels: Sequence[str]) -> list[list[str]]:
    names = [*labels, "O"]  # the last is UNSAID's
    return [[names[number] for number in sentence] for sentence in sentences]
