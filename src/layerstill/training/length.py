"""How long a stage trains: what `epochs: auto` means for so many examples, and the optimiser steps of any length."""

import math
from collections.abc import Mapping

from layerstill.recipe import Recipe, Stage

EXAMPLES_SEEN = 48_000
"""How many examples a stage of automatic length sees, repetitions counted: 3,000 updates of 16."""
FEWEST_EPOCHS = 3.0
"""Large data are seen at least so often."""
MOST_EPOCHS = 30.0
"""Small data are seen no more often than this."""


def automatic_epochs(examples: int) -> float:
    """What `epochs: auto` is for so many training examples, to one decimal: 48,000 / examples, from 3 to 30."""
    return round(min(max(EXAMPLES_SEEN / max(examples, 1), FEWEST_EPOCHS), MOST_EPOCHS), 1)


def epochs_of(stage: Stage, examples: int) -> float:
    """Passes of a stage over so many training examples."""
    if isinstance(stage.epochs, str):
        return round(automatic_epochs(examples) * (stage.automatic or 1.0), 3)
    return float(stage.epochs)


def steps_of(stage: Stage, examples: int, max_steps: int | None) -> int:
    """Optimiser steps that a stage takes over so many training examples."""
    steps = math.ceil(math.ceil(examples / stage.batch_size) * epochs_of(stage, examples))
    return steps if max_steps is None else min(steps, max_steps)


def stopped_early(recipe: Recipe, sizes: Mapping[str, int], max_steps: int | None) -> bool:
    """Whether `max_steps` ends a stage before its epochs do; `sizes` is as in `settled`."""
    return any(steps_of(s, sizes[s.data], None) > steps_of(s, sizes[s.data], max_steps) for s in recipe.stages)


def settled(recipe: Recipe, sizes: Mapping[str, int]) -> tuple[Recipe, list[str]]:
    """The recipe with a number in place of every `epochs: auto`, and a note about each.

    `sizes` is how many examples a stage trains on, by its `data`; a stage whose data are not in it stays as it is.
    """
    epochs: list[float | None] = []
    notes = []
    for number, stage in enumerate(recipe.stages, 1):
        size = sizes.get(stage.data)
        epochs.append(None if stage.automatic is None or size is None else epochs_of(stage, size))
        if epochs[-1] is not None and size is not None:
            where = f"stage {number}, " if len(recipe.stages) > 1 else ""
            notes.append(f"{where}epochs: {epochs[-1]:g} (auto: {steps_of(stage, size, None):,} updates)")
    return (recipe.with_epochs(epochs) if notes else recipe), notes
