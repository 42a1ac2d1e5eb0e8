"""Places for names beside points, so that no name hides a point or another name."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 0.6
"""Of a letter, as a share of its height: wider than the mean of usual fonts."""


@dataclass(frozen=True)
class Box:
    """A rectangle; y grows upwards or downwards, as its user likes."""

    left: float
    low: float
    right: float
    high: float

    def meets(self, other: "Box") -> bool:
        """Whether the two have area in common."""
        across = self.left < other.right and other.left < self.right
        return across and self.low < other.high and other.low < self.high

    def within(self, other: "Box") -> bool:
        """Whether it lies inside."""
        across = other.left <= self.left and self.right <= other.right
        return across and other.low <= self.low and self.high <= other.high


@dataclass(frozen=True)
class Place:
    """Where a name begins, or ends if `anchor` is `end`, or has its middle; `y` is the middle of its height."""

    x: float
    y: float
    anchor: str
    box: Box


def place(
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    frame: Box,
    height: float,
    radius: float = 5.0,
    taken: Sequence[Box] = (),
) -> list[Place | None]:
    """A place for each name that finds one, the first names first; None for one that would hide something.

    `points` are in the units of `frame`, `height` is that of letters, `radius` that of the points' marks.
    """
    marks = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    occupied, found = list(taken), []
    for (x, y), name in zip(points, names, strict=True):
        spot = next(
            (
                one
                for one in _spots(x, y, WIDTH * height * len(name), height, radius)
                if one.box.within(frame) and not any(one.box.meets(other) for other in (*marks, *occupied))
            ),
            None,
        )
        if spot is not None:
            occupied.append(spot.box)
        found.append(spot)
    return found


def _spots(x: float, y: float, width: float, height: float, radius: float) -> list[Place]:
    """Places around a point, the best first."""
    gap, half = radius + 2, height * 0.6
    spots = []
    for lift in (0.0, height * 0.55, -height * 0.55):
        middle = y + lift
        spots.append(_placed(x + gap, middle, "start", x + gap, x + gap + width, half))
        spots.append(_placed(x - gap, middle, "end", x - gap - width, x - gap, half))
    for lift in (gap + half, -gap - half):
        spots.append(_placed(x, y + lift, "middle", x - width / 2, x + width / 2, half))
        spots.append(_placed(x - radius, y + lift, "start", x - radius, x - radius + width, half))
        spots.append(_placed(x + radius, y + lift, "end", x + radius - width, x + radius, half))
    return spots


def _placed(x: float, y: float, anchor: str, left: float, right: float, half: float) -> Place:
    return Place(x, y, anchor, Box(left, y - half, right, y + half))
