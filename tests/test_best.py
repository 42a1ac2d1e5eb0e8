"""The recipe that `distill` takes by itself: it binds to every family, head and shape of student; and even spacing."""

import random

import pytest

from layerstill import Recipe, UserError
from layerstill.heads import HEADS, head_named
from layerstill.knowledge.mappings import Uniform, spread
from layerstill.students.initialisation import EveryK, Spread
from layerstill.training.misfits import refuse_misfits
from tests.tiny import DECODERS, FAMILIES, tiny_config

RNG = random.Random(0)


@pytest.mark.parametrize("family", FAMILIES)
def test_best_binds_to_every_family_and_head(family):
    teacher = tiny_config(family)
    for word in HEADS:
        if word == "tokens" and family in DECODERS:
            continue
        for depth in (1, 3, 4):
            refuse_misfits(Recipe.load("best"), teacher, teacher, depth, 0, head_named(word))


@pytest.mark.parametrize("narrower", ["student.hidden_size=24", "student.intermediate_size=48"])
def test_best_binds_to_narrower_students(narrower):
    teacher = tiny_config("bert")
    refuse_misfits(Recipe.load("best", (narrower,)), teacher, teacher, 2, 0, head_named("classification"))


def test_spread_is_even_ends_with_the_last_and_is_every_k_where_that_is_possible():
    assert spread(4, 6) == [2, 3, 5, 6]
    assert spread(5, 6) == [1, 2, 4, 5, 6]
    for T in range(1, 25):
        for S in range(1, T + 1):
            layers = Spread().choose(S, T, RNG)
            assert layers is not None
            assert layers[-1] == T
            gaps = {b - a for a, b in zip([0, *layers], layers, strict=False)}
            assert max(gaps) - min(gaps) <= 1
            assert min(gaps) >= 1
            if T % S == 0:
                assert layers == EveryK().choose(S, T, RNG)


def test_a_uniform_mapping_can_be_spread_as_the_start_is():
    pairs = Uniform(uneven="spread").draw_pairs(4, 6, RNG)
    assert [(p.student, p.teacher) for p in pairs] == [(1, 2), (2, 3), (3, 5), (4, 6)]
    with pytest.raises(UserError, match="does not divide"):
        Uniform(uneven="spread").draw_pairs(6, 4, RNG)
    with pytest.raises(UserError, match="uneven: spread"):
        Uniform().draw_pairs(4, 6, RNG)
