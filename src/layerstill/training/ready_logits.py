"""Ready logits: what teachers said of the training examples before training, read as a teacher cache is."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from layerstill.heads import Head
from layerstill.knowledge.capture import Captured
from layerstill.training.moving import to_device


class ReadyLogits:
    """The logits of examples, found by the hashes of their tokens.

    Args:
        content: a hash for each example, as `data.encode` makes them.
        logits: `(n, C)`, of each example. Examples with the same tokens have the mean of their answers.
        head: what the logits are of.
    """

    def __init__(self, content: Sequence[int], logits: np.ndarray, head: Head) -> None:
        rows: dict[int, list[int]] = {}
        for row, key in enumerate(content):
            rows.setdefault(key, []).append(row)
        means = [
            logits[same[0]] if len(same) == 1 else head.mean(logits[same][:, None], [1 / len(same)] * len(same))[0]
            for same in rows.values()
        ]
        self._places = {key: place for place, key in enumerate(rows)}
        self._logits = torch.tensor(np.stack(means), dtype=torch.float32)

    def read(self, content: Sequence[int], mask: Tensor) -> Captured:
        """The logits of the examples with these hashes, beside `mask` `(B, N)`."""
        captured = Captured(mask)
        captured.logits = to_device(self._logits[[self._places[key] for key in content]], mask.device)
        return captured
