"""From texts to token ids, unpadded; padding happens batch by batch in the collator."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import BatchEncoding, PretrainedConfig, PreTrainedTokenizerBase

from layerstill.data.kept import encoded_once
from layerstill.data.tasks import Split
from layerstill.errors import UserError
from layerstill.families import family_of
from layerstill.heads import Head
from layerstill.heads.head import IGNORED

SHORTEST = 4
"""Tokens of the shortest pair: two of text, two that mark begin and end."""


@dataclass(frozen=True)
class Encoded:
    """A split as token ids: columns `id`, `content`, `input_ids`, ..., `labels` if it has them; how many were cut.

    Where tokens have logits there is `counted`, too: 1 at the first piece of each word, which has the word's label.
    """

    dataset: datasets.Dataset
    truncated: int
    tokens: int
    unknown: int
    """How many of the tokens the vocabulary does not have."""
    lost_words: int = 0
    """How many words were cut off with their labels."""
    bare_words: int = 0
    """How many words the tokenizer makes nothing of; each was read as one unknown token."""
    teacher: "Encoded | None" = None
    """The same split as the teacher reads it, if that is otherwise."""

    @property
    def for_teacher(self) -> "Encoded":
        """What the teacher reads."""
        return self.teacher or self

    def notices(self, name: str, max_length: int) -> list[str]:
        """What happened to the texts of the split `name`, where it is worth a line."""
        notices = []
        with_labels = " with their labels" * ("labels" in self.dataset.column_names)
        if self.truncated:
            notices.append(
                f"{self.truncated} of {len(self.dataset)} {name} texts had to be cut to {max_length} tokens"
                + (f", which lost {self.lost_words} words{with_labels}" if self.lost_words else "")
            )
        if self.bare_words:
            notices.append(
                f"{self.bare_words} words of the {name} texts hold no character that the tokenizer keeps; each is read "
                "as one unknown token"
            )
        if self.unknown > self.tokens / 4:
            notices.append(
                f"{self.unknown} of {self.tokens} tokens of the {name} texts are unknown to the tokenizer; "
                "was it made for these texts?"
            )
        theirs = [] if self.teacher is None else self.teacher.notices(name, max_length)
        return notices + [f"in the teacher's tokens, {notice}" for notice in theirs]


def encode(split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int, head: Head) -> Encoded:
    """Tokenise a split without padding; texts longer than `max_length` tokens are cut and counted."""
    rest = tokenizer, max_length, head
    return encoded_once(split, tokenizer, max_length, head.per_token, lambda: _encode(split, *rest))


def _encode(split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int, head: Head) -> Encoded:
    if head.per_token:
        return _encode_words(split, tokenizer, max_length)
    columns = list(map(list, zip(*split.texts, strict=True)))
    cut = tokenizer(*columns, truncation=True, max_length=max_length)
    if cut.encodings is not None:  # a fast tokenizer keeps what it has cut off
        truncated = sum(bool(encoding.overflowing) for encoding in cut.encodings)
    else:
        truncated = _longer(tokenizer(*columns, truncation=False, verbose=False)["input_ids"], max_length)
    data = _columns(cut, tokenizer) | ({"labels": split.labels} if split.labels else {})
    return _encoded(data, truncated, tokenizer)


def _columns(tokens: BatchEncoding, tokenizer: PreTrainedTokenizerBase) -> dict[str, list]:
    """What models read, and how examples are told apart."""
    data = {name: tokens[name] for name in tokenizer.model_input_names if name in tokens and name != "attention_mask"}
    ids = data["input_ids"]
    return data | {"id": list(range(len(ids))), "length": list(map(len, ids)), "content": content_hashes(data)}


def _longer(rows: list[list[int]], max_length: int) -> int:
    return sum(len(ids) > max_length for ids in rows)


def _encoded(
    data: dict[str, list], truncated: int, tokenizer: PreTrainedTokenizerBase, lost: int = 0, bare: int = 0
) -> Encoded:
    unknown = sum(ids.count(tokenizer.unk_token_id) for ids in data["input_ids"])
    return Encoded(datasets.Dataset.from_dict(data), truncated, sum(data["length"]), unknown, lost, bare)


def _encode_words(split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Cut words into pieces: the first of each is counted, and has the label of the word where there are labels."""
    if not tokenizer.is_fast:
        raise UserError(
            f"the tokenizer ({type(tokenizer).__name__}) does not say which pieces belong to which word; "
            "tags need a fast tokenizer, one with a tokenizer.json"
        )
    words = _words_of(split)
    if tokenizer.truncation_side != "right":  # the words that are left must be a sentence's first
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.truncation_side = "right"
    full = tokenizer(words, is_split_into_words=True, truncation=False, verbose=False)
    bare = [(i, w) for i, row in enumerate(words) for w in sorted(set(range(len(row))) - set(full.word_ids(i)))]
    for i, w in bare:
        words[i][w] = tokenizer.unk_token or "?"
    cut = tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_length)
    first = [_first_pieces(cut.word_ids(i)) for i in range(len(words))]
    data = _columns(cut, tokenizer)
    data["counted"] = [[int(word is not None) for word in row] for row in first]
    if split.labels:
        pairs = zip(first, split.labels, strict=True)
        data["labels"] = [[IGNORED if w is None else tags[w] for w in row] for row, tags in pairs]
    lost = sum(map(len, words)) - sum(map(sum, data["counted"]))
    return _encoded(data, _longer(full["input_ids"], max_length), tokenizer, lost, len(bare))


def _words_of(split: Split) -> list[list[str]]:
    """The words of each example, of texts without labels what white space sets apart.

    All but the first have a space before them, without which some tokenizers take a word for the rest of another.
    """
    if split.labels:
        sentences = [list(words) for words in split.texts]
    else:
        sentences = [[word for text in texts for word in text.split()] for texts in split.texts]
    return [spaced(words) for words in sentences]


def spaced(words: Sequence[str]) -> list[str]:
    """The words of a sentence, each but the first with a space before it."""
    return [f" {word}" if i else word for i, word in enumerate(words)]


def _first_pieces(word_ids: Sequence[int | None]) -> list[int | None]:
    """The number of the word at its first piece, None at every other token."""
    return [None if i and word == word_ids[i - 1] else word for i, word in enumerate(word_ids)]


def content_hashes(tokens: Mapping[str, Sequence[Sequence[int]]]) -> list[int]:
    """A 63-bit hash of each example's tokens and segments."""
    columns = [tokens[name] for name in ("input_ids", "token_type_ids") if name in tokens]
    digests = (hashlib.blake2b(repr(row).encode(), digest_size=8).digest() for row in zip(*columns, strict=True))
    return [int.from_bytes(digest, "big") >> 1 for digest in digests]


def longest_text(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """The most tokens that a model and its tokenizer allow."""
    limit = getattr(config, "max_position_embeddings", tokenizer.model_max_length)
    if family_of(config).position_offset:
        limit -= config.pad_token_id + 1  # positions are counted from after the padding index
    return int(min(limit, tokenizer.model_max_length))


def allowed_length(
    wanted: int, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, whose: str = "the model"
) -> int:
    """How many tokens a model allows, `wanted` where nothing limits them; UserError if they are too few for a text."""
    limit = longest_text(tokenizer, config)
    if getattr(config, "max_position_embeddings", None) is None:
        limit = min(limit, wanted)
    if limit < SHORTEST:
        raise UserError(
            f"{whose} allows {limit} tokens, too few for a text; correct max_position_embeddings in its config.json or "
            f"model_max_length ({tokenizer.model_max_length}) in its tokenizer_config.json"
        )
    return limit


def usable_length(
    wanted: int, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, whose: str = "the model"
) -> int:
    """`wanted` tokens, if the model has that many positions; UserError with the limit otherwise."""
    limit = allowed_length(wanted, tokenizer, config, whose)
    if wanted > limit:
        raise UserError(f"--max-length {wanted}: {whose} allows {limit} tokens; use {limit} or less")
    return wanted


class Collator:
    """Pads a batch to its longest example, on the right; the mask says which tokens are real.

    Labels are padded as the head says; texts without labels need none. Rows have what `encode` gives.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, head: Head | None = None) -> None:
        # What each column is padded with. Tokenizers can pad rows, but take longer; and those of
        # decoders may do it on the left, which would move the positions that their models count from 0.
        self._fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id, "counted": 0}
        self._head = head

    def __call__(self, rows: list[dict]) -> dict:
        lengths = [len(row["input_ids"]) for row in rows]
        tokens = max(lengths)
        batch: dict[str, Any] = {}
        for name in rows[0]:
            values = [row[name] for row in rows]
            if name in self._fill:
                batch[name] = _padded(values, tokens, self._fill[name])
            elif name == "labels":
                assert self._head is not None
                batch[name] = self._head.pad_labels(values, tokens)
            elif name == "weights":
                batch[name] = torch.tensor(values, dtype=torch.float32)
            elif name in ("id", "content"):
                # Hashes and numbers stay those of Python: on a device, reading them would have to wait for it.
                batch[name] = values
            elif name == "attention_mask":
                batch[name] = _padded(values, tokens, 0)
            elif name != "length":
                batch[name] = torch.tensor(values)
        if "attention_mask" not in batch:
            batch["attention_mask"] = _padded([[1] * length for length in lengths], tokens, 0)
        return batch


def _padded(rows: Sequence[list[int]], tokens: int, fill: int) -> Tensor:
    """`(B, tokens)` int64: the rows, filled up on the right."""
    return torch.tensor([[*row, *[fill] * (tokens - len(row))] for row in rows], dtype=torch.int64)


def evenly(split: Split, sample: int = 1000) -> Split:
    """At most `sample` examples, spread evenly over the split."""
    step = max(len(split) // sample, 1)
    return split.take(range(len(split))[::step][:sample])


def mean_tokens(
    split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int, head: Head, sample: int = 1000
) -> float:
    """Mean length in tokens of at most `sample` examples, spread evenly over the split."""
    some = evenly(split, sample)
    return encode(some, tokenizer, max_length, head).tokens / len(some)
