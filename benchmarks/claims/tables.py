"""Pieces that every study's page is made of: tables of means, rows of comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from benchmarks.claims.records import Records, spread
from scipy import stats

from layerstill.evaluation.comparison import Comparison, as_family, compare, verdict
from layerstill.evaluation.statistics import equivalent

Row = tuple[str, Comparison, str]
"""A claim, a comparison, and the claim's direction: higher, equal, none (no claim) or withdrawn."""
MARGIN = 0.005
NEAR = 0.02
"""Above the most frequent class's share by less than this is at the majority."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def chance(records: Records) -> str:
    """The teachers, and what always saying the most frequent class would score."""
    found = []
    for task in records.tasks:
        run = next(records.where(task=task))
        teachers = sorted({f"{100 * r['teacher']:.1f}" for r in records.where(task=task) if r["teacher"] is not None})
        found.append(
            f"{task}: {run['examples']} dev examples, majority {100 * run['majority']:.1f}, teacher "
            + " or ".join(teachers)
        )
    return "; ".join(found)


def mean_cell(records: Records, task: str, **at: str) -> str:
    """Mean and spread of an arm on a task, with a note of runs that learnt next to nothing."""
    runs = list(records.where(task=task, **at))
    if not runs:
        return ""
    cell = spread([run["score"] for run in runs])
    stuck = sum(run["score"] <= run["majority"] + NEAR for run in runs)
    return f"{cell} ({stuck} of {len(runs)} at the majority)" if stuck else cell


def against(records: Records, a: dict[str, str], b: dict[str, str], names: tuple[str, str]) -> Comparison:
    """Arm `a` minus arm `b`, over seeds and examples."""
    right_a, right_b = records.right(**a), records.right(**b)
    examples = {task: right_a[task] - right_b[task] for task in right_a}
    return compare(*names, records.scores(**a), records.scores(**b), examples)


def interval(low: float, high: float) -> str:
    """In points."""
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def comparisons(rows: Sequence[Row]) -> str:
    """A table of comparisons, with p-values adjusted within each claim and verdicts as if that claim were the only one.

    Supported: the interval excludes 0 in the claim's direction, no task contradicts, and p after Holm is below 0.05;
    not supported: it excludes 0 the other way with such a p, or lies within half a point of 0. Of equality: the other
    way round.
    """
    cells = []
    for claim in dict.fromkeys(claim for claim, _, _ in rows):
        of = [(c, way) for other, c, way in rows if other == claim]
        for (_, way), c in zip(of, as_family([c for c, _ in of]), strict=True):
            by_task = ", ".join(f"{task} {interval(i.low, i.high)}" for task, i in c.by_task.items())
            cells.append(
                [
                    claim,
                    f"{c.a} - {c.b}",
                    f"{100 * c.difference:+.1f}",
                    interval(c.interval.low, c.interval.high),
                    by_task,
                    f"{c.p_holm:.2g} ({len(of)})",
                    word(c, way),
                ]
            )
    head = ["claim", "difference", "points", "95 % interval", "by task", "p (Holm, of n)", "pilot verdict, claim alone"]
    return table(head, cells)


def word(c: Comparison, way: str) -> str:
    """The verdict on one comparison."""
    if way == "none":
        return ""
    if way == "withdrawn":
        return way
    if way == "equal":
        if equivalent(c.interval, MARGIN):
            return "supported"
        differs = c.interval.low > 0 or c.interval.high < 0
        return "not supported" if differs and c.evidence else "inconclusive"
    found = verdict(c, MARGIN).word
    shown = c.evidence or equivalent(c.interval, MARGIN)
    return found if found != "undecided" and shown else "inconclusive"


@dataclass(frozen=True)
class Effect:
    """A factor's share of the variance (omega squared, unbiased for no effect but for cutting at 0) and its F test."""

    share: float
    p: float


def effects(scores: np.ndarray) -> dict[str, Effect]:
    """Two-way analysis of variance of `(A, B, S)` scores: `first`, `second`, `interaction`."""
    a, b, n = scores.shape
    whole = scores.mean()
    first, second = scores.mean((1, 2), keepdims=True) - whole, scores.mean((0, 2), keepdims=True) - whole
    inner = scores.mean(2, keepdims=True) - whole - first - second
    total, freedom = ((scores - whole) ** 2).sum(), a * b * (n - 1)
    error = ((scores - scores.mean(2, keepdims=True)) ** 2).sum() / freedom
    found = {}
    for name, part, df in (
        ("first", first, a - 1),
        ("second", second, b - 1),
        ("interaction", inner, (a - 1) * (b - 1)),
    ):
        squares = (np.broadcast_to(part, scores.shape) ** 2).sum()
        share = max(float((squares - df * error) / (total + error)), 0.0)
        found[name] = Effect(share, float(stats.f.sf(squares / df / error, df, freedom)))
    return found
