"""Sizes in words."""

import pytest

from layerstill.sizes import size_in_words


@pytest.mark.parametrize(
    ("gigabytes", "said"),
    [
        (4.0, "4 GB"),
        (1234.5, "1,234 GB"),
        (0.0123, "12.3 MB"),
        (7.2e-7, "less than 1 kB"),
        (6.48e-6, "6.48 kB"),
        (0.0, "nothing"),
        (-1.0, "nothing"),
    ],
)
def test_a_size_has_the_unit_that_suits_it(gigabytes, said):
    assert size_in_words(gigabytes) == said
