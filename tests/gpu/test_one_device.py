"""Steps on a GPU that is not there: tensors that say they lie on one and have no content.

Two tensors on different devices cannot meet in an operation, and nothing can be read of one without content. So a step
that gets through keeps everything on its device, and the host waits for nothing.
"""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from layerstill.recipe import Recipe
from tests.gpu.cases import CASES, batch_of, module_of
from tests.tiny import task_recipes

STAGES = [("classification", name, i) for name in task_recipes() for i in range(len(Recipe.load(name).stages))]
READS = {"bert-emd"}
"""Recipes with a solver on the host: optimal transport."""


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **settings) -> Tensor:
    """What the kernels compute, which a torch without CUDA does not have."""
    scores = query @ key.transpose(-1, -2)
    if settings.get("enable_gqa") or scores.shape[1] != value.shape[1]:
        raise NotImplementedError
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -1e9) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1) @ value


def empty(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")


def emptied(module: nn.Module) -> None:
    """Give a module weights without content."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(empty(weight), requires_grad=weight.requires_grad)
        for name, kept in part._buffers.items():
            if kept is not None:
                part._buffers[name] = empty(kept)


class Elsewhere(TorchDispatchMode):
    """Notes operations that take or make a tensor of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, made)) if isinstance(x, Tensor)]
        if any(x.device.type == "cpu" for x in tensors):
            self.found.append(str(function))
        return made


def step(head: str, recipe: str, number: int) -> tuple[dict[str, Tensor], list[str]]:
    """The values of all terms and the loss, and the operations that had to do with the host."""
    module = module_of(head, recipe, number)
    for objective in module.terms_of_stage:
        objective.to_check = 0  # what the first batches are checked for is read
    data = batch_of(head, 1)
    with FakeTensorMode(), torch.no_grad():  # a torch without CUDA has no streams, which gradients are told of
        emptied(module)
        emptied(module.teacher)
        there = {name: empty(values) for name, values in data.items()}
        units = module.count_units(there)
        with Elsewhere() as elsewhere:
            out = module(units=units, **there)
    values = {"loss": out["loss"]} | {name: term.value for name, term in out["terms"].items()}
    return values, elsewhere.found


@pytest.mark.parametrize(("head", "recipe", "number"), sorted({*CASES, *STAGES}))
def test_a_step_keeps_everything_on_its_device_and_reads_nothing(head, recipe, number, monkeypatch):
    monkeypatch.setattr(functional, "scaled_dot_product_attention", attention)
    values, elsewhere = step(head, recipe, number)
    assert {value.device.type for value in values.values()} == {"cuda"}
    assert not elsewhere
