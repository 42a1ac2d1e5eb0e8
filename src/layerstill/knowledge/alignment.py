"""Alignments: maps that bring student and teacher vectors into one space before they are compared.

A spec says which maps are wanted; `build` makes the module that holds their weights. The module is made before the
optimiser, trained with the student and saved beside it, never inside it.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

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

    def __init__(self, student: LayerLinear | None = None, teacher: LayerLinear | None = None):
        super().__init__()
        self.student = student
        self.teacher = teacher

    @property
    def trains_teacher_side(self) -> bool:
        """Whether gradients reach a map on the teacher's side."""
        return self.teacher is not None and self.teacher.weight.requires_grad

    def of_student(self, x: Tensor, layer: int) -> Tensor:
        """Vectors `(..., width)` of student layer `layer` in the common space."""
        return x if self.student is None else self.student(x, layer)

    def of_teacher(self, x: Tensor, layer: int) -> Tensor:
        """Vectors `(..., width)` of teacher layer `layer` in the common space."""
        return x if self.teacher is None else self.teacher(x, layer)

    def serves(self) -> set[int] | None:
        """The student layers that have a map; None for all."""
        return None if self.student is None or self.student.row is None else set(self.student.row)


class Alignment(Spec):
    """What all alignments share."""

    maps_anything: ClassVar[bool] = True
    """Whether it has maps at all."""

    @property
    def borrows(self) -> str | None:
        """Name of the objective whose maps are used; None for maps of its own."""
        return None

    def build(self, student_width: int, teacher_width: int, layers: tuple[list[int], list[int]]) -> Aligner:
        """The maps for student layers `layers[0]` and teacher layers `layers[1]`, whose vectors are so wide (a
        concatenation as wide as all of its layers)."""
        raise TypeError(f"{type(self).__name__} is not an alignment by itself")


class NoAlignment(Alignment):
    """Compare as they are."""

    maps_anything: ClassVar[bool] = False

    def build(self, student_width: int, teacher_width: int, layers: tuple[list[int], list[int]]) -> Aligner:
        if student_width != teacher_width:
            raise UserError(
                f"the student is {student_width} wide and the teacher {teacher_width}: "
                "set alignment: linear, or use attention or relations, which do not depend on width"
            )
        return Aligner()


class Linear(Alignment):
    """One linear map on the student, or one on each side."""

    sides: Literal["student", "both"] = "student"
    """`student`: to the teacher's width (TinyBERT); `both`: to a common width (RAIL-KD)."""
    width: PositiveInt | None = None
    """The common width u; without it, the teacher's width."""
    maps: Literal["shared", "per_layer"] = "shared"
    """One map for all layers, or one for each."""
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
        if self.when == "widths_differ" and (self.sides == "both" or self.width):
            raise ValueError("when: widths_differ goes with a map on the student to the teacher's width only")
        return self

    def build(self, student_width: int, teacher_width: int, layers: tuple[list[int], list[int]]) -> Aligner:
        if self.when == "widths_differ" and student_width == teacher_width:
            return Aligner()
        width = self.width or teacher_width
        if self.sides == "student" and width != teacher_width:
            raise UserError(
                f"alignment linear: width {width} differs from the teacher's {teacher_width}, and only the student is "
                "mapped; leave width out or set sides: both"
            )
        served = layers if self.maps == "per_layer" else (None, None)
        student = LayerLinear(student_width, width, served[0], self.bias, self.student)
        teacher = None
        if self.sides == "both":
            teacher = LayerLinear(teacher_width, width, served[1], self.bias, self.teacher)
        return Aligner(student, teacher)


class SameAs(Alignment):
    """Use the maps of another objective, so that two terms meet in one space (CR-ILD's consistency term)."""

    objective: str
    """Name of the objective whose maps are used."""

    @property
    def borrows(self) -> str | None:
        return self.objective


ALIGNMENTS: dict[str, type[Alignment]] = {"none": NoAlignment, "linear": Linear, "same_as": SameAs}
