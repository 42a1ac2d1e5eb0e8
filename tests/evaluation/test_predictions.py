"""Predictions kept beside a model, and what each example contributes to a metric."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from layerstill.data.tasks import Split
from layerstill.evaluation.predictions import PREDICTIONS_FILE, Predictions, load_predictions, prediction_tensors
from layerstill.heads import Classes
from layerstill.metrics.by_name import METRICS
from layerstill.training.checkpoint import write_tensors


def predictions(n: int = 400, seed: int = 0, wrong: float = 0.25) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(int)
    said = np.where(rng.random(n) < wrong, 1 - labels, labels)
    return Predictions(np.eye(2, dtype=np.float32)[said], labels, np.arange(n))


def test_accuracy_is_right_or_wrong():
    found = Predictions(np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]]), np.array([1, 1, 1]), np.arange(3))
    assert found.contributions("accuracy").tolist() == [1, 0, 1]


@pytest.mark.parametrize("metric", ["matthews_correlation", "f1", "f1_macro"])
def test_contributions_have_the_metric_as_mean_and_its_standard_error(metric):
    found = predictions()
    said = found.logits.argmax(-1)
    values = found.contributions(metric)
    assert values.mean() == pytest.approx(METRICS[metric](found.labels, said))
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 400, (400, 400))
    direct = np.std([METRICS[metric](found.labels[r], said[r]) for r in rows])
    assert values.std() / np.sqrt(400) == pytest.approx(direct, rel=0.12)


def test_pseudo_values_by_hand():
    labels, said = np.array([1, 1, 0, 1, 0]), np.array([1, 0, 0, 1, 1])
    found = Predictions(np.eye(2)[said], labels, np.arange(5))
    whole = METRICS["f1"](labels, said)  # 2 TP / (2 TP + FP + FN) = 4 / 6
    assert whole == pytest.approx(2 / 3)
    # Without one example: a hit 2/4, a miss 4/5, a true negative 4/6, a false alarm 4/5.
    pseudo = 5 * 2 / 3 - 4 * np.array([2 / 4, 4 / 5, 4 / 6, 2 / 4, 4 / 5])
    np.testing.assert_allclose(found.contributions("f1"), pseudo - pseudo.mean() + 2 / 3)


def test_what_is_no_metric_of_few_classes_has_none():
    assert predictions().contributions("pearson") is None
    many = Predictions(np.random.default_rng(0).normal(size=(200, 9)), np.arange(200) % 9, np.arange(200))
    assert many.contributions("f1_macro") is None
    assert predictions(2).contributions("f1") is None


def test_ids_follow_the_texts(tmp_path):
    texts = [("a", "b"), ("c", "d"), ("a", "bc")]
    found = []
    for split in (texts, [("x", "y"), *texts[1:]]):
        tensors = prediction_tensors(np.zeros((3, 2), np.float32), Split(split, [0, 1, 0]), Classes())
        write_tensors(tmp_path / PREDICTIONS_FILE, tensors)
        found.append(load_predictions(tmp_path))
    assert (found[0].ids != found[1].ids).tolist() == [True, False, False]
    assert len(set(found[0].ids)) == 3
    assert found[0].labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize("content", [None, b"x", b""])
def test_what_cannot_be_read_is_none(content, tmp_path):
    if content is not None:
        (tmp_path / PREDICTIONS_FILE).write_bytes(content)
    assert load_predictions(tmp_path) is None


@pytest.mark.parametrize(
    "tensors",
    [
        {"logits": np.zeros((3, 2)), "labels": np.zeros(3)},
        {"logits": np.zeros((3, 2)), "labels": np.zeros(2), "ids": np.zeros(3)},
        {"logits": np.zeros(3), "labels": np.zeros(3), "ids": np.zeros(3)},
    ],
)
def test_what_does_not_fit_together_is_none(tensors, tmp_path):
    save_file(tensors, tmp_path / PREDICTIONS_FILE)
    assert load_predictions(tmp_path) is None
