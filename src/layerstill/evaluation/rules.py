"""How a comparison is judged: the rules that turn it into a word, for reports and for the papers' claims alike.

A claim says where the true difference lies: above 0, below 0, inside a margin, or not beyond one side of it. It is
supported if two things hold: the interval lies there and no task's interval lies wholly outside, and the p-value of the
claim is below 0.05 after Holm, in the family of everything that stands on the same page. It is not supported if the
same can be said of the contrary. Else it is undecided, and the reason says what kept the design from more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from layerstill.errors import UserError
from layerstill.evaluation.comparison import Comparison
from layerstill.evaluation.statistics import Interval, Summary, holm

ALPHA = 0.05
MARGIN = 0.005
"""Of a score: a difference below half a point is none that matters, if nobody says another margin."""
Claimed = Literal["higher", "lower", "equal", "not lower", "not higher"]
"""What is said of arm `a`; the last two are non-inferiority and its mirror image, by the margin."""
Word = Literal["supported", "not supported", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """What a comparison says about a claim, and why."""

    word: Word
    reason: str


def region(claimed: Claimed, margin: float = MARGIN) -> tuple[float, float]:
    """Between what bounds the true difference lies if the claim is true."""
    if not margin > 0:
        raise UserError(f"a margin of equivalence must be above 0, got {margin:g}")
    regions = {
        "higher": (0.0, math.inf),
        "lower": (-math.inf, 0.0),
        "equal": (-margin, margin),
        "not lower": (-margin, math.inf),
        "not higher": (-math.inf, margin),
    }
    return regions[claimed]


def p_of(comparison: Comparison, claimed: Claimed, margin: float = MARGIN) -> float:
    """The p-value that belongs to a claim, not adjusted.

    Of a direction, that of the two-sided test; of equality the larger of two one-sided t-tests (TOST); of not being
    lower (higher), that of one.
    """
    if claimed in ("higher", "lower"):
        return comparison.test.p
    return _p_inside(comparison, region(claimed, margin))


def as_page(
    rows: Sequence[tuple[Comparison, Claimed]], margin: float = MARGIN, others: Sequence[float] = ()
) -> tuple[list[tuple[Comparison, Verdict]], list[float]]:
    """Everything that is judged on one page: one Holm family, then a verdict on each.

    `others` are p-values of other tests on the page, which belong to the family, too; they come back adjusted.
    """
    adjusted = holm([*(p_of(c, claimed, margin) for c, claimed in rows), *others])
    judged = []
    for (comparison, claimed), p in zip(rows, adjusted, strict=False):
        c = replace(comparison, p_holm=p, family=len(adjusted))
        judged.append((c, verdict(c, margin, claimed)))
    return judged, adjusted[len(rows) :]


def verdict(comparison: Comparison, margin: float = MARGIN, claimed: Claimed = "higher") -> Verdict:
    """Whether the claim that `a` is higher (lower, equal, not lower, not higher) than `b` is supported.

    `comparison.p_holm` is taken for the adjusted p-value of this claim (`as_page`). Contraries of claims about the
    margin, and equality where a direction is claimed, have p-values of their own; these are multiplied by the size of
    the family. An effect that is there but surely smaller than the margin counts as not supported.
    """
    c = comparison
    if c.interval.empty:
        return Verdict("undecided", no_interval(c))
    inside = region(claimed, margin)
    direction = claimed in ("higher", "lower")
    if direction and _lies(c.interval, region("equal", margin)):
        p = _strict(c, region("equal", margin))
        said = f"the interval lies inside {_points(margin)}"
        if astray := _astray(c, region("equal", margin)):
            return Verdict("undecided", f"{said}, but {', '.join(astray)} lies outside")
        return (
            Verdict("not supported", said) if p < ALPHA else Verdict("undecided", f"{said}, but {p_words(p)}{_of(c)}")
        )
    sides: dict[Word, tuple[float, float] | None] = {"supported": inside, "not supported": _beyond(c.interval, inside)}
    for word, there in sides.items():
        if there is None or not _lies(c.interval, there):
            continue
        where = _place(claimed, margin, word == "supported")
        if astray := _astray(c, there):
            return Verdict("undecided", f"the interval {where}, but {', '.join(astray)} goes the other way")
        p = c.p_holm if direction or word == "supported" else _strict(c, there)
        if p < ALPHA:
            return Verdict(word, f"the interval {where}, and no task contradicts ({p_words(p)}{_of(c)})")
        why = limits(c) if direction else []
        return Verdict("undecided", "; ".join([f"the interval {where}, but {p_words(p)}{_of(c)}", *why]))
    return Verdict("undecided", "; ".join([_wide(c.interval, margin, claimed), *(limits(c) if direction else [])]))


def limits(comparison: Comparison) -> list[str]:
    """What the number of pairs keeps the test from, whatever the differences are; nothing where it is no obstacle."""
    smallest, family = comparison.test.smallest, comparison.family
    pairs = comparison.test.pairs
    if comparison.of_models or smallest * family < ALPHA:
        return []
    if smallest >= ALPHA:
        return [f"{pairs} pairs cannot give a p below {smallest:.4g}"]
    reach = f"{min(1.0, smallest * family):.2g}"
    return [f"with {pairs} pairs the first of {family} comparisons cannot get below {reach}"]


def _lies(interval: Interval, there: tuple[float, float]) -> bool:
    return there[0] < interval.low and interval.high < there[1]


def _astray(c: Comparison, there: tuple[float, float]) -> list[str]:
    """The tasks whose own interval lies wholly outside a region."""
    return [task for task, i in c.by_task.items() if not i.empty and _outside(i, there)]


def _outside(interval: Interval, there: tuple[float, float]) -> bool:
    return interval.high < there[0] or interval.low > there[1]


def _beyond(interval: Interval, inside: tuple[float, float]) -> tuple[float, float] | None:
    """The side of a region's outside that an interval lies on, if it does."""
    low, high = inside
    if interval.high < low:
        return (-math.inf, low)
    return (high, math.inf) if interval.low > high else None


def _p_inside(c: Comparison, there: tuple[float, float]) -> float:
    """The largest of the one-sided p-values that the truth lies beyond a bound of the region."""
    low, high = there
    above = c.estimate.p_above(low) if math.isfinite(low) else 0.0
    below = c.estimate.p_below(high) if math.isfinite(high) else 0.0
    return max(above, below)


def _strict(c: Comparison, there: tuple[float, float]) -> float:
    return min(1.0, c.family * _p_inside(c, there))


def _place(claimed: Claimed, margin: float, supported: bool) -> str:
    """Where an interval lies, in words."""
    if claimed in ("higher", "lower"):
        return f"excludes 0 in the {'claimed' if supported else 'other'} direction"
    if claimed == "equal":
        return f"lies {'inside' if supported else 'outside'} {_points(margin)}"
    sign = "-" if claimed == "not lower" else "+"
    side = "above" if (claimed == "not lower") == supported else "below"
    return f"lies {side} {sign}{100 * margin:g} points"


def _wide(interval: Interval, margin: float, claimed: Claimed) -> str:
    """Why an interval decides nothing, and whether one of its width ever could."""
    width, two_sided = interval.high - interval.low, claimed in ("higher", "lower", "equal")
    said = "contains 0 and reaches beyond" if claimed in ("higher", "lower") else "reaches across"
    if two_sided and width >= 2 * margin:
        far = f"it is {100 * width:.1f} points wide, so it could not lie inside wherever its middle were"
        return f"the interval {said} {_points(margin)}; {far}"
    return f"the interval {said} {_points(margin)}"


def _points(margin: float) -> str:
    return f"±{100 * margin:g} points"


def _of(c: Comparison) -> str:
    return f" after Holm, {c.family} comparisons" if c.family > 1 else ""


def words(comparison: Comparison, scale: float = 100, margin: float = MARGIN) -> str:
    """A comparison as one sentence; scores are multiplied by `scale` (100: points)."""
    c = comparison
    tasks = len(c.by_task)
    over = f" over {tasks} tasks" if tasks > 1 else ""
    interval = (
        f"{c.interval.level:.0%} interval {_signed(c.interval.low * scale)} to {_signed(c.interval.high * scale)}"
        f" (over {c.interval.over})"
    ).replace("%", " %")
    interval = no_interval(c) if c.interval.empty else interval
    return (
        f"{c.a} {_score(c.of_a, scale)} (n = {c.of_a.n}) against {c.b} {_score(c.of_b, scale)}{over}: "
        f"difference {_signed(c.difference * scale)}, {interval}; {_finding(c, margin)}"
    )


def no_interval(comparison: Comparison) -> str:
    """Why a comparison has no interval, in words."""
    within = " within each task" if len(comparison.by_task) > 1 else ""
    return f"no interval: all {comparison.test.pairs} differences are equal{within}"


def _finding(c: Comparison, margin: float) -> str:
    """What is evidence of a difference, by the rules above; else what keeps it from being any."""
    way: Claimed = "higher" if c.difference > 0 else "lower"
    found = verdict(c, margin, way)
    p = f"{p_words(c.p_holm)}{_of(c)}"
    seeds = "; with one seed each this is about these two models alone" if c.of_models and c.of_a.n == 1 else ""
    if found.word == "supported":
        return f"evidence that {c.a} is {way} ({p}){seeds}"
    if found.word == "not supported":
        return f"equal within {100 * margin:g} points (a difference has {p}){seeds}"
    astray = [task for task, i in c.by_task.items() if not i.empty and _outside(i, region(way, margin))]
    clear = _lies(c.interval, region(way, margin)) and not c.interval.empty
    said = [f"no evidence of a difference ({p})"]
    said += [f"the interval excludes 0, but {', '.join(astray)} goes the other way"] if clear and astray else []
    said += ["the interval contains 0"] if c.p_holm < ALPHA and not clear and not c.interval.empty else []
    return "; ".join([*said, *limits(c)]) + seeds


def p_words(p: float) -> str:
    """A p-value in words."""
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"


def _score(summary: Summary, scale: float) -> str:
    return f"{summary.mean * scale:.1f}" + (f" ± {summary.sd * scale:.1f}" if summary.sd is not None else "")


def _signed(value: float) -> str:
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text
