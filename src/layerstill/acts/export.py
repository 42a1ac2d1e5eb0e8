"""The act `export`."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from layerstill.acts.inputs import Model
from layerstill.export.exported import Export


def export(
    model: Model,
    data: Any = None,
    output: str | Path | None = None,
    format: str = "onnx",
    int8: bool = False,
    calibrate: bool = False,
    max_drop: float = 1.0,
    split: str = "dev",
    max_length: int | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    labels: Any = None,
) -> Export:
    """Write a model as ONNX, and hold every file against the model in PyTorch."""
    raise NotImplementedError
