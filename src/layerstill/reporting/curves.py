"""Learning curves from `metrics.jsonl`: loss and dev score of all arms, and each arm's objectives."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from layerstill.reporting import plots
from layerstill.reporting.arms import Cell
from layerstill.reporting.figures import Section, by, legend
from layerstill.reporting.looks import Looks, chosen
from layerstill.reporting.plots import Plot, Series, Table
from layerstill.reporting.reading import number
from layerstill.reporting.runs import RunRecord

MOST_CURVES = 24
"""Plots of single objectives, one a cell; more would make the page heavy."""


def learning_curves(cells: Sequence[Cell], looks: Looks | None = None) -> Section:
    """Training loss and dev score of all arms, then each arm's objectives."""
    section = Section(
        "Learning curves",
        "Means over seeds; stages follow each other on the axis of steps. A loss has the unit of its recipe, so lines "
        "that would be flat beside others have panels of their own, and axes are logarithmic where values span much.",
        more_title="Objectives of each arm",
    )
    looks = looks or Looks(cells)
    curves = {id(c): Curves(c.runs) for c in cells}
    for (task, regime), of in by(cells, lambda c: (c.task, c.setting.regime)).items():
        where = task if regime == "full" else f"{task}, {regime}"
        bright = chosen(c for c in of if curves[id(c)].runs)
        metric = of[0].metric
        for group, name, title in (("", "loss", "training loss"), ("dev", metric, f"{metric} on dev")):
            drawn = [(c, curves[id(c)].series(looks.name(c), group, name, looks.look(c))) for c in of]
            series = [s for c, s in drawn if s is not None and c in bright]
            rest = [s for c, s in drawn if s is not None and c not in bright]
            if any(len(s.x) > 1 for s in series):
                section.plots.append(_curve_plot(f"{where}: {title}", series, title, group == "", rest))
    shown = [c for c in cells if curves[id(c)].objectives][:MOST_CURVES]
    for cell in shown:
        section.more.extend(_objective_plots(cell, looks.name(cell), curves[id(cell)]))
    hidden = sum(bool(curves[id(c)].objectives) for c in cells) - len(shown)
    if hidden:
        section.intro += f" Objectives are drawn for the first {MOST_CURVES} settings; {hidden} more: metrics.jsonl."
    return section


class Curves:
    """The lines of `metrics.jsonl` of several runs, with steps counted through all stages."""

    def __init__(self, runs: Sequence[RunRecord]) -> None:
        self.runs = [list(_through_stages(run.lines("metrics.jsonl"))) for run in runs]
        self.objectives = _names(self.runs, "objectives")

    def series(self, label: str, group: str, name: str, look: int) -> Series | None:
        """Mean and spread over runs of value `name` of a line, or of its `group`, at the steps that all runs have."""
        found = [
            {step: v for step, line in run if (v := number(line.get(group) if group else line, name)) is not None}
            for run in self.runs
        ]
        found = [values for values in found if values]
        if not found:
            return None
        steps = sorted(set.intersection(*map(set, found)))
        table = np.array([[values[s] for s in steps] for values in found])
        if not steps:
            return None
        spread = table.std(0, ddof=1) if len(table) > 1 else None
        return Series(label, steps, list(table.mean(0)), None if spread is None else list(spread), look)


def _through_stages(lines: Iterable[dict]) -> Iterator[tuple[int, dict]]:
    before, last, stage = 0, 0, None
    for entry in lines:
        step = entry.get("step")
        if not isinstance(step, int):
            continue
        if entry.get("stage") != stage:
            before, stage = before + last, entry.get("stage")
        last = step
        yield before + step, entry


def _names(runs: list[list[tuple[int, dict]]], group: str) -> list[str]:
    names: dict[str, None] = {}
    for run in runs:
        for _, entry in run:
            if isinstance(entry.get(group), dict):
                names |= dict.fromkeys(map(str, entry[group]))
    return list(names)


def _objective_plots(cell: Cell, name: str, curves: Curves) -> list[Plot]:
    made = []
    for group, title in (
        ("objectives", "objectives"),
        ("dev_objectives", "objectives on dev"),
        ("train_objectives", "objectives on train, without dropout"),
    ):
        names = curves.objectives if group == "objectives" else _names(curves.runs, group)
        series = [s for i, n in enumerate(names) if (s := curves.series(n, group, n, i)) is not None]
        if any(len(s.x) > 1 for s in series):
            regime = "" if cell.setting.regime == "full" or cell.setting.regime in name else f", {cell.setting.regime}"
            made.append(_curve_plot(f"{cell.task}, {name}{regime}: {title}", series, "value", True))
    return made


def _curve_plot(title: str, series: list[Series], ylabel: str, own: bool, rest: Sequence[Series] = ()) -> Plot:
    rows: list[list[Any]] = []
    for s in (*series, *rest):
        spread: Sequence[Any] = s.spread or [None] * len(s.x)
        rows += [[s.name, *values] for values in zip(s.x, s.y, spread, strict=True)]
    ends = "; ".join(f"{s.name} from {s.y[0]:.3g} to {s.y[-1]:.3g}" for s in series[:6])
    grey = f" In grey: {len(rest)} that score less." if rest else ""
    return Plot(
        title,
        f"Lines over steps: {ends}{' and others' if len(series) > 6 else ''}.{grey}",
        plots.lines(series, "step", ylabel, own, rest),
        Table(["line", "step", ylabel, "sd"], rows),
        legend(series, rest),
    )
