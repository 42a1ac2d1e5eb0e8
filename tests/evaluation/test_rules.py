"""From comparisons to words: each rule where it holds, where it does not, and where the design could not have said."""

from dataclasses import replace

import numpy as np
import pytest

from layerstill.errors import UserError
from layerstill.evaluation.comparison import Comparison, as_family, compare
from layerstill.evaluation.estimate import Estimate
from layerstill.evaluation.rules import Verdict, as_page, limits, p_of, region, verdict, words
from layerstill.evaluation.statistics import Interval, PairedTest, Summary


def given(low, high, p=0.01, smallest=0.0, family=1, **by_task):
    """A comparison with this interval, and a standard error that belongs to it."""
    tasks = {task: Interval(*ends, 0.95, "seeds") for task, ends in by_task.items()}
    middle, error = (low + high) / 2, (high - low) / 2 / 2.0
    estimate = Estimate(middle, error, 60.0, "seeds", 8)
    test, ends = PairedTest(p, smallest, 8, "x"), Interval(low, high, 0.95, "seeds")
    return Comparison(
        "a", "b", Summary(0, 0, 8), Summary(0, 0, 8), middle, ends, test, tasks, min(1, p * family), family, estimate
    )


@pytest.mark.parametrize(
    ("comparison", "claimed", "word"),
    [
        (given(0.01, 0.03), "higher", "supported"),
        (given(0.01, 0.03), "lower", "not supported"),
        (given(-0.03, -0.01), "lower", "supported"),
        (given(-0.03, -0.01), "higher", "not supported"),
        (given(-0.004, 0.004), "higher", "not supported"),
        (given(-0.004, 0.004), "lower", "not supported"),
        (given(0.001, 0.004), "higher", "not supported"),
        (given(-0.004, 0.006), "higher", "undecided"),
        (given(0.01, 0.03, mrpc=(-0.03, -0.01), rte=(0.02, 0.07)), "higher", "undecided"),
        (given(0.01, 0.03, mrpc=(-0.03, -0.01), rte=(0.02, 0.07)), "lower", "undecided"),
        (given(0.01, 0.03, mrpc=(-0.03, 0.01), rte=(0.02, 0.07)), "higher", "supported"),
        (given(-0.03, -0.01, mrpc=(0.01, 0.02)), "lower", "undecided"),
        (given(-0.004, 0.004), "equal", "supported"),
        (given(0.001, 0.004), "equal", "supported"),
        (given(-0.004, 0.006), "equal", "undecided"),
        (given(0.001, 0.03), "equal", "undecided"),
        (given(0.01, 0.03), "equal", "not supported"),
        (given(-0.03, -0.01), "equal", "not supported"),
        (given(-0.004, 0.004, mrpc=(0.01, 0.02), rte=(-0.02, 0.0)), "equal", "undecided"),
        (given(-0.004, 0.004, mrpc=(0.01, 0.02), rte=(-0.02, -0.01)), "higher", "undecided"),
        (given(-0.004, 0.03), "not lower", "supported"),
        (given(-0.006, 0.03), "not lower", "undecided"),
        (given(-0.03, -0.01), "not lower", "not supported"),
        (given(-0.03, 0.004), "not higher", "supported"),
        (given(-0.03, 0.006), "not higher", "undecided"),
        (given(0.01, 0.03), "not higher", "not supported"),
        (given(-0.004, 0.03, mrpc=(-0.03, -0.01), rte=(0.01, 0.05)), "not lower", "undecided"),
    ],
)
def test_where_the_interval_lies(comparison, claimed, word):
    assert verdict(comparison, 0.005, claimed).word == word


@pytest.mark.parametrize(
    ("low", "high", "claimed"), [(0.01, 0.03, "higher"), (-0.03, -0.01, "higher"), (0.01, 0.03, "lower")]
)
def test_a_direction_needs_the_p_value_as_well(low, high, claimed):
    clear = given(low, high, p=0.01, family=4)
    assert verdict(clear, claimed=claimed).word != "undecided"
    crowded = given(low, high, p=0.01, family=6)
    assert verdict(crowded, claimed=claimed).word == "undecided"
    assert "but p = 0.06 after Holm, 6 comparisons" in verdict(crowded, claimed=claimed).reason


def test_a_margin_needs_the_p_value_as_well():
    """The interval's bound is 2.5 % one-sided, so two comparisons are enough for it to fall short of 5 % divided."""
    inside = given(-0.0049, 0.0049)
    p = p_of(inside, "equal", 0.005)
    assert 0.02 < p < 0.03
    for claimed in ("equal", "not lower", "not higher"):
        alone, one_of_three = (as_page([(inside, claimed)] * n)[0][0] for n in (1, 3))
        assert (alone[1].word, one_of_three[1].word) == ("supported", "undecided")
        assert alone[0].p_holm == pytest.approx(p_of(inside, claimed, 0.005))
    assert verdict(inside, 0.005, "higher").word == "not supported"
    for small in (inside, given(0.0002, 0.0049)):  # an effect too small to matter is not supported for want of proof
        assert verdict(replace(small, family=9), 0.005, "higher").word == "undecided"
    beyond = given(0.0052, 0.03)
    assert verdict(beyond, 0.005, "equal").word == "not supported"
    assert verdict(replace(beyond, family=3), 0.005, "equal").word == "undecided"


def test_a_page_is_one_family_of_all_its_claims():
    """Holm by hand: p-values of 0.004, 0.02 and that of equality, whatever claims they are for."""
    rows = [
        (given(0.01, 0.03, p=0.02), "higher"),
        (given(0.01, 0.03, p=0.004), "lower"),
        (given(-0.001, 0.001), "equal"),
    ]
    equality = p_of(rows[2][0], "equal")
    assert equality < 1e-6
    found, none = as_page(rows)
    assert none == []
    assert [c.p_holm for c, _ in found] == pytest.approx([0.02, 0.008, 3 * equality])
    assert [v.word for _, v in found] == ["supported", "not supported", "supported"]
    assert all(c.family == 3 for c, _ in found)
    found, others = as_page(rows, others=[0.015, 0.5])
    assert [c.p_holm for c, _ in found] == pytest.approx([0.045, 0.016, 5 * equality])
    assert others == pytest.approx([0.045, 0.5])


def test_five_pairs_are_undecided_for_want_of_pairs():
    """However clear the differences are: sign flips of five pairs end at 2/32, which no claim can be decided by."""
    there = {"mrpc": {s: 0.9 + 0.001 * s for s in range(5)}}
    found = compare("a", "b", there, {"mrpc": dict.fromkeys(range(5), 0.5)})
    for claimed in ("higher", "lower"):
        said = verdict(found, claimed=claimed)
        assert said.word == "undecided"
        assert said.reason.endswith("but p = 0.062; 5 pairs cannot give a p below 0.0625")
    assert words(found).endswith("no evidence of a difference (p = 0.062); 5 pairs cannot give a p below 0.0625")


def test_a_family_can_be_too_large_for_its_pairs():
    found = given(0.01, 0.03, p=0.002, smallest=0.002, family=30)
    assert limits(found) == ["with 8 pairs the first of 30 comparisons cannot get below 0.06"]
    assert limits(replace(found, family=20)) == []
    assert limits(replace(found, test=replace(found.test, smallest=0.0))) == []


def test_an_interval_wider_than_the_margins_says_so():
    wide = verdict(given(-0.02, 0.03), 0.005, "equal")
    assert wide == Verdict(
        "undecided",
        "the interval reaches across ±0.5 points; it is 5.0 points wide, so it could not lie inside wherever its "
        "middle were",
    )
    assert "5.0 points wide" in verdict(given(-0.02, 0.03), 0.005, "higher").reason
    narrow = verdict(given(0.001, 0.006), 0.005, "equal")
    assert narrow.word == "undecided"
    assert "wide" not in narrow.reason
    assert "wide" not in verdict(given(-0.02, 0.03), 0.03, "higher").reason


@pytest.mark.parametrize("by", [0.02, -0.02, 0.0])
def test_equal_differences_are_no_interval_and_support_nothing(by):
    def shifted(scores):
        return {task: {seed: value + by for seed, value in of.items()} for task, of in scores.items()}

    two = {"mrpc": {0: 0.70, 1: 0.75}}
    same = compare("a", "b", shifted(two), two)
    assert same.interval.empty
    assert "no interval: all 2 differences are equal; no evidence" in words(same)
    for claimed in ("higher", "lower", "equal", "not lower", "not higher"):
        assert verdict(same, 0.005, claimed) == Verdict("undecided", "no interval: all 2 differences are equal")
    both = two | {"rte": {0: 0.5, 1: 0.6, 2: 0.7}}
    assert "all 5 differences are equal within each task" in words(compare("a", "b", shifted(both), both))


def test_a_task_with_equal_differences_does_not_contradict():
    assert verdict(given(0.01, 0.03, mrpc=(-0.01, -0.01), rte=(0.02, 0.07))).word == "supported"
    assert verdict(given(0.01, 0.03, mrpc=(-0.01, -0.009), rte=(0.02, 0.07))).word == "undecided"


@pytest.mark.parametrize(
    ("comparison", "said"),
    [
        (given(0.01, 0.03), "evidence that a is higher (p = 0.01)"),
        (given(-0.03, -0.01), "evidence that a is lower (p = 0.01)"),
        (given(0.01, 0.03, p=0.2), "no evidence of a difference (p = 0.2)"),
        (given(-0.01, 0.03), "no evidence of a difference (p = 0.01); the interval contains 0"),
        (given(-0.002, 0.003, p=0.7), "equal within 0.5 points (a difference has p = 0.7)"),
        (
            given(0.01, 0.03, mrpc=(-0.03, -0.01), rte=(0.02, 0.07)),
            "no evidence of a difference (p = 0.01); the interval excludes 0, but mrpc goes the other way",
        ),
    ],
)
def test_a_report_says_what_the_rules_say(comparison, said):
    assert words(comparison).endswith("; " + said)


def test_the_margin_is_the_callers():
    found = given(-0.008, 0.008)
    assert verdict(found, 0.005, "equal").word == "undecided"
    assert verdict(found, 0.01, "equal").word == "supported"
    assert "equal within 1 points" in words(found, margin=0.01)
    assert region("not lower", 0.01) == (-0.01, np.inf)
    with pytest.raises(UserError, match="a margin of equivalence must be above 0, got 0"):
        verdict(found, 0, "equal")


def test_the_adjusted_p_value_is_what_counts():
    one, other = as_family([given(0.01, 0.03, p=0.03), given(0.01, 0.03, p=0.04)])
    assert verdict(one).word == verdict(other).word == "undecided"
    assert verdict(as_family([one])[0]).word == "supported"
