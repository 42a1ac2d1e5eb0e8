"""What a model says of one text, in words rather than logits."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """What a model says of one text, whatever its head.

    | head | `label` | `probability` | `probabilities` |
    |---|---|---|---|
    | classes | the name of one | its | of every class by name |
    | several labels | a tuple of names, perhaps empty | of each of them | of every label by name |
    | scores | a number; of several targets a dictionary by name | None | empty |
    | tags | a name a word, None for a word that was cut off | of each of them, None too | empty |
    """

    label: Any
    probability: Any = None
    probabilities: dict[str, float] = field(default_factory=dict)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits `(..., C)` over the last axis, in float64."""
    shifted = np.asarray(logits, dtype=np.float64)
    powers = np.exp(shifted - shifted.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
