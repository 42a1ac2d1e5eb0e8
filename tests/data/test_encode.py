"""Tokens, padding and the order of examples."""

import random
from collections import Counter

import pytest
import torch
from transformers import DataCollatorWithPadding

from layerstill.data.encode import Collator, encode, usable_length
from layerstill.data.order import LengthBuckets
from layerstill.data.tasks import Split
from layerstill.errors import UserError
from layerstill.heads import Classes, Scores
from tests.tiny import tiny_config, tiny_tokenizer


def test_texts_become_unpadded_ids_and_long_ones_are_cut_and_counted():
    split = Split([("good film",), ("bad bad bad bad bad bad",)], [1, 0])
    encoded = encode(split, tiny_tokenizer(), max_length=6, head=Classes())
    assert encoded.dataset["length"] == [4, 6]
    assert (encoded.truncated, encoded.tokens) == (1, 10)
    assert encoded.dataset["id"] == [0, 1]


def test_pairs_keep_their_segments():
    encoded = encode(Split([("good film", "bad")], [0]), tiny_tokenizer(), max_length=16, head=Classes())
    assert encoded.dataset[0]["token_type_ids"] == [0, 0, 0, 0, 1, 1]
    without = encode(
        Split([("good film", "bad")], [0]), tiny_tokenizer(pair_types=False), max_length=16, head=Classes()
    )
    assert "token_type_ids" not in without.dataset.column_names


def test_a_batch_is_padded_to_its_longest_example():
    tokenizer = tiny_tokenizer()
    data = encode(Split([("good",), ("bad film was great",)], [1, 0]), tokenizer, 16, Classes()).dataset
    batch = Collator(tokenizer, Classes())([data[0], data[1]])
    assert batch["input_ids"].shape == (2, 6)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0], [1] * 6]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["id"] == [0, 1]


def test_scores_stay_floats():
    tokenizer = tiny_tokenizer()
    data = encode(Split([("good",)], [2.5]), tokenizer, 16, Scores()).dataset
    assert Collator(tokenizer, Scores())([data[0]])["labels"].dtype == torch.float32


@pytest.mark.parametrize(("family", "limit"), [("bert", 64), ("roberta", 63)])
def test_more_tokens_than_positions_are_refused_with_the_limit(family, limit):
    config, tokenizer = tiny_config(family), tiny_tokenizer()
    assert usable_length(limit, tokenizer, config) == limit
    with pytest.raises(UserError, match=f"--max-length {limit + 1}: the model allows {limit} tokens"):
        usable_length(limit + 1, tokenizer, config)


def test_every_example_comes_once_an_epoch_with_neighbours_of_its_length():
    lengths = torch.randint(3, 60, (1003,), generator=torch.Generator().manual_seed(0)).tolist()
    sampler = LengthBuckets(lengths, 16, seed=1)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert Counter(orders[-1]) == Counter(range(1003))
    assert orders[0] != orders[1] != orders[2]
    sampler.set_epoch(1)
    assert list(sampler) == orders[1], "an epoch's order does not depend on what came before"
    assert list(LengthBuckets(lengths, 16, seed=2)) != orders[0]
    batches = [orders[0][i : i + 16] for i in range(0, 1003, 16)]
    padded = sum(max(lengths[i] for i in b) * len(b) for b in batches)
    assert padded < 1.15 * sum(lengths), "too much padding"
    early = sum(lengths[i] for i in orders[0][:320]) / 320
    assert early == pytest.approx(sum(lengths) / 1003, rel=0.2), "lengths drift over the epoch"


def test_a_mask_that_rows_bring_along_is_kept():
    rows = [{"input_ids": [2, 5, 0], "attention_mask": [1, 1, 0]}, {"input_ids": [2], "attention_mask": [1]}]
    assert Collator(tiny_tokenizer())(rows)["attention_mask"].tolist() == [[1, 1, 0], [1, 0, 0]]


def test_padding_goes_to_the_right_whatever_the_tokenizer_does_by_itself():
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "left"
    rows = [{"input_ids": [2, 5, 3], "labels": 0}, {"input_ids": [2, 5, 6, 7, 3], "labels": 1}]
    batch = Collator(tokenizer, Classes())(rows)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert tokenizer.padding_side == "left", "the user's tokenizer is left as it was"


@pytest.mark.parametrize("segments", [True, False])
def test_batches_are_padded_as_transformers_pads_them(segments):
    tokenizer, rng = tiny_tokenizer(segments), random.Random(0)
    for _ in range(30):
        lengths = [rng.randint(1, 9) for _ in range(rng.randint(1, 6))]
        rows = [
            {"input_ids": rng.choices(range(5, 15), k=n)}
            | ({"token_type_ids": rng.choices((0, 1), k=n)} if segments else {})
            for n in lengths
        ]
        extra = [{"id": i, "length": n, "content": 2**62 + n, "labels": n % 3} for i, n in enumerate(lengths)]
        ours = Collator(tokenizer, Classes())([row | more for row, more in zip(rows, extra, strict=True)])
        for name in ("id", "content"):
            assert ours.pop(name) == [more[name] for more in extra]
        assert ours.pop("labels").tolist() == [more["labels"] for more in extra]
        theirs = DataCollatorWithPadding(tokenizer)(rows)
        assert ours.keys() == theirs.keys()
        for name, values in theirs.items():
            assert ours[name].dtype == values.dtype
            assert torch.equal(ours[name], values)
