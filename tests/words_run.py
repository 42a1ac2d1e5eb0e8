"""One run with words from outside in a process of its own: PLACE OUTPUT, and the step after which it is killed."""

import os
import signal
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback

from layerstill import Options, Task, distill
from layerstill.training import stages
from layerstill.training.cache_choice import CacheOptions
from tests import toy_words


def run(place: Path, output: Path, cache: str = "auto"):
    """Distil the teacher in `place` on the data there, with every toy word."""
    torch.set_num_threads(1)
    task = Task.from_files(toy_words.Smoothed(smoothing=0.2), place / "data")
    options = Options(max_length=32, precision="fp32", progress=False, cache=CacheOptions(cache))
    return distill(str(place / "teacher"), task, toy_words.recipe(place), 2, output, options)


class KillAfter(TrainerCallback):
    """Ends the process after a step, as a machine that fails would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    place, output, *step = sys.argv[1:]
    if step:

        class Killed(stages.DistillationTrainer):
            """The trainer with its end built in."""

            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.add_callback(KillAfter(int(step[0])))

        stages.DistillationTrainer = Killed
    run(Path(place), Path(output))
