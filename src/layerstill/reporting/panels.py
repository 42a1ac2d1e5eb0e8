"""Which lines share an axis: none is made flat by the scale of another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 0.15
"""Of the height of its panel that a line takes up at least, if it changes at all."""
CHANGES = 0.02
"""Of its size, by which a line must change for its shape to be worth seeing."""
MOST = 6
"""Panels below each other."""
SPREAD = 8.0
"""Times its lowest value, from which on a line is drawn on a logarithmic axis where it may be."""


@dataclass(frozen=True)
class Panel:
    """Lines by their number, on one axis."""

    members: tuple[int, ...]
    log: bool


def arrange(lines: Sequence[Sequence[float]], split: bool) -> list[Panel]:
    """Panels for lines of positive values, or of any; all in one unless `split`.

    One panel, linear or logarithmic, if no line is flat in it; else as few as it takes, each with its own axis.
    """
    everything = tuple(range(len(lines)))
    log = _may_be_log(lines)
    wide = log and any(max(line) > SPREAD * min(line) for line in lines)
    for way in (wide, log):
        if _readable(lines, everything, way):
            return [Panel(everything, way)]
    if not split:
        return [Panel(everything, wide)]
    order = sorted(everything, key=lambda i: (float(np.median(lines[i])), i))
    panels: list[list[int]] = []
    for i in order:
        if panels and (_readable(lines, (*panels[-1], i), wide) or len(panels) == MOST):
            panels[-1].append(i)
        else:
            panels.append([i])
    return [Panel(tuple(sorted(members)), wide) for members in reversed(panels)]


def _may_be_log(lines: Sequence[Sequence[float]]) -> bool:
    return all(value > 0 for line in lines for value in line)


def _readable(lines: Sequence[Sequence[float]], members: Sequence[int], log: bool) -> bool:
    ends = [(min(lines[i]), max(lines[i])) for i in members]
    changing = [high - low > CHANGES * max(abs(low), abs(high)) for low, high in ends]
    if log:
        ends = [(math.log(low), math.log(high)) for low, high in ends]
    whole = max(high for _, high in ends) - min(low for low, _ in ends)
    return all(high - low >= LEAST * whole for (low, high), moves in zip(ends, changing, strict=True) if moves)
