"""Golden cases: numbers from published code and from float64 evaluations of the equations.

Another set of cases with the same names can be tried with LAYERSTILL_GOLDEN=FOLDER.
"""

import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from layerstill.heads import Classes
from layerstill.knowledge.alignment import Aligner, LayerLinear
from layerstill.knowledge.bound_objective import BoundObjective, ModelShape
from layerstill.knowledge.capture import AttentionRecord, Captured
from layerstill.knowledge.counting import Places, Reach
from layerstill.knowledge.mappings import Group
from layerstill.knowledge.meeting import Target
from layerstill.knowledge.objective import Objective

FOLDER = Path(os.environ.get("LAYERSTILL_GOLDEN", Path(__file__).parents[1] / "golden"))
SHAPE = ModelShape(
    layers=99, width=2520, heads=2, inner=2520, sees_all=True
)  # a width that any small number of heads divides


class Case:
    """One golden case in float64, with gradients tracked for floating inputs."""

    def __init__(self, name: str) -> None:
        self.data = json.loads((FOLDER / name / "case.json").read_text("utf-8"))
        arrays = np.load(FOLDER / name / "inputs.npz")
        self.inputs: dict[str, Tensor] = {}
        for key in arrays.files:
            tensor = torch.from_numpy(arrays[key])
            self.inputs[key] = tensor.double().requires_grad_() if tensor.is_floating_point() else tensor
        self.parameters = self.data["parameters"]

    def __getitem__(self, name: str) -> Tensor:
        return self.inputs[name]

    @property
    def mask(self) -> Tensor:
        return self["attention_mask"].bool()

    def check(self, name: str, value: Tensor | list[Tensor], factor: float = 1.0) -> None:
        """`value` is `expected[name] * factor`, and so are the stated gradient norms; teacher inputs get none."""
        expected = np.array(self.data["expected"][name], dtype=float) * factor
        # Released code ran in float32; the README of the cases states the tolerances.
        relative = 1e-8 if name.startswith(("masked.", "reference.")) else (1e-3 if "half" in name else 3e-5)
        got = torch.stack(value) if isinstance(value, list) else value
        np.testing.assert_allclose(got.detach().numpy(), expected, atol=relative * np.abs(expected).max(), rtol=0)
        for source, norm in self.data.get("gradients", {}).get(name, {}).items():
            (gradient,) = torch.autograd.grad(value, self[source], retain_graph=True)
            np.testing.assert_allclose(gradient.norm().item(), norm * factor, rtol=2e-5)


def record(q: Tensor, k: Tensor | None = None, v: Tensor | None = None) -> AttentionRecord:
    k = q if k is None else k
    return AttentionRecord(q, k, k if v is None else v, q.shape[-1] ** -0.5, None, False)


def term(
    objective: dict,
    student: Captured,
    teacher: Captured,
    pairs: list[tuple[int, int]],
    aligner: Aligner | None = None,
    targets: list[Target] | None = None,
    joined: list[tuple[int, ...]] | None = None,
) -> Tensor:
    """The value that an objective of a recipe has on captured tensors, before its weight."""
    spec = Objective.model_validate({"mapping": "first", "distance": "mse", **objective})
    bound = BoundObjective("term", spec, SHAPE, SHAPE, Classes(), seed=0)
    targets = targets or [Target(teacher, places(teacher.mask))]
    compared = [[Group((s,), (t,))] for s, t in pairs]
    if joined is not None:
        compared = [[Group(*joined, meet="concatenated")]]
    elif spec.mapping.meet == "concatenated":
        compared = [[Group(*zip(*pairs, strict=True), meet="concatenated")]]
    if spec.relate is not None and spec.relate.over == "layers":
        compared = [[group for (group,) in compared]]
    units = torch.stack([torch.stack([bound._count(t.places, (Reach(), Reach()))] * len(compared)) for t in targets])
    return bound.against(student, targets, aligner, compared, torch.ones_like(units), units).value


def places(mask: Tensor) -> Places:
    """Real tokens, and logits that count for every example."""
    return Places(mask, mask.any(1))


def linear(weight: Tensor, bias: Tensor, layers: list[int] | None = None) -> LayerLinear:
    """A map with given weights `(maps, out, in)`; they stay in the graph, so their gradients can be checked."""
    made = LayerLinear(weight.shape[-1], weight.shape[-2], layers, True, "trained")
    del made.weight, made.bias
    made.weight, made.bias = weight, bias  # plain tensors in place of the parameters
    return made
