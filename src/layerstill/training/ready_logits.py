"""Ready logits: what a teacher that is not here said of the training examples, read as a teacher cache is."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from layerstill.heads import Head
from layerstill.knowledge.capture import Captured


class ReadyLogits:
    """The logits of examples, found by the hashes of their tokens. Examples with the same tokens have the mean.

    Args:
        content: a hash for each example, as `data.encode` makes them.
        probabilities: `(n, C)`, of the labels of each. Their logarithms are the logits (a sigmoid's log-odds with
            several labels), those below 1e-6 as if they were that.
        head: what the probabilities are of.
    """

    def __init__(self, content: Sequence[int], probabilities: np.ndarray, head: Head) -> None:
        places = {key: place for place, key in enumerate(dict.fromkeys(content))}
        rows = torch.tensor([places[key] for key in content])
        sums = torch.zeros(len(places), probabilities.shape[1], dtype=torch.float64)
        sums.index_add_(0, rows, torch.as_tensor(probabilities, dtype=torch.float64))
        means = (sums / torch.bincount(rows)[:, None]).tolist()
        self._places = places
        self._logits = torch.tensor([head.logits_of(row, "teacher probabilities") for row in means])

    def read(self, content: Sequence[int], mask: Tensor) -> Captured:
        """The logits of the examples with these hashes, beside `mask` `(B, N)`."""
        captured = Captured(mask)
        captured.logits = self._logits[[self._places[key] for key in content]].to(mask.device)
        return captured
