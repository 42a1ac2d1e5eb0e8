"""Metrics, predictions in their order."""

import numpy as np
import pytest
import torch

from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError
from layerstill.evaluation.predict import evaluate_split, predict
from layerstill.heads import Classes
from layerstill.metrics.by_name import METRICS
from tests.tiny import WORDS, tiny_model, tiny_tokenizer


def test_metrics_on_known_numbers():
    labels, predicted = np.array([1, 1, 0, 0, 1]), np.array([1, 0, 0, 1, 1])
    assert METRICS["accuracy"](labels, predicted) == pytest.approx(0.6)
    assert METRICS["f1"](labels, predicted) == pytest.approx(2 / 3)
    # (TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)) with TP 2, TN 1, FP 1, FN 1
    assert METRICS["matthews_correlation"](labels, predicted) == pytest.approx(1 / 6)
    assert METRICS["pearson"](np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.1])) == pytest.approx(0.9998, abs=1e-3)
    assert METRICS["spearman"](np.array([1.0, 2.0, 3.0]), np.array([2.0, 40.0, 600.0])) == pytest.approx(1)
    assert METRICS["pearson"](np.array([1.0, 2.0]), np.array([5.0, 5.0])) == 0


def test_scores_from_logits():
    logits = np.array([[0.1, 2.0, 0.3], [3.0, 0.0, 0.0]])
    classes = Task("x", "classification", {}, ("a", "b", "c"), ("accuracy",))
    assert classes.score(logits, np.array([1, 2])) == {"accuracy": 0.5}
    scores = Task("y", "regression", {}, metrics=("pearson",))
    assert scores.score(np.array([[1.0], [2.0], [4.0]]), np.array([1, 2, 4])) == {"pearson": pytest.approx(1)}


def test_predictions_come_in_the_order_of_the_split_whatever_the_batch():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    texts = [(" ".join(WORDS[: 1 + (7 * i) % 11]),) for i in range(20)]
    split = Split(texts, [0] * 20)
    with torch.no_grad():
        one_by_one = np.stack([model(**tokenizer(*t, return_tensors="pt")).logits[0].numpy() for t in texts])
    for size in (1, 3, 64):
        np.testing.assert_allclose(predict(model, tokenizer, split, 32, Classes(), size), one_by_one, atol=2e-5)


def test_a_split_is_scored_with_the_tasks_metrics():
    task = Task(
        "x", "classification", {"dev": Split([("good",), ("bad",)], [0, 1])}, ("a", "b", "c"), ("accuracy", "f1_macro")
    )
    metrics, logits = evaluate_split(tiny_model(), tiny_tokenizer(), task, "dev", 16)
    assert set(metrics) == {"accuracy", "f1_macro"}
    assert logits.shape == (2, 3)


def test_outputs_that_are_not_finite_are_refused_and_not_taken_for_a_class():
    model = tiny_model()
    model.classifier.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="the model's outputs are not finite for 2 of 2 texts"):
        predict(model, tiny_tokenizer(), Split([("good film",), ("bad plot",)], [1, 0]), max_length=16, head=Classes())
