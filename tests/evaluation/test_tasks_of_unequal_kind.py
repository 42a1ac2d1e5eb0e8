"""Tasks of unequal spread and unequal numbers of seeds: what pooling their pairs would get wrong.

Each expectation is written out from the definition, and each test first makes sure that the pooled answer is another.
"""

import itertools

import numpy as np
import pytest
from scipy import stats

from layerstill.evaluation.comparison import compare
from layerstill.evaluation.statistics import bootstrap_interval, sign_flip_test

NOISY = np.array([0.031, -0.012, 0.044, 0.007, 0.025])
STILL = np.full(5, 0.01)
MANY = np.array([0.6, 0.5, 0.7, 0.4, 0.55, 0.45])
FEW = np.array([-0.9, 1.0])


def arms(*differences: np.ndarray) -> tuple[dict, dict]:
    """Scores by task and seed of two arms that differ by these amounts."""
    base = {f"task {i}": dict.fromkeys(range(len(values)), 0.5) for i, values in enumerate(differences)}
    other = {f"task {i}": {s: 0.5 + float(d) for s, d in enumerate(values)} for i, values in enumerate(differences)}
    return other, base


def width(interval) -> float:
    return interval.high - interval.low


def test_a_task_that_does_not_vary_lends_its_degrees_of_freedom_to_none():
    """Beside a task whose seeds are all equal, the mean of both varies half as much as the other task's, with that
    task's 4 degrees of freedom (Welch). Pooled they would be 8, and the interval a sixth narrower."""
    narrower = stats.t.ppf(0.975, 8) / stats.t.ppf(0.975, 4)
    assert narrower < 0.84
    alone, both = bootstrap_interval([NOISY]), bootstrap_interval([NOISY, STILL])
    assert width(both) == pytest.approx(width(alone) / 2, rel=1e-9)
    assert (both.low + both.high) / 2 == pytest.approx((alone.low + alone.high) / 4 + STILL[0] / 2)


def test_a_task_of_many_seeds_lends_its_degrees_of_freedom_to_none():
    """The same where the task that hardly varies has 20 seeds: still 4 degrees of freedom, not 23."""
    rng = np.random.default_rng(0)
    nearly_still = rng.normal(0, 1e-7, 20)
    assert width(bootstrap_interval([NOISY, nearly_still])) == pytest.approx(
        width(bootstrap_interval([NOISY])) / 2, rel=1e-3
    )


def test_a_comparison_of_arms_uses_them_so():
    found = compare("a", "b", *arms(NOISY, STILL))
    assert width(found.interval) == pytest.approx(width(found.by_task["task 0"]) / 2, rel=1e-6)


def flipped(differences: list[np.ndarray], weigh) -> float:
    """The p-value of `weigh`, a statistic of the tasks' differences, by a count of all patterns of signs."""
    sizes = np.cumsum([len(d) for d in differences])[:-1]
    joined = np.concatenate(differences)
    patterns = itertools.product([1, -1], repeat=len(joined))
    values = np.array([weigh(np.split(joined * signs, sizes)) for signs in patterns])
    return float(np.mean(np.abs(values) >= abs(weigh(differences)) - 1e-12))


def by_tasks(groups: list[np.ndarray]) -> float:
    return float(np.mean([group.mean() for group in groups]))


def by_pairs(groups: list[np.ndarray]) -> float:
    return float(np.concatenate(groups).mean())


def test_signs_are_flipped_with_tasks_counting_the_same():
    expected, pooled = flipped([MANY, FEW], by_tasks), flipped([MANY, FEW], by_pairs)
    assert pooled < 0.1 < 0.25 < expected
    assert sign_flip_test([MANY, FEW]).p == pytest.approx(expected)
    assert sign_flip_test([FEW, MANY]).p == pytest.approx(expected)
    found = compare("a", "b", *arms(MANY, FEW))
    assert found.test.p == pytest.approx(expected)
    assert found.p_holm == pytest.approx(expected)
    assert found.difference == pytest.approx(by_tasks([MANY, FEW]))


def test_signs_that_are_drawn_are_flipped_so_too():
    """More pairs than are counted out: here a normal approximation of either statistic is near enough."""
    rng = np.random.default_rng(5)
    many, few = rng.normal(0.5, 0.5, 30), np.array([-0.9, 1.0, -0.7, 0.8])

    def normal(weights: np.ndarray) -> float:
        joined = np.concatenate([many, few])
        return float(2 * stats.norm.sf(abs(weights @ joined) / np.sqrt((weights**2) @ (joined**2))))

    tasks = np.concatenate([np.full(30, 1 / 60), np.full(4, 1 / 8)])
    pairs = np.full(34, 1 / 34)
    assert normal(pairs) < 0.01 < 0.1 < normal(tasks)
    found = sign_flip_test([many, few])
    assert found.method == "sign flips, 9,999 drawn"
    assert found.p == pytest.approx(normal(tasks), abs=0.05)
