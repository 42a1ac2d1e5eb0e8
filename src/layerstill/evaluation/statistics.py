"""Statistics of comparisons: means with their spread, bootstrap intervals, paired tests, families, ranks.

Pure functions of numbers. Scores that are compared are *paired*: the same seeds (and the same tasks, and where there
are predictions the same examples) on both sides, so that what is analysed is differences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from layerstill.errors import UserError
from layerstill.randomness import named_seed

LEVEL = 0.95
RESAMPLES = 4000
EXACT_PAIRS = 13
"""Up to so many pairs every pattern of signs is tried; beyond, 9,999 random ones."""
FEWEST_BLOCKS = 6
MOST_FLIPPED = 20_000
"""Differences up to which signs are flipped at random; of more, their sum is as good as normally distributed."""
_CELLS = 2_000_000
_FEW_VALUES = 64


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation (n - 1 in the denominator; None for a single value) and number of values."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Interval:
    """An interval for a mean, its level, and what was resampled."""

    low: float
    high: float
    level: float
    over: str

    @property
    def empty(self) -> bool:
        """Whether it has no width: equal values say nothing about how far others would lie from them."""
        return self.high - self.low < 1e-9


@dataclass(frozen=True)
class PairedTest:
    """A two-sided p-value, and the smallest one that so many pairs can give."""

    p: float
    smallest: float
    pairs: int
    method: str


@dataclass(frozen=True)
class Ranks:
    """Average ranks of arms over blocks (1 is best), Friedman's test, and Nemenyi's critical difference."""

    average: tuple[float, ...]
    statistic: float
    p: float
    critical_difference: float
    blocks: int


def summarise(values: Sequence[float] | np.ndarray) -> Summary:
    """Mean, standard deviation and number of `values`; UserError without values or with one that is not finite."""
    array = finite(values, 1, "summary")
    return Summary(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None, len(array))


def bootstrap_interval(
    groups: Sequence[np.ndarray | Sequence[float]], level: float = LEVEL, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Bootstrap interval for the mean of the groups' means.

    A group (a task) is an array `(S,)` of values by seed, which are drawn with replacement; groups are drawn
    independently of each other. Where examples are known as well, `estimate` is for both.

    Percentile intervals are too narrow for few values (with five they hold the truth in 84 cases of 100 instead of
    95), so deviations are stretched to what Student's t would need: by t/z * sqrt(S / (S - 1)), after Hesterberg's
    reasoning (2015, doi 10.1080/00031305.2015.1089789). Its degrees of freedom are Welch's and Satterthwaite's, so
    that a group that varies more than others does not borrow their certainty. UserError for a group of one seed.
    """
    if not groups:
        raise UserError("an interval needs at least one group of values")
    arrays = [finite(group, 2, "interval") for group in groups]
    if any(array.ndim > 1 for array in arrays):
        raise UserError("a bootstrap interval is over seeds alone; estimate() is for values by seed and example")
    freedom = _freedom(arrays)
    tail = (1 + level) / 2
    student = float(stats.t.ppf(tail, freedom) / stats.norm.ppf(tail))
    deviations = np.zeros(resamples)
    for number, array in enumerate(arrays):
        rng = np.random.default_rng(named_seed(seed, "bootstrap", number))
        drawn = _drawn_means(array, resamples, rng) - array.mean()
        deviations += drawn * student * np.sqrt(len(array) / (len(array) - 1)) / len(arrays)
    centre = float(np.mean([a.mean() for a in arrays]))
    low, high = np.quantile(deviations, [1 - tail, tail])
    return Interval(centre + float(low), centre + float(high), level, "seeds")


def _freedom(arrays: Sequence[np.ndarray]) -> float:
    """Of the mean of the groups' means (Welch 1947): between the degrees of one group and of all together."""
    variances = np.array([values.var(ddof=1) / len(values) for values in arrays])
    each = np.array([len(values) - 1 for values in arrays])
    if not variances.any():
        return float(each.sum())
    return float(variances.sum() ** 2 / (variances**2 / each).sum())


def _drawn_means(array: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means `(resamples,)` of resampled values `(S,)`."""
    rows = len(array)
    if rows * resamples <= 4 * _CELLS:
        return array[rng.integers(0, rows, (resamples, rows))].mean(1)
    values, counts = np.unique(array, return_counts=True)
    if len(values) <= _FEW_VALUES:  # examples that are right or wrong: how many of each is all
        return rng.multinomial(rows, counts / rows, resamples) @ values / rows
    step = max(1, _CELLS // rows)  # examples, which are many: not all draws at once
    draws = (min(step, resamples - start) for start in range(0, resamples, step))
    return np.concatenate([array[rng.integers(0, rows, (n, rows))].mean(1) for n in draws])


def sign_flip_test(groups: Sequence[np.ndarray | Sequence[float]], seed: int = 0) -> PairedTest:
    """Permutation test of paired differences: each may, under the null hypothesis, as well have the other sign.

    `groups` are differences `(S,)` by seed, one array a task; the statistic is the mean of the groups' means. All
    patterns of signs are tried up to 13 pairs. The smallest p of n pairs is 2 / 2^n, so five pairs cannot reach 0.05.
    """
    arrays = [finite(group, 1, "paired test") for group in groups]
    differences = np.concatenate(arrays) if arrays else np.zeros(0)
    if len(differences) < 2:
        raise UserError(f"a paired test needs at least 2 pairs, got {len(differences)}")
    weights = np.concatenate([np.full(len(a), 1 / (len(a) * len(arrays))) for a in arrays])
    pairs = len(differences)
    exact = pairs <= EXACT_PAIRS
    smallest = 2 / 2**pairs if exact else max(2 / 2**pairs, 2 / 10_000)
    method = "sign flips, exact" if exact else "sign flips, 9,999 drawn"
    if not differences.any():
        return PairedTest(1.0, smallest, pairs, method)

    return PairedTest(_flipped(differences, weights, exact, seed), smallest, pairs, method)


def _flipped(differences: np.ndarray, weights: np.ndarray, exact: bool, seed: int) -> float:
    """The share of patterns of signs under which the weighted sum of `differences` is as far from 0 as it is."""

    def statistic(x: np.ndarray, axis: int) -> np.ndarray:
        return np.moveaxis(x, axis, -1) @ weights

    result = stats.permutation_test(
        (differences,),
        statistic,
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if exact else 9_999,
        batch=1_000,
        rng=np.random.default_rng(named_seed(seed, "sign flips")),
    )
    return float(min(1.0, result.pvalue))


def example_test(groups: Sequence[np.ndarray | Sequence[float]], seed: int = 0) -> PairedTest:
    """Permutation test of differences `(N,)` by example, one array a task: two given models on other examples.

    The same sign flips as between seeds. An example that both models get right or both get wrong has the difference 0,
    whose sign does not matter. Where all others differ by as much as each other (accuracy on one task), flips are
    counted by the binomial distribution, which is McNemar's exact test (1947, doi 10.1007/BF02295996). With more than
    20,000 of them, the sum of random signs is taken for normally distributed.
    """
    arrays = [finite(group, 2, "test over examples") for group in groups]
    if not arrays:
        raise UserError("a test over examples needs at least one task")
    differences = np.concatenate(arrays)
    weights = np.concatenate([np.full(len(a), 1 / (len(a) * len(arrays))) for a in arrays])
    examples, unequal = len(differences), differences != 0
    differences, weights = differences[unequal], weights[unequal]
    count = len(differences)
    if count == 0:
        return PairedTest(1.0, 1.0, examples, "no example differs")
    parts = np.abs(differences * weights)
    if np.allclose(parts, parts[0], rtol=1e-9, atol=0):
        p = float(stats.binomtest(int((differences > 0).sum()), count).pvalue)
        return PairedTest(p, min(1.0, 2 / 2.0**count), examples, "McNemar, exact")
    if count > MOST_FLIPPED:
        p = 2 * float(stats.norm.sf(abs(float(differences @ weights)) / float(np.sqrt((parts**2).sum()))))
        return PairedTest(p, 0.0, examples, "sign flips, normal")
    exact = count <= EXACT_PAIRS
    smallest = min(1.0, 2 / 2.0**count) if exact else 2 / 10_000
    method = "sign flips of examples, exact" if exact else "sign flips of examples, 9,999 drawn"
    return PairedTest(_flipped(differences, weights, exact, seed), smallest, examples, method)


def wilcoxon_test(differences: np.ndarray | Sequence[float]) -> PairedTest:
    """Wilcoxon's signed-rank test of paired differences `(n,)`."""
    array = finite(differences, 2, "paired test")
    if not array.any():
        return PairedTest(1.0, 2 / 2 ** len(array), len(array), "Wilcoxon")
    p = float(stats.wilcoxon(array).pvalue)
    return PairedTest(p, 2 / 2 ** len(array), len(array), "Wilcoxon")


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment over a family of p-values, in their order."""
    p = np.asarray(p_values, dtype=float)
    if p.size and not ((p >= 0) & (p <= 1)).all():
        raise UserError(f"p-values lie between 0 and 1, got {p.min():g} to {p.max():g}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return [float(x) for x in adjusted]


def win_matrix(scores: np.ndarray) -> np.ndarray:
    """Shares `(arms, arms)` of the blocks in which the row's arm beats the column's; a tie is half a win.

    `scores` is `(blocks, arms)`, higher is better.
    """
    array = np.asarray(scores, dtype=float)
    row, column = array[:, :, None], array[:, None, :]
    return ((row > column) + 0.5 * (row == column)).mean(0)


def friedman_ranks(scores: np.ndarray, level: float = LEVEL) -> Ranks:
    """Average ranks over blocks, Friedman's test, and Nemenyi's critical difference (Demšar 2006, JMLR 7, section 3.2).

    `scores` is `(blocks, arms)`, higher is better. Two arms whose average ranks are further apart than the critical
    difference differ. UserError for fewer than 3 arms or 6 blocks, which the test is too coarse for.
    """
    array = np.asarray(scores, dtype=float)
    blocks, arms = array.shape
    if arms < 3 or blocks < FEWEST_BLOCKS:
        raise UserError(
            f"average ranks need at least 3 arms and {FEWEST_BLOCKS} blocks, got {arms} arms and {blocks} blocks"
        )
    ranks = stats.rankdata(-array, axis=1)
    if (ranks == ranks[:, :1]).all():
        statistic, p = 0.0, 1.0
    else:
        statistic, p = (float(x) for x in stats.friedmanchisquare(*array.T))
    q = float(stats.studentized_range.ppf(level, arms, np.inf)) / np.sqrt(2)
    difference = float(q * np.sqrt(arms * (arms + 1) / (6 * blocks)))
    return Ranks(tuple(float(r) for r in ranks.mean(0)), statistic, p, difference, blocks)


def finite(values: np.ndarray | Sequence[float], fewest: int, what: str) -> np.ndarray:
    """The values as an array by seed, `(S,)`, or by seed and example, `(S, N)`; UserError for what is neither."""
    array = np.asarray(values, dtype=float)
    if array.ndim not in (1, 2) or 0 in array.shape[1:]:
        raise UserError(f"{what}: values come by seed, or by seed and example, got the shape {array.shape}")
    if len(array) < fewest:
        raise UserError(f"{what}: needs at least {fewest} seeds, got {len(array)}")
    if not np.isfinite(array).all():
        raise UserError(f"{what}: {int((~np.isfinite(array)).sum())} of {array.size} values are not finite")
    return array
