"""Binary divergences between logits of several labels, against their formulas in float64."""

import numpy as np
import pytest
import torch

from layerstill.knowledge.distances import DISTANCES, BinaryCrossEntropy, BinaryKL


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def kl(s, t, temperature):
    p, q = sigmoid(t / temperature), sigmoid(s / temperature)
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


def cross_entropy(s, t, temperature):
    p, q = sigmoid(t / temperature), sigmoid(s / temperature)
    return -p * np.log(q) - (1 - p) * np.log(1 - q)


PAIRS = [(BinaryKL, kl), (BinaryCrossEntropy, cross_entropy)]
EVERYWHERE = torch.ones(6, 5, dtype=torch.bool)


def logits(seed, rows=6, labels=5):
    return np.random.default_rng(seed).normal(0, 3, (rows, labels))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(("distance", "formula"), PAIRS)
def test_the_sum_is_the_formula_and_elements_are_counted(distance, formula, scaled, temperature):
    s, t = logits(0), logits(1)
    mask = torch.tensor(np.random.default_rng(2).random((6, 5)) < 0.7)
    total, count = distance(temperature=temperature, scaled=scaled)(torch.tensor(s), torch.tensor(t), mask)
    expected = (formula(s, t, temperature) * mask.numpy()).sum() * (temperature**2 if scaled else 1)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert count.item() == mask.sum().item()


@pytest.mark.parametrize(("distance", "formula"), PAIRS)
def test_the_gradient_is_that_of_two_sigmoids(distance, formula):
    # For both: T^2 times (q - p) / T.
    s, t = logits(3), logits(4)
    student = torch.tensor(s, requires_grad=True)
    distance(temperature=2.0)(student, torch.tensor(t), EVERYWHERE)[0].backward()
    np.testing.assert_allclose(student.grad.numpy(), 2 * (sigmoid(s / 2) - sigmoid(t / 2)), rtol=1e-10)


@pytest.mark.parametrize(("distance", "formula"), PAIRS)
def test_a_row_of_mask_broadcasts_over_its_labels_and_half_precision_is_widened(distance, formula):
    s, t = logits(5), logits(6)
    mask = torch.tensor([True, False, True, True, False, True])[:, None]
    half = [torch.tensor(x, dtype=torch.bfloat16) for x in (s, t)]
    total, count = distance()(*half, mask)
    expected = (formula(*(x.double().numpy() for x in half), 1.0) * mask.numpy()).sum()
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert count.item() == 4 * 5


@pytest.mark.parametrize(("distance", "formula"), PAIRS)
def test_far_logits_and_what_is_masked_give_finite_numbers(distance, formula):
    student = torch.tensor([[200.0, -200.0, 1e4, float("inf")]], requires_grad=True)
    teacher = torch.tensor([[-200.0, 200.0, 1e4, float("nan")]])
    total, count = distance()(student, teacher, torch.tensor([[True, True, True, False]]))
    total.backward()
    assert total.item() == pytest.approx(400.0)
    assert count.item() == 3
    assert student.grad.tolist() == [[1.0, -1.0, 0.0, 0.0]]


def test_equal_logits_are_at_no_distance_and_the_entropy_is_what_the_two_differ_by():
    s, t = torch.tensor(logits(7)), torch.tensor(logits(8))
    assert BinaryKL()(t, t, EVERYWHERE)[0].item() == pytest.approx(0, abs=1e-12)
    entropy = BinaryCrossEntropy()(t, t, EVERYWHERE)[0]
    difference = BinaryCrossEntropy()(s, t, EVERYWHERE)[0] - BinaryKL()(s, t, EVERYWHERE)[0]
    assert difference.item() == pytest.approx(entropy.item(), rel=1e-10)


@pytest.mark.parametrize("name", ["reverse_kl", "jsd"])
def test_other_divergences_of_each_label_are_those_of_yes_and_no(name):
    settings = {"temperature": 2.0} | ({"beta": 0.3} if name == "jsd" else {})
    s, t = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True], [True], [False], [True]])
    total, count = DISTANCES[name](**settings).for_labels()(s.masked_fill(~mask, float("nan")), t, mask)
    found = 0.0
    for a, b in zip(s[mask[:, 0]].flatten(), t[mask[:, 0]].flatten(), strict=True):
        p, q = ((x / 2).sigmoid() for x in (a, b))  # student, teacher
        for one, two in ((p, q), (1 - p, 1 - q)):
            if name == "reverse_kl":
                found += one * (one / two).log()
            else:
                mixed = 0.3 * two + 0.7 * one
                found += 0.3 * two * (two / mixed).log() + 0.7 * one * (one / mixed).log()
    assert count == 9
    torch.testing.assert_close(total, 4 * found)
