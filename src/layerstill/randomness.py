"""Named generators: every random choice is a pure function of the run's seed and of what is being drawn.

A drawing depends on its name ("random layers", epoch 3) and not on what was drawn before it, so processes agree without
talking to each other and a resumed run draws what the killed one would have drawn.
"""

import hashlib
import random

import numpy as np

_STEP, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def named_seed(seed: int, *name: object) -> int:
    """A 63-bit seed for the thing called `name` in the run with seed `seed`."""
    digest = hashlib.sha256(repr((seed, *name)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *name: object) -> random.Random:
    """A generator of its own for the thing called `name`."""
    return random.Random(named_seed(seed, *name))


def drawn_bits(seed: int, rows: np.ndarray, columns: np.ndarray, *name: object) -> np.ndarray:
    """64 random bits for every cell `(R, C)` of a table, each a function of its row's and column's number alone.

    `rows` `(R,)` and `columns` `(C,)` are integers of 0 or more. Which other cells are drawn with it changes nothing.
    """
    begin = np.uint64(named_seed(seed, *name))
    with np.errstate(over="ignore"):  # the counter mixer of SplitMix64, twice
        row = _mixed(begin + (rows.astype(np.uint64) + np.uint64(1)) * _STEP)
        return _mixed(row[:, None] + (columns.astype(np.uint64) + np.uint64(1)) * _STEP)


def drawn(seed: int, rows: np.ndarray, columns: np.ndarray, *name: object) -> np.ndarray:
    """Uniform numbers from 0 to 1, as `drawn_bits`."""
    return (drawn_bits(seed, rows, columns, *name) >> np.uint64(11)) * 2.0**-53


def distinct(seed: int, rows: np.ndarray, sizes: np.ndarray, count: int, *name: object) -> np.ndarray:
    """`(R, count)` different numbers from 0 to below `sizes` `(R,)` for every row, each row as `drawn_bits` has it.

    No size may be below `count`.
    """
    columns = 2 * count
    while True:
        found = (drawn(seed, rows, np.arange(columns), *name) * sizes[:, None]).astype(np.int64)
        found = np.minimum(found, sizes[:, None] - 1)  # a product may be rounded up
        order = found.argsort(1, kind="stable")
        in_order = np.take_along_axis(found, order, 1)
        new = np.ones(found.shape, dtype=bool)
        np.put_along_axis(new, order[:, 1:], in_order[:, 1:] != in_order[:, :-1], 1)
        so_far = new.cumsum(1)
        if (so_far[:, -1] >= count).all():
            return found[new & (so_far <= count)].reshape(-1, count)
        columns *= 2  # what is found is the same, and more


def _mixed(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))
