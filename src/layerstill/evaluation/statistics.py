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
    array = _finite(values, 1, "summary")
    return Summary(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None, len(array))


def bootstrap_interval(
    groups: Sequence[np.ndarray | Sequence[float]], level: float = LEVEL, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Bootstrap interval for the mean of the groups' means.

    A group (a task) is an array `(S,)` of values by seed, or `(S, N)` by seed and example. Of the first seeds are
    drawn with replacement, of the second seeds and examples, each by itself (the pigeonhole bootstrap of Owen 2007,
    doi 10.1214/07-AOAS122, which errs on the wide side). Groups are drawn independently of each other.

    Percentile intervals are too narrow for few values (with five they hold the truth in 84 cases of 100 instead of
    95), so deviations are stretched to what Student's t would need: by t/z * sqrt(S / (S - 1)), after Hesterberg's
    reasoning (2015, doi 10.1080/00031305.2015.1089789). Its degrees of freedom are Welch's and Satterthwaite's, so
    that a group that varies more than others does not borrow their certainty. UserError for a group of one seed.
    """
    if not groups:
        raise UserError("an interval needs at least one group of values")
    arrays = [_finite(group, 2, "interval") for group in groups]
    freedom = _freedom(arrays)
    tail = (1 + level) / 2
    student = float(stats.t.ppf(tail, freedom) / stats.norm.ppf(tail))
    deviations = np.zeros(resamples)
    for number, array in enumerate(arrays):
        rng = np.random.default_rng(named_seed(seed, "bootstrap", number))
        drawn = _drawn_means(array, resamples, rng) - array.mean()
        deviations += drawn * _stretch(array, student) / len(arrays)
    centre = float(np.mean([a.mean() for a in arrays]))
    low, high = np.quantile(deviations, [1 - tail, tail])
    over = {1: "seeds", 2: "seeds and examples"}.get(sum({a.ndim for a in arrays}), "seeds and, where kept, examples")
    return Interval(centre + float(low), centre + float(high), level, over)


def _freedom(arrays: Sequence[np.ndarray]) -> float:
    """Of the mean of the groups' means (Welch 1947): between the degrees of one group and of all together."""
    by_seed = [a if a.ndim == 1 else a.mean(1) for a in arrays]
    variances = np.array([rows.var(ddof=1) / len(rows) for rows in by_seed])
    each = np.array([len(rows) - 1 for rows in by_seed])
    if not variances.any():
        return float(each.sum())
    return float(variances.sum() ** 2 / (variances**2 / each).sum())


def _drawn_means(array: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means `(resamples,)` of resampled rows, and columns if there are any."""
    rows = len(array)
    if array.ndim == 1 and rows * resamples <= 4 * _CELLS:
        return array[rng.integers(0, rows, (resamples, rows))].mean(1)
    values, counts = np.unique(array, return_counts=True) if array.ndim == 1 else (array, array)
    if array.ndim == 1 and len(values) <= _FEW_VALUES:  # examples that are right or wrong: how many of each is all
        return rng.multinomial(rows, counts / rows, resamples) @ values / rows
    if array.ndim == 1:  # examples, which are many: not all draws at once
        step = max(1, _CELLS // rows)
        draws = (min(step, resamples - start) for start in range(0, resamples, step))
        return np.concatenate([array[rng.integers(0, rows, (n, rows))].mean(1) for n in draws])
    columns = array.shape[1]
    means = np.empty(resamples)
    step = max(1, _CELLS // columns)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        mixed = rng.multinomial(rows, np.full(rows, 1 / rows), count) @ array / rows
        chosen = rng.integers(0, columns, (count, columns))
        means[start : start + count] = np.take_along_axis(mixed, chosen, 1).mean(1)
    return means


def _stretch(array: np.ndarray, student: float) -> float:
    """How much wider than the percentiles an interval must be for so few rows (and columns)."""
    rows = len(array)
    of_rows = student**2 * rows / (rows - 1)
    if array.ndim == 1:
        return float(np.sqrt(of_rows))
    columns = array.shape[1]
    seeds, examples = array.mean(1).var() / rows, array.mean(0).var() / columns
    share = seeds / (seeds + examples) if seeds + examples > 0 else 1.0
    return float(np.sqrt(share * of_rows + (1 - share) * columns / max(columns - 1, 1)))


def sign_flip_test(groups: Sequence[np.ndarray | Sequence[float]], seed: int = 0) -> PairedTest:
    """Permutation test of paired differences: each may, under the null hypothesis, as well have the other sign.

    `groups` are differences `(S,)` by seed, one array a task; the statistic is the mean of the groups' means. All
    patterns of signs are tried up to 13 pairs. The smallest p of n pairs is 2 / 2^n, so five pairs cannot reach 0.05.
    """
    arrays = [_finite(group, 1, "paired test") for group in groups]
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
    arrays = [_finite(group, 2, "test over examples") for group in groups]
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
    array = _finite(differences, 2, "paired test")
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


def equivalent(interval: Interval, margin: float) -> bool:
    """Whether an interval lies inside plus or minus `margin`.

    With a level of 0.90 this is the test of two one-sided tests (TOST) at 5 %, with 0.95 one at 2.5 %.
    """
    if not margin > 0:
        raise UserError(f"a margin of equivalence must be above 0, got {margin:g}")
    return -margin < interval.low and interval.high < margin


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


def _finite(values: np.ndarray | Sequence[float], fewest: int, what: str) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim not in (1, 2) or 0 in array.shape[1:]:
        raise UserError(f"{what}: values come by seed, or by seed and example, got the shape {array.shape}")
    if len(array) < fewest:
        raise UserError(f"{what}: needs at least {fewest} seeds, got {len(array)}")
    if not np.isfinite(array).all():
        raise UserError(f"{what}: {int((~np.isfinite(array)).sum())} of {array.size} values are not finite")
    return array
