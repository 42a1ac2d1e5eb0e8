"""The Hessian's products, top eigenvalue and trace against explicit Hessians."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerstill.data.tasks import Split
from layerstill.evaluation import curvature
from layerstill.evaluation.curvature import Hessian, hessian_of
from layerstill.evaluation.predict import batches_of
from layerstill.heads import Classes, Scores
from tests.tiny import FAMILIES, WORDS, tiny_model, tiny_tokenizer

EIGENVALUES = np.array([7.0, 3.0, 2.5, 1.0, 0.5, 0.0, -0.25, -9.0, *np.linspace(-1, 1, 22)])


@pytest.fixture
def quadratic():
    """A quadratic form with known eigenvalues in two parameters and two parts, and its matrix."""
    size = len(EIGENVALUES)
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))
    matrix = basis @ np.diag(EIGENVALUES) @ basis.T
    tensor = torch.from_numpy(matrix)
    one, two = nn.Parameter(torch.ones(4, 5).double()), nn.Parameter(torch.zeros(size - 20).double())

    def half(share: float) -> torch.Tensor:
        x = torch.cat([one.flatten(), two])
        return share * x @ tensor @ x / 2

    return Hessian([lambda: half(0.25), lambda: half(0.75)], [one, two]), matrix


def test_products_of_a_quadratic_are_its_matrix(quadratic):
    hessian, matrix = quadratic
    np.testing.assert_allclose(np.stack([hessian.times(row) for row in np.eye(len(matrix))]), matrix, atol=1e-12)


def test_the_top_eigenvalue_is_the_most_positive_one(quadratic):
    hessian, _ = quadratic
    assert hessian.top_eigenvalue(seed=0) == pytest.approx(7.0, rel=1e-3)


def test_the_trace_is_met_within_its_standard_error(quadratic):
    hessian, matrix = quadratic
    trace, error = hessian.trace(seed=0, probes=400)
    # The variance of v^T A v over random signs is 2 (|A|^2 - |diag A|^2), and the standard error its root over n.
    spread = 2 * ((matrix**2).sum() - (np.diag(matrix) ** 2).sum())
    assert error == pytest.approx(np.sqrt(spread / 400), rel=0.15)
    assert abs(trace - EIGENVALUES.sum()) < 4 * error
    diagonal = Hessian([lambda: (p**2).sum()], [p := nn.Parameter(torch.zeros(6).double())])
    assert diagonal.trace(0, probes=3) == (pytest.approx(12.0), pytest.approx(0.0))


def test_an_eigenvalue_that_does_not_settle_is_left_out_and_said(quadratic, monkeypatch, caplog):
    hessian, _ = quadratic
    monkeypatch.setattr(curvature, "RESTARTS", 1)
    monkeypatch.setattr(curvature, "BASIS", 2)
    monkeypatch.setattr(curvature, "TOLERANCE", 1e-12)
    with caplog.at_level(logging.WARNING, "layerstill"):
        assert hessian.top_eigenvalue(seed=0) is None
    assert "has not settled after 1 restarts" in caplog.text


def tiny_case(head):
    """A model of a few hundred weights in float64, four equally long texts, and their loss's gradient, flat."""
    regression = not head.named
    labels = 1 if regression else 3
    model = tiny_model(layers=1, width=4, heads=2, labels=labels, intermediate_size=4, max_position_embeddings=6)
    model.double()
    texts = [("good film",), ("bad plot",), ("fine the",), ("poor a",)]
    split = Split(texts, [0.5, 1.0, 2.0, 0.0] if regression else [2, 0, 1, 1])
    inputs = tiny_tokenizer()([text for (text,) in texts], return_tensors="pt")
    targets, parameters = torch.tensor(split.labels), list(model.parameters())

    def gradient() -> np.ndarray:
        logits = model(**inputs).logits
        loss = ((logits[:, 0] - targets) ** 2).mean() if regression else F.cross_entropy(logits, targets)
        rows = torch.autograd.grad(loss, parameters, materialize_grads=True, allow_unused=True)
        return torch.cat([row.flatten() for row in rows]).numpy()

    def product(v: np.ndarray) -> np.ndarray:
        """The Hessian times v, by a central difference of gradients."""
        start = nn.utils.parameters_to_vector(parameters).detach()
        sides = []
        for sign in (1, -1):
            nn.utils.vector_to_parameters(start + sign * 1e-5 * torch.from_numpy(v), parameters)
            sides.append(gradient())
        nn.utils.vector_to_parameters(start, parameters)
        return (sides[0] - sides[1]) / 2e-5

    return hessian_of(model, batches_of(split, tiny_tokenizer(), 6, "cpu", head, 3), head), product


@pytest.mark.parametrize("head", [Classes(), Scores()], ids=lambda head: head.word)
def test_a_tiny_models_products_are_differences_of_its_gradients(head):
    hessian, product = tiny_case(head)
    rng = np.random.default_rng(0)
    for _ in range(5):
        v = rng.standard_normal(hessian.size)
        v /= np.linalg.norm(v)  # a short step, for the difference's sake
        expected = product(v)
        np.testing.assert_allclose(hessian.times(v), expected, atol=1e-6 * np.abs(expected).max())


def test_a_tiny_models_eigenvalue_and_trace_are_those_of_its_explicit_hessian():
    hessian, product = tiny_case(Classes())
    explicit = np.stack([product(row) for row in np.eye(hessian.size)])
    top = np.linalg.eigvalsh((explicit + explicit.T) / 2)[-1]
    assert hessian.top_eigenvalue(seed=0) == pytest.approx(top, rel=2e-3)
    trace, error = hessian.trace(seed=0)
    assert abs(trace - np.trace(explicit)) < 4 * error


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_twice_differentiable_on_padded_batches(family):
    model = tiny_model(family, layers=2, width=16, heads=2).double()
    texts = [(" ".join(WORDS[(5 * i) % 9 : (5 * i) % 9 + 1 + i % 5]),) for i in range(6)]
    split = Split(texts, [i % 3 for i in range(6)])
    whole = hessian_of(model, batches_of(split, tiny_tokenizer(False), 16, "cpu", Classes(), 6), Classes())
    apart = hessian_of(model, batches_of(split, tiny_tokenizer(False), 16, "cpu", Classes(), 1), Classes())
    v = np.random.default_rng(0).standard_normal(whole.size)
    products = whole.times(v), apart.times(v)
    assert np.abs(products[0]).max() > 0
    tolerance = 1e-4 if family == "gemma3_text" else 1e-8  # its norms compute in float32
    np.testing.assert_allclose(*products, atol=tolerance * np.abs(products[0]).max())
