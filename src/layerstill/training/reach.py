"""How far a training can move weights at all: the sum of its learning rates over all updates."""

from collections.abc import Mapping

from layerstill.recipe import Recipe, Stage
from layerstill.training.length import steps_of, stopped_early

ENOUGH = 0.02
"""Adam moves a weight by about the learning rate in an update, and the weights of encoders are some 0.04 in size.

Students of 3 layers, cut from a MiniLM of 6 and trained by plain KD, kept on the tickets 79 % of the teacher at 0.0025
(250 updates at 2e-5), 92 % at 0.026 (176 at 3e-4), 90 % at 0.04 (250 at 3e-4), 93 % at 0.06 (400 at 3e-4), and 99 % on
TREC at this last. On MRPC one ended at the majority's score after 0.015 (1,500 at 2e-5).
"""


def reach_of(stage: Stage, examples: int, max_steps: int | None) -> float:
    """The sum of a stage's learning rates over its updates: warm-up from 0, then to 0 or constant."""
    optimiser = stage.optimiser
    after = 1.0 if optimiser.schedule == "constant" else 0.5
    mean = optimiser.warmup / 2 + (1 - optimiser.warmup) * after
    return steps_of(stage, examples, max_steps) * stage.learning_rate * mean


def reach_of_all(recipe: Recipe, sizes: Mapping[str, int], max_steps: int | None) -> float:
    """`reach_of` of all stages together; `sizes` is how many examples a stage trains on, by its `data`."""
    return sum(reach_of(stage, sizes[stage.data], max_steps) for stage in recipe.stages)


def reach_notices(recipe: Recipe, sizes: Mapping[str, int], max_steps: int | None) -> list[str]:
    """A warning for a recipe that, over all its stages, hardly leaves where the student starts.

    `sizes` is how many examples a stage trains on, by its `data`.
    """
    stages = recipe.stages
    reach = reach_of_all(recipe, sizes, max_steps)
    if reach >= ENOUGH:
        return []
    steps = sum(steps_of(stage, sizes[stage.data], max_steps) for stage in stages)
    rate = max(stage.learning_rate for stage in stages)
    way = "a run without --max-steps" if stopped_early(recipe, sizes, max_steps) else "more --epochs"
    return [
        f"a learning rate of {rate:g} over {steps:,} updates moves a weight by {reach:.2g} in total, and "
        f"students need about {ENOUGH:g} to leave their start behind; --learning-rate auto finds a rate that "
        f"moves them further; {way} would, too"
    ]
