"""One arm against another: paired differences, what they are evidence of, and that in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from layerstill.errors import UserError
from layerstill.evaluation.statistics import (
    LEVEL,
    Interval,
    PairedTest,
    Summary,
    bootstrap_interval,
    equivalent,
    example_test,
    holm,
    sign_flip_test,
    summarise,
)

ALPHA = 0.05
Scores = Mapping[str, Mapping[int, float]]
"""Scores by task and seed."""
Word = Literal["supported", "not supported", "undecided"]
EXAMPLES = "examples"
"""What was resampled where models, rather than the methods that made them, are compared."""


@dataclass(frozen=True)
class Comparison:
    """Arm `a` minus arm `b` over pairs of the same task and seed, each task counting the same."""

    a: str
    b: str
    of_a: Summary
    of_b: Summary
    difference: float
    interval: Interval
    test: PairedTest
    by_task: dict[str, Interval]
    p_holm: float
    family: int

    @property
    def evidence(self) -> bool:
        """Whether the test, after Holm, is below 0.05."""
        return self.p_holm < ALPHA

    @property
    def of_models(self) -> bool:
        """Whether it is about these very models on other examples, and says nothing of other seeds."""
        return self.interval.over == EXAMPLES


@dataclass(frozen=True)
class Verdict:
    """What a comparison says about a claim, and why."""

    word: Word
    reason: str


def compare(
    a: str,
    b: str,
    of_a: Scores,
    of_b: Scores,
    examples: Mapping[str, np.ndarray] | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> Comparison:
    """Compare two arms by their scores `{task: {seed: score}}`; both must have the same tasks and seeds.

    `examples` gives, for the tasks that have them, differences `(S, N)` by seed (ascending) and example whose means
    are the differences of the scores; the interval is then over seeds and examples. UserError for unequal pairs and
    for a task with a single pair.
    """
    if of_a.keys() != of_b.keys() or not of_a:
        raise UserError(f"{a} and {b} are not paired: tasks are {_list(of_a)} there and {_list(of_b)} here")
    gaps = {}
    for task in of_a:
        if of_a[task].keys() != of_b[task].keys():
            raise UserError(
                f"{a} and {b} are not paired on {task}: seeds are {_list(of_a[task])} there "
                f"and {_list(of_b[task])} here"
            )
        if len(of_a[task]) < 2:
            raise UserError(f"{a} against {b} on {task}: one pair of runs says nothing; run more seeds")
        gaps[task] = np.array([of_a[task][s] - of_b[task][s] for s in sorted(of_a[task])])
    fine = {task: np.asarray(examples[task]) if examples and task in examples else gaps[task] for task in gaps}
    test = sign_flip_test(list(gaps.values()), seed)
    return Comparison(
        a,
        b,
        _summary(of_a),
        _summary(of_b),
        float(np.mean([gap.mean() for gap in gaps.values()])),
        bootstrap_interval(list(fine.values()), level, seed),
        test,
        {task: bootstrap_interval([values], level, seed) for task, values in fine.items()},
        test.p,
        1,
    )


def compare_by_example(
    a: str,
    b: str,
    of_a: Scores,
    of_b: Scores,
    examples: Mapping[str, np.ndarray],
    level: float = LEVEL,
    seed: int = 0,
) -> Comparison:
    """Compare two models, rather than two methods, by what they say of the same examples.

    `examples` gives differences `(N,)` by example for every task of the scores, whose means are the differences of the
    scores; over several seeds, those of their mean. Interval and test are over examples: they say what to expect of
    these models on other examples, and with one seed that is all that can be said. UserError for a task without them.
    """
    if of_a.keys() != of_b.keys() or of_a.keys() != examples.keys() or not of_a:
        raise UserError(f"{a} and {b} are not paired by example on {_list(of_a)}")
    gaps = {task: np.asarray(values, dtype=float) for task, values in examples.items()}
    test = example_test(list(gaps.values()), seed)
    by_task = {task: _over_examples([values], level, seed) for task, values in gaps.items()}
    alone = next(iter(by_task.values())) if len(by_task) == 1 else None
    return Comparison(
        a,
        b,
        _summary(of_a),
        _summary(of_b),
        float(np.mean([values.mean() for values in gaps.values()])),
        alone or _over_examples(list(gaps.values()), level, seed),
        test,
        by_task,
        test.p,
        1,
    )


def _over_examples(gaps: Sequence[np.ndarray], level: float, seed: int) -> Interval:
    return replace(bootstrap_interval(gaps, level, seed), over=EXAMPLES)


def as_family(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons, their p-values adjusted after Holm for being that many."""
    adjusted = holm([c.test.p for c in comparisons])
    return [replace(c, p_holm=p, family=len(comparisons)) for c, p in zip(comparisons, adjusted, strict=True)]


def verdict(comparison: Comparison, margin: float = 0.005, claimed: Literal["higher", "lower"] = "higher") -> Verdict:
    """Whether the claim that `a` is higher (lower) than `b` is supported.

    Not supported: the interval lies inside plus or minus `margin`, or excludes 0 the other way. Supported: it
    excludes 0 in the claimed direction and no single task's interval excludes it the other way. Else undecided, as is
    everything if all differences are equal, for then there is no interval. An effect that is there but surely smaller
    than the margin counts as not supported.
    """
    way = 1 if claimed == "higher" else -1
    low, high = sorted((way * comparison.interval.low, way * comparison.interval.high))
    if comparison.interval.empty:
        return Verdict("undecided", no_interval(comparison))
    opposite = [task for task, i in comparison.by_task.items() if max(way * i.low, way * i.high) < 0 and not i.empty]
    if equivalent(comparison.interval, margin):
        return Verdict("not supported", f"the interval lies inside ±{100 * margin:g} points")
    if high < 0:
        return Verdict("not supported", "the interval excludes 0 in the other direction")
    if low > 0 and not opposite:
        return Verdict("supported", "the interval excludes 0 in the claimed direction, and no task contradicts")
    if low > 0:
        return Verdict("undecided", f"the interval excludes 0, but {', '.join(opposite)} goes the other way")
    return Verdict("undecided", "the interval contains 0 and is wider than the margin")


def words(comparison: Comparison, scale: float = 100) -> str:
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
        f"difference {_signed(c.difference * scale)}, {interval}; {_finding(c)}"
    )


def no_interval(comparison: Comparison) -> str:
    """Why a comparison has no interval, in words."""
    within = " within each task" if len(comparison.by_task) > 1 else ""
    return f"no interval: all {comparison.test.pairs} differences are equal{within}"


def _finding(c: Comparison) -> str:
    family = f" after Holm, {c.family} comparisons" if c.family > 1 else ""
    p = f"{p_words(c.p_holm)}{family}"
    seeds = "; with one seed each this is about these two models alone" if c.of_models and c.of_a.n == 1 else ""
    if c.evidence:
        return f"evidence that {c.a} is {'higher' if c.difference > 0 else 'lower'} ({p}){seeds}"
    finding = f"no evidence of a difference ({p})"
    if c.of_models:
        return finding + seeds
    if c.test.smallest >= ALPHA:
        return f"{finding}; {c.test.pairs} pairs cannot give a p below {c.test.smallest:.4g}"
    if c.test.smallest * c.family >= ALPHA:
        reach = f"{min(1.0, c.test.smallest * c.family):.2g}"
        return f"{finding}; with {c.test.pairs} pairs the first of {c.family} comparisons cannot get below {reach}"
    return finding


def p_words(p: float) -> str:
    """A p-value in words."""
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"


def _summary(scores: Scores) -> Summary:
    """Mean over tasks; the spread is that of seeds within tasks (root of the mean variance)."""
    parts = [summarise(list(by_seed.values())) for by_seed in scores.values()]
    known = any(p.sd is not None for p in parts)
    sd = float(np.sqrt(np.mean([(p.sd or 0.0) ** 2 for p in parts]))) if known else None
    return Summary(float(np.mean([p.mean for p in parts])), sd, sum(p.n for p in parts))


def _score(summary: Summary, scale: float) -> str:
    return f"{summary.mean * scale:.1f}" + (f" ± {summary.sd * scale:.1f}" if summary.sd is not None else "")


def _signed(value: float) -> str:
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text


def _list(names: Mapping) -> str:
    return ", ".join(map(str, names)) or "none"
