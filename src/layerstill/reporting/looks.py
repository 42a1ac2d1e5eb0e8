"""What every arm is called and how it looks, the same on the whole page."""

from collections.abc import Iterable
from dataclasses import dataclass

from layerstill.reporting.arms import Cell
from layerstill.reporting.naming import telling

COLOURS = 8
PATHS = (
    "M5 0A5 5 0 1 1 -5 0A5 5 0 1 1 5 0Z",
    "M-4.5 -4.5H4.5V4.5H-4.5Z",
    "M0 -6L6 0L0 6L-6 0Z",
    "M0 -5.5L5.5 5H-5.5Z",
    "M0 5.5L5.5 -5H-5.5Z",
    "M0 -6L5.7 -1.9L3.5 4.9H-3.5L-5.7 -1.9Z",
    "M-5.5 -2.8L-2.8 -5.5L0 -2.8L2.8 -5.5L5.5 -2.8L2.8 0L5.5 2.8L2.8 5.5L0 2.8L-2.8 5.5L-5.5 2.8L-2.8 0Z",
    "M0 -6L1.4 -1.9H5.7L2.2 0.7L3.5 4.9L0 2.3L-3.5 4.9L-2.2 0.7L-5.7 -1.9H-1.4Z",
)
"""The markers `o s D ^ v p X *` of plots, as the legend draws them."""
TEACHER_PATH = (
    "M0 -6.5L1.1 -2.8L4.6 -4.6L2.8 -1.1L6.5 0L2.8 1.1L4.6 4.6L1.1 2.8"
    "L0 6.5L-1.1 2.8L-4.6 4.6L-2.8 1.1L-6.5 0L-2.8 -1.1L-4.6 -4.6L-1.1 -2.8Z"
)
"""A star of eight rays."""
SHAPES = len(PATHS)
TEACHER = "teacher"
MOST = 8
"""Arms that one plot shows in colour; of more, the others are grey."""


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a name, and what stands for it in the drawing."""

    name: str
    look: int
    kind: str = "line"
    """`line`, or `rest` for all that are grey; else a mark: `point`, `pale` (exported) or `hollow` (quantised), or
    `teacher` with or without one of these before it."""

    @property
    def colour(self) -> int:
        """Number of the colour."""
        return self.look % COLOURS

    @property
    def dash(self) -> int:
        """Number of the way a line is drawn."""
        return self.look // COLOURS % 4

    @property
    def shape(self) -> int:
        """Number of the marker."""
        return shape_of(self.look)

    @property
    def drawn(self) -> str:
        """Its marker as the path of an SVG, within 7 units of the middle."""
        return TEACHER_PATH if "teacher" in self.kind else PATHS[self.shape]


def shape_of(look: int) -> int:
    """Number of a look's marker: colours and markers come round at different times, so that 64 looks differ."""
    return (look + look // COLOURS) % SHAPES


class Looks:
    """Names by what differs among `cells`, and a number for each name from which its looks follow."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        cells = list(cells)
        students = [cell for cell in cells if not cell.is_teacher] or cells
        widths = {cell.setting.size.partition(" × ")[2] for cell in students}
        parts = {id(cell): _parts(cell, len(widths) > 1) for cell in students}
        self._names: dict[int, str] = {}
        plain: dict[int, str] = {}
        for task in dict.fromkeys(cell.task for cell in students):
            of = [id(cell) for cell in students if cell.task == task]
            self._names |= zip(of, telling([parts[i] for i in of]), strict=True)
            # An arm looks the same whatever its data were.
            undrawn = [{key: value for key, value in parts[i].items() if key != "data"} for i in of]
            plain |= zip(of, telling(undrawn), strict=True)
        if len(students) < len(cells):
            self._names |= _teacher_names([cell for cell in cells if cell.is_teacher])
        numbers = {name: number for number, name in enumerate(sorted(set(plain.values())))}
        self._looks = {i: numbers[name] for i, name in plain.items()}

    def name(self, cell: Cell) -> str:
        """What a cell is called, its task aside."""
        return self._names[id(cell)]

    def look(self, cell: Cell) -> int:
        """Number of its looks."""
        return self._looks.get(id(cell), 0)


def _parts(cell: Cell, with_width: bool) -> dict[str, str]:
    size = cell.setting.size if with_width else cell.setting.size.partition(" × ")[0]
    regime = "" if cell.setting.regime == "full" else cell.setting.regime
    own = cell.arm.removeprefix(cell.recipe).removeprefix(", ")
    return {"recipe": cell.recipe, "own": own, "student": size, "start": cell.setting.start, "data": regime}


def _teacher_names(cells: list[Cell]) -> dict[int, str]:
    """A teacher is called so; several of one task by what differs among them, too."""
    if len({cell.task for cell in cells}) == len(cells):
        return {id(cell): TEACHER for cell in cells}
    names = telling([_parts(cell, True) for cell in cells])
    return {id(cell): f"{TEACHER} {name}" for cell, name in zip(cells, names, strict=True)}


def chosen(cells: Iterable[Cell], most: int = MOST) -> list[Cell]:
    """Those that a plot shows in colour: all where they are few, else the ones with the highest scores."""
    cells = list(cells)
    if len(cells) <= most:
        return cells
    best = sorted(cells, key=lambda cell: -cell.summary().mean)[:most]
    return [cell for cell in cells if cell in best]


def where(cells: Iterable[Cell]) -> dict[int, str]:
    """What tells the settings of cells apart, in words and in brackets, by the cell; empty where all have one."""
    cells = list(cells)
    settings = list(dict.fromkeys(cell.setting for cell in cells))
    if len(settings) < 2:
        return {id(cell): "" for cell in cells}
    regimes = ["whole data" if s.regime == "full" else s.regime for s in settings]
    parts = [{"size": s.size, "start": s.start, "data": r} for s, r in zip(settings, regimes, strict=True)]
    names = dict(zip(settings, telling(parts), strict=True))
    return {id(cell): f" ({names[cell.setting]})" for cell in cells}
