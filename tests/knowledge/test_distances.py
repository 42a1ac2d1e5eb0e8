"""Properties that every distance has."""

import pytest
import torch

from layerstill.knowledge.distances import DISTANCES, KL, Cosine, NormalizedSquared, SoftCrossEntropy
from layerstill.schema import Spec

NAMES = [name for name, word in DISTANCES.items() if not word.remembers]  # a memory is tested in test_memory.py


def tensors(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=rng, dtype=torch.float64, requires_grad=True) for _ in range(2)]


MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()[:, :, None]


@pytest.mark.parametrize("name", NAMES)
def test_masked_elements_change_neither_value_nor_gradient(name):
    s, t = tensors(2, 5, 6)
    distance = DISTANCES[name]()
    total, count = distance(s, t, MASK)
    (gradient,) = torch.autograd.grad(total, s)
    assert gradient[0, 3:].abs().sum() == 0
    changed = torch.where(MASK, s, 1e4 * torch.ones_like(s))
    again, count_again = distance(changed, t, MASK)
    assert again.item() == pytest.approx(total.item(), rel=1e-12)
    assert count.item() == count_again.item()
    assert count.item() == (8 if distance.counts == "rows" else 48)


ALL = [*(DISTANCES[name]() for name in NAMES), NormalizedSquared(mean_over="elements"), KL(temperature=3, scaled=False)]


@pytest.mark.parametrize("distance", ALL, ids=str)
def test_partly_masked_rows_only_see_what_is_left(distance):
    s, t = tensors(2, 5, 6)
    mask = torch.tensor([1, 1, 1, 1, 0, 0]).bool()
    total, count = distance(s, t, mask)
    cut, cut_count = distance(s[..., :4], t[..., :4], torch.ones(1, dtype=torch.bool))
    assert total.item() == pytest.approx(cut.item(), rel=1e-12)
    assert count.item() == cut_count.item()


@pytest.mark.parametrize("name", [n for n in NAMES if n not in {"soft_cross_entropy", "infonce"}])
def test_a_tensor_is_at_distance_zero_from_itself(name):
    s, _ = tensors(2, 5, 6)
    total, _ = DISTANCES[name]()(s, s.detach(), MASK)
    assert total.item() == pytest.approx(0, abs=1e-12)
    (gradient,) = torch.autograd.grad(total, s)
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_sums_and_counts_of_parts_add_up(name):
    s, t = tensors(6, 5, 4)
    mask = torch.rand(6, 5, 1, generator=torch.Generator().manual_seed(0)) < 0.6
    distance = DISTANCES[name]()
    whole = torch.stack(distance(s, t, mask))
    parts = sum(torch.stack(distance(s[i : i + 2], t[i : i + 2], mask[i : i + 2])) for i in (0, 2, 4))
    torch.testing.assert_close(whole, parts)


@pytest.mark.parametrize("distance", [Cosine(), NormalizedSquared()], ids=str)
def test_a_row_of_zeros_has_no_direction_and_gets_no_gradient(distance):
    one = torch.ones(1, dtype=torch.bool)
    zero, some = torch.zeros(1, 4, requires_grad=True), torch.ones(1, 4)
    value, _ = distance(zero, some, one)
    assert value == 1
    assert torch.autograd.grad(value, zero)[0].abs().max() == 0
    assert distance(zero, torch.zeros(1, 4), one)[0] == 0


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_compare_is_zero_and_not_nan(name):
    s, t = tensors(2, 5, 6)
    total, count = DISTANCES[name]()(s, t, torch.zeros(1, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(total, s, allow_unused=True)
    assert total.item() == 0
    assert count.item() == 0
    assert gradient is None or gradient.abs().sum() == 0


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_widened(name):
    s, t = (x.detach().bfloat16() for x in tensors(2, 5, 6))
    total, _ = DISTANCES[name]()(s, t, MASK)
    assert total.dtype == torch.float32


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_soft_cross_entropy_is_kl_plus_the_teachers_entropy(temperature):
    s, t = tensors(7, 4)
    ones = torch.ones(1, dtype=torch.bool)
    kl, _ = KL(temperature=temperature, scaled=False)(s, t, ones)
    soft, _ = SoftCrossEntropy(temperature=temperature, scaled=False)(s, t, ones)
    p = (t / temperature).softmax(-1)
    assert (soft - kl).item() == pytest.approx(-(p * p.log()).sum().item(), rel=1e-12)
    gradients = [torch.autograd.grad(value, s, retain_graph=True)[0] for value in (kl, soft)]
    torch.testing.assert_close(*gradients)


def test_every_distance_is_a_spec_with_a_docstring():
    for name, cls in DISTANCES.items():
        assert issubclass(cls, Spec), name
        assert cls.__doc__, name
