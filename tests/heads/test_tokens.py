"""Tags of words: where logits count, padding, decisions, and scores by hand."""

import numpy as np
import pytest
import torch

from layerstill.heads import Tokens
from layerstill.metrics.entities import Found, by_type, count_entities, entities, over_all

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def numbers(*sentences):
    return [np.array([LABELS.index(tag) for tag in sentence.split()]) for sentence in sentences]


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O O", set()),
        ("B-PER I-PER O B-LOC", {("PER", 0, 1), ("LOC", 3, 3)}),
        ("B-PER B-PER", {("PER", 0, 0), ("PER", 1, 1)}),
        ("B-PER I-LOC", {("PER", 0, 0), ("LOC", 1, 1)}),
        ("O I-PER I-PER", {("PER", 1, 2)}),
        ("I-LOC B-LOC I-LOC", {("LOC", 0, 0), ("LOC", 1, 2)}),
        ("B-creative-work I-creative-work", {("creative-work", 0, 1)}),
    ],
)
def test_entities_as_conlleval_and_seqeval_read_them(tags, found):
    assert entities(tags.split()) == found


def test_an_example_by_hand():
    # seqeval's own: of two entities one is found, and one that is none is said.
    gold = ["O O O B-MISC I-MISC I-MISC O".split(), "B-PER I-PER O".split()]
    said = ["O O B-MISC I-MISC I-MISC I-MISC O".split(), "B-PER I-PER O".split()]
    counts = by_type(map(count_entities, gold, said))
    assert counts == {"MISC": Found(0, 1, 1), "PER": Found(1, 1, 1)}
    assert (over_all(counts.values()).precision, over_all(counts.values()).f1) == (0.5, 0.5)
    assert over_all([]) == Found()
    assert Found().f1 == Found().precision == Found().recall == 0


def test_scores_are_over_all_entities_and_over_words():
    gold = numbers("B-PER I-PER O B-LOC", "O B-LOC")
    said = numbers("B-PER I-PER O B-PER", "B-LOC B-LOC")
    scores = Tokens().score(Tokens().metrics, LABELS, said, gold)
    assert scores == pytest.approx(
        {"f1_entities": 4 / 7, "precision_entities": 2 / 4, "recall_entities": 2 / 3, "accuracy_tokens": 4 / 6}
    )
    assert Tokens().by_label(LABELS, said, gold) == {
        "LOC": {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2},
        "PER": {"precision": 1 / 2, "recall": 1, "f1": pytest.approx(2 / 3), "support": 1},
    }


def test_nothing_said_and_nothing_there_is_no_score_and_no_error():
    nothing = numbers("O O", "O")
    scores = Tokens().score(Tokens().metrics, LABELS, nothing, nothing)
    assert scores == {"f1_entities": 0, "precision_entities": 0, "recall_entities": 0, "accuracy_tokens": 1}


@pytest.mark.parametrize("metric", Tokens().metrics)
def test_what_each_sentence_adds_is_the_jackknifes_pseudo_value(metric):
    gold = numbers("B-PER I-PER O B-LOC", "O B-LOC", "O O", "B-PER")
    said = numbers("B-PER I-PER O B-PER", "B-LOC B-LOC", "O B-LOC", "B-PER")
    added = Tokens().contributions(metric, LABELS, said, gold)
    whole = Tokens().score([metric], LABELS, said, gold)[metric]
    without = [
        Tokens().score([metric], LABELS, said[:i] + said[i + 1 :], gold[:i] + gold[i + 1 :])[metric] for i in range(4)
    ]
    assert added.mean() == pytest.approx(whole)
    assert np.diff(added) == pytest.approx(-3 * np.diff(without))


def test_words_that_were_cut_off_are_missed_and_not_left_out():
    gold = numbers("O B-PER I-PER O")
    scores = Tokens().score(Tokens().metrics, LABELS, [gold[0][:2]], gold)
    assert scores["recall_entities"] == 0, "the entity's end was not seen"
    assert scores["accuracy_tokens"] == 0.5, "also the last word, which is O and was not said to be"


def batch():
    return {
        "input_ids": torch.arange(12).reshape(2, 6),
        "attention_mask": torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]]),
        "counted": torch.tensor([[0, 1, 0, 1, 1, 0], [0, 1, 1, 0, 0, 0]]),
    }


def test_logits_count_at_the_first_piece_of_every_word():
    head, inputs = Tokens(), batch()
    labels = head.pad_labels([[-100, 1, -100, 0, 2, -100], [-100, 3, 4, -100]], 6)
    assert labels.tolist()[1] == [-100, 3, 4, -100, -100, -100]
    assert torch.equal(head.labelled(labels), head.positions(inputs))
    logits = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    errors = head.errors(logits, labels)
    assert errors[~head.positions(inputs)].abs().sum() == 0
    assert errors[0, 3] == pytest.approx(-logits[0, 3].log_softmax(-1)[0].item())
    rows = head.rows(logits, inputs)
    assert [len(row) for row in rows] == [3, 2]
    assert [decided.tolist() for decided in head.decide(head.join(rows))] == [
        logits[0, [1, 3, 4]].argmax(-1).tolist(),
        logits[1, [1, 2]].argmax(-1).tolist(),
    ]
