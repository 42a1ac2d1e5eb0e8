"""Parts of the report: what a section is, quality against cost, differences with their intervals."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from layerstill.evaluation.comparison import Comparison
from layerstill.reporting import plots
from layerstill.reporting.arms import pareto
from layerstill.reporting.forms import FORM_WORDS
from layerstill.reporting.looks import MOST, Key, Looks
from layerstill.reporting.models import Model
from layerstill.reporting.plots import Plot, Series, Table


@dataclass
class Section:
    """A part of the page."""

    title: str
    intro: str = ""
    plots: list[Plot] = field(default_factory=list)
    tables: list[tuple[str, Table]] = field(default_factory=list)
    more: list[Plot] = field(default_factory=list)
    """Plots that are there, but folded in."""
    more_title: str = ""


def legend(*series: Sequence[Series]) -> list[Key]:
    """What stands for each series, for the page to show below the drawing; the second sequence is grey."""
    shown, rest = series[0], series[1] if len(series) > 1 else ()
    keys = list(dict.fromkeys(s.key for s in shown))
    return [*keys, Key(f"{len(rest)} more", 0, "rest")] if rest else keys


FORM_KINDS = {"torch": "", "onnx": "pale", "int8": "hollow"}
"""How marks show the form of a model."""
MOST_INTERVALS = 20
"""Intervals in one plot; the table beside it has them all."""
COSTS = (
    ("ms", "milliseconds for one text"),
    ("mb", "MB on disk"),
    ("parameters", "million parameters"),
)
"""What quality is drawn against, where it is known of two models at least."""


def quality_and_cost(models: Sequence[Model], looks: Looks) -> Section:
    """Score against latency, size on disk and parameters."""
    timed = any(model.ms is not None for model in models)
    section = Section(
        "Quality and cost",
        "Mean score on dev over seeds, with one standard deviation. Hollow marks are quantised files, pale ones are "
        "exported in 32 bits, the star is the teacher. The dotted line joins what no other model beats in both. "
        + ("" if timed else "Latency was not measured; --latency does."),
    )
    for (task, regime), of in by(models, lambda m: (m.task, m.regime)).items():
        where = task if regime == "full" else f"{task}, {regime}"
        for name, what in COSTS:
            costs = [(m, cost) for m in of if (cost := _cost(m, name)) is not None and m.metric == of[0].metric]
            told = name != "mb" or any(m.form != "torch" for m, _ in costs)  # weights alone say what parameters say
            if told and len({cost for _, cost in costs}) > 1:
                section.plots.append(_cost_plot(where, costs, what, looks))
    return section


def _cost(model: Model, name: str) -> float | None:
    value = getattr(model, name)
    if name == "parameters":  # of a file they are those of its model, whose score stands for both
        return value / 1e6 if value is not None and model.form == "torch" else None
    return value


def _cost_plot(where: str, costs: list[tuple[Model, float]], what: str, looks: Looks) -> Plot:
    best = pareto([(cost, m.score.mean) for m, cost in costs])
    several = len({m.form for m, _ in costs}) > 1
    shown: list[Series] = []
    rest: list[Series] = []
    rows: list[list[Any]] = []
    # Names find room in this order: teachers, what nothing beats, the rest by their scores.
    order = sorted(range(len(costs)), key=lambda i: (not costs[i][0].teaches, not best[i], -costs[i][0].score.mean))
    for place, i in enumerate(order):
        (model, cost), on_front = costs[i], best[i]
        mean = model.score
        named = f"{model.name}, {FORM_WORDS[model.form]}" if several else model.name
        kind = FORM_KINDS[model.form] + (" teacher" if model.teaches else "")
        look = looks.look(model.cell) if model.cell is not None and not model.teaches else 0
        spread = None if mean.sd is None else [100 * mean.sd]
        series = Series(named, [cost], [100 * mean.mean], spread, look, kind.strip() or "point")
        colourful = place < MOST or model.teaches or on_front
        (shown if colourful or len(costs) <= plots.MOST_LABELLED else rest).append(series)
        sd = None if mean.sd is None else 100 * mean.sd
        rows.append([named, model.mark, cost, 100 * mean.mean, sd, mean.n, "yes" if on_front else ""])
    metric = costs[0][0].metric
    front = [(cost, 100 * m.score.mean) for (m, cost), on_front in zip(costs, best, strict=True) if on_front]
    top = max(rows, key=lambda r: r[3])
    drawn = plots.points(_beside(shown), what, f"{metric}, %", front, rest, labelled=True)
    return Plot(
        f"{where}: {metric} against {what}",
        f"{len(rows)} models; the highest {metric} has {top[0]} with {top[3]:.1f} at {top[2]:.3g} {what}.",
        drawn,
        Table(["model", "kind", what, f"{metric}, %", "sd", "n", "unbeaten"], rows),
        legend(shown, rest),
    )


def _beside(series: Sequence[Series]) -> list[Series]:
    """The same with points that would hide each other moved apart a little, to the right."""
    xs, ys = [s.x[0] for s in series], [s.y[0] for s in series]
    wide, high = (max(v) - min(v) or 1.0 for v in (xs, ys))
    moved: list[Series] = []
    for s in series:
        x, y = s.x[0], s.y[0]
        while any(abs(x - o.x[0]) < 0.03 * wide and abs(y - o.y[0]) < 0.05 * high for o in moved):
            x += 0.035 * wide
        moved.append(replace(s, x=[x]))
    return moved


def comparison_plots(found: Sequence[tuple[str, Comparison]]) -> list[Plot]:
    """Differences with their intervals, a plot for each setting and what is compared with in it."""
    made = []
    for (setting, against), pairs in by(found, lambda pair: (pair[0], pair[1].b)).items():
        of = [c for _, c in pairs]
        rows: list[list[Any]] = [
            [c.a, c.b, ", ".join(c.by_task), c.test.pairs, 100 * c.difference, *_ends(c), c.interval.over] for c in of
        ]
        for row, c in zip(rows, of, strict=True):
            row += [c.test.p, c.p_holm]
        ends = [(100 * c.interval.low, 100 * c.interval.high) for c in of]
        drawn = sorted(range(len(of)), key=lambda i: -of[i].difference)[:MOST_INTERVALS]
        more = f" Those of the {len(drawn)} highest are drawn." if len(drawn) < len(of) else ""
        clear = [c.a for c, (low, high) in zip(of, ends, strict=True) if (low > 0 or high < 0) and not c.interval.empty]
        made.append(
            Plot(
                f"Points above {against}{f' ({setting})' if setting else ''}",
                f"{len(of)} differences from {against} with 95 % intervals; those of {_some(clear)} exclude 0.{more}",
                plots.intervals(
                    [of[i].a for i in drawn],
                    [100 * of[i].difference for i in drawn],
                    [ends[i] for i in drawn],
                    f"points above {against}",
                ),
                Table(
                    ["a", "b", "tasks", "pairs", "a - b, points", "from", "to", "resampled", "p", "p after Holm"], rows
                ),
            )
        )
    return made


def _ends(c: Comparison) -> tuple[float | None, float | None]:
    return (None, None) if c.interval.empty else (100 * c.interval.low, 100 * c.interval.high)


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def by(items: Iterable, key: Callable) -> dict:
    """Items grouped by a key, groups in the order in which they begin."""
    groups: dict = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)
