"""An objective: which signal is compared, between which layers, in which space, and by which distance.

    term = weight(t) * sum over pairs (i, j) of  DISTANCE( align_S(signal_S[i]), align_T(signal_T[j]) ) / count

These are the recipe's words; `bound_objective` binds them to two models.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from layerstill.knowledge.alignment import ALIGNMENTS, Linear, NoAlignment
from layerstill.knowledge.distances import DISTANCES
from layerstill.knowledge.mappings import MAPPINGS
from layerstill.knowledge.signals import (
    SIGNALS,
    Labels,
    Padding,
)
from layerstill.knowledge.views import VIEWS, Mixup
from layerstill.knowledge.weights import Constant, Weight
from layerstill.schema import Number, OneOf, Spec


class Teacher(Spec):
    """The frozen teacher, on the same view of the input."""


class Student(Spec):
    """The student itself on the clean input, without gradient: a consistency term."""


class MovingAverage(Spec):
    """The student's exponential moving average on the clean input, in evaluation mode: a consistency term."""

    decay: Number = Field(default=0.999, ge=0, lt=1)
    """average <- decay * average + (1 - decay) * student after every step."""


TARGETS: dict[str, type[Spec]] = {"teacher": Teacher, "student": Student, "moving_average": MovingAverage}


class Objective(Spec):
    """One term of a stage's loss."""

    signal: Annotated[Any, OneOf("signal", SIGNALS)]
    """What is compared."""
    target: Annotated[Any, OneOf("target", TARGETS)] = Teacher()
    """Whom the student should resemble."""
    mapping: Annotated[Any, OneOf("mapping", MAPPINGS)] | None = None
    """Which teacher layer teaches which student layer; required for hidden states, attention and relations."""
    alignment: Annotated[Any, OneOf("alignment", ALIGNMENTS)] = NoAlignment()
    """How widths are made to fit."""
    distance: Annotated[Any, OneOf("distance", DISTANCES)] | None = None
    """How difference is measured; required except for labels."""
    weight: Annotated[Any, Weight()] = Constant(value=1.0)
    """A number, a fraction such as 1/3, or a schedule."""
    view: Annotated[Any, OneOf("view", VIEWS)] | None = None
    """What the student is fed; without it, what the stage says."""
    padding: Padding = "excluded"
    """`included` counts padding, as some papers' released code does."""
    layers: Literal["sum", "mean"] = "sum"
    """Whether the terms of several pairs are added or averaged."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Objective":
        name = next(n for n, cls in SIGNALS.items() if type(self.signal) is cls)
        if self.signal.layered and self.mapping is None:
            raise ValueError(f"signal {name} needs a mapping; known: {', '.join(MAPPINGS)}")
        if not self.signal.layered and self.mapping is not None:
            raise ValueError(f"signal {name} belongs to no layer, so it takes no mapping")
        if isinstance(self.signal, Labels):
            if self.distance is not None or not isinstance(self.target, Teacher):
                raise ValueError("signal labels is the task's own loss: it takes no distance and no target")
        elif self.distance is None:
            raise ValueError(f"signal {name} needs a distance; known: {', '.join(DISTANCES)}")
        if not self.signal.vectors and not isinstance(self.alignment, NoAlignment):
            raise ValueError(f"signal {name} has no width to align; remove alignment")
        if self.consistent and isinstance(self.alignment, Linear):
            raise ValueError("a consistency term trains no map of its own: use alignment same_as, or none")
        return self

    @property
    def consistent(self) -> bool:
        """Whether the target is the student itself or its average."""
        return not isinstance(self.target, Teacher)

    @property
    def batch_coupled(self) -> bool:
        """Whether an example's loss depends on the rest of its batch."""
        return isinstance(self.view, Mixup)
