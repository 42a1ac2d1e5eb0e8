"""What is kept between runs is what would be made anew, and nothing else is taken for it."""

from dataclasses import replace

import pytest

from layerstill.data.encode import encode
from layerstill.data.kept import Kept, keeping, task_once
from layerstill.data.split import Split
from layerstill.heads import Classes
from layerstill.heads.tokens import Tokens
from tests.tiny import tiny_tokenizer

SPLIT = Split([("good film",), ("a very bad plot and an awful actor",)], [0, 1])


class Counted(Kept):
    """Counts what had to be made."""

    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.made = 0

    def encoded(self, key, make):
        def counted():
            self.made += 1
            return make()

        return super().encoded(key, counted)


def rows(encoded):
    return encoded.dataset.to_dict(), replace(encoded, dataset=None)


def test_a_split_is_tokenised_once_and_comes_out_the_same():
    plain = encode(SPLIT, tiny_tokenizer(), 8, Classes())
    with keeping(kept := Counted()):
        first, second = (encode(SPLIT, tiny_tokenizer(), 8, Classes()) for _ in range(2))
        assert kept.made == 1
        second.dataset.set_format("torch")  # in place, and seen by nobody else
        third = encode(Split(list(SPLIT.texts), list(SPLIT.labels)), tiny_tokenizer(), 8, Classes())
    assert kept.made == 1
    assert rows(plain) == rows(first) == rows(third)
    assert third.dataset.format["type"] is None
    encode(SPLIT, tiny_tokenizer(), 8, Classes())
    assert kept.made == 1  # outside nothing is kept


def other_tokenizer():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["awf"])
    return tokenizer


def cut_on_the_left():
    tokenizer = tiny_tokenizer()
    tokenizer.truncation_side = "left"
    return tokenizer


@pytest.mark.parametrize(
    "other",
    [
        (Split(SPLIT.texts, [1, 1]), tiny_tokenizer(), 8, Classes()),
        (Split([("good plot",), SPLIT.texts[1]], SPLIT.labels), tiny_tokenizer(), 8, Classes()),
        (Split(SPLIT.texts, []), tiny_tokenizer(), 8, Classes()),
        (SPLIT, tiny_tokenizer(), 7, Classes()),
        (SPLIT, other_tokenizer(), 8, Classes()),
        (SPLIT, cut_on_the_left(), 8, Classes()),
        (Split([("good", "film"), ("bad",)], [[0, 1], [0]]), tiny_tokenizer(), 8, Tokens()),
    ],
)
def test_whatever_else_it_depends_on_is_another(other):
    plain = encode(*other)
    with keeping(kept := Counted()):
        encode(SPLIT, tiny_tokenizer(), 8, Classes())
        found = encode(*other)
    assert kept.made == 2
    assert rows(found) == rows(plain)


def test_a_tokenizer_that_is_changed_afterwards_is_another():
    tokenizer = tiny_tokenizer()
    with keeping(kept := Counted()):
        encode(SPLIT, tokenizer, 8, Classes())
        tokenizer.add_tokens(["plo"])
        encode(SPLIT, tokenizer, 8, Classes())
    assert kept.made == 2


def test_what_was_not_used_for_the_longest_time_goes_first():
    splits = [Split([(text,)], [0]) for text in ("good", "bad", "fine")]
    size = encode(splits[0], tiny_tokenizer(), 8, Classes()).dataset.data.nbytes
    with keeping(kept := Counted(most_bytes=2 * size)):
        for number, made in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)):
            encode(splits[number], tiny_tokenizer(), 8, Classes())
            assert kept.made == made
    with keeping(kept := Counted(most_bytes=1)):
        for made in (1, 1):
            encode(splits[0], tiny_tokenizer(), 8, Classes())  # the latest stays, however large it is
            assert kept.made == made


def test_tasks_are_kept_by_what_is_said_of_them():
    made = []

    def once(said):
        return task_once(said, lambda: made.append(said) or f"task {len(made)}")

    assert [once({"a": 1}), once({"a": 1})] == ["task 1", "task 2"]
    made.clear()
    with keeping(Kept(most_tasks=2)):
        assert [once({"a": 1}), once({"a": 1}), once({"a": 2})] == ["task 1", "task 1", "task 2"]
        assert [once({"a": 3}), once({"a": 2}), once({"a": 1})] == ["task 3", "task 2", "task 4"]
