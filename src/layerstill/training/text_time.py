"""How long a run on running text takes, by what it goes to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from layerstill.recipe import Stage
from layerstill.training.plan import StagePlan
from layerstill.training.run_time import AROUND, COPIES
from layerstill.training.step_time import StepTime
from layerstill.training.text_run import steps_between
from layerstill.training.text_trainer import GLANCE

BACKWARD = 2
"""Forward passes that a backward pass takes."""


@dataclass(frozen=True)
class TextPace:
    """What a run takes in seconds besides its steps."""

    start: float
    """To import everything and to make the models."""
    packing: float
    megabyte: float
    """To write 10^6 bytes for good."""


def text_run_seconds(
    stages: Sequence[Stage],
    planned: Sequence[StagePlan],
    times: Sequence[StepTime],
    held_out: int,
    student_mb: float,
    speaks: bool,
    pace: TextPace,
) -> dict[str, float]:
    """Seconds by what they go to, and their `total`.

    `held_out` is how many blocks are, `speaks` says that both models are language models, whose perplexity is measured.
    """
    training, evaluation, saves = 0.0, 0.0, 1
    for stage, plan, time in zip(stages, planned, times, strict=True):
        steps = plan.steps or 0
        looks = math.ceil(steps / steps_between(steps))
        training += plan.seconds or 0.0
        teacher = time.teacher / stage.batch_size
        student = (time.step - time.teacher) / stage.batch_size / (1 + BACKWARD)
        # The objectives of both models and the student's perplexity; in the end the teacher's, too.
        glance, last = student * (1 + speaks) + teacher, (student + teacher) * (1 + speaks)
        evaluation += looks * min(held_out, GLANCE) * glance + held_out * last
        saves += COPIES * looks + 1
    found = {
        "start": pace.start + AROUND,
        "packing": pace.packing,
        "training": training,
        "evaluation": evaluation,
        "saving": pace.megabyte * student_mb * saves,
    }
    return {name: round(value, 2) for name, value in found.items()} | {"total": round(sum(found.values()), 2)}
