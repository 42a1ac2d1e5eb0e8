"""`student.embeddings: frozen` holds for the whole run, however many stages it has and wherever it was stopped."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from layerstill import Options, Recipe, Task, distill
from layerstill.training import stages
from tests.tiny import save_tiny, write_csv

QUIET = Options(progress=False, max_length=32, precision="fp32")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("teacher")))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split, rows in (("train", 24), ("dev", 9)):
        write_csv(folder / f"{split}.csv", rows=rows)
    return Task.from_files("classification", folder)


def two_stages(embeddings: str) -> Recipe:
    """Two stages whose every objective reaches the embeddings if they are free, at a rate that shows."""
    objectives = [
        {"hidden states": {"signal": "hidden_states", "mapping": "last", "distance": "mse", "alignment": "linear"}},
        {"soft targets": {"signal": "logits", "distance": "kl"}},
    ]
    common = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3}
    parts = [common | {"objectives": o} for o in objectives]
    return Recipe.from_data({"name": "two", "student": {"embeddings": embeddings}, "stages": parts})


def moved(teacher: str, folder) -> dict[str, bool]:
    """Which of the student's tensors are no longer the teacher's of the same name."""
    student, start = load_file(folder / "model.safetensors"), load_file(f"{teacher}/model.safetensors")
    return {name: not torch.equal(weight, start[name]) for name, weight in student.items()}


def test_frozen_embeddings_are_the_teachers_bit_for_bit_after_two_stages(teacher, task, tmp_path):
    distill(teacher, task, two_stages("frozen"), 2, tmp_path / "frozen", QUIET)
    found = moved(teacher, tmp_path / "frozen")
    assert any("embeddings" in name for name in found)
    assert all(has_moved == ("embeddings" not in name) for name, has_moved in found.items()), found
    distill(teacher, task, two_stages("copied"), 2, tmp_path / "copied", QUIET)
    free = moved(teacher, tmp_path / "copied")
    assert all(has_moved for name, has_moved in free.items() if "embeddings" in name), "there was nothing to freeze"


class Killed(Exception):
    pass


def test_they_still_are_after_a_stop_in_the_second_stage(teacher, task, tmp_path, monkeypatch):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if "stage-2" in args.output_dir and state.global_step == 4:
                raise Killed

    original = stages.DistillationTrainer.__init__

    def with_stop(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.add_callback(Stop())

    with monkeypatch.context() as patch:
        patch.setattr(stages.DistillationTrainer, "__init__", with_stop)
        with pytest.raises(Killed):
            distill(teacher, task, two_stages("frozen"), 2, tmp_path / "s", QUIET)
    distill(teacher, task, two_stages("frozen"), 2, tmp_path / "s", QUIET)
    found = moved(teacher, tmp_path / "s")
    assert all(has_moved == ("embeddings" not in name) for name, has_moved in found.items()), found
