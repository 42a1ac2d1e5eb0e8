"""The error between two products against the error between the maps that they make."""

import pytest
import torch

from layerstill.knowledge import products
from layerstill.knowledge.products import Product, squared_error

PARTS = [1, 2 * 9 * 9, 2**20]  # one map at a time; two heads of one example; all of them


def random_product(seed, width, scale, tokens=9, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    # As a model hands them over: heads beside each other, so that a head's vectors are not contiguous.
    left, right = (torch.randn(3, tokens, 4, width, generator=rng, dtype=dtype).transpose(1, 2) for _ in "lr")
    return Product(left.requires_grad_(), right.requires_grad_(), scale)


def squared_error_of_maps(student, teacher, tokens):
    """The slow twin: makes both maps."""
    (a, b), (c, d) = (product.factors(tokens, student.left.dtype) for product in (student, teacher))
    return ((a @ b.mT - (c @ d.mT).detach()) ** 2).sum()


def some_tokens(tokens=9):
    return torch.arange(tokens) < torch.tensor([[tokens], [4], [1]])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("width", [3, 5])
def test_error_and_gradients_are_those_of_whole_maps(part, width, monkeypatch):
    monkeypatch.setitem(products.PART_ELEMENTS, "cpu", part)
    student, teacher = random_product(0, 3, 0.7), random_product(1, width, 0.4)
    total = 0
    for i, length in enumerate([9, 4, 1]):
        maps = [(p.left[i] @ p.right[i].mT * p.scale)[:, :length, :length] for p in (student, teacher)]
        total = total + ((maps[0] - maps[1].detach()) ** 2).sum()
    wanted = torch.autograd.grad(total, student[:2])
    for fast in (squared_error, squared_error_of_maps):
        found = fast(student, teacher, some_tokens())
        torch.testing.assert_close(found, total, rtol=1e-12, atol=0)
        for a, b in zip(torch.autograd.grad(found, student[:2]), wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("part", PARTS)
def test_first_and_second_derivatives_are_those_of_finite_differences(part, monkeypatch):
    monkeypatch.setitem(products.PART_ELEMENTS, "cpu", part)
    student, teacher = random_product(0, 2, 0.7, tokens=3), random_product(1, 2, 0.4, tokens=3)

    def error(left, right):
        return squared_error(Product(left, right, student.scale), teacher, some_tokens(3))

    left, right = student[:2]
    assert torch.autograd.gradcheck(error, (left, right))
    assert torch.autograd.gradgradcheck(error, (left, right))
    with_itself, with_constant = (lambda x: error(x, x)), (lambda x: error(x, right.detach()))
    for one_sided in (with_itself, with_constant):
        assert torch.autograd.gradcheck(one_sided, (left,))
        assert torch.autograd.gradgradcheck(one_sided, (left,))


def test_without_gradients_there_is_the_same_error():
    student, teacher = random_product(0, 3, 0.7), random_product(1, 3, 0.4)
    with_gradients = squared_error(student, teacher, some_tokens())
    with torch.no_grad():
        assert squared_error(student, teacher, some_tokens()) == with_gradients
    assert with_gradients.requires_grad


def test_gradients_of_bf16_factors_are_computed_in_float32():
    student, teacher = (random_product(seed, 3, 0.7, dtype=torch.bfloat16) for seed in (0, 1))
    found = squared_error(student, teacher, some_tokens())
    wide = Product(
        student.left.detach().double().requires_grad_(), student.right.detach().double().requires_grad_(), 0.7
    )
    wanted = squared_error_of_maps(wide, Product(teacher.left.double(), teacher.right.double(), 0.7), some_tokens())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=0)
    for a, b in zip(torch.autograd.grad(found, student[:2]), torch.autograd.grad(wanted, wide[:2]), strict=True):
        assert a.dtype == torch.bfloat16
        torch.testing.assert_close(a, b.bfloat16(), rtol=2**-7, atol=1e-5)


@pytest.mark.parametrize("kinds", [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_factors_of_two_precisions_meet_in_the_wider(kinds):
    student, teacher = (random_product(seed, 3, 0.7, dtype=kind) for seed, kind in enumerate(kinds))
    found = squared_error(student, teacher, some_tokens())
    wide = Product(*(x.detach().double().requires_grad_() for x in student[:2]), 0.7)
    wanted = squared_error(wide, Product(*(x.double() for x in teacher[:2]), 0.7), some_tokens())
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(found, student[:2]), torch.autograd.grad(wanted, wide[:2]), strict=True):
        assert a.dtype == kinds[0]
        torch.testing.assert_close(a, b.to(kinds[0]))


def test_padding_takes_no_part_whatever_it_holds():
    student, teacher = random_product(0, 3, 0.7), random_product(1, 3, 0.4)
    wanted = squared_error(student, teacher, some_tokens())
    gradients = torch.autograd.grad(wanted, student[:2])
    spoilt = [x.detach().clone() for x in (*student[:2], *teacher[:2])]
    for x in spoilt:
        x[1, :, 4:] = float("inf")
        x[2, :, 1:] = float("nan")
    student = Product(spoilt[0].requires_grad_(), spoilt[1].requires_grad_(), 0.7)
    found = squared_error(student, Product(*spoilt[2:], 0.4), some_tokens())
    assert found == wanted
    for a, b in zip(torch.autograd.grad(found, student[:2]), gradients, strict=True):
        assert torch.equal(a, b)


def test_autocast_changes_nothing():
    student, teacher = (random_product(seed, 3, 0.7, dtype=torch.float32) for seed in (0, 1))
    wanted = squared_error(student, teacher, some_tokens())
    with torch.autocast("cpu", torch.bfloat16):
        assert squared_error(student, teacher, some_tokens()) == wanted


@pytest.mark.parametrize("nearness", [1e-1, 1e-2, 1e-4])
@pytest.mark.parametrize("offset", [0, 5])
@pytest.mark.parametrize("tokens", [24, 128])
@pytest.mark.parametrize("scale", [1.0, 32**-0.5])
def test_the_error_is_exact_however_near_the_products_are(nearness, offset, tokens, scale):
    """In float32, where a difference of two maps that nearly cancel would leave little."""
    rng = torch.Generator().manual_seed(0)
    teacher = [torch.randn(2, 4, tokens, 32, generator=rng) + offset for _ in "lr"]
    student = [(t + nearness * torch.randn(t.shape, generator=rng)).requires_grad_() for t in teacher]
    exact = [s.detach().double().requires_grad_() for s in student]
    difference = exact[0] @ exact[1].mT - teacher[0].double() @ teacher[1].double().mT
    wanted = ((difference * scale) ** 2).sum()
    found = squared_error(Product(*student, scale), Product(*teacher, scale), torch.ones(2, tokens, dtype=torch.bool))
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    for a, b in zip(torch.autograd.grad(found, student), torch.autograd.grad(wanted, exact), strict=True):
        assert (a - b).norm() < 1e-4 * b.norm()


def test_the_error_between_equal_products_is_nothing():
    product = random_product(0, 8, 1.0, tokens=64, dtype=torch.float32)
    same = Product(product.left.clone(), product.right.clone(), 1.0)
    assert squared_error(product, same, torch.ones(3, 64, dtype=torch.bool)) == 0
