"""Tokens: every word of a sentence has a tag (named entities, parts of speech)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from layerstill.heads.head import IGNORED, Head


class Tokens(Head):
    """Softmax over tags at the first piece of every word; cross-entropy, per word.

    A batch has `counted` `(B, N)`, 1 at first pieces, and `labels` `(B, N)`.
    """

    word: ClassVar[str] = "tokens"
    gives: ClassVar[str] = "a tag a word"
    architecture: ClassVar[str] = "ForTokenClassification"
    per_token: ClassVar[bool] = True
    single: ClassVar[bool] = False
    far_sets: ClassVar[bool] = False
    pipeline: ClassVar[str] = "token-classification"

    def _says_so(self, config: Any) -> bool:
        return True

    def numbered(self, labels: Sequence[Any], names: Sequence[str], where: str) -> list[Any]:
        return [super(Tokens, self).numbered(row, names, f"{where}, sentence {i}") for i, row in enumerate(labels, 1)]

    def renumbered(self, labels: Sequence[Any], places: Sequence[int], outputs: int) -> list[Any]:
        return [[tag if tag == IGNORED else places[tag] for tag in row] for row in labels]

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
