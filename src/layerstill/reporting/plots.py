"""Plots as inline SVG: drawn by matplotlib, coloured by the page, so that they follow its light or dark scheme."""

import io
import itertools
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from layerstill.errors import UserError
from layerstill.reporting.labels import Box, place
from layerstill.reporting.looks import COLOURS, Key, shape_of
from layerstill.reporting.panels import Panel, arrange

DASHES = ("-", "--", ":", "-.")
MARKERS = "osD^vpX*"
TEACHER_MARKER = (8, 1, 0)
"""A star of eight rays, which no student has."""
MOST_LABELLED = 14
"""Points with their names beside them; more are left to the legend, save those that matter."""
_INK, _LINE, _SOFT = "#010203", "#010204", "#010205"
_SIZE = (4.4, 2.9)
_SERIES = {f"#0101{n:02x}": f"var(--c{n})" for n in range(COLOURS)}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "layerstill",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "grid.color": _LINE,
    "lines.linewidth": 1.6,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
}


@dataclass(frozen=True)
class Series:
    """A line or a group of points: `spread` is one standard deviation to each side."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] | None = None
    look: int = 0
    """Colour, dash and marker; the same arm looks the same in every plot."""
    kind: str = "line"
    """As in `Key`: what it stands for."""
    label: str | None = None
    """What stands beside a point, if not the name; empty for nothing."""

    @property
    def key(self) -> Key:
        """Its entry in the legend."""
        return Key(self.name, self.look, self.kind)


@dataclass(frozen=True)
class Table:
    """A header and rows; numbers stay numbers, so that they can be sorted."""

    header: list[str]
    rows: list[list[Any]]
    same: dict[str, str] = field(default_factory=dict)
    """What stands in no column because it is the same in every row."""


@dataclass(frozen=True)
class Plot:
    """A drawing with its alternative text, its legend and its numbers."""

    title: str
    alt: str
    svg: str
    table: Table
    legend: list[Key] = field(default_factory=list)


def require_matplotlib() -> None:
    """UserError if matplotlib, which is an extra, is not installed."""
    try:
        import matplotlib  # noqa: F401 (only asked whether it is there)
    except ImportError:
        raise UserError("plots need matplotlib, which is not installed: pip install 'layerstill[report]'") from None


def lines(series: Sequence[Series], xlabel: str, ylabel: str, own: bool = False, rest: Sequence[Series] = ()) -> str:
    """Lines with a band of one standard deviation; `rest` is drawn thin and grey behind them.

    With `own` every line has a unit of its own, so a logarithmic axis may be used, and lines that would be flat on a
    common axis get panels below each other. Without, all are on one linear axis.
    """
    panels = arrange([s.y for s in series], split=True) if own else [Panel(tuple(range(len(series))), False)]
    figure, all_axes = _stacked(xlabel, ylabel, len(panels))
    for panel, axes in zip(panels, all_axes, strict=True):
        shown = [series[i] for i in panel.members]
        behind = rest if len(panels) == 1 else ()
        low, high = _reach(shown, panel.log, behind)
        for s in behind:
            axes.plot(s.x, s.y, color=_LINE, linewidth=1.1, zorder=1)
        for s in shown:
            _line(axes, s, low, high)
        _scale(axes, low, high, panel.log, 5 if len(panels) == 1 else 3)
    return _svg(figure)


def _line(axes: Any, s: Series, low: float, high: float) -> None:
    colour, x, y = _colour(s.look), np.asarray(s.x, float), np.asarray(s.y, float)
    few = len(x) < 12
    marker = MARKERS[shape_of(s.look)] if few else None
    axes.plot(x, y, DASHES[s.look // COLOURS % len(DASHES)], color=colour, marker=marker, ms=4 if few else 0)
    if s.spread is not None and np.any(np.asarray(s.spread) > 0):
        ends = (np.clip(y + sign * np.asarray(s.spread), low, high) for sign in (-1, 1))
        axes.fill_between(x, *ends, color=colour, alpha=0.15, linewidth=0)


def _reach(shown: Sequence[Series], log: bool, rest: Sequence[Series]) -> tuple[float, float]:
    """Ends of the axis: those of the lines, a little further, and of their bands as far as these do not rule it."""
    values = np.concatenate([np.asarray(s.y, float) for s in (*shown, *rest)])
    if log:
        values = values[values > 0]
        low, high = float(np.log(values.min())), float(np.log(values.max()))
        margin = 0.05 * (high - low) or 0.1
        return float(np.exp(low - margin)), float(np.exp(high + margin))
    low, high = float(values.min()), float(values.max())
    whole = high - low or abs(high) or 1.0
    bands = [np.asarray(s.y) + sign * np.asarray(s.spread) for s in shown if s.spread is not None for sign in (-1, 1)]
    if bands:
        low = max(min(low, *(float(b.min()) for b in bands)), low - whole / 3)
        high = min(max(high, *(float(b.max()) for b in bands)), high + whole / 3)
    margin = 0.05 * whole
    return low - margin, high + margin


def _scale(axes: Any, low: float, high: float, log: bool, most: int) -> None:
    """Ends and ticks of the axis upwards: round numbers, never so many that they touch."""
    from matplotlib.ticker import FixedLocator, NullLocator

    if not log:
        axes.set_ylim(low, high)
        axes.locator_params(axis="y", nbins=most)
        return
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [d * 10.0**p for p in powers for d in digits if low <= d * 10.0**p <= high]
        if len(ticks) <= most:
            break
    ticks = ticks[:: max(1, -(-len(ticks) // most))]
    if len(ticks) < 2:
        ticks = [float(f"{v:.2g}") for v in np.geomspace(low, high, 5)[1:4:2]]
    axes.yaxis.set(major_locator=FixedLocator(ticks), minor_locator=NullLocator(), major_formatter="{x:.3g}")


def points(
    series: Sequence[Series],
    xlabel: str,
    ylabel: str,
    front: Sequence[tuple[float, float]] = (),
    rest: Sequence[Series] = (),
    labelled: bool = False,
) -> str:
    """Points with error bars upwards and downwards; `front` is joined by a thin line, `rest` is grey and small.

    With `labelled`, names stand beside the points as far as there is room: first those of the first series.
    """
    figure, axes = _axes(xlabel, ylabel)
    axes.margins(0.1, 0.14)
    if len(front) > 1:
        axes.plot(*zip(*sorted(front), strict=True), color=_INK, linewidth=0.8, linestyle=":")
    for s in rest:
        axes.plot(s.x, s.y, "o", ms=3.5, color=_SOFT, zorder=1.5)
    for s in series:
        colour = _INK if "teacher" in s.kind else _colour(s.look)
        marker: Any = TEACHER_MARKER if "teacher" in s.kind else MARKERS[shape_of(s.look)]
        face: dict[str, Any] = {"markerfacecolor": "none"} if "hollow" in s.kind else {}
        face |= {"markerfacecolor": (colour, 0.3)} if "pale" in s.kind else {}
        size = 8 if "teacher" in s.kind else 6.5
        axes.errorbar(s.x, s.y, s.spread, fmt=marker if isinstance(marker, str) else "none", ms=size, capsize=2,
                      elinewidth=1, color=colour, **face)  # fmt: skip
        if not isinstance(marker, str):
            axes.plot(s.x, s.y, linestyle="", marker=marker, ms=size, color=colour, **face)
    if labelled:
        _name_points(axes, series, rest)
    return _svg(figure)


def _name_points(axes: Any, series: Sequence[Series], rest: Sequence[Series]) -> None:
    """Write each series' label beside its point, where it hides nothing."""
    figure = axes.figure
    to_points = 72 / figure.dpi
    axes.get_xlim(), axes.get_ylim()  # which settles them: where points are follows from that
    box = axes.get_window_extent()
    frame = Box(box.x0 * to_points, box.y0 * to_points, box.x1 * to_points + 6, box.y1 * to_points)

    def at(s: Series) -> list[tuple[float, float]]:
        return [tuple(xy) for xy in axes.transData.transform(np.column_stack([s.x, s.y])) * to_points]

    others = [Box(x - 3, y - 3, x + 3, y + 3) for s in rest for x, y in at(s)]
    named = [(s.label or s.name, at(s)[0]) for s in series if s.label != "" and len(s.x)]
    spots = place([xy for _, xy in named], [_short(n, 30) for n, _ in named], frame, 9.0, 4.5, others)
    for (name, _), spot in zip(named, spots, strict=True):
        if spot is not None:
            side = {"start": "left", "end": "right", "middle": "center"}[spot.anchor]
            x, y = axes.transData.inverted().transform((spot.x / to_points, spot.y / to_points))
            axes.text(x, y, _short(name, 30), ha=side, va="center", fontsize=9, color=_INK)


BESIDE = 24
"""Letters of the longest name that stands beside its interval."""


def intervals(names: Sequence[str], middle: Sequence[float], ends: Sequence[tuple[float, float]], xlabel: str) -> str:
    """Intervals below each other, the first on top, with a line at 0."""
    above = max(map(len, names)) > BESIDE
    row = 0.44 if above else 0.26
    height = 0.8 + row * len(names)
    labels = _cut(names, 48 if above else BESIDE)
    left = 0.05 if above else 0.06 + 0.021 * max(map(len, labels))
    figure, axes = _axes(xlabel, "", left=left, bottom=0.5 / height)
    figure.set_figheight(height)
    y = np.arange(len(names))[::-1]
    axes.vlines(np.zeros(len(y)), y - 0.3, y + (0.18 if above else 0.3), color=_INK, linewidth=0.8)
    axes.hlines(y, [low for low, _ in ends], [high for _, high in ends], color=_colour(0), linewidth=2)
    axes.plot(middle, y, "o", color=_colour(0), ms=5)
    if above:  # names too long to stand beside the lines stand on them
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        for place, label in zip(y, labels, strict=True):
            axes.text(0.0, place + 0.44, label, transform=axes.get_yaxis_transform(), va="center", color=_INK)
    else:
        axes.set_yticks(y, labels)
    axes.set_ylim(-0.5, len(names) - 0.2)
    axes.locator_params(axis="x", nbins=5)
    return _svg(figure)


def _cut(names: Sequence[str], most: int) -> list[str]:
    """Names no longer than `most` letters, in the middle of those that would else become equal."""
    ends = [_short(name, most) for name in names]
    middle = [name if len(name) <= most else f"{name[: most // 3]}…{name[1 + most // 3 - most :]}" for name in names]
    return [m if ends.count(e) > 1 else e for e, m in zip(ends, middle, strict=True)]


def bars(groups: Sequence[str], series: Sequence[Series], ylabel: str) -> str:
    """Dots with error bars side by side in named groups; a series' `x` are numbers of groups."""
    room = int(44 / max(len(groups), 1))
    slanted = any(len(g) > room for g in groups)
    figure, axes = _axes("", ylabel, bottom=0.3 if slanted else 0.1)
    width = 0.7 / max(len(series), 1)
    for number, s in enumerate(series):
        x = np.asarray(s.x, float) + (number - (len(series) - 1) / 2) * width
        marker = MARKERS[shape_of(s.look)]
        axes.errorbar(x, s.y, s.spread, fmt=marker, ms=5, capsize=2, elinewidth=1, color=_colour(s.look))
    turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(groups)), [_short(g, 16 if slanted else room) for g in groups], **turned)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.grid(axis="x", visible=False)
    return _svg(figure)


def heat(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], ylabel: str, xlabel: str, low: float, high: float
) -> str:
    """A heat map with the value written into each cell, where there is room."""
    figure, axes = _axes(xlabel, ylabel, left=0.27, bottom=0.36)
    axes.grid(visible=False)
    axes.pcolormesh(values, cmap="cividis", vmin=low, vmax=high)
    axes.set_xticks(np.arange(len(columns)) + 0.5, [_short(c, 12) for c in columns], rotation=45, ha="right")
    axes.set_yticks(np.arange(len(rows)) + 0.5, [_short(r, 12) for r in rows])
    if values.size <= 120:
        for i, j in itertools.product(*map(range, values.shape)):
            share = (values[i, j] - low) / (high - low) if high > low else 0
            ink = "#000000" if share > 0.55 else "#ffffff"
            axes.text(j + 0.5, i + 0.5, f"{values[i, j]:.2f}", ha="center", va="center", color=ink, fontsize=8)
    return _svg(figure)


def contour(x: Sequence[float], y: Sequence[float], values: np.ndarray, xlabel: str, ylabel: str) -> str:
    """Filled contours of `values` `(len(y), len(x))` with a bar that says what the colours mean."""
    figure, axes = _axes(xlabel, ylabel)
    filled = axes.contourf(x, y, values, levels=12, cmap="cividis")
    axes.plot([0], [0], "+", color="#ffffff", ms=8)
    figure.colorbar(filled, ax=axes, format="%.3g", pad=0.03)
    return _svg(figure)


def _axes(xlabel: str, ylabel: str, left: float = 0.15, bottom: float = 0.17) -> tuple[Any, Any]:
    # Margins are given, for a layout that measures them draws every text twice.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=_SIZE)
        axes = figure.add_axes((left, bottom, 0.975 - left, 0.96 - bottom))
        axes.set_xlabel(_short(xlabel, 50))
        axes.set_ylabel(_short(ylabel, 34))
        axes.locator_params(nbins=6)
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    return figure, axes


def _stacked(xlabel: str, ylabel: str, panels: int) -> tuple[Any, list[Any]]:
    """Axes below each other with one axis of x."""
    figure, axes = _axes(xlabel, ylabel)
    if panels == 1:
        return figure, [axes]
    import matplotlib

    height = 0.75 + 1.15 * panels
    figure.set_figheight(height)
    all_axes = [axes]
    bottom, each = 0.5 / height, 1.15 / height
    with matplotlib.rc_context(_SETTINGS):
        for _ in range(panels - 1):
            one = figure.add_axes((0, 0, 1, 1), sharex=axes)
            one.set_ylabel(_short(ylabel, 12))
            one.patch.set_alpha(0)
            all_axes.append(one)
    axes.set_xlabel("")
    axes.set_ylabel(_short(ylabel, 12))
    for number, one in enumerate(all_axes):
        one.set_position((0.15, bottom + (panels - 1 - number) * each + 0.05 / height, 0.825, each - 0.2 / height))
        one.tick_params(labelbottom=number == panels - 1)
    all_axes[-1].set_xlabel(_short(xlabel, 50))
    return figure, all_axes


def _svg(figure: Any) -> str:
    """The figure as an `<svg>` element without namespaces, metadata, fonts and colours of its own."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that matplotlib's font lacks: the browser's has it
        figure.savefig(out, format="svg", transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r" font-family: [^;]*;", "", text)
    text = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", text, count=5)
    text = text.replace("xlink:href", "href")
    for sentinel, colour in ((_INK, "currentColor"), (_LINE, "var(--line)"), (_SOFT, "var(--soft)")):
        text = text.replace(sentinel, colour)
    for sentinel, variable in _SERIES.items():
        text = text.replace(sentinel, variable)
    return text


def with_own_ids(svg: str, number: int) -> str:
    """The drawing for a page's place `number`: ids that nothing refers to are gone, others are like no other plot's."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    before = f"p{number}-"
    svg = re.sub(r'\sid="([^"]*)"', lambda m: f' id="{before}{m[1]}"' if m[1] in used else "", svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{before}", svg)


def _colour(look: int) -> str:
    return f"#0101{look % COLOURS:02x}"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
