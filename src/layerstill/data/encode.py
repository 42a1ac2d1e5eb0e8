"""From texts to token ids, unpadded; padding happens batch by batch in the collator."""

import copy
from dataclasses import dataclass

import datasets
from transformers import DataCollatorWithPadding, PretrainedConfig, PreTrainedTokenizerBase

from layerstill.data.tasks import Split
from layerstill.errors import UserError
from layerstill.families import family_of


@dataclass(frozen=True)
class Encoded:
    """A split as token ids: columns `id`, `input_ids`, ... and `labels`; how many texts were cut to fit."""

    dataset: datasets.Dataset
    truncated: int
    tokens: int


def encode(split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Tokenise a split without padding; texts longer than `max_length` tokens are cut and counted."""
    columns = list(map(list, zip(*split.texts, strict=True)))
    full = tokenizer(*columns, truncation=False, verbose=False)["input_ids"]
    cut = tokenizer(*columns, truncation=True, max_length=max_length)
    data = {name: cut[name] for name in tokenizer.model_input_names if name in cut and name != "attention_mask"}
    lengths = [len(ids) for ids in data["input_ids"]]
    data |= {"id": list(range(len(split))), "labels": split.labels, "length": lengths}
    return Encoded(datasets.Dataset.from_dict(data), sum(len(ids) > max_length for ids in full), sum(lengths))


def usable_length(wanted: int, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """`wanted` tokens, if the model has that many positions; UserError with the limit otherwise."""
    limit = getattr(config, "max_position_embeddings", wanted)
    if family_of(config).position_offset:
        limit -= config.pad_token_id + 1  # positions are counted from after the padding index
    limit = min(limit, tokenizer.model_max_length)
    if wanted > limit:
        raise UserError(f"--max-length {wanted}: the model allows {limit} tokens; use {limit} or less")
    return wanted


class Collator:
    """Pads a batch to its longest example, on the right; the mask says which tokens are real."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        # Decoders' tokenizers may pad on the left, which would move the positions that their models count from 0.
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.padding_side = "right"
        self._pad = DataCollatorWithPadding(tokenizer)

    def __call__(self, rows: list[dict]) -> dict:
        for row in rows:
            row.pop("length", None)
        return dict(self._pad(rows))
