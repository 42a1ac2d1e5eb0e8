"""Models that say one thing of nearly everything, which a score alone can hide."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

NEARLY_ALL = 0.95
"""From this share of the examples on, an answer is the only one a model has learnt."""
OF_GOLD = 0.25
"""Other answers are at most so frequent among the answers, measured by the gold labels: where nearly all texts have one
label, saying so is right."""


@dataclass(frozen=True)
class Answer:
    """What a model says of nearly every example, and of which share of them."""

    said: Any
    share: float


def only_answer(said: Sequence[Hashable], gold: Sequence[Hashable]) -> Answer | None:
    """The one answer that is given for nearly everything though the gold labels are not so; None if there is none.

    That is 95 % of the answers, and others are at least 4 times rarer than among the gold labels.
    """
    if not said or not gold:
        return None
    answer, count = Counter(said).most_common(1)[0]
    others, wanted = 1 - count / len(said), 1 - Counter(gold)[answer] / len(gold)
    if wanted == 0 or others > min(1 - NEARLY_ALL, OF_GOLD * wanted) + 1e-9:
        return None
    return Answer(answer, count / len(said))
