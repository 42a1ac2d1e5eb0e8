"""What compress tries."""

import pytest

from layerstill.compression.effort import EFFORTS, Candidate, candidates_of, effort_named, ladder_of
from layerstill.errors import UserError


@pytest.mark.parametrize(
    ("layers", "depths"),
    [(6, [4, 3, 2]), (12, [6, 4, 3]), (24, [12, 8, 6]), (4, [3, 2, 1]), (3, [2, 1]), (2, [1]), (22, [11, 7, 6])],
)
def test_the_ladder(layers: int, depths: list[int]) -> None:
    assert ladder_of(layers) == depths


def test_one_layer_has_no_ladder() -> None:
    with pytest.raises(UserError, match="export --int8"):
        ladder_of(1)


def test_the_recipe_as_it_is_comes_first_and_wins_ties() -> None:
    for effort in EFFORTS.values():
        candidates = list(candidates_of(effort))
        assert len(candidates) == effort.trials == len({c.name for c in candidates})
        assert candidates[0] == Candidate("best", "spread", 1)
        paired = list(candidates_of(effort, paired=True))
        assert [one.recipe.replace("best-pairs", "best") for one in paired] == [one.recipe for one in candidates]
        assert paired[0] == Candidate("best-pairs", "spread", 1)


def test_a_candidate_changes_start_and_rate() -> None:
    plain, faster = Candidate("best", "spread", 1).resolved(), Candidate("best", "first-k", 2).resolved()
    assert faster.stages[0].learning_rate == pytest.approx(2 * plain.stages[0].learning_rate)
    assert faster.student.initialisation != plain.student.initialisation


def test_an_unknown_effort_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match="normal"):
        effort_named("norml")


def test_another_recipe_competes_at_the_same_rates_as_the_default_one() -> None:
    # The rates of papers are for ten times as many updates: a candidate with one of them would lose for that alone.
    best, kd = Candidate("best", "spread", 0.5).resolved(), Candidate("kd", "spread", 0.5).resolved()
    assert kd.stages[0].learning_rate == best.stages[0].learning_rate
