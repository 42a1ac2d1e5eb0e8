"""What a design could find out before anything is run: the smallest difference, and the smallest margin of equality."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from layerstill.evaluation.estimate import FEWEST_SEEDS
from layerstill.evaluation.rules import ALPHA
from layerstill.evaluation.statistics import EXACT_PAIRS, LEVEL

POWER = 0.8


@dataclass(frozen=True)
class Design:
    """Two arms on some tasks, and how much a difference between them varies.

    Args:
        seeds: pairs of runs of each task, two at least.
        examples: of each task's dev set; None where a score is no sum over examples, so that they are not known.
        comparisons: how many there are in the family.
        over_seeds: standard deviation of a paired difference of scores over seeds.
        over_examples: standard deviation over examples of what arms differ by on one, whatever the seed.
    """

    seeds: Sequence[int]
    examples: Sequence[int | None]
    comparisons: int
    over_seeds: float
    over_examples: float

    @property
    def by_example(self) -> bool:
        """Whether tests are over seeds and examples, else of the signs of seeds."""
        return any(count is not None for count in self.examples)

    @property
    def smallest_p(self) -> float:
        """The smallest p-value that the test can give."""
        pairs = sum(self.seeds)
        return 0.0 if self.by_example else max(2 / 2**pairs, 2 / 10_000 if pairs > EXACT_PAIRS else 0.0)

    @property
    def reaches(self) -> bool:
        """Whether the first of the comparisons could have a p-value below 0.05 after Holm."""
        return self.smallest_p * self.comparisons < ALPHA

    def _error(self) -> tuple[float, float]:
        """Standard error of the mean over tasks, and Satterthwaite's degrees of freedom."""
        parts = []
        for seeds, examples in zip(self.seeds, self.examples, strict=True):
            parts.append((self.over_seeds**2 / seeds, seeds - 1))
            if examples is not None and examples > 1:
                parts.append((self.over_examples**2 / examples, examples - 1))
        variance = sum(part for part, _ in parts)
        freedom = variance**2 / sum(part**2 / of for part, of in parts)
        if min(self.seeds) < FEWEST_SEEDS:
            freedom = min(freedom, sum(seeds - 1 for seeds in self.seeds))
        return float(np.sqrt(variance)) / len(self.seeds), float(freedom)

    def smallest_difference(self) -> float:
        """The true difference that is found in 80 of 100 studies, where the first step of Holm asks for 0.05 / n."""
        error, freedom = self._error()
        bound = float(stats.t.isf(ALPHA / self.comparisons / 2, freedom))

        def found(size: float) -> float:
            # The other tail, a difference found the wrong way round, is no power.
            return float(stats.nct.sf(bound, freedom, size)) - POWER

        return error * float(optimize.brentq(found, 0.0, 5 * bound + 10))

    def smallest_margin(self) -> float:
        """The margin within which arms that are equal are found equal in 80 of 100 studies."""
        error, freedom = self._error()
        # One-sided at 0.05 / n on both sides, and the 95 % interval has to lie inside, too; each side may fail in 10.
        bound = float(stats.t.isf(min(ALPHA / self.comparisons, (1 - LEVEL) / 2), freedom))
        return error * (bound + float(stats.t.isf((1 - POWER) / 2, freedom)))
