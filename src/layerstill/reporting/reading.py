"""Values out of records that may have any shape."""

from typing import Any


def get(data: Any, key: str) -> Any:
    """A value of a mapping; None from anything that is none, or lacks it."""
    return data.get(key) if isinstance(data, dict) else None


def number(data: Any, key: str) -> float | None:
    """A finite number of a mapping; None from anything else."""
    value = get(data, key)
    return float(value) if isinstance(value, int | float) and abs(value) < float("inf") else None


def count(value: float | None) -> float | None:
    """A whole number as an `int`, so that it is shown as one; anything else as it is."""
    return int(value) if value is not None and float(value).is_integer() else value
