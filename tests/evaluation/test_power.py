"""The smallest difference and margin that a design promises, against simulated studies."""

import numpy as np
import pytest
from scipy import stats

from layerstill.evaluation.estimate import estimate
from layerstill.evaluation.power import Design
from layerstill.evaluation.statistics import holm


def drawn(rng, design: Design, difference: float):
    """A study's differences with these spreads and this truth."""
    tables = []
    for seeds, examples in zip(design.seeds, design.examples, strict=True):
        of_seeds = rng.normal(difference, design.over_seeds, (seeds, 1))
        tables.append(of_seeds + design.over_examples * rng.normal(size=examples) + 1e-6 * rng.normal(size=(seeds, 1)))
    return estimate(tables)


@pytest.mark.parametrize(
    "design",
    [
        Design([5], [400], 1, 0.01, 0.1),
        Design([5, 5], [872, 1000], 6, 0.01, 0.1),
        Design([8], [2000], 3, 0.02, 0.1),
        Design([3, 3, 3], [300, 300, 300], 10, 0.005, 0.2),
    ],
)
def test_the_promised_difference_and_margin_are_found_four_times_in_five(design):
    rng = np.random.default_rng(0)
    bound = 0.05 / design.comparisons
    size, margin = design.smallest_difference(), design.smallest_margin()
    found = [drawn(rng, design, size).test().p < bound for _ in range(600)]
    most = 0.86 if min(design.seeds) > 3 else 0.92  # few seeds are judged more strictly than they vary
    assert 0.74 <= np.mean(found) <= most
    made = [drawn(rng, design, 0.0) for _ in range(600)]
    p = [max(m.p_above(-margin), m.p_below(margin)) for m in made]
    inside = [-margin < m.interval().low and m.interval().high < margin for m in made]
    assert 0.72 <= np.mean([one < bound and there for one, there in zip(p, inside, strict=True)]) <= most + 0.02


def test_one_task_over_seeds_alone_is_students_power():
    """For eight pairs of one task, by the noncentral t distribution."""
    design = Design([8], [None], 2, 0.01, 0.1)
    size = design.smallest_difference() / (0.01 / np.sqrt(8))
    assert stats.nct.sf(stats.t.isf(0.0125, 7), 7, size) == pytest.approx(0.8, abs=1e-6)
    assert not design.by_example


def test_signs_of_few_seeds_reach_nothing():
    assert not Design([5], [None], 1, 0.01, 0.1).reaches
    assert Design([6], [None], 1, 0.01, 0.1).reaches
    assert not Design([6], [None], 2, 0.01, 0.1).reaches
    assert Design([5, 5], [None, None], 20, 0.01, 0.1).reaches
    assert not Design([5, 5], [None, None], 30, 0.01, 0.1).reaches
    assert not Design([40], [None], 250, 0.01, 0.1).reaches  # drawn signs end at 2 in 10,000
    assert Design([2], [100], 30, 0.01, 0.1).reaches
    assert holm([Design([6], [None], 1, 0.01, 0.1).smallest_p]) == [2 / 64]


def test_more_of_anything_sees_more():
    sizes = [
        Design([n], [m], c, 0.01, 0.1).smallest_difference()
        for n, m, c in ((5, 400, 10), (5, 400, 1), (8, 400, 1), (8, 4000, 1))
    ]
    assert sizes == sorted(sizes, reverse=True)
    tasks = Design([8, 8], [4000, 4000], 1, 0.01, 0.1).smallest_difference()
    assert tasks < sizes[-1]
