"""Weights and products in int8: with ranges of activations found text by text, or fixed ahead on real texts.

Weights have a scale for each output: on MiniLM the error of the logits is then a third of what one scale for a matrix
gives, at the same speed. Token embeddings are quantised, too, since they are most of a small model's size.
"""

import logging
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from layerstill.families import family_of

EMBEDDINGS, HEAD = "embeddings", "head"
_WITH_WEIGHTS = ("MatMul", "Gemm", "Gather")
"""Operations with weights that are quantised."""


class Quantiser:
    """What makes int8 files of one fp32 file, some groups of its layers left in fp32.

    Args:
        source: the fp32 file.
        config: of its model, by which layers are told apart.
        feeds: inputs of the graph for some texts, by which ranges of activations are fixed; None to find them text by
            text.
    """

    def __init__(
        self, source: Path, config: PretrainedConfig, feeds: Sequence[dict[str, np.ndarray]] | None = None
    ) -> None:
        import onnx

        self.source, self._feeds = source, feeds
        self.groups: dict[str, list[str]] = {}
        """Names of operations by group: `embeddings`, `layer 1 attention`, `layer 1 feed-forward`, ..., `head`."""
        graph = onnx.load(str(source), load_external_data=False).graph
        weights = {one.name for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT and one.dims}
        for node in graph.node:
            if node.op_type in _WITH_WEIGHTS and weights.intersection(node.input):
                self.groups.setdefault(group_of(node.name, config), []).append(node.name)

    def write(self, target: Path, kept: Collection[str] = (), feeds: int | None = None) -> None:
        """Write an int8 file in which the groups `kept` stay in fp32; ranges are fixed on so many texts at most."""
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

        names = [name for group in kept for name in self.groups[group]]
        common: dict[str, Any] = {
            "per_channel": True,
            "weight_type": QuantType.QInt8,
            # A Gemm is made a MatMul of another name before names are looked at.
            "nodes_to_exclude": [*names, *(f"{name}_MatMul" for name in names)],
            "op_types_to_quantize": list(_WITH_WEIGHTS),
        }
        options = {"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True}
        with _hushed():
            if self._feeds is None:
                quantize_dynamic(str(self.source), str(target), extra_options=options, **common)
            else:
                reader = _reader(self._feeds[:feeds])
                quantize_static(str(self.source), str(target), reader, extra_options=options, **common)


def group_of(name: str, config: PretrainedConfig) -> str:
    """The group of an operation by its path in the model, `/model/bert/encoder/layer.0/attention/self/query/MatMul`."""
    family = family_of(config)
    if any(f"/{path.replace('.', '/')}/" in name for path in family.embeddings):
        return EMBEDDINGS
    found = re.search(rf"/{family.layers.replace('.', '/')}\.(\d+)/(.*)", name)
    if found is None:
        return HEAD
    part = "attention" if "att" in found[2].split("/MatMul")[0] else "feed-forward"
    return f"{part} of all layers" if family.shared_layers else f"layer {int(found[1]) + 1} {part}"


def _reader(feeds: Sequence[dict[str, np.ndarray]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Texts(CalibrationDataReader):
        """One text after the other."""

        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

    return Texts()


@contextmanager
def _hushed() -> Iterator[None]:
    """Without the warnings that onnxruntime gives the root of all logs, and the handler that this gets by them."""
    before, handlers = logging.root.manager.disable, list(logging.root.handlers)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        logging.root.handlers[:] = handlers
