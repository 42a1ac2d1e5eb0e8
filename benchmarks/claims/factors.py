"""Two crossed factors, such as initialisation and objective: shares of the variance, and F tests of their interaction.

Whether the order of arms depends on another factor is a question about the interaction: if there is none, the
differences between arms are the same at every level. The tests are over seeds and examples, as those of two arms are.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from layerstill.evaluation.estimate import mean_squares

PARTS = ("first", "second", "interaction")


@dataclass(frozen=True)
class Effect:
    """A factor's share of the variance (omega squared, unbiased for no effect but for cutting at 0) and its F test."""

    share: float
    p: float


def effects(right: np.ndarray) -> dict[str, Effect]:
    """What of `right` `(A, B, S, N)`, by two factors, seed and example, is `first`, `second` and `interaction`.

    Shares are of the variance of the scores over seeds.
    """
    shares = _shares(right.mean(3))
    a, b = (_contrasts(n) for n in right.shape[:2])
    mean_a, mean_b = (np.full((1, n), n**-0.5) for n in right.shape[:2])
    pairs = {"first": (a, mean_b), "second": (mean_a, b), "interaction": (a, b)}
    return {part: Effect(shares[part], f_test(_projected(right, *pairs[part]))) for part in PARTS}


def f_test(tables: np.ndarray) -> float:
    """The p-value of `tables` `(k, S, N)` of orthonormal contrasts, that the truth of each is 0.

    The mean square of their k means over its expectation by the variance components of seeds, examples and the rest,
    which are pooled over the contrasts and cut at 0; degrees of freedom are k and Satterthwaite's.
    """
    k, seeds, examples = tables.shape
    of_seeds, of_examples, rest = np.mean([mean_squares(table) for table in tables], axis=0)
    freedom = k * np.array([seeds - 1, examples - 1, (seeds - 1) * (examples - 1)])
    vary = np.array([of_seeds > rest, of_examples > rest], dtype=float)
    parts = np.array([of_seeds, of_examples, rest]) * [*vary, 1 - vary.sum()]
    expected = parts.sum()
    if expected <= 0:
        return 1.0
    found = seeds * examples * float((tables.mean((1, 2)) ** 2).mean()) / expected
    return float(stats.f.sf(found, k, expected**2 / (parts**2 / freedom).sum()))


def _projected(right: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Contrasts `(k, S, N)` of `(A, B, S, N)`: each of one factor with each of the other."""
    made = np.einsum("ia,jb,absn->ijsn", first, second, right)
    return made.reshape(-1, *right.shape[2:])


def _contrasts(levels: int) -> np.ndarray:
    """Orthonormal contrasts `(levels - 1, levels)` of a factor."""
    return np.linalg.svd(np.eye(levels) - 1 / levels)[2][: levels - 1]


def _shares(scores: np.ndarray) -> dict[str, float]:
    """Omega squared of a two-way analysis of variance of `(A, B, S)` scores."""
    a, b, n = scores.shape
    whole = scores.mean()
    first, second = scores.mean((1, 2), keepdims=True) - whole, scores.mean((0, 2), keepdims=True) - whole
    inner = scores.mean(2, keepdims=True) - whole - first - second
    total, freedom = ((scores - whole) ** 2).sum(), a * b * (n - 1)
    error = ((scores - scores.mean(2, keepdims=True)) ** 2).sum() / freedom
    found = {}
    for name, part, df in zip(PARTS, (first, second, inner), (a - 1, b - 1, (a - 1) * (b - 1)), strict=True):
        squares = (np.broadcast_to(part, scores.shape) ** 2).sum()
        found[name] = max(float((squares - df * error) / (total + error)), 0.0)
    return found
