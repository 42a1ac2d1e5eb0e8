"""Comparisons, and what they are in words."""

import numpy as np
import pytest

from layerstill.errors import UserError
from layerstill.evaluation.comparison import as_family, compare, compare_by_example
from layerstill.evaluation.rules import words

KD = {"mrpc": {0: 0.70, 1: 0.72, 2: 0.715, 3: 0.73, 4: 0.695}}
FT = {"mrpc": {0: 0.72, 1: 0.71, 2: 0.725, 3: 0.72, 4: 0.725}}


def shifted(scores, by):
    return {task: {seed: value + by for seed, value in of.items()} for task, of in scores.items()}


def test_a_sentence_has_all_numbers_and_says_what_five_pairs_cannot_do():
    # Differences in points: -2, 1, -1, 1, -3; 16 of their 32 patterns of signs have a sum of at least 4.
    sentence = words(compare("kd", "finetune", KD, FT))
    assert sentence.startswith("kd 71.2 ± 1.4 (n = 5) against finetune 72.0 ± 0.6: difference -0.8, 95 % interval -")
    assert "(over seeds); no evidence of a difference (p = 0.5); 5 pairs cannot give a p below 0.0625" in sentence


def test_one_seed_is_compared_by_examples_and_says_that_it_is_one():
    gaps = np.array([1.0] * 9 + [-1.0] + [0.0] * 190)
    found = compare_by_example("a", "b", {"t": {0: 0.80}}, {"t": {0: 0.76}}, {"t": gaps})
    assert found.difference == pytest.approx(0.04)
    assert found.interval.low == pytest.approx(0.04 - 1.96 * gaps.std() / np.sqrt(200), abs=0.005)
    assert words(found) == (
        f"a 80.0 (n = 1) against b 76.0: difference 4.0, 95 % interval {100 * found.interval.low:.1f} to "
        f"{100 * found.interval.high:.1f} (over examples); evidence that a is higher (p = 0.021); with one seed each "
        "this is about these two models alone"
    )
    with pytest.raises(UserError, match="not paired by example"):
        compare_by_example("a", "b", {"t": {0: 0.80}}, {"t": {0: 0.76}}, {})


def test_a_family_is_adjusted_and_named():
    eight = {"mrpc": dict.fromkeys(range(8), 0.70)}
    above = {"mrpc": {s: 0.72 + 0.001 * s for s in range(8)}}
    family = as_family([compare("a", "b", above, eight), compare("c", "b", eight, above)])
    assert [c.p_holm for c in family] == pytest.approx([4 / 256, 4 / 256])
    assert words(family[0]).endswith("evidence that a is higher (p = 0.016 after Holm, 2 comparisons)")
    assert words(family[1]).endswith("evidence that c is lower (p = 0.016 after Holm, 2 comparisons)")
    many = as_family([compare("a", "b", above, eight)] * 7)
    assert "with 8 pairs the first of 7 comparisons cannot get below 0.055" in words(many[0])


def test_tasks_count_the_same_and_pairs_add_up():
    a = {"one": {0: 0.5, 1: 0.6}, "two": {0: 0.9, 1: 0.9, 2: 0.9}}
    b = {"one": {0: 0.4, 1: 0.5}, "two": {0: 0.8, 1: 0.7, 2: 0.6}}
    c = compare("a", "b", a, b)
    assert c.difference == pytest.approx((0.1 + 0.2) / 2)
    assert c.of_a.mean == pytest.approx((0.55 + 0.9) / 2)
    assert c.test.pairs == 5
    assert "over 2 tasks" in words(c)


def test_examples_widen_the_interval_by_what_the_dev_set_does_not_tell():
    rng = np.random.default_rng(0)
    gaps = rng.choice([-1.0, 0.0, 1.0], size=(1, 60), p=[0.1, 0.7, 0.2]).repeat(5, 0)  # every seed errs alike
    a = {"mrpc": {s: 0.7 + gaps[s].mean() for s in range(5)}}
    b = {"mrpc": dict.fromkeys(range(5), 0.7)}
    alone, fine = compare("a", "b", a, b), compare("a", "b", a, b, {"mrpc": gaps})
    assert alone.interval.high - alone.interval.low < 1e-9
    assert fine.interval.high - fine.interval.low > 0.1
    assert "(over seeds and examples)" in words(fine)
    assert fine.test.method == "t-test over seeds and examples"
    assert alone.test.method == "sign flips, exact"
    assert (fine.interval.low > 0) == (fine.test.p < 0.05)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (KD, {"rte": FT["mrpc"]}, "not paired: tasks are mrpc there and rte here"),
        (KD, {"mrpc": {0: 0.7, 1: 0.7}}, "not paired on mrpc: seeds are 0, 1, 2, 3, 4 there and 0, 1 here"),
        ({"mrpc": {0: 0.7}}, {"mrpc": {0: 0.7}}, "one pair of runs says nothing; run more seeds"),
        ({}, {}, "tasks are none there and none here"),
    ],
)
def test_what_is_not_paired_is_refused(a, b, message):
    with pytest.raises(UserError, match=message):
        compare("kd", "finetune", a, b)
