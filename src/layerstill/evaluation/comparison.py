"""One arm against another: paired differences with interval and test. `rules.py` says what they are evidence of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerstill.errors import UserError
from layerstill.evaluation.estimate import Estimate, estimate
from layerstill.evaluation.statistics import (
    LEVEL,
    Interval,
    PairedTest,
    Summary,
    bootstrap_interval,
    example_test,
    holm,
    sign_flip_test,
    summarise,
)

Scores = Mapping[str, Mapping[int, float]]
"""Scores by task and seed."""
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
    """The p-value of what is claimed, adjusted for the whole family."""
    family: int
    estimate: Estimate
    """The difference with its standard error, for questions of a margin."""

    @property
    def of_models(self) -> bool:
        """Whether it is about these very models on other examples, and says nothing of other seeds."""
        return self.interval.over == EXAMPLES


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
    are the differences of the scores. Interval and test are then those of `estimate`, over seeds and examples, and
    agree. Without any, the interval is a bootstrap's and the test flips the signs of the seeds' differences. UserError
    for unequal pairs and for a task with a single pair.
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
    both = estimate(list(fine.values()))
    if any(values.ndim > 1 for values in fine.values()):
        test, interval = both.test(), both.interval(level)
        by_task = {task: estimate([values]).interval(level) for task, values in fine.items()}
    else:
        test, interval = sign_flip_test(list(fine.values()), seed), bootstrap_interval(list(fine.values()), level, seed)
        by_task = {task: bootstrap_interval([values], level, seed) for task, values in fine.items()}
    mean = float(np.mean([gap.mean() for gap in gaps.values()]))
    return Comparison(a, b, _summary(of_a), _summary(of_b), mean, interval, test, by_task, test.p, 1, both)


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
        replace(estimate(list(gaps.values())), over=EXAMPLES),
    )


def _over_examples(gaps: Sequence[np.ndarray], level: float, seed: int) -> Interval:
    return replace(bootstrap_interval(gaps, level, seed), over=EXAMPLES)


def as_family(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons, the p-values of their differences adjusted after Holm for being that many."""
    adjusted = holm([c.test.p for c in comparisons])
    return [replace(c, p_holm=p, family=len(comparisons)) for c, p in zip(comparisons, adjusted, strict=True)]


def _summary(scores: Scores) -> Summary:
    """Mean over tasks; the spread is that of seeds within tasks (root of the mean variance)."""
    parts = [summarise(list(by_seed.values())) for by_seed in scores.values()]
    known = any(p.sd is not None for p in parts)
    sd = float(np.sqrt(np.mean([(p.sd or 0.0) ** 2 for p in parts]))) if known else None
    return Summary(float(np.mean([p.mean for p in parts])), sd, sum(p.n for p in parts))


def _list(names: Mapping) -> str:
    return ", ".join(map(str, names)) or "none"
