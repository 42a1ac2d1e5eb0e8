"""What the rules of the withdrawn verdicts, C16 and C17, say where their claims are not true or nothing is there.

Scores are drawn from normal distributions, in the shape of the studies: five seeds, two tasks, four objectives, three
initialisations, four comparisons of the best objective with KD.
"""

from collections.abc import Callable

import numpy as np
from benchmarks.claims.objectives import tau
from benchmarks.claims.tables import effects, table

from layerstill.evaluation.statistics import bootstrap_interval
from layerstill.randomness import named_seed

SEEDS, TASKS, COMPARISONS = 5, 2, 4
RESAMPLES = 1000


def c16_says(rng: np.random.Generator, gain: float) -> bool:
    """Whether every interval for (best intermediate objective - KD) holds 0; `gain` is the truth, in a run's spread."""
    for _ in range(COMPARISONS):
        gaps = [gain + np.sqrt(2) * rng.normal(size=SEEDS) for _ in range(TASKS)]
        interval = bootstrap_interval(gaps, seed=int(rng.integers(2**31)), resamples=RESAMPLES)
        if not interval.low < 0 < interval.high:
            return False
    return True


def c17_says(rng: np.random.Generator, gain: float) -> bool:
    """Whether tau is below a half, or initialisation and interaction have twice the objective's share of the variance.

    The truth is that each objective is better than the one before by `gain`, at every initialisation alike.
    """
    scores = rng.normal(size=(3, 4, SEEDS)) + gain * np.arange(4)[:, None]
    found = effects(scores)
    return tau(scores) < 0.5 or found["first"].share + found["interaction"].share >= 2 * found["second"].share


def share(rule: Callable[[np.random.Generator, float], bool], gain: float, draws: int = 1000) -> float:
    """How often a rule says supported."""
    rng = np.random.default_rng(named_seed(0, "noise", rule.__name__))
    return float(np.mean([rule(rng, gain) for _ in range(draws)]))


def show() -> str:
    """A table of both rules."""
    worlds = [
        ("C16", "all arms are equal", c16_says, 0.0),
        ("C16", "the best intermediate objective is half a standard deviation above KD", c16_says, 0.5),
        ("C17", "all objectives and initialisations are equal", c17_says, 0.0),
    ]
    rows = [[claim, world, f"{share(rule, gain):.0%}".replace("%", " %")] for claim, world, rule, gain in worlds]
    return table(["rule of", "what is true (a run's standard deviation is 1)", "says supported"], rows)
