"""What has no label counts in no score, follows a model's order, and stops what is about classes."""

import re

import numpy as np
import pytest
import torch

from layerstill import Recipe, Task
from layerstill.data.encode import encode
from layerstill.data.label_agreement import FittedSet
from layerstill.data.regimes import Regime
from layerstill.data.tasks import Split
from layerstill.errors import UserError
from layerstill.evaluation.agreement import agreement
from layerstill.evaluation.ood import _as_scored
from layerstill.evaluation.predictions import prediction_tensors
from layerstill.heads import Classes, Tokens
from layerstill.metrics.entities import entities
from layerstill.training.module import DistillationModule
from tests.tiny import batch, tiny_model, tiny_tokenizer

TEXTS = ["a film", "a plot", "the actor"]


def test_no_metric_counts_a_class_or_a_score_that_is_not_known():
    classes = Task("own", "classification", {"dev": Split(TEXTS, [0, -100, 1])}, ("no", "yes"))
    logits = np.array([[2.0, 0], [2, 0], [0, 2]])
    assert classes.score(logits) == {"accuracy": 1.0, "f1_macro": 1.0}
    tensors = prediction_tensors(logits, classes.splits["dev"], classes.head)
    assert [len(tensor) for tensor in tensors.values()] == [2, 2, 2]
    scores = Task("own", "regression", {"dev": Split(TEXTS, [0.0, float("nan"), 1.0])})
    assert scores.score(np.array([[1.0], [9], [2]]))["pearson"] == pytest.approx(1)


def test_no_metric_counts_a_tag_that_is_not_known():
    labels = ("O", "B-X", "I-X")
    task = Task("own", "tokens", {"dev": Split([("a", "film", "plot", "was")], [[1, -100, 1, 0]])}, labels)
    said = [np.eye(3)[[1, 2, 1]]]  # the last word was cut off
    assert task.score(said) == pytest.approx(
        {"f1_entities": 1, "precision_entities": 1, "recall_entities": 1, "accuracy_tokens": 2 / 3}
    )
    assert task.by_label(said, "dev")["X"]["support"] == 2
    assert task.head.contributions("f1_entities", labels, task.head.decide(said), task.gold("dev")).shape == (1,)


def test_what_has_no_class_keeps_none_in_another_order_and_in_other_classes():
    task = Task("own", "classification", {"train": Split(TEXTS, [0, -100, 1])}, ("no", "yes"))
    assert task.with_label_order(("yes", "no")).splits["train"].labels == [1, -100, 0]
    ood = FittedSet("far", task.splits["train"], ("a", "b"), (1, 0))
    assert _as_scored(np.array([0, -100, 1]), ood).tolist() == [1, -100, 0]
    with pytest.raises(UserError, match=r"regime label_noise: 1 of 3 training examples of own have no label \(-100\)"):
        Regime(label_noise=0.1).apply(task, 0)


def test_a_text_without_labels_and_labels_that_are_none():
    names = ("x", "y")
    task = Task("own", "multilabel", {"train": Split(TEXTS, [["y"], [], [1, -100]])}, names)
    assert task.splits["train"].labels == [[0, 1], [0, 0], [1, -100]]
    for odd in (3, 0.5, float("nan"), None):
        with pytest.raises(UserError, match="example 1: .* where 1 .it has the label., 0, or -100"):
            Task("own", "multilabel", {"train": Split(["a"], [[odd, 0]])}, names)


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-X E-X I-X", {("X", 0, 1), ("X", 2, 2)}),
        ("S-X S-X E-X", {("X", 0, 0), ("X", 1, 1), ("X", 2, 2)}),
        ("I-X S-Y O E-Y", {("X", 0, 0), ("Y", 1, 1), ("Y", 3, 3)}),
    ],
)
def test_entities_of_bioes_as_seqeval_reads_them(tags, found):
    assert entities(tags.split()) == found


def test_long_sentences_lose_their_last_words_whatever_side_the_tokenizer_cuts():
    tokenizer = tiny_tokenizer()
    tokenizer.truncation_side = "left"
    split = Split([("good", "bad", "film", "plot", "actor")], [[1, 2, 3, 4, 0]])
    assert encode(split, tokenizer, 5, Tokens()).dataset[0]["labels"] == [-100, 1, 2, 3, -100]
    assert tokenizer.truncation_side == "left"
    assert encode(Split(["good bad"], [0]), tokenizer, 5, Classes()).truncated == 0


TAGGED = [(["good", "film"], ["B-X", "O"]), (["bad", "film"], ["B-X", "O"])]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([(["a", " "], ["B-X", "O"])], "train line 1, word 2: ' ' is not a word"),
        ([(["a", 3], ["B-X", "O"])], "train line 1, word 2: 3 where a word is expected"),
        ([(["a", "b"], [1, 0])], "train line 1, word 1: tag 1 is a number"),
        ([("good film", "B-X O")], "train line 1: column 'text' holds 'good film' where a list of words is expected"),
        ([(["a"], ["O"])], "every word has the tag 'O'"),
        ([(["a", "b"], ["O"])], "train line 1: 2 words and 1 tags"),
    ],
)
def test_tagged_data_in_memory_have_the_mistakes_of_files(data, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Task.from_data(data, "tokens")


def test_words_and_tags_may_be_given_apart_and_as_arrays():
    words, tags = map(list, zip(*TAGGED, strict=True))
    wanted = Task.from_data(TAGGED, "tokens")
    assert Task.from_data(words, "tokens", labels=tags) == wanted
    assert Task.from_data([np.array(row) for row in words], "tokens", labels=[tuple(row) for row in tags]) == wanted


def test_what_gives_no_score_is_refused_before_training():
    for labels, why in (([-100, -100, -100], "none of its labels is known"), ([], "it has no examples")):
        dev = Split(TEXTS[: len(labels)], labels)
        task = Task("own", "classification", {"train": Split(TEXTS, [0, 1, 1]), "dev": dev}, ("no", "yes"))
        with pytest.raises(UserError, match=f"task own: split dev gives no score, {why}"):
            task.with_dev()
    with pytest.raises(UserError, match="split train, sentence 2: 1 words and 2 tags"):
        Task("own", "tokens", {"train": Split([("a",), ("b",)], [[0], [0, 1]])}, ("O", "B-X"))


def test_a_first_batch_without_labels_stops_nothing():
    stage = Recipe.load("kd").stages[0]
    module = DistillationModule(tiny_model(layers=2), tiny_model(), stage, seed=0, head=Classes())
    some = batch()
    module.freeze_unreached(some | {"labels": torch.full_like(some["labels"], -100)})


def test_two_models_agree_on_the_words_that_both_have_read():
    assert agreement([np.eye(3)[[0, 1, 2]]], [np.eye(3)[[0, 2]]], Tokens()) == 0.5
