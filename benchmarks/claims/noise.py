"""What the rules of the withdrawn verdicts, C16 and C17, say of noise, and what the rules in their place say.

Scores are drawn from normal distributions, in the shape of the studies: five seeds, two tasks, four objectives, three
initialisations, four comparisons of the best objective with KD. The new rules need examples, 400 that are right or
wrong.
"""

import itertools
from collections.abc import Callable

import numpy as np
from benchmarks.claims.factors import effects
from benchmarks.claims.tables import table
from scipy import stats

from layerstill.evaluation.comparison import compare
from layerstill.evaluation.rules import as_page
from layerstill.evaluation.statistics import bootstrap_interval
from layerstill.randomness import named_seed

SEEDS, TASKS, COMPARISONS, EXAMPLES = 5, 2, 4, 400
RESAMPLES = 1000
CHANCE = 0.8
"""Of an arm to be right, where arms are equal."""


def c16_said(rng: np.random.Generator, gain: float) -> bool:
    """Whether every interval for (best intermediate objective - KD) holds 0; `gain` is the truth, in a run's spread."""
    for _ in range(COMPARISONS):
        gaps = [gain + np.sqrt(2) * rng.normal(size=SEEDS) for _ in range(TASKS)]
        interval = bootstrap_interval(gaps, seed=int(rng.integers(2**31)), resamples=RESAMPLES)
        if not interval.low < 0 < interval.high:
            return False
    return True


def c17_said(rng: np.random.Generator, gain: float) -> bool:
    """Whether tau is below a half, or initialisation and interaction have twice the objective's share of the variance.

    The truth is that each objective is better than the one before by `gain`, at every initialisation alike.
    """
    scores = rng.normal(size=(3, 4, SEEDS)) + gain * np.arange(4)[:, None]
    found = effects(scores[..., None].repeat(2, 3))
    return tau(scores) < 0.5 or found["first"].share + found["interaction"].share >= 2 * found["second"].share


def tau(scores: np.ndarray) -> float:
    """Mean Kendall tau of the objectives' order between two initialisations, of scores `(3, objectives, seeds)`."""
    means = scores.mean(2)
    return float(np.mean([stats.kendalltau(a, b).statistic for a, b in itertools.combinations(means, 2)]))


def c16_says(rng: np.random.Generator, gain: float) -> bool:
    """Whether any of the comparisons is judged "not higher" by half a point; `gain` is the truth, in points."""
    rows = []
    for number in range(COMPARISONS):
        right = {t: _right(rng, CHANCE + gain / 100) - _right(rng, CHANCE) for t in range(TASKS)}
        gaps = {str(t): dict(enumerate(table.mean(1))) for t, table in right.items()}
        none = {t: dict.fromkeys(of, 0.0) for t, of in gaps.items()}
        examples = {str(t): table for t, table in right.items()}
        rows.append((compare(str(number), "kd", gaps, none, examples), "not higher"))
    return any(said.word == "supported" for _, said in as_page(rows)[0])


def c17_says(rng: np.random.Generator, gain: float) -> bool:
    """Whether the interaction has p below 0.05; each objective is better by `gain` points at every initialisation."""
    chances = CHANCE - 0.01 * gain * np.arange(4)
    right = np.array([[_right(rng, chance) for chance in chances] for _ in range(3)])
    return effects(right)["interaction"].p < 0.05


def _right(rng: np.random.Generator, chance: float) -> np.ndarray:
    return (rng.random((SEEDS, EXAMPLES)) < chance).astype(float)


def share(rule: Callable[[np.random.Generator, float], bool], gain: float, draws: int = 1000) -> float:
    """How often a rule says supported."""
    rng = np.random.default_rng(named_seed(0, "noise", rule.__name__))
    return float(np.mean([rule(rng, gain) for _ in range(draws)]))


def show() -> str:
    """A table of the old rules and the new."""
    worlds: list[tuple[str, str, Callable[[np.random.Generator, float], bool], float]] = [
        ("C16, withdrawn", "all arms are equal", c16_said, 0.0),
        ("C16, withdrawn", "the best intermediate objective is half a standard deviation above KD", c16_said, 0.5),
        ("C16, now: not higher by half a point", "all arms are equal", c16_says, 0.0),
        ("C16, now: not higher by half a point", "each arm is 2 points above KD", c16_says, 2.0),
        ("C17, withdrawn", "all objectives and initialisations are equal", c17_said, 0.0),
        ("C17, now: interaction", "all objectives and initialisations are equal", c17_says, 0.0),
        ("C17, now: interaction", "objectives differ by 2 points, at every initialisation alike", c17_says, 2.0),
    ]
    rows = [[claim, world, f"{share(rule, gain):.0%}".replace("%", " %")] for claim, world, rule, gain in worlds]
    return table(["rule of", "what is true (a run's standard deviation is 1, or 400 examples)", "says supported"], rows)
