"""A mean difference that seeds and examples are both a sample for: its standard error, interval and t-test.

Differences by seed and example are a two-way table without replication. What varies in it is taken for the sum of
three random effects: of the seed, of the example, and of the rest, each with a variance of its own (variance
components; Searle, Casella and McCulloch 1992, chapter 4). The interval and the p-value come from the same standard
error and degrees of freedom, so they agree: the interval excludes 0 exactly when p is below one minus its level.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from layerstill.errors import UserError
from layerstill.evaluation.statistics import LEVEL, Interval, PairedTest, finite


@dataclass(frozen=True)
class Components:
    """Variances of a table `(S, N)` of differences; none is below 0. Without examples all of it is `seed`."""

    seed: float
    example: float
    rest: float


@dataclass(frozen=True)
class Estimate:
    """The mean of the groups' means, its standard error, and the degrees of freedom of Student's t.

    `error` is 0 where within each group all values are equal; that is no certainty, only nothing to measure it by.
    """

    mean: float
    error: float
    freedom: float
    over: str
    pairs: int
    """Seeds of all groups together."""

    def interval(self, level: float = LEVEL) -> Interval:
        """The interval of this level."""
        half = self.quantile((1 + level) / 2) * self.error
        return Interval(self.mean - half, self.mean + half, level, self.over)

    def test(self) -> PairedTest:
        """The two-sided t-test that the mean is 0; p is 1 without a standard error."""
        return PairedTest(min(1.0, 2 * self.tail(0.0, abs(self.mean))), 0.0, self.pairs, f"t-test over {self.over}")

    def p_above(self, bound: float) -> float:
        """One-sided p-value of "the truth is at most `bound`": small where the mean is clearly above it."""
        return self.tail(bound, self.mean)

    def p_below(self, bound: float) -> float:
        """One-sided p-value of "the truth is at least `bound`"."""
        return self.tail(-bound, -self.mean)

    def tail(self, bound: float, seen: float) -> float:
        """How often chance puts a mean as far above `bound` as `seen` if that were the truth."""
        return float(stats.t.sf((seen - bound) / self.error, self.freedom)) if self.error > 0 else 1.0

    def quantile(self, share: float) -> float:
        """Of Student's t with these degrees of freedom."""
        return float(stats.t.ppf(share, self.freedom))


def components(table: np.ndarray) -> Components:
    """Variance components of a table `(S, N)`, or `(S,)`, by its mean squares; negative ones are set to 0."""
    array = finite(table, 2, "variance components")
    if array.ndim == 1 or array.shape[1] == 1:
        return Components(float(array.reshape(-1).var(ddof=1)), 0.0, 0.0)
    seeds, examples = array.shape
    of_seeds, of_examples, rest = mean_squares(array)
    return Components(max(0.0, (of_seeds - rest) / examples), max(0.0, (of_examples - rest) / seeds), rest)


def mean_squares(array: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of seeds, of examples and of the rest of a table `(S, N)`."""
    seeds, examples = array.shape
    of_seeds = examples * float(array.mean(1).var(ddof=1))
    of_examples = seeds * float(array.mean(0).var(ddof=1))
    whole = float(((array - array.mean()) ** 2).sum())
    rest = whole - (seeds - 1) * of_seeds - (examples - 1) * of_examples
    return of_seeds, of_examples, max(0.0, rest) / ((seeds - 1) * (examples - 1))


def estimate(groups: Sequence[np.ndarray | Sequence[float]]) -> Estimate:
    """The mean of the groups' means.

    A group (a task) is an array `(S,)` of differences by seed, or `(S, N)` by seed and example. Of the second the
    variance of the mean is seed / S + example / N + rest / (S N), components below 0 being set to 0; degrees of freedom
    are Satterthwaite's (1946, doi 10.2307/3002019) for the mean squares that it is made of, over all groups together.
    Two or three seeds cannot show that they do not vary, so with so few there are no more degrees than theirs.
    UserError for a group of one seed.
    """
    if not groups:
        raise UserError("an estimate needs at least one group of values")
    arrays = [finite(group, 2, "estimate") for group in groups]
    parts = [part for array in arrays for part in _parts(array)]
    variance = sum(weight * square for weight, square, _ in parts)
    spread = sum((weight * square) ** 2 / freedom for weight, square, freedom in parts)
    # Each group's mean has the weight 1 / groups, and so its variance that of 1 / groups squared.
    error = float(np.sqrt(max(variance, 0.0))) / len(arrays)
    freedom = variance**2 / spread if spread > 0 else float(sum(len(array) - 1 for array in arrays))
    if min(len(array) for array in arrays) < FEWEST_SEEDS:
        freedom = min(freedom, float(sum(len(array) - 1 for array in arrays)))
    over = {1: "seeds", 2: "seeds and examples"}.get(sum({a.ndim for a in arrays}), "seeds and, where kept, examples")
    if error < _NOTHING:
        error = 0.0
    mean = float(np.mean([array.mean() for array in arrays]))
    return Estimate(mean, error, float(freedom), over, sum(len(array) for array in arrays))


FEWEST_SEEDS = 4
"""With fewer, a component of seeds that is found to be 0 says nothing."""
_NOTHING = 1e-12
"""A standard error below this is rounding."""


def _parts(array: np.ndarray) -> list[tuple[float, float, int]]:
    """What the variance of a group's mean is the sum of: weight, mean square, degrees of freedom."""
    if array.ndim == 1 or array.shape[1] == 1:
        return [(1 / len(array), float(array.reshape(-1).var(ddof=1)), len(array) - 1)]
    seeds, examples = array.shape
    of_seeds, of_examples, rest = mean_squares(array)
    # The three weights are those of the components, put together by mean squares: one that is below the rest's says
    # that its component is 0, and leaves the rest in its place.
    seeds_vary, examples_vary = of_seeds > rest, of_examples > rest
    share = 1 / (seeds * examples)
    return [
        (share * seeds_vary, of_seeds, seeds - 1),
        (share * examples_vary, of_examples, examples - 1),
        (share * (1 - seeds_vary - examples_vary), rest, (seeds - 1) * (examples - 1)),
    ]
