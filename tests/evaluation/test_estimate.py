"""Intervals and tests over seeds and examples: components by hand, and what they hold in simulated studies."""

import numpy as np
import pytest
from scipy import stats

from layerstill.errors import UserError
from layerstill.evaluation.estimate import Estimate, components, estimate, mean_squares
from layerstill.evaluation.statistics import sign_flip_test

DRAWS = 1500
WORLDS = {
    "neither": (0.0, 0.0),
    "seeds a little": (0.06, 0.0),
    "seeds": (0.2, 0.0),
    "examples": (0.0, 0.7),
    "both, seeds little": (0.06, 0.3),
    "both": (0.1, 0.7),
}
"""Spread of the seeds' and of the examples' own part in how likely an arm is right, on the scale of a probit."""


def drawn(rng: np.random.Generator, world: str, examples: int, seeds: int = 5, lead: float = 0.0):
    """Differences `(seeds, examples)` of 0 and ±1 between two arms that are right or wrong, and the true difference.

    An arm is right where its skill, the example's ease (shared by both arms), the example's own for this arm, the seed's
    for this arm and what is left add up to more than 0.
    """
    of_seed, of_example = WORLDS[world]
    ease = rng.normal(size=examples)
    right, truth = [], []
    for skill in (1.0 + lead, 1.0):
        parts = of_seed * rng.normal(size=(seeds, 1)) + of_example * rng.normal(size=examples)
        right.append(skill + ease + parts + rng.normal(size=(seeds, examples)) > 0)
        truth.append(stats.norm.cdf(skill / np.sqrt(2 + of_seed**2 + of_example**2)))
    return right[0].astype(float) - right[1], truth[0] - truth[1]


def test_components_by_hand():
    """Rows differ by 2, columns by 4, and a cell by 1 from what they add up to."""
    table = np.array([[0.0, 4.0], [2.0, 7.0]])
    # Mean squares: seeds 2 * 2 * 1.25^2 / 1, examples 2 * 2 * 2.25^2, rest 4 * 0.25^2.
    found = components(table)
    assert found.rest == pytest.approx(0.25)
    assert found.seed == pytest.approx((6.25 - 0.25) / 2)
    assert found.example == pytest.approx((20.25 - 0.25) / 2)
    made = estimate([table])
    assert made.error == pytest.approx(np.sqrt(3 / 2 + 10 / 2 + 0.25 / 4))
    assert made.freedom == 1.0  # of two seeds
    four = np.vstack([table, table + np.array([[1, 0], [3, -1]])])
    of_seeds, of_examples, rest = mean_squares(four)
    freedom = (of_seeds + of_examples - rest) ** 2 / (of_seeds**2 / 3 + of_examples**2 / 1 + rest**2 / 3)
    assert estimate([four]).freedom == pytest.approx(freedom)
    assert (made.mean, made.over, made.pairs) == (3.25, "seeds and examples", 2)


def test_components_are_those_that_values_are_drawn_with():
    rng = np.random.default_rng(0)
    tables = 2 * rng.normal(size=(400, 6, 1)) + 3 * rng.normal(size=(400, 1, 40)) + rng.normal(size=(400, 6, 40))
    found = [components(table) for table in tables]
    assert np.mean([c.seed for c in found]) == pytest.approx(4, rel=0.1)
    assert np.mean([c.example for c in found]) == pytest.approx(9, rel=0.1)
    assert np.mean([c.rest for c in found]) == pytest.approx(1, rel=0.02)


def test_a_component_below_nothing_is_none():
    """Rows whose means are equal: what is left is the test over examples, with the degrees of freedom of these."""
    table = np.array([[4.0, 0.0, 1.0, 0.0, 2.0], [4.0, 0.0, 0.0, 1.0, 2.0]])
    found = components(table)
    assert found.seed == 0
    made = estimate([table])
    assert made.error**2 == pytest.approx(found.example / 5 + found.rest / 10)
    assert made.error == pytest.approx(stats.sem(np.mean(table, 0)))
    assert made.freedom == 1  # of two seeds, which cannot show that they do not vary
    assert estimate([np.vstack([table, table])]).freedom == pytest.approx(4)


def test_without_examples_it_is_students_test():
    values = [0.8, -0.1, 0.5, 0.3, 0.9]
    known = stats.ttest_1samp(values, 0)
    made = estimate([values])
    assert made.test().p == pytest.approx(known.pvalue)
    assert (made.interval().low, made.interval().high) == pytest.approx(tuple(known.confidence_interval(0.95)))
    assert made.over == "seeds"
    tasks = estimate([values, [0.1, 0.2, 0.4]])  # Welch's and Satterthwaite's degrees of freedom
    variances = np.var(values, ddof=1) / 5, np.var([0.1, 0.2, 0.4], ddof=1) / 3
    assert tasks.error == pytest.approx(np.sqrt(sum(variances)) / 2)
    assert tasks.freedom == pytest.approx(sum(variances) ** 2 / (variances[0] ** 2 / 4 + variances[1] ** 2 / 2))
    assert estimate([values, np.ones((2, 3))]).over == "seeds and, where kept, examples"


@pytest.mark.parametrize("lead", [0.0, 0.2])
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("examples", [200, 400])
def test_intervals_of_right_and_wrong_answers_hold_the_truth_as_often_as_they_say(world, examples, lead):
    rng = np.random.default_rng([examples, len(world), int(10 * lead)])
    held = 0
    for _ in range(DRAWS // 3):
        table, truth = drawn(rng, world, examples, lead=lead)
        interval = estimate([table]).interval()
        held += interval.low <= truth <= interval.high
    assert 0.92 <= held / (DRAWS // 3) <= 0.99


@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize("world", WORLDS)
def test_two_equal_arms_are_told_apart_as_rarely_as_the_level_says(world, tasks):
    """About one time in twenty; where nothing is random but the single answers, components cut at 0 make it rarer."""
    rng = np.random.default_rng([tasks, len(world)])
    found = [estimate([drawn(rng, world, 300)[0] for _ in range(tasks)]).test().p < 0.05 for _ in range(DRAWS)]
    assert (0.015 if world == "neither" else 0.025) <= np.mean(found) <= 0.065


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("spread", [0.0, 0.05, 0.15, 0.3])
def test_few_seeds_do_not_tell_equal_arms_apart(seeds, spread):
    """Where their own part is found to be 0, which with so few says nothing; at 5 % and at the 1 % that a family asks."""
    rng = np.random.default_rng([seeds, int(100 * spread)])
    found = []
    for _ in range(DRAWS):
        right = [spread * rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, 300)) > -0.8 for _ in range(2)]
        found.append(estimate([right[0].astype(float) - right[1]]).test().p)
    assert np.mean(np.array(found) < 0.05) <= 0.065
    assert np.mean(np.array(found) < 0.01) <= 0.02


def test_signs_of_seeds_know_nothing_of_examples():
    """What the test over seeds and examples is for: where examples matter, sign flips call noise a difference."""
    rng = np.random.default_rng(3)
    tables = [drawn(rng, "examples", 300, seeds=8)[0] for _ in range(400)]
    assert np.mean([sign_flip_test([table.mean(1)]).p < 0.05 for table in tables]) > 0.09
    assert np.mean([estimate([table]).test().p < 0.05 for table in tables]) < 0.07


def test_the_interval_excludes_0_exactly_when_p_is_below_005():
    rng = np.random.default_rng(4)
    seen = set()
    for lead in np.linspace(0, 0.4, 60):
        made = estimate([drawn(rng, "both", 200, lead=lead)[0]])
        excludes = made.interval().low > 0 or made.interval().high < 0
        assert excludes == (made.test().p < 0.05)
        seen.add(excludes)
    assert seen == {True, False}


def test_intervals_are_no_wider_than_they_need_be():
    """Half of the mean width over the half that would do if the standard error were known; the bootstrap's was 1.5."""
    rng = np.random.default_rng(5)
    made = [estimate([drawn(rng, "examples", 300)[0]]) for _ in range(400)]
    needed = 1.96 * np.std([m.mean for m in made])
    assert np.mean([m.interval().high - m.mean for m in made]) / needed < 1.2


def test_one_sided_p_values_are_about_a_bound():
    made = Estimate(0.01, 0.004, 10.0, "seeds", 11)
    assert made.p_above(0.0) == pytest.approx(stats.t.sf(2.5, 10))
    assert made.p_below(0.02) == pytest.approx(stats.t.sf(2.5, 10))
    assert made.p_below(0.0) == pytest.approx(1 - stats.t.sf(2.5, 10))
    assert made.test().p == pytest.approx(2 * stats.t.sf(2.5, 10))


def test_equal_differences_are_no_certainty():
    made = estimate([np.full((3, 4), 0.1), np.full(2, 0.3)])
    assert (made.error, made.test().p) == (0, 1)
    assert made.interval().empty
    assert made.p_above(0) == made.p_below(1) == 1


@pytest.mark.parametrize(
    ("groups", "message"),
    [([], "at least one group"), ([[0.1]], "needs at least 2 seeds, got 1"), ([[0.1, np.nan]], "1 of 2 values")],
)
def test_what_cannot_be_estimated_is_refused(groups, message):
    with pytest.raises(UserError, match=message):
        estimate(groups)
