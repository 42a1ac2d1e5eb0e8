"""Weights of objectives: numbers that may change over training."""

from typing import Any, Literal

from pydantic import Field

from layerstill.schema import NonNegative, Number, OneOf, Spec, fraction


class Schedule(Spec):
    """What all weights share."""

    @property
    def always_zero(self) -> bool:
        """Whether the weight is 0 throughout."""
        return False

    def at(self, epoch: int, epochs: float, step: int, steps: int) -> float:
        """Weight at optimiser step `step` of `steps`, in epoch `epoch` of `epochs`, both counted from 0."""
        raise TypeError(f"{type(self).__name__} is not a weight by itself")


class Constant(Schedule):
    """The same weight throughout."""

    value: NonNegative

    @property
    def always_zero(self) -> bool:
        return self.value == 0

    def at(self, epoch: int, epochs: float, step: int, steps: int) -> float:
        return self.value


class Ramp(Schedule):
    """Linear from `start` to `end` over the stage; downwards it is an annealing."""

    start: NonNegative = 0.0
    end: NonNegative = 1.0
    per: Literal["epoch", "step"] = "step"
    """`epoch`: start + (end - start) * epoch / epochs, which never reaches the end (CR-ILD); `step`: finer."""

    @property
    def always_zero(self) -> bool:
        return self.start == self.end == 0

    def at(self, epoch: int, epochs: float, step: int, steps: int) -> float:
        progress = epoch / max(epochs, 1) if self.per == "epoch" else step / max(steps - 1, 1)
        return self.start + (self.end - self.start) * min(progress, 1.0)


class Unlock(Schedule):
    """Zero until a share of the stage has passed, then `value` (a curriculum, as in SID)."""

    value: NonNegative = 1.0
    after: Number = Field(default=0.5, ge=0, lt=1)
    """Share of the stage's steps."""

    @property
    def always_zero(self) -> bool:
        return self.value == 0

    def at(self, epoch: int, epochs: float, step: int, steps: int) -> float:
        return self.value if step >= self.after * steps else 0.0


WEIGHTS: dict[str, type[Spec]] = {"constant": Constant, "ramp": Ramp, "unlock": Unlock}


class Weight(OneOf):
    """Annotation for a weight: a schedule, or a plain number or fraction for a constant one."""

    def __init__(self) -> None:
        super().__init__("weight", Schedule, WEIGHTS)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        numbers = [{"type": "number", "minimum": 0}, {"type": "string", "pattern": "^[0-9.]+/[0-9.]+$"}]
        return {"anyOf": [*numbers, *super().__get_pydantic_json_schema__(schema, handler)["anyOf"]]}

    def _parse(self, value: Any) -> Any:
        value = fraction(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = {"constant": {"value": value}}
        return super()._parse(value)

    def short(self, spec: Spec) -> Any:
        """A constant as its number."""
        return spec.value if isinstance(spec, Constant) else super().short(spec)
