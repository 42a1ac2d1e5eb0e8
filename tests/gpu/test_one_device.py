"""Steps on a device that every torch has and that is not the CPU: `meta`, whose tensors have no content.

Nothing can be read of them, and an operation that also takes or makes a tensor of the CPU is noticed. So a step that
gets through keeps everything on its device, and on a GPU its host has nothing to wait for and nothing to send.
"""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import masking_utils

from layerstill.recipe import Recipe
from tests.gpu.cases import CASES, HEADS, batch_of, module_of
from tests.tiny import task_recipes

META = torch.device("meta")
ON_THE_HOST = {("bert-emd", 0), ("hid-cls-contrast", 0)}
"""Stages with work on the host: optimal transport is solved there, and negatives of a memory are drawn there."""
STAGES = [("classification", name, i) for name in task_recipes() for i in range(len(Recipe.load(name).stages))]
STAGES = [stage for stage in STAGES if stage[1:] not in ON_THE_HOST]
# Language models look up where words are asked for, to compute no other logits.
OTHERS = [case for case in CASES if case not in STAGES and not HEADS[case[0]].speaks]


class Elsewhere(TorchDispatchMode):
    """Notes operations that take or make a tensor of the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if any(isinstance(x, Tensor) and x.device.type == "cpu" for x in tree_leaves((args, kwargs, made))):
            self.found.append(str(function))
        return made


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """What knows no device `meta`, or asks what a mask hides, which transformers does everywhere but in a trace."""
    autocast = torch.autocast
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda kind, *args, **more: nullcontext() if kind == "meta" else autocast(kind, *args, **more),
    )
    monkeypatch.setattr(masking_utils, "_ignore_bidirectional_mask_sdpa", lambda *args, **kwargs: False)


@pytest.mark.parametrize(("head", "recipe", "number"), [*STAGES, *OTHERS])
def test_a_step_keeps_everything_on_its_device_and_reads_nothing(head, recipe, number):
    module = module_of(head, recipe, number).to(META)
    for objective in module.terms_of_stage:
        objective.to_check = 0  # what the first batches are checked for is read
    data = {name: values.to(META) for name, values in batch_of(head, 1).items()}
    if module.teacher is not None:
        module.teacher.to(META)
    units = module.count_units(data)
    with Elsewhere() as elsewhere:
        out = module(units=units, **data)
        out["loss"].backward()
        module.finish_step()
    assert {term.value.device for term in out["terms"].values()} == {META}
    assert not elsewhere.found
