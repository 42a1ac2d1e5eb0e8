"""Linear CKA against the textbook, its invariances, and the states it is computed from; agreement with a teacher."""

import numpy as np
import pytest
import torch

from layerstill.data.tasks import Split
from layerstill.errors import UserError
from layerstill.evaluation.agreement import Reader, agreement, agreement_with_teacher, sample_of
from layerstill.evaluation.predict import batches_of
from layerstill.evaluation.similarity import layer_similarity, linear_cka, pooled_states
from layerstill.heads import Classes, Scores
from tests.tiny import FAMILIES, WORDS, tiny_model, tiny_tokenizer

TEXTS = [(" ".join(WORDS[(5 * i) % 9 : (5 * i) % 9 + 1 + i % 5]),) for i in range(12)]
SPLIT = Split(TEXTS, [i % 3 for i in range(12)])


def hsic(k: np.ndarray, m: np.ndarray) -> float:
    """The unbiased HSIC as Song et al. (2012), equation 5, write it."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    total = np.trace(k @ m)
    total += (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    total -= 2 / (n - 2) * (one @ k @ m @ one)
    return total / (n * (n - 3))


def textbook(x: np.ndarray, y: np.ndarray) -> float:
    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 7)) + 3
    return x, np.tanh(x @ rng.standard_normal((7, 11))) + 0.3 * rng.standard_normal((30, 11))


def test_it_is_the_textbooks(pair):
    assert linear_cka(*pair) == pytest.approx(textbook(*pair), rel=1e-10)
    assert 0 < linear_cka(*pair) < 1


def test_a_layer_is_itself_however_it_is_turned_scaled_and_moved(pair):
    x, y = pair
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((7, 7)))
    assert linear_cka(x, x) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x, -5 * x @ rotation + 100) == pytest.approx(1, abs=1e-10)
    assert linear_cka(0.01 * x @ rotation, y) == pytest.approx(linear_cka(x, y), rel=1e-10)
    stretched = x * np.array([1, 1, 1, 1, 1, 1, 30.0])
    assert linear_cka(x, stretched) < 0.9


def test_unrelated_states_are_at_zero_even_if_wider_than_many():
    rng = np.random.default_rng(0)
    values = [linear_cka(rng.standard_normal((40, 400)), rng.standard_normal((40, 400))) for _ in range(20)]
    assert abs(np.mean(values)) < 0.02  # the biased estimate gives about 0.9


def test_states_that_are_all_the_same_resemble_nothing(pair):
    flat = np.full((30, 3), 0.1) + np.array([0.3, -2.0, 1e9])
    assert linear_cka(flat, pair[0]) == 0
    with pytest.raises(UserError, match="needs at least 4 examples, got 3"):
        linear_cka(pair[0][:3], pair[1][:3])


@pytest.mark.parametrize("family", FAMILIES)
def test_pooled_states_know_neither_padding_nor_batches(family):
    model, tokenizer = tiny_model(family), tiny_tokenizer(False)
    found = [pooled_states(model, batches_of(SPLIT, tokenizer, 32, "cpu", Classes(), size)) for size in (1, 5, 12)]
    assert list(found[0]) == ["embeddings", "layer 1", "layer 2", "layer 3", "layer 4"]
    for name, alone in found[0].items():
        for other in found[1:]:
            np.testing.assert_allclose(other[name], alone, atol=1e-5 * np.abs(alone).max())


def test_pooled_states_are_the_means_of_transformers_hidden_states():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    found = pooled_states(model, batches_of(SPLIT, tokenizer, 32, "cpu", Classes(), 5))
    for row, text in enumerate(TEXTS):
        with torch.no_grad():
            states = model(**tokenizer(*text, return_tensors="pt"), output_hidden_states=True).hidden_states
        for (name, pooled), expected in zip(found.items(), states, strict=True):
            np.testing.assert_allclose(pooled[row], expected[0].mean(0), atol=1e-5, err_msg=name)


def test_every_layer_meets_every_layer_of_a_model_of_another_size():
    batches = batches_of(SPLIT, tiny_tokenizer(), 32, "cpu", Classes())
    student, teacher = (pooled_states(tiny_model(seed=2, layers=n, width=w), batches) for n, w in ((2, 24), (4, 48)))
    made = layer_similarity(student, teacher)
    assert made["student_layers"] == ["embeddings", "layer 1", "layer 2"]
    assert made["teacher_layers"] == ["embeddings", "layer 1", "layer 2", "layer 3", "layer 4"]
    assert made["examples"] == 12
    for i, x in enumerate(student.values()):
        for j, y in enumerate(teacher.values()):
            assert made["values"][i][j] == pytest.approx(textbook(x, y), rel=1e-6)
    own = layer_similarity(teacher, teacher)["values"]
    np.testing.assert_allclose(np.diag(own), 1, atol=1e-12)
    np.testing.assert_allclose(own, np.transpose(own), atol=1e-12)


def test_agreement_is_the_share_of_equal_decisions():
    a = np.array([[1.0, 0, 0], [0, 2, 1], [0, 0, 1], [3, 2, 1]])
    b = np.array([[9.0, 1, 1], [0, 1, 2], [0, 0, 5], [0, 1, 0]])
    assert agreement(a, b, Classes()) == 0.5
    assert agreement(a, a, Classes()) == 1


def test_agreement_with_the_teacher_is_read_by_each_ones_own_tokenizer():
    teacher = Reader(tiny_model(), tiny_tokenizer(), 32)
    student = Reader(tiny_model(), tiny_tokenizer(False), 32)  # reads without segments, which the teacher has
    made = agreement_with_teacher(student, teacher, SPLIT, Classes())
    predictions = [reader.predict(SPLIT, Classes()).argmax(-1) for reader in (student, teacher)]
    assert made == {"teacher": np.mean(predictions[0] == predictions[1]), "examples": 12}
    assert agreement_with_teacher(teacher, teacher, SPLIT, Classes())["teacher"] == 1


def test_models_of_other_classes_are_not_compared():
    teacher, student = (Reader(tiny_model(), tiny_tokenizer(), 32) for _ in range(2))
    student.model.config.id2label = {0: "good", 1: "fine", 2: "bad"}
    with pytest.raises(UserError, match="the student knows the labels good, fine, bad, the teacher LABEL_0, LABEL_1"):
        agreement_with_teacher(student, teacher, SPLIT, Classes())
    scores = Reader(tiny_model(labels=1), tiny_tokenizer(), 32)
    with pytest.raises(UserError, match="scores are never quite equal"):
        agreement_with_teacher(scores, scores, SPLIT, Scores())


def test_a_sample_keeps_the_order_and_is_drawn_by_seed_and_name():
    split = Split([(str(i),) for i in range(50)], list(range(50)))
    sample = sample_of(split, 20, 0, "train")
    assert sample.labels == sorted(sample.labels)
    assert [text for (text,) in sample.texts] == [str(label) for label in sample.labels]
    assert len(set(sample.labels)) == 20
    assert sample_of(split, 20, 0, "train") == sample
    assert sample_of(split, 20, 1, "train") != sample != sample_of(split, 20, 0, "dev")
    assert sample_of(split, 50, 0, "train") is split
