"""An objective: which signal is compared, between which layers, in which space, and by which distance.

    term = weight(t) * sum over groups g of  DISTANCE( relate(align(S[g])), relate(align(T[g])) ) / count

These are the recipe's words; `bound_objective` binds them to two models.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from layerstill.knowledge.alignment import ALIGNMENTS, Alignment, NoAlignment
from layerstill.knowledge.distances import DISTANCES, Distance
from layerstill.knowledge.mappings import MAPPINGS, Mapping
from layerstill.knowledge.relate import RELATIONS, Relate
from layerstill.knowledge.signals import SIGNALS, Padding, Signal
from layerstill.knowledge.views import VIEWS, View
from layerstill.knowledge.weights import Constant, Weight
from layerstill.schema import Number, OneOf, Spec


class Whom(Spec):
    """Whom the student should resemble; what all choices share."""

    itself: ClassVar[bool] = False
    """Whether it is the student in some form, on the clean input: a consistency term."""

    @property
    def average(self) -> float | None:
        """Decay of the moving average of the student that it is; None for another model."""
        return None


class Teacher(Whom):
    """The frozen teacher, on the same view of the input."""


class Student(Whom):
    """The student itself on the clean input, without gradient: a consistency term."""

    itself: ClassVar[bool] = True


class MovingAverage(Whom):
    """The student's exponential moving average on the clean input, in evaluation mode: a consistency term."""

    itself: ClassVar[bool] = True
    decay: Number = Field(default=0.999, ge=0, lt=1)
    """average <- decay * average + (1 - decay) * student after every step."""

    @property
    def average(self) -> float | None:
        return self.decay


TARGETS: dict[str, type[Whom]] = {"teacher": Teacher, "student": Student, "moving_average": MovingAverage}
_SIGNAL = OneOf("signal", Signal, SIGNALS)


class Objective(Spec):
    """One term of a stage's loss."""

    part_of_recipe: ClassVar[bool] = True
    signal: Annotated[Any, _SIGNAL]
    """What is compared."""
    target: Annotated[Any, OneOf("target", Whom, TARGETS)] = Teacher()
    """Whom the student should resemble."""
    mapping: Annotated[Any, OneOf("mapping", Mapping, MAPPINGS)] | None = None
    """Which teacher layer teaches which student layer; required for hidden states, attention and relations."""
    alignment: Annotated[Any, OneOf("alignment", Alignment, ALIGNMENTS)] = NoAlignment()
    """How widths are made to fit."""
    relate: Annotated[Any, OneOf("relation", Relate, RELATIONS)] | None = None
    """Compare what vectors are to each other, instead of the vectors themselves."""
    distance: Annotated[Any, OneOf("distance", Distance, DISTANCES)] | None = None
    """How difference is measured; required except for labels."""
    weight: Annotated[Any, Weight()] = Constant(value=1.0)
    """A number, a fraction such as 1/3, or a schedule."""
    view: Annotated[Any, OneOf("view", View, VIEWS)] | None = None
    """What the student is fed; without it, what the stage says."""
    padding: Padding = "excluded"
    """`included` counts padding, as some papers' released code does."""
    layers: Literal["sum", "mean"] = "sum"
    """Whether the terms of several groups of layers are added or averaged."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Objective":
        name = _SIGNAL.name_of(self.signal)
        if self.signal.layered and self.mapping is None:
            raise ValueError(f"signal {name} needs a mapping; known: {', '.join(MAPPINGS)}")
        if not self.signal.layered and self.mapping is not None:
            raise ValueError(f"signal {name} belongs to no layer, so it takes no mapping")
        if self.signal.gold:
            if self.distance is not None or self.consistent:
                raise ValueError("signal labels is the task's own loss: it takes no distance and no target")
        elif self.distance is None:
            raise ValueError(f"signal {name} needs a distance; known: {', '.join(DISTANCES)}")
        if not self.signal.vectors and self.alignment.maps_anything:
            raise ValueError(f"signal {name} has no width to align; remove alignment")
        if self.consistent and self.alignment.maps_anything and self.alignment.borrows is None:
            raise ValueError("a consistency term trains no map of its own: use alignment same_as, or none")
        if self.consistent and self.mapping is not None and self.mapping.weighs:
            raise ValueError("a mapping that weighs layers by their costs learns from the teacher: remove target")
        return self

    @model_validator(mode="after")
    def _remembers(self) -> "Objective":
        if self.remembers and self.alignment.borrows is not None:
            raise ValueError(f"a memory is of vectors in a space of its own: {self._distance_name} needs its own maps")
        return self

    @property
    def _distance_name(self) -> str:
        return "" if self.distance is None else OneOf("distance", Distance, DISTANCES).name_of(self.distance)

    @model_validator(mode="after")
    def _tells_apart(self) -> "Objective":
        if self.distance is None or not self.distance.over_batch:
            return self
        if self.relate is not None or not self.signal.vectors or self.signal.per != "examples":
            raise ValueError(
                f"distance {self._distance_name} tells the examples of a batch apart by one vector each: use "
                "hidden_states with pool: first, last or mean, and no relate"
            )
        return self

    @model_validator(mode="after")
    def _relates(self) -> "Objective":
        if self.relate is None:
            return self
        if not self.signal.vectors:
            name = _SIGNAL.name_of(self.signal)
            raise ValueError(f"signal {name} has no vectors to relate; remove relate, or use hidden_states")
        if self.padding == "included":
            raise ValueError("relate is between what counts only; remove padding: included")
        per = self.signal.per
        if self.relate.over == "batch" and per != "examples":
            raise ValueError("relate over batch takes one vector an example: set pool: first, last or mean")
        if self.relate.over == "tokens" and per != "tokens":
            raise ValueError("relate over tokens takes every token: set pool: none")
        if self.relate.over == "layers" and self.mapping is None:
            raise ValueError("relate over layers takes a signal that has layers, and a mapping of several")
        return self

    @property
    def consistent(self) -> bool:
        """Whether the target is the student itself or its average."""
        return bool(self.target.itself)

    @property
    def mixes(self) -> bool:
        """Whether it is fed mixed examples."""
        return self.view is not None and bool(self.view.mixes)

    def aligned_tokens(self, per_token: bool) -> bool:
        """Whether it compares with the teacher position by position, so that both must cut a text into the same tokens.

        `per_token`: every token has logits, and only the words that both models have count. Then vectors of words meet,
        other than maps of tokens, padding, and what each model mixes of other tokens.
        """
        if self.signal.gold or self.consistent:
            return False
        if per_token:
            return bool(self.signal.maps or self.mixes or self.padding == "included")
        return bool(self.signal.aligned_tokens)

    @property
    def over_batch(self) -> bool:
        """Whether it relates the examples of a batch to each other."""
        if self.distance is not None and self.distance.over_batch:
            return True
        return self.relate is not None and self.relate.over == "batch"

    @property
    def remembers(self) -> bool:
        """Whether it compares with a memory of all training examples."""
        return self.distance is not None and self.distance.remembers

    @property
    def gathers(self) -> bool:
        """Whether its value takes the rows of the whole optimiser step at once, those of other processes too."""
        return self.over_batch or (self.mapping is not None and bool(self.mapping.weighs))

    @property
    def batch_coupled(self) -> bool:
        """Whether an example's loss depends on the rest of its batch."""
        return self.mixes or self.gathers

    @property
    def cacheable(self) -> bool:
        """Whether what its target gives is a function of the example alone, so that it can be computed once."""
        return not (self.mixes or self.consistent or self.padding == "included")
