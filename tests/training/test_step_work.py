"""What a step of the Trainer does not do, because it would do it at every step."""

import importlib.util
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.test_trainer import trainer

KEPT = {"save_strategy": "no", "logging_strategy": "no", "num_train_epochs": 9}


class Reads(TorchDispatchMode):
    """Counts how often Python waits for a number."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ == "_local_scalar_dense"
        return func(*args, **(kwargs or {}))


def reads(folder, steps: int, **settings) -> int:
    with Reads() as counter:
        trainer(folder, recipe="tinybert", max_steps=steps, **KEPT, **settings).train()
    return counter.count


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}], ids=["whole", "in parts"])
def test_no_step_waits_for_a_number(settings, tmp_path):
    # Across the end of an epoch, too. The first steps are checked, and the end of a training reads its loss.
    assert reads(tmp_path / "short", 4, **settings) == reads(tmp_path / "long", 11, **settings)


def test_no_step_looks_for_packages_on_the_disk(tmp_path, monkeypatch):
    find, asked = importlib.util.find_spec, Counter()

    def counted(name, *args):
        asked[name] += 1
        return find(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", counted)
    found = []
    for steps in (2, 8):
        asked.clear()
        trainer(tmp_path / str(steps), max_steps=steps, **KEPT).train()
        found.append(Counter(asked))
    assert found[0] == found[1]


def test_without_a_scaled_loss_the_optimiser_is_torchs(tmp_path):
    ours = trainer(tmp_path, max_steps=2, **KEPT)
    ours.train()
    assert type(ours.optimizer) is torch.optim.AdamW
    assert ours.lr_scheduler.optimizer is ours.optimizer
    ours.train()  # a second time, with the same optimiser
    assert type(ours.optimizer) is torch.optim.AdamW


@pytest.mark.parametrize("left", ["all", "student", "a layer and the student", "an objective"])
def test_a_module_comes_back_to_training_mode_wherever_it_was_left(left, tmp_path):
    module = trainer(tmp_path).module.train()
    parts = {
        "all": [module],
        "student": [module.student],
        "a layer and the student": [module.student.base_model, module.student],
        "an objective": [module.objectives[-1]],
    }
    for part in parts[left]:
        part.eval()
    module.train()
    assert all(part.training for part in module.modules())
    assert not module.teacher.training
    module.eval()
    assert not any(part.training for part in module.modules())
