"""Statistics against scipy, textbooks, hand counts and simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from layerstill.errors import UserError
from layerstill.evaluation.statistics import (
    bootstrap_interval,
    example_test,
    friedman_ranks,
    holm,
    sign_flip_test,
    summarise,
    wilcoxon_test,
    win_matrix,
)


def test_a_summary_by_hand():
    three = summarise([1.0, 2.0, 6.0])
    assert (three.mean, three.n) == (3.0, 3)
    assert three.sd == pytest.approx(np.sqrt((4 + 1 + 9) / 2))
    assert summarise([0.7]).sd is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: summarise([]), "summary: needs at least 1 seeds, got 0"),
        (lambda: summarise([1.0, float("nan")]), "1 of 2 values are not finite"),
        (lambda: bootstrap_interval([[0.3]]), "interval: needs at least 2 seeds, got 1"),
        (lambda: bootstrap_interval([]), "an interval needs at least one group"),
        (lambda: bootstrap_interval([np.zeros((2, 0))]), "values come by seed, or by seed and example"),
        (lambda: bootstrap_interval([np.zeros((2, 3))]), "a bootstrap interval is over seeds alone"),
        (lambda: sign_flip_test([[0.3]]), "a paired test needs at least 2 pairs, got 1"),
        (lambda: wilcoxon_test([0.3]), "paired test: needs at least 2 seeds, got 1"),
        (lambda: holm([0.1, 1.2]), "p-values lie between 0 and 1"),
        (lambda: friedman_ranks(np.zeros((5, 4))), "got 4 arms and 5 blocks"),
        (lambda: friedman_ranks(np.zeros((9, 2))), "got 2 arms and 9 blocks"),
    ],
)
def test_nonsense_is_refused_in_one_line(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_sign_flips_equal_a_count_of_all_patterns_by_hand():
    differences = np.array([0.8, -0.1, 0.5, 0.3, 0.9])
    means = [np.mean(differences * signs) for signs in itertools.product([1, -1], repeat=5)]
    expected = np.mean(np.abs(means) >= abs(differences.mean()) - 1e-12)
    test = sign_flip_test([differences])
    assert test.p == pytest.approx(expected)
    assert (test.pairs, test.smallest, test.method) == (5, 0.0625, "sign flips, exact")


def test_five_equal_signs_reach_the_smallest_p_and_no_less():
    assert sign_flip_test([[0.1, 0.2, 0.3, 0.4, 5.0]]).p == pytest.approx(0.0625)
    assert sign_flip_test([[1.0] * 6]).p == pytest.approx(2 / 64)
    assert sign_flip_test([[0.0, 0.0, 0.0]]).p == 1.0


def test_every_task_counts_the_same_in_the_pooled_test():
    one, other = np.array([0.5, 0.4, 0.6]), np.array([-0.1, 0.2])
    flips = itertools.product([1, -1], repeat=5)
    means = [np.mean([(one * s[:3]).mean(), (other * s[3:]).mean()]) for s in map(np.array, flips)]
    seen = np.mean([one.mean(), other.mean()])
    assert sign_flip_test([one, other]).p == pytest.approx(np.mean(np.abs(means) >= seen - 1e-12))


def test_many_pairs_are_drawn_and_agree_with_the_t_test():
    rng = np.random.default_rng(3)
    differences = rng.normal(0.4, 1, 40)
    test = sign_flip_test([differences])
    assert test.method == "sign flips, 9,999 drawn"
    assert test.p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)
    assert sign_flip_test([differences]).p == test.p  # a function of its input


def test_wilcoxon_is_scipys():
    differences = [0.8, -0.1, 0.5, 0.3, 0.9, 1.4, 0.2]
    assert wilcoxon_test(differences).p == stats.wilcoxon(differences).pvalue
    assert wilcoxon_test([0.0, 0.0]).p == 1.0


def test_holm_by_hand():
    # 0.01 * 4, 0.02 * 3, 0.03 * 2, then 0.04 * 1 raised to its predecessor.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_interval_of_many_values_is_students():
    values = np.random.default_rng(1).normal(5, 2, 200)
    expected = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    interval = bootstrap_interval([values])
    assert (interval.low, interval.high) == pytest.approx(expected, abs=0.05)
    assert interval.over == "seeds"
    assert bootstrap_interval([values]) == interval
    narrow = bootstrap_interval([values], level=0.5)
    assert interval.low < narrow.low < values.mean() < narrow.high < interval.high


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_intervals_over_seeds_hold_the_truth_as_often_as_they_say(seeds):
    rng = np.random.default_rng(seeds)
    held = 0
    for i in range(500):
        interval = bootstrap_interval([rng.normal(1, 1, seeds)], seed=i, resamples=800)
        held += interval.low <= 1 <= interval.high
    assert 0.92 <= held / 500 <= 0.98  # plain percentiles: 0.75, 0.84, 0.89


def test_intervals_over_tasks_of_unequal_spread_hold_the_truth_too():
    """One task varies five times as much as the other, so that there are nearer 4 than 8 degrees of freedom."""
    rng = np.random.default_rng(1)
    held = 0
    for i in range(600):
        tasks = [rng.normal(0, 0.9, 5), rng.normal(0, 4.5, 5)]
        interval = bootstrap_interval(tasks, seed=i, resamples=800)
        held += interval.low <= 0 <= interval.high
    assert 0.935 <= held / 600 <= 0.98


def test_the_mean_of_tasks_is_what_is_enclosed():
    one, other = np.array([0.0, 0.1, -0.1, 0.05]), np.array([2.0, 2.1, 1.9, 1.95])
    interval = bootstrap_interval([one, other])
    assert interval.low < np.mean([one.mean(), other.mean()]) < interval.high
    assert interval.high - interval.low < 0.3  # tasks differ by 2, and are not resampled


def test_the_test_keeps_its_size_and_finds_what_is_there():
    rng = np.random.default_rng(0)
    null = np.mean([sign_flip_test([rng.normal(0, 1, 8)]).p < 0.05 for _ in range(400)])
    real = np.mean([sign_flip_test([rng.normal(2, 1, 8)]).p < 0.05 for _ in range(100)])
    assert null <= 0.08
    assert real > 0.95


def test_examples_of_right_and_wrong_are_tested_by_mcnemar():
    """Twelve to two of 100 examples, by the binomial distribution and by all patterns of signs."""
    gaps = np.array([1.0] * 12 + [-1.0] * 2 + [0.0] * 86)
    found = example_test([gaps])
    assert found.p == pytest.approx(2 * stats.binom.cdf(2, 14, 0.5))
    assert (found.pairs, found.method) == (100, "McNemar, exact")
    assert found.smallest == 2 / 2**14
    patterns = np.array(list(itertools.product((1, -1), repeat=14)))
    assert found.p == pytest.approx(np.mean(np.abs(patterns.sum(1)) >= 10))
    assert example_test([np.zeros(9)]).p == 1.0


def test_examples_of_several_tasks_and_of_other_metrics_are_tested_by_sign_flips():
    # Three differences on one task of 4 examples, one on another of 2; tasks count the same.
    one, other = np.array([0.5, 0.25, 0.0, -0.125]), np.array([1.0, 0.0])
    patterns = np.array(list(itertools.product((1, -1), repeat=4)))
    sums = patterns @ np.array([0.5 / 8, 0.25 / 8, 0.125 / 8, 1.0 / 4])
    real = (0.5 + 0.25 - 0.125) / 8 + 1 / 4
    assert example_test([one, other]).p == pytest.approx(np.mean(np.abs(sums) >= real - 1e-12))
    rng = np.random.default_rng(0)
    values = rng.normal(0.1, 1, 21_000)
    drawn, normal = example_test([values[:19_000]]).p, example_test([values]).p
    assert drawn == 2 / 10_000
    assert normal < 1e-10
    null = [example_test([rng.normal(0, 1, 60)]).p < 0.05 for _ in range(60)]
    assert np.mean(null) < 0.15


def test_an_interval_of_many_examples_does_not_draw_all_at_once():
    many = np.random.default_rng(0).integers(0, 2, 30_000).astype(float)
    found = bootstrap_interval([many])
    half = 1.96 * many.std() / np.sqrt(len(many))
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)


def test_wins_by_hand():
    matrix = win_matrix(np.array([[3.0, 2.0, 2.0], [1.0, 2.0, 0.0]]))
    np.testing.assert_allclose(matrix, [[0.5, 0.5, 1.0], [0.5, 0.5, 0.75], [0.0, 0.25, 0.5]])


@pytest.mark.parametrize(("arms", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_differences_have_demsars_constants(arms, q):
    scores = np.random.default_rng(0).normal(size=(14, arms))
    ranks = friedman_ranks(scores)
    assert ranks.critical_difference == pytest.approx(q * np.sqrt(arms * (arms + 1) / (6 * 14)), rel=1e-3)
    assert ranks.p == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue)
    assert sum(ranks.average) == pytest.approx(arms * (arms + 1) / 2)


def test_ranks_by_hand():
    ranks = friedman_ranks(np.array([[3.0, 2.0, 1.0]] * 6))
    assert ranks.average == (1.0, 2.0, 3.0)
    # 12 * 6 / (3 * 4) * ((1-2)^2 + 0 + (3-2)^2) = 12
    assert ranks.statistic == pytest.approx(12)
    assert friedman_ranks(np.ones((6, 3))).p == 1.0
