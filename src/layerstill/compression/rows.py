"""The rows of `compress`'s table: every model in every form, with what it keeps, how fast it is, and how large."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from layerstill.randomness import named_seed

RESAMPLES = 2000
LEVEL = 0.95
FORMS = ("torch", "onnx", "int8")
"""As PyTorch runs it; an ONNX file in 32-bit floats; one in 8-bit integers."""


@dataclass(frozen=True)
class Row:
    """One model in one form, measured on dev."""

    model: str
    """`teacher`, or `3 layers`."""
    form: str
    layers: int
    parameters: int
    score: float
    """The task's main metric."""
    kept: float | None
    """The score as a share of the teacher's in PyTorch, in percent; None where the teacher has nothing to keep."""
    interval: tuple[float, float] | None
    """Of `kept`, 95 %, over examples; None where a metric does not say what each example adds."""
    agreement: float | None
    """Share of the decisions that are the teacher's."""
    p50_ms: float
    p99_ms: float
    texts_per_second: float
    disk_mb: float
    memory_mb: float | None
    fit: bool
    """Whether the file says what the model says, within the loss that export allows."""
    teaches: bool
    """Whether it is the teacher."""
    note: str
    """Why it is not, or which layers stayed in 32 bits."""
    path: str
    """Of the model's folder or file, from the folder of `compress`."""

    @property
    def name(self) -> str:
        """Model and form."""
        return f"{self.model}, {self.form}"

    @property
    def percent(self) -> str:
        """What is kept, for a reader."""
        return "–" if self.kept is None else f"{self.kept:.1f} %"

    def to_data(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "Row":
        """The inverse of `to_data`."""
        interval = data["interval"]
        return cls(**{**data, "interval": None if interval is None else tuple(interval)})


def kept_percent(score: float, teacher: float) -> float | None:
    """A score as a share of the teacher's, in percent; None where the teacher has nothing to keep."""
    return 100 * (score / teacher) if teacher > 0 else None


def kept_interval(adds: np.ndarray | None, teacher: np.ndarray | None, seed: int = 0) -> tuple[float, float] | None:
    """A 95 % bootstrap interval over examples for `kept_percent`.

    `adds` and `teacher` `(n,)` are what each example adds to the metric of either model, in the same order, so the
    interval is a paired one. None where that is not known.
    """
    if adds is None or teacher is None or len(adds) < 2 or teacher.mean() <= 0:
        return None
    rng = np.random.default_rng(named_seed(seed, "compress"))
    ratios = np.empty(RESAMPLES)
    for number in range(RESAMPLES):  # one at a time: all together would take gigabytes where dev is large
        drawn = rng.integers(0, len(adds), len(adds))
        ratios[number] = 100 * adds[drawn].mean() / max(teacher[drawn].mean(), 1e-12)
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
