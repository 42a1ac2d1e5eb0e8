"""Where trackers write: into the run's folder, unless the user's environment says another place."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PLACES = {"TENSORBOARD_LOGGING_DIR": "tensorboard", "WANDB_DIR": ".", "MLFLOW_TRACKING_URI": "mlruns"}
"""Variables that say where a tracker writes, and the folder below the run's that they are given. Left alone, trackers
write among the checkpoints, which are deleted in the end, or into the working directory."""


@contextmanager
def tracking_in(folder: Path) -> Iterator[None]:
    """Trackers that are made and used inside write below `folder`."""
    added = {name: str((folder / place).resolve()) for name, place in PLACES.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
