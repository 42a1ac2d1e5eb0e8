"""How long a run takes from the command to its result: training, and everything around it."""

import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from layerstill.recipe import Stage
from layerstill.training.plan import StagePlan

COPIES = 3
"""Of the student's weights in a checkpoint: its own, and the optimiser's two moments."""
PROBE_MB = 16
AROUND = 3.0
"""Seconds that a training of any length takes before its first step and after its last, measured on two cores: the
teacher's weights, token ids of all texts, the Trainer, the folder and its records."""
YOUNG = 60.0
"""Seconds; a process that is older was not started for this."""


@dataclass(frozen=True)
class Pace:
    """What this machine takes, in seconds."""

    start: float
    """To import everything, to read the data and to make the models."""
    score: float
    """For the student to answer an example."""
    teacher_score: float
    """For the teacher; 0 where there is none."""
    megabyte: float
    """To write 10^6 bytes for good."""


@dataclass(frozen=True)
class RunTime:
    """Seconds of a run by what they go to."""

    start: float
    training: float
    evaluation: float
    saving: float
    trials: float = 0.0
    """For a learning rate, before the run."""
    asking: float = 0.0
    """Of several teachers about all texts."""

    @property
    def total(self) -> float:
        """All of them."""
        return self.start + self.training + self.evaluation + self.saving + self.trials + self.asking


@dataclass(frozen=True)
class Amounts:
    """How much there is of what takes time besides training steps."""

    student_mb: float
    dev: int
    far: int = 0
    """Examples of out-of-domain sets."""
    epochs: tuple[float, ...] = ()
    """Passes of each stage over its examples."""


def run_time(stages: Sequence[Stage], planned: Sequence[StagePlan], amounts: Amounts, pace: Pace) -> RunTime | None:
    """The time of a run by what its parts take; None where its steps were not timed.

    A stage saves a checkpoint after every epoch, and where it selects or watches it scores dev as often. The teacher is
    scored on dev once before, the student once after.
    """
    training, saves, evaluations = 0.0, 0.0, 1
    for stage, plan, epochs in zip(stages, planned, amounts.epochs, strict=True):
        if plan.seconds is None:
            return None
        training += plan.seconds
        saves += COPIES * math.ceil(epochs) + 1
        evaluations += math.ceil(epochs) if stage.select == "best" or stage.evaluate != "end" else 0
    scoring = pace.score * (amounts.dev * evaluations + amounts.far) + pace.teacher_score * amounts.dev
    saving = pace.megabyte * amounts.student_mb * (saves + 1)
    return RunTime(pace.start + AROUND, training, scoring, saving)


def seconds_a_megabyte() -> float:
    """Seconds to write 10^6 bytes here and to know that they stay, by writing a few."""
    block = os.urandom(10**6)
    with tempfile.TemporaryFile() as file:
        begun = time.perf_counter()
        for _ in range(PROBE_MB):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return (time.perf_counter() - begun) / PROBE_MB


def process_age() -> float:
    """Seconds since this process began, which went into imports; 0 in a session that is older and has them."""
    age = time.time() - psutil.Process().create_time()
    return age if 0 < age < YOUNG else 0.0
