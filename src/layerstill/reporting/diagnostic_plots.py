"""What `layerstill diagnose` found in runs: flatness, curvature, agreement, similarity of layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from layerstill.evaluation.statistics import summarise
from layerstill.reporting import plots
from layerstill.reporting.arms import Cell
from layerstill.reporting.figures import Section, by, legend
from layerstill.reporting.looks import Looks, chosen, where
from layerstill.reporting.plots import Plot, Series, Table
from layerstill.reporting.reading import get, number

MOST_MAPS = 12
"""Heat maps of each kind; more would make the page heavy."""
_LINES = (
    ("weight_noise", "sigmas", "weight noise relative to each filter's norm", "score under weight noise"),
    ("slice_1d", "alpha", "step along a random direction, filter-normalised", "loss around the minimum"),
)


def diagnostics(cells: Sequence[Cell], looks: Looks | None = None) -> Section:
    """All plots and tables of the runs' `diagnostics.json`; parts that are not there are left out."""
    section = Section("Diagnostics", "From diagnostics.json of the runs that have one; lines are means over seeds.")
    looks = looks or Looks(cells)
    found = {id(c): [d for r in c.runs if isinstance(d := r.read("diagnostics.json"), dict)] for c in cells}
    cells = [c for c in cells if found[id(c)]]
    words = where(cells)
    for (task, _), of in by(cells, lambda c: (c.task, c.setting)).items():
        bright = chosen(of)
        for part, axis, xlabel, title in _LINES:
            for split in ("dev", "train"):
                lines = [
                    (c, s)
                    for c in of
                    if (s := _line(looks.name(c), found[id(c)], part, axis, split, looks.look(c))) is not None
                ]
                if lines:
                    series, rest = ([s for c, s in lines if (c in bright) == way] for way in (True, False))
                    name = f"{task}, {split}: {title}{words[id(of[0])]}"
                    section.plots.append(_line_plot(name, xlabel, title.split(" ")[0], series, rest))
    for kind, draw in (("similarity of layers", _similarity), ("loss in a plane", _plane)):
        drawn = [p for c in cells for p in draw(f"{c.task}, {looks.name(c)}: {kind}", found[id(c)])]
        section.plots.extend(drawn[:MOST_MAPS])
        if len(drawn) > MOST_MAPS:
            section.intro += f" Of {len(drawn)} maps of {kind} the first {MOST_MAPS} are drawn."
    parts = {"Gap between train and dev": _gap, "Agreement with the teacher": _agreement, "Curvature": _hessian}
    for title, read in parts.items():
        if table := _table(cells, found, read, looks):
            section.tables.append((title, table))
    return section


def _line(name: str, found: list[dict], part: str, axis: str, split: str, look: int) -> Series | None:
    """The mean line over runs whose points are those of the first run; points without a value are left out."""
    lines: list[tuple[list[float], list[float]]] = []
    for data in found:
        x, y = _numbers(get(get(data, part), axis)), get(get(data, part), split)
        values = _with_gaps(get(y, "mean") if isinstance(y, dict) else y)
        if x and len(x) == len(values) and (not lines or lines[0][0] == x):
            lines.append((x, values))
    if not lines:
        return None
    table = np.array([values for _, values in lines])
    there = np.isfinite(table).all(0)  # a point that one run lacks would be a mean of other runs than its neighbours
    if not there.any():
        return None
    x, table = list(np.array(lines[0][0])[there]), table[:, there]
    spread = list(table.std(0, ddof=1)) if len(lines) > 1 else None
    return Series(name, x, list(table.mean(0)), spread, look)


def _line_plot(title: str, xlabel: str, ylabel: str, series: list[Series], rest: list[Series]) -> Plot:
    rows: list[list[Any]] = []
    for s in (*series, *rest):
        spread: Sequence[Any] = s.spread or [None] * len(s.x)
        rows += [[s.name, *values] for values in zip(s.x, s.y, spread, strict=True)]
    alt = "; ".join(f"{s.name} between {min(s.y):.3g} and {max(s.y):.3g}" for s in series)
    drawn = plots.lines(series, xlabel, ylabel, rest=rest)
    return Plot(
        title, f"Lines over {xlabel}: {alt}.", drawn, Table(["arm", xlabel, ylabel, "sd"], rows), legend(series, rest)
    )


def _similarity(where: str, found: list[dict]) -> list[Plot]:
    """CKA between layers, the mean over runs with the same layers."""
    maps: list[np.ndarray] = []
    for data in found:
        rows, columns = get(get(data, "cka"), "student_layers"), get(get(data, "cka"), "teacher_layers")
        values = _matrix(get(get(data, "cka"), "values"))
        if values is not None and _names(rows) and _names(columns) and values.shape == (len(rows), len(columns)):
            if not maps:
                students, teachers = list(rows), list(columns)
            if maps and values.shape != maps[0].shape:
                continue
            maps.append(values)
    if not maps:
        return []
    mean = np.mean(maps, axis=0)
    closest = [teachers[i] for i in mean.argmax(1)]
    best = "; ".join(f"{name} is closest to {other}" for name, other in zip(students, closest, strict=True))
    rows_out: list[list[Any]] = [[name, *row] for name, row in zip(students, mean.tolist(), strict=True)]
    drawn = plots.heat(mean, students, teachers, "student", "teacher", min(0.0, float(mean.min())), 1.0)
    return [Plot(where, f"Linear CKA of layers: {best}.", drawn, Table(["student", *teachers], rows_out))]


def _plane(where: str, found: list[dict]) -> list[Plot]:
    """The loss in a plane of two random directions, for the first run that has it."""
    for data in found:
        x, y = (_numbers(get(get(data, "slice_2d"), axis)) for axis in ("alpha", "beta"))
        loss = _matrix(get(get(data, "slice_2d"), "loss"), gaps=True)
        if loss is None or loss.shape != (len(x), len(y)) or min(loss.shape) < 2:
            continue
        known = loss[np.isfinite(loss)]
        if len(known) < 4:
            continue
        alt = f"Loss from {known.min():.3g} to {known.max():.3g}."
        alt += f" {loss.size - known.size} of {loss.size} points have none." if known.size < loss.size else ""
        shown = [[None if np.isnan(v) else v for v in row] for row in loss.tolist()]
        rows: list[list[Any]] = [[a, *row] for a, row in zip(x, shown, strict=True)]
        table = Table(["alpha", *(f"beta {b:g}" for b in y)], rows)
        return [Plot(where, alt, plots.contour(x, y, np.ma.masked_invalid(loss.T), "alpha", "beta"), table)]
    return []


def _gap(data: dict) -> dict[str, float]:
    found = {}
    for metric, of in _items(get(data, "gap")):
        for split in ("train", "dev"):
            if (value := number(of, split)) is not None:
                found[f"{metric}, {split}"] = value
        if f"{metric}, train" in found and f"{metric}, dev" in found:
            found[f"{metric}, train - dev"] = found[f"{metric}, train"] - found[f"{metric}, dev"]
    return found


def _agreement(data: dict) -> dict[str, float]:
    shares = {split: number(of, "teacher") for split, of in _items(get(data, "agreement"))}
    return {split: value for split, value in shares.items() if value is not None}


def _hessian(data: dict) -> dict[str, float]:
    names = ("top_eigenvalue", "trace", "trace_standard_error")
    values = {name.replace("_", " "): number(get(data, "hessian"), name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _table(cells: Sequence[Cell], found: dict[int, list[dict]], read: Any, looks: Looks) -> Table | None:
    """Means over runs of what `read` finds, a row a cell."""
    values = {id(c): [read(d) for d in found[id(c)]] for c in cells}
    names = list(dict.fromkeys(name for of in values.values() for one in of for name in one))
    if not names:
        return None
    rows: list[list[Any]] = []
    for cell in cells:
        of = [one for one in values[id(cell)] if one]
        means = [summarise(v).mean if (v := [one[n] for one in of if n in one]) else None for n in names]
        if of:
            rows.append([cell.task, looks.name(cell), str(cell.setting), len(of), *means])
    return Table(["task", "arm", "setting", "n", *names], rows)


def _items(data: Any) -> list[tuple[str, Any]]:
    return [(str(k), v) for k, v in data.items()] if isinstance(data, dict) else []


def _names(data: Any) -> bool:
    return isinstance(data, list) and bool(data) and all(isinstance(name, str) for name in data)


def _numbers(data: Any) -> list[float]:
    """A list of finite numbers; empty for anything else."""
    if not isinstance(data, list) or not all(isinstance(v, int | float) and abs(v) < float("inf") for v in data):
        return []
    return [float(v) for v in data]


def _with_gaps(data: Any) -> list[float]:
    """A list of numbers, NaN where one is missing or not finite; empty for anything else."""
    if not isinstance(data, list) or not all(v is None or isinstance(v, int | float) for v in data):
        return []
    return [float("nan") if v is None or not abs(v) < float("inf") else float(v) for v in data]


def _matrix(data: Any, gaps: bool = False) -> np.ndarray | None:
    read = _with_gaps if gaps else _numbers
    rows = [read(row) for row in data] if isinstance(data, list) else []
    return np.array(rows) if rows and rows[0] and len({len(row) for row in rows}) == 1 else None
