"""What a student keeps."""

import numpy as np
import pytest

from layerstill.compression.rows import Row, kept_interval, kept_percent
from tests.compression.test_choice import THREE


def test_kept_is_a_share_of_the_teacher() -> None:
    assert kept_percent(0.72, 0.8) == pytest.approx(90)
    assert kept_percent(0.1, 0.0) is None


def test_the_interval_is_paired() -> None:
    """A student that errs where its teacher errs is as good as it for certain; one that errs elsewhere is not."""
    rng = np.random.default_rng(0)
    teacher = (rng.random(400) < 0.8).astype(float)
    assert kept_interval(teacher, teacher) == pytest.approx((100, 100))
    other = rng.permutation(teacher)
    low, high = kept_interval(other, teacher) or (0, 0)
    assert low < 97
    assert high > 103


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng, inside = np.random.default_rng(1), 0
    for trial in range(100):
        teacher = (rng.random(300) < 0.8).astype(float)
        ours = np.where(rng.random(300) < 0.9, teacher, (rng.random(300) < 0.7).astype(float))
        low, high = kept_interval(ours, teacher, seed=trial) or (0, 0)
        inside += low <= 100 * (0.9 * 0.8 + 0.1 * 0.7) / 0.8 <= high
    assert 88 <= inside <= 99


def test_no_interval_without_what_examples_add() -> None:
    assert kept_interval(None, np.ones(3)) is None


def test_a_row_survives_being_written() -> None:
    assert Row.from_data(THREE.to_data()) == THREE
