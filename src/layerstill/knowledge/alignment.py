"""Alignments: maps that bring student and teacher vectors into one space before they are compared.

A spec says which maps are wanted; `build` makes the module that holds their weights. The module is made before the
optimiser, trained with the student and saved beside it, never inside it.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from layerstill.errors import UserError
from layerstill.schema import Spec

Training = Literal["trained", "frozen", "orthogonal"]


class LayerLinear(nn.Module):
    """y = W_l x + b_l with one map per layer in a single tensor, so every optimiser step sees the same parameters.

    `layers` are the layer numbers served, or None for one map shared by all. `training`: `trained`; `frozen` at its
    random start; `orthogonal`, a frozen (semi-)orthogonal matrix without bias.
    """

    def __init__(self, width_in: int, width_out: int, layers: Sequence[int] | None, bias: bool, training: Training):
        super().__init__()
        self.row = None if layers is None else {layer: i for i, layer in enumerate(layers)}
        maps = 1 if layers is None else len(layers)
        self.weight = nn.Parameter(torch.empty(maps, width_out, width_in))
        self.bias = nn.Parameter(torch.zeros(maps, width_out)) if bias and training != "orthogonal" else None
        bound = 1 / math.sqrt(width_in)
        for matrix in self.weight.data:
            if training == "orthogonal":
                nn.init.orthogonal_(matrix)
            else:
                nn.init.uniform_(matrix, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)
        self.requires_grad_(training == "trained")

    def forward(self, x: Tensor, layer: int) -> Tensor:
        """Map `x` `(..., width_in)` of layer number `layer` to `(..., width_out)`, in the precision of the weights."""
        x = x.to(self.weight.dtype)
        row = 0 if self.row is None else self.row[layer]
        return nn.functional.linear(x, self.weight[row], None if self.bias is None else self.bias[row])


class Aligner(nn.Module):
    """The maps of one objective; a side without a map passes through."""

    def __init__(
        self, student: LayerLinear | None = None, teacher: LayerLinear | None = None, concatenates: bool = False
    ):
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.concatenates = concatenates

    @property
    def trains_teacher_side(self) -> bool:
        """Whether gradients reach a map on the teacher's side."""
        return self.teacher is not None and self.teacher.weight.requires_grad


class NoAlignment(Spec):
    """Compare as they are."""

    def build(self, student_width: int, teacher_width: int, layers: tuple[list[int], list[int]], pairs: int) -> Aligner:
        """An aligner without weights; refuses unequal widths."""
        if student_width != teacher_width:
            raise UserError(
                f"the student is {student_width} wide and the teacher {teacher_width}: "
                "set alignment: linear, or use attention or relations, which do not depend on width"
            )
        return Aligner()


class Linear(Spec):
    """One linear map on the student, or one on each side."""

    sides: Literal["student", "both"] = "student"
    """`student`: to the teacher's width (TinyBERT); `both`: to a common width (RAIL-KD)."""
    width: PositiveInt | None = None
    """The common width u; without it, the teacher's width."""
    maps: Literal["shared", "per_layer", "concatenated"] = "shared"
    """One map for all layers, one for each, or one for the concatenation of all paired layers (RAIL-KD_c)."""
    bias: bool = True
    """Add a bias."""
    student: Training = "trained"
    """How the student's map is treated."""
    teacher: Training = "trained"
    """How the teacher's map is treated, with sides: both."""
    when: Literal["always", "widths_differ"] = "always"
    """`widths_differ`: no map between vectors of equal width."""

    @model_validator(mode="after")
    def _plain(self) -> "Linear":
        if self.when == "widths_differ" and (self.sides == "both" or self.width or self.maps == "concatenated"):
            raise ValueError("when: widths_differ goes with a map on the student to the teacher's width only")
        return self

    def build(self, student_width: int, teacher_width: int, layers: tuple[list[int], list[int]], pairs: int) -> Aligner:
        """Make the maps for student layers `layers[0]`, teacher layers `layers[1]`, `pairs` pairs at a time."""
        if self.when == "widths_differ" and student_width == teacher_width:
            return Aligner()
        concatenates = self.maps == "concatenated"
        factor = pairs if concatenates else 1
        width = self.width or teacher_width * factor
        if self.sides == "student" and width != teacher_width * factor:
            raise UserError(
                f"alignment linear: width {width} differs from the teacher's {teacher_width * factor}, and only the "
                "student is mapped; leave width out or set sides: both"
            )
        served = layers if self.maps == "per_layer" else (None, None)
        student = LayerLinear(student_width * factor, width, served[0], self.bias, self.student)
        teacher = None
        if self.sides == "both":
            teacher = LayerLinear(teacher_width * factor, width, served[1], self.bias, self.teacher)
        return Aligner(student, teacher, concatenates)


class SameAs(Spec):
    """Use the maps of another objective, so that two terms meet in one space (CR-ILD's consistency term)."""

    objective: str
    """Name of the objective whose maps are used."""


ALIGNMENTS: dict[str, type[Spec]] = {"none": NoAlignment, "linear": Linear, "same_as": SameAs}
