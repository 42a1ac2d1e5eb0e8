"""An exported model with its head: logits of texts as the model in PyTorch gives them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from layerstill.export.exported import FILES, FP32
from layerstill.export.runner import OnnxRunner
from layerstill.heads import HEADS, Head


class OnnxModel(OnnxRunner):
    """A file of an exported folder, ready for questions; arguments and errors as for `OnnxRunner`."""

    def __init__(self, folder: Path | str, file: str = FILES[FP32], threads: int | None = None) -> None:
        super().__init__(folder, file, threads)
        self.head = head_in(self.about)
        self.labels: tuple[str, ...] = tuple(self.about["labels"])
        self.text_columns: tuple[str, ...] = tuple(self.about.get("text_columns", ()))
        """Those that the model was trained with, where that is known."""

    def logits(self, texts: Sequence[tuple[str, ...]], batch_size: int = 64) -> Any:
        """Logits of every example in its place, as `evaluation.predict.predict` has them; of tags a row a word."""
        return self.logits_of(self.encode(texts), batch_size)

    def logits_of(self, encodings: Sequence[Any], batch_size: int = 64) -> Any:
        """The same of texts that are encoded already."""
        order = sorted(range(len(encodings)), key=lambda i: -len(encodings[i].ids))
        found: dict[int, np.ndarray] = {}
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            some = [encodings[i] for i in places]
            inputs = self.padded(some)
            logits = self.run(inputs)
            found.update(zip(places, self._rows(logits, inputs, some), strict=True))
        return self.head.join([found[i] for i in range(len(encodings))])

    def _rows(self, logits: np.ndarray, inputs: dict[str, np.ndarray], encodings: Sequence[Any]) -> list[np.ndarray]:
        batch = {"attention_mask": torch.from_numpy(inputs["attention_mask"])}
        if self.head.per_token:
            counted = np.zeros(logits.shape[:2], dtype=np.int64)
            for row, encoding in zip(counted, encodings, strict=True):
                words = encoding.word_ids
                row[: len(words)] = [
                    word is not None and (i == 0 or word != words[i - 1]) for i, word in enumerate(words)
                ]
            batch["counted"] = torch.from_numpy(counted)
        return self.head.rows(torch.from_numpy(logits), batch)


def head_in(about: dict[str, Any]) -> Head:
    """The head with its settings."""
    settings = dict(about["head"])
    return HEADS[settings.pop("kind")](**settings)
