"""What a step of the Trainer does not do, because it would do it at every step."""

import importlib.util
import re
import traceback
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.test_trainer import trainer

ASKED = "masking_utils._ignore_bidirectional_mask_sdpa"
"""transformers asks whether a batch has padding, once for each model."""
OURS_OR_THEIRS = re.compile(r"[\\/](src|site-packages)[\\/](layerstill|transformers)[\\/]")
KEPT = {"save_strategy": "no", "logging_strategy": "no", "logging_nan_inf_filter": False, "num_train_epochs": 9}


class Reads(TorchDispatchMode):
    """Counts where Python waits for a number: the first function of ours or of transformers that made it do so."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ == "_local_scalar_dense":
            frames = reversed(traceback.extract_stack())
            if here := next((f for f in frames if OURS_OR_THEIRS.search(f.filename)), None):
                self.counts[f"{Path(here.filename).stem}.{here.name}"] += 1
        return func(*args, **(kwargs or {}))


def reads(folder, steps: int, **settings) -> Counter[str]:
    with Reads() as counter:
        trainer(folder, recipe="tinybert", max_steps=steps, **KEPT, **settings).train()
    return counter.counts


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}], ids=["whole", "in parts"])
def test_no_step_waits_for_a_number(settings, tmp_path):
    # Both end in the same epoch, each of which takes a seed. The first steps are checked, and the end reads the loss.
    more = reads(tmp_path / "long", 9, **settings) - reads(tmp_path / "short", 7, **settings)
    assert set(more) <= {ASKED}


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
    assert not found[1] - found[0]


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
