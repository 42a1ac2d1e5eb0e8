"""The act `augment`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from layerstill.data.augmentation import Augmentation
from layerstill.data.augmented import read_source, write_augmented
from layerstill.data.encode import usable_length
from layerstill.data.replacement import Replacement
from layerstill.errors import UserError
from layerstill.progress import our_bars_only
from layerstill.training.models import load_masked_lm

Watch = Callable[[int, int], None]
"""Told how many more examples were read, and how many there are."""


@dataclass(frozen=True)
class Augmented:
    """What was made."""

    path: Path
    examples: int
    """That were read."""
    rows: int
    """That were written."""


@our_bars_only()
def augment(
    data: str | Path,
    output: str | Path,
    how: Augmentation = Augmentation(),
    model: str | Path | None = None,
    task: str | None = None,
    text_columns: tuple[str, ...] = (),
    candidates: int = 15,
    max_length: int = 128,
    batch_size: int = 64,
    watch: Watch = lambda more, total: None,
) -> Augmented:
    """Make copies of training examples with some words changed; labels and other columns stay.

    Args:
        data: a file, a folder with train and dev files, or with `task` a folder in the GLUE layout.
        output: a file of the same kind for a file, else a folder.
        how: what is done to words, and how often.
        model: the masked language model that proposes words for `replace`: a folder or a hub id.
        task: a GLUE task.
        text_columns: one or two text columns of own files.
        candidates: a word is replaced by one of the model's best so many.
        max_length: longest text in tokens that the model reads.
        batch_size: texts that it reads at a time.
        watch: for a progress bar.
    """
    if "replace" in how.methods and model is None:
        raise UserError("--method replace needs --model, a masked language model; or --method delete, swap, duplicate")
    if "replace" not in how.methods and model is not None:
        raise UserError("--model proposes words for --method replace; add that method, or leave the model out")
    source = read_source(Path(data), Path(output), task, text_columns)
    proposer = None if model is None else _proposer(str(model), candidates, batch_size, max_length)
    total = len(source.table.lines)
    rows = write_augmented(source, how, proposer, lambda read: watch(read, total))
    return Augmented(source.target, total, rows)


def _proposer(model: str, candidates: int, batch_size: int, max_length: int) -> Replacement:
    loaded, tokenizer = load_masked_lm(model)
    usable_length(max_length, tokenizer, loaded.config)
    loaded.to("cuda" if torch.cuda.is_available() else "cpu")
    return Replacement(loaded, tokenizer, candidates, batch_size, max_length)
