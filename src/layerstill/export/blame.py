"""Which groups of layers lose what an int8 file loses, and a file in which those stay in fp32."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from layerstill.export.exported import FILES, INT8, ExportedFile
from layerstill.export.quantising import Quantiser
from layerstill.export.session import OnnxModel

log = logging.getLogger("layerstill")

TEXTS = 100
"""Texts on which one group's error is measured."""
FEEDS = 50
"""Texts on which ranges of activations are fixed while groups are compared."""

Measure = Callable[[list[str]], ExportedFile]
"""What becomes of the int8 file, these groups being in fp32."""


def quantise_within(
    quantiser: Quantiser, folder: Path, texts: Sequence[tuple[str, ...]], measure: Measure
) -> ExportedFile:
    """Write the int8 file of a folder; where it is not fit, with the groups to blame in fp32, at most half of them.

    The file that is left is the first that is fit, or the one that loses least.
    """
    target = folder / FILES[INT8]
    quantiser.write(target)
    best = measure([])
    if best.fit:
        return best
    log.info("int8 loses %.2f points; looking for the layers to blame", best.drop)
    worst = ranked(quantiser, folder, texts)
    for number in range(1, len(worst) // 2 + 1):
        quantiser.write(target, worst[:number])
        found = measure(worst[:number])
        if found.fit:
            return found
        best = min(best, found, key=lambda one: one.drop)
    quantiser.write(target, best.kept_fp32)
    return best


def ranked(quantiser: Quantiser, folder: Path, texts: Sequence[tuple[str, ...]]) -> list[str]:
    """The groups, from the one whose quantisation alone moves the logits of `texts` most to the least harmful."""
    some = spread(texts, TEXTS)
    exact = OnnxModel(folder, quantiser.source.name).logits(some)
    alone = folder / "alone.onnx"
    errors = {}
    for group in quantiser.groups:
        quantiser.write(alone, [other for other in quantiser.groups if other != group], FEEDS)
        pairs = zip(exact, OnnxModel(folder, alone.name).logits(some), strict=True)
        errors[group] = float(np.concatenate([np.ravel(one - other) ** 2 for one, other in pairs]).mean() ** 0.5)
    alone.unlink()
    worst = sorted(errors, key=lambda group: -errors[group])
    log.info("by how much logits move with only these in int8: %s", ", ".join(f"{g} {errors[g]:.2g}" for g in worst))
    return worst


def spread(texts: Sequence[tuple[str, ...]], at_most: int) -> list[tuple[str, ...]]:
    """Texts of all lengths, the shortest and the longest among them."""
    by_length = sorted(texts, key=lambda text: sum(map(len, text)))
    places = np.linspace(0, len(by_length) - 1, min(at_most, len(by_length))).round().astype(int)
    return [by_length[i] for i in places]
