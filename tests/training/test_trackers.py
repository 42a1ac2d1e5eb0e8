"""Trackers write into the run's folder, and what they wrote is there when the run is finished."""

import os

from tests.tiny import save_tiny, write_csv

WRITER = '''
from pathlib import Path


class SummaryWriter:
    """Writes a line for every number, where TensorBoard's own would write events."""

    def __init__(self, log_dir):
        self.file = Path(log_dir) / "events"
        self.file.parent.mkdir(parents=True, exist_ok=True)

    def add_text(self, *_):
        pass

    def add_scalar(self, name, value, step):
        with self.file.open("a") as file:
            file.write(f"{step} {name} {value}\\n")

    def flush(self):
        pass

    def close(self):
        pass
'''


def test_events_survive_in_the_folder_of_the_run(call, tmp_path, monkeypatch):
    # The package that transformers takes where torch has no TensorBoard to write with.
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "tensorboardX.py").write_text(WRITER)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    for split in ("train", "dev"):
        write_csv(tmp_path / f"{split}.csv", rows=24)
    save_tiny(tmp_path / "teacher")
    words = f"distill {tmp_path}/teacher --task classification --data {tmp_path} --student-layers 1 --max-steps 3 --max-length 32"
    status, _, err = call([*words.split(), "--output", str(tmp_path / "out"), "--report-to", "tensorboard"])
    assert status == 0, err
    assert "train/loss" in (tmp_path / "out" / "tensorboard" / "events").read_text()
    assert not (tmp_path / "out" / "checkpoints").exists()
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ


def test_a_missing_tracker_is_told_how_to_install_it(call, tmp_path):
    write_csv(tmp_path / "train.csv", rows=24)
    save_tiny(tmp_path / "teacher")
    words = f"distill {tmp_path}/teacher --task classification --data {tmp_path}/train.csv --student-layers 1"
    status, _, err = call([*words.split(), "--output", str(tmp_path / "out"), "--report-to", "wandb"])
    assert status == 2
    assert "pip install wandb" in err
