"""Successive halving: many candidates trained a little, the better half longer, and so on; every score is kept.

Jamieson and Talwalkar, arXiv 1502.07943; training starts anew on each rung, because a learning-rate schedule is as long
as its run.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from layerstill.errors import UserError


class JobError(UserError):
    """A job that others wait for has failed, or is not finished."""


Score = Callable[[dict[str, Any], float], Awaitable[float | None]]
"""The score of a candidate trained for a share of a run; None if it cannot be trained."""


@dataclass
class Halving:
    """What was tried and what was chosen."""

    chosen: dict[str, Any]
    rungs: list[dict[str, Any]] = field(default_factory=list)
    """Each with its share, and the candidates with their scores."""
    widened: list[dict[str, Any]] = field(default_factory=list)
    """Values beyond the grid that were tried after it, with their scores."""


async def halve(candidates: list[dict[str, Any]], rungs: list[float], score: Score) -> Halving:
    """The best candidate by the last rung. Of equal scores, the candidate that comes first wins.

    After each rung but the last, ceil(n / 2) of n candidates go on. UserError if none can be trained.
    """
    left = candidates
    found = Halving({})
    for number, share in enumerate(rungs):
        scores = await asyncio.gather(*(score(candidate, share) for candidate in left))
        entries = [{**candidate, "score": value} for candidate, value in zip(left, scores, strict=True)]
        found.rungs.append({"share": share, "candidates": entries})
        if all(value is None for value in scores):
            raise UserError(f"tune: none of the candidates {left} could be trained")
        left = [left[i] for i in survivors(scores, last=number == len(rungs) - 1)]
    found.chosen = left[0]
    return found


def survivors(scores: Sequence[Any], last: bool) -> list[int]:
    """Which candidates go on, in their order: the better ceil(n / 2) of n, after the last rung the best alone.

    Scores are ordered, higher is better, and None is of one that cannot be trained. Of equal ones the first goes on.
    """
    ranked = sorted((i for i, s in enumerate(scores) if s is not None), key=lambda i: scores[i], reverse=True)
    return sorted(ranked[: 1 if last else (len(scores) + 1) // 2])


def jobs_in(candidates: int, rungs: int, seeds: int) -> int:
    """How many trainings a halving takes."""
    total = 0
    for _ in range(rungs):
        total += candidates * seeds
        candidates = (candidates + 1) // 2
    return total
