"""Named generators: every random choice is a pure function of the run's seed and of what is being drawn.

A drawing depends on its name ("random layers", epoch 3) and not on what was drawn before it, so processes agree without
talking to each other and a resumed run draws what the killed one would have drawn.
"""

import hashlib
import random


def named_seed(seed: int, *name: object) -> int:
    """A 63-bit seed for the thing called `name` in the run with seed `seed`."""
    digest = hashlib.sha256(repr((seed, *name)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *name: object) -> random.Random:
    """A generator of its own for the thing called `name`."""
    return random.Random(named_seed(seed, *name))
