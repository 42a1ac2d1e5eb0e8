"""When the best value of a tuned grid is its first or its last: what lies beyond, tried or at least said."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from layerstill.errors import UserError
from layerstill.studies.tuning import Halving, JobError, Score

DIGITS = 3
MOST_NOTES = 10


def is_grid(values: Sequence[Any]) -> bool:
    """Whether a next value can be told from these: two or more positive numbers, from the smallest to the largest."""
    if len(values) < 2 or not all(_number(value) and value > 0 for value in values):
        return False
    return all(a < b for a, b in pairwise(values))


async def widened(found: Halving, most: int, score: Score) -> Halving:
    """The same halving after at most `most` values beyond an edge that won, each the last ratio further.

    They are trained as the last rung trains. It ends with the first value that is not better than the one before, or
    that no recipe takes. There is one tuned axis, and its values are as `is_grid` says.
    """
    last = found.rungs[-1]
    ((axis, value),) = found.chosen.items()
    values = [candidate[axis] for candidate in found.rungs[0]["candidates"]]
    best = next(candidate["score"] for candidate in last["candidates"] if candidate[axis] == value)
    tried: list[dict[str, Any]] = []
    while len(tried) < most and (further := _beyond(values, value)) is not None:
        values.append(further)
        try:
            reached = await score({axis: further}, last["share"])
        except JobError:
            raise
        except UserError:  # no recipe takes such a value, so the grid ends where it did
            break
        tried.append({axis: further, "score": reached})
        if tried[-1]["score"] is None or tried[-1]["score"] <= best:
            break
        value, best = further, tried[-1]["score"]
    return replace(found, chosen={axis: value}, widened=tried)


def _beyond(values: list[Any], value: Any) -> Any:
    """What comes after `value` if it is the smallest or the largest of `values`; None if it is neither.

    Whole numbers stay whole, and where none is left there is nothing beyond.
    """
    ordered = sorted(values)
    if value not in (ordered[0], ordered[-1]):
        return None
    neighbour = ordered[1] if value == ordered[0] else ordered[-2]
    further = float(f"{value * value / neighbour:.{DIGITS}g}")  # 8e-06, not 8.000000000000001e-06
    if all(isinstance(one, int) for one in values):
        further = round(further)
    return None if further in values or further <= 0 else further


def edges(found: Halving) -> dict[str, str]:
    """Axis: `lowest` or `highest`, for each axis of numbers whose chosen value is that of all that were tried."""
    tried = [*found.rungs[0]["candidates"], *found.widened]
    at = {}
    for axis, value in found.chosen.items():
        values = {candidate[axis] for candidate in tried if _number(candidate[axis])}
        if len(values) > 1 and value in (min(values), max(values)):
            at[axis] = "lowest" if value == min(values) else "highest"
    return at


def edge_notes(groups: list[dict[str, Any]], widen: int) -> list[str]:
    """Lines about the groups of `tuning.json` whose choice is at an edge, and what can be done."""
    at = [group for group in groups if group.get("edge")]
    if not at:
        return []
    way = f"widen: {widen} is used up" if widen else "tune: {widen: 2} tries values there"
    lines = [
        f"{len(at)} of {len(groups)} tuned groups chose an edge of the grid, a better value may lie beyond; {way}:"
    ]
    for group in at[:MOST_NOTES]:
        name = " / ".join(map(str, group["group"].values())) or "all runs"
        chosen = [f"{axis} {group['chosen'][axis]:g} is the {which}" for axis, which in group["edge"].items()]
        lines.append(f"  {name}: {', '.join(chosen)}")
    return lines + ([f"  and {len(at) - MOST_NOTES} more in tuning.json"] if len(at) > MOST_NOTES else [])


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
