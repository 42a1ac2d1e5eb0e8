"""The graph of a model in ONNX, any number of texts of any length going in."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from layerstill.errors import UserError
from layerstill.families import family_of

OPSET = 17
"""The first that has layer normalisation as one operation."""
LARGEST = 2**31 - 2**24
"""Bytes of weights that one ONNX file holds: protocol buffers end at 2 GB."""
OUTPUT = "logits"


class _Positional(nn.Module):
    """A model as tracing calls it: tensors by place, logits out."""

    def __init__(self, model: PreTrainedModel, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self._names = names
        self._call = dict(family_of(model.config).call)

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.model(**dict(zip(self._names, tensors, strict=True)), **self._call).logits


def write_graph(model: PreTrainedModel, inputs: Mapping[str, Tensor], path: Path) -> None:
    """Write a model, in evaluation mode on the CPU, as an ONNX file whose inputs have the names of `inputs` `(B, N)`.

    The texts of `inputs` should be as long as any will be, and one of them padded: what Python decides by lengths and
    masks is decided while they are traced. UserError for a model that is too large or cannot be traced.

    Attention is written out in plain products. That is the form which onnxruntime takes apart and fuses best when it
    loads a file (docs/log.md has the measurement), and the one that can be quantised.
    """
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if size > LARGEST:
        raise UserError(
            f"export: the model's weights are {size / 1e9:.1f} GB, and an ONNX file can hold {LARGEST / 1e9:.1f} GB; "
            "distil a smaller student and export that"
        )
    names = tuple(inputs)
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing says what it fixes, and the parity check says whether it may
            _trace(_Positional(model, names).eval(), tuple(inputs.values()), names, path)
    except (RuntimeError, TypeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        family = model.config.model_type
        raise UserError(
            f"export: a model of family {family!r} cannot be written as ONNX by torch {torch.__version__} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); use it in PyTorch"
        ) from None
    finally:
        model.set_attn_implementation(before)


def stretched(inputs: Mapping[str, Tensor], padding: int, tokens: int) -> dict[str, Tensor]:
    """Inputs for tracing: the first text of `inputs` `(B, N)`, over and over up to so many tokens, whole and half."""
    half = torch.arange(tokens) < max(tokens // 2, 1)
    made = {}
    for name, values in inputs.items():
        row = values[0].repeat(tokens // values.shape[1] + 1)[:tokens]
        made[name] = torch.stack([row, row.where(half, torch.tensor(padding if name == "input_ids" else 0))])
    return made


def _trace(model: nn.Module, tensors: tuple[Any, ...], names: tuple[str, ...], path: Path) -> None:
    # The newer exporter gives the same numbers, takes ten times as long, and its names do not say which layer a
    # product belongs to, which is what blame is laid by.
    torch.onnx.export(
        model,
        tensors,
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=list(names),
        output_names=[OUTPUT],
        dynamic_axes={name: {0: "texts", 1: "tokens"} for name in names},
    )
