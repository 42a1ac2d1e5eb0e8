"""Cheap dropout against torch's: the same distribution, the same mathematics for a given mask, gradients included."""

import math
import threading
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F

from layerstill.training import module as distillation
from layerstill.training.dropout import CheapDropout, keep_mask
from tests.tiny import batch
from tests.training.test_module import HIDDEN, make, recipe_of

SHAPE = (2, 3, 5, 4)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_mask_drops_with_its_probability_and_keeps_the_mean(p, dtype):
    torch.manual_seed(0)
    like = torch.empty(401, 503, dtype=dtype)
    mask = keep_mask(like, p)
    assert mask.dtype == dtype
    assert mask.shape == like.shape
    kept = (mask != 0).double()
    n = mask.numel()
    assert abs(kept.mean() - (1 - p)) < 4 * math.sqrt(p * (1 - p) / n) + 2**-16
    scale = torch.tensor(1 / (1 - round(p * 2**16) / 2**16), dtype=torch.float64).to(dtype)
    assert set(mask.unique().tolist()) == {0.0, scale.item()}
    # Neighbours come from one draw of 64 bits: they must know nothing of each other, nor of the row above.
    for a, b in ((kept[:, :-1], kept[:, 1:]), (kept[:, :-3], kept[:, 3:]), (kept[:-1], kept[1:])):
        correlation = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        assert abs(correlation) < 4 / math.sqrt(n)


def test_the_mask_depends_on_the_seed_alone():
    torch.manual_seed(3)
    first = keep_mask(torch.empty(7, 9), 0.3)
    second = keep_mask(torch.empty(7, 9), 0.3)
    torch.manual_seed(3)
    assert torch.equal(first, keep_mask(torch.empty(7, 9), 0.3))
    assert not torch.equal(first, second)


def test_everything_or_nothing():
    x = torch.randn(4, 6)
    assert torch.equal(keep_mask(x, 1.0), torch.zeros_like(x))
    assert torch.equal(keep_mask(x, 0.0), torch.ones_like(x))
    with CheapDropout():
        assert torch.equal(F.dropout(x, 0.4, training=False), x)
        assert torch.equal(F.dropout(x, 0.0), x)


def test_dropout_multiplies_by_the_mask_and_so_does_its_gradient():
    x = torch.randn(6, 8, requires_grad=True)
    torch.manual_seed(5)
    mask = keep_mask(x, 0.25)
    torch.manual_seed(5)
    with CheapDropout():
        out = torch.nn.Dropout(0.25)(x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(out, x * mask)
    assert torch.equal(gradient, mask)


def masks() -> dict[str, dict]:
    hidden = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    hidden[1, ..., 3:] = False
    return {
        "none": {},
        "padding": {"attn_mask": hidden},
        "added": {"attn_mask": torch.randn(2, 3, 5, 5, dtype=torch.float64)},
        "causal": {"is_causal": True},
    }


@pytest.mark.parametrize("kind", masks())
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_with_a_given_mask_is_the_textbooks(kind, scale):
    options = masks()[kind]
    q, k, v = (torch.randn(SHAPE, dtype=torch.float64, requires_grad=True) for _ in range(3))
    torch.manual_seed(7)
    mask = keep_mask(torch.empty(2, 3, 5, 5, dtype=torch.float64), 0.3)
    torch.manual_seed(7)
    with CheapDropout():
        found = F.scaled_dot_product_attention(q, k, v, dropout_p=0.3, scale=scale, **options)
    scores = torch.einsum("bhid,bhjd->bhij", q, k) * (scale or 4**-0.5)
    allowed = options.get("attn_mask", torch.ones(5, 5, dtype=torch.bool).tril() if kind == "causal" else None)
    if kind == "added":
        scores = scores + allowed
    elif allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    wanted = (scores.softmax(-1) * mask) @ v
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(wanted)
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), [q, k, v]),
        torch.autograd.grad((wanted * weights).sum(), [q, k, v]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_attention_keeps_its_mean():
    torch.manual_seed(0)
    q, k, v = (torch.randn(SHAPE) for _ in range(3))
    with CheapDropout():
        draws = [F.scaled_dot_product_attention(q, k, v, dropout_p=0.3) for _ in range(2000)]
    mean, error = torch.stack(draws).mean(0), torch.stack(draws).std(0) / math.sqrt(2000)
    assert (abs(mean - F.scaled_dot_product_attention(q, k, v)) < 5 * error + 1e-6).all()


def test_a_query_that_sees_nothing_stays_finite():
    q = torch.randn(SHAPE, requires_grad=True)
    blind = torch.zeros(2, 1, 5, 5, dtype=torch.bool)
    with CheapDropout():
        out = F.scaled_dot_product_attention(q, q, q, blind, dropout_p=0.2)
    (gradient,) = torch.autograd.grad(out.sum(), q)
    assert out.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "gpt2"])
def test_training_draws_from_it_and_evaluation_from_nothing(family, monkeypatch):
    module = make(recipe_of({"h": HIDDEN}), family=family)
    calls = []
    monkeypatch.setattr("layerstill.training.dropout.keep_mask", lambda x, p: calls.append(p) or keep_mask(x, p))
    with_dropout = any(isinstance(m, torch.nn.Dropout) and m.p for m in module.student.modules())
    module.train()
    module(**batch())
    assert bool(calls) == with_dropout
    calls.clear()
    module.eval()
    module(**batch())
    assert not calls


def test_with_gradient_checkpoints_gradients_are_those_of_torchs_own_dropout(monkeypatch):
    """The second forward pass of a checkpoint happens outside and must draw what the first drew."""

    def gradients(checkpoints: bool) -> dict[str, torch.Tensor]:
        module = make(recipe_of({"h": HIDDEN}))
        if checkpoints:
            module.student.activation_checkpointing_enable({"use_reentrant": False})
        else:
            monkeypatch.setattr(distillation, "CheapDropout", nullcontext)
        module.train()
        torch.manual_seed(11)
        module(**batch())["loss"].backward()
        monkeypatch.undo()
        return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradient, checkpointed[name], msg=name)


def test_other_threads_and_later_times_have_torchs_own():
    own = F.dropout, F.scaled_dot_product_attention
    x = torch.ones(1, 1, 64, 4)
    found = {}

    def elsewhere() -> None:
        torch.manual_seed(1)
        found["other"] = F.dropout(x, 0.5)
        found["attention"] = F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)

    def after(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(seed)
        return own[0](x, 0.5), own[1](x, x, x, dropout_p=0.5)

    with CheapDropout():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        with CheapDropout():
            pass
        torch.manual_seed(1)
        assert not torch.equal(F.dropout(x, 0.5), found["other"]), "still entered after an inner one was left"
    plain = after(1)
    assert torch.equal(found["other"], plain[0])
    assert torch.equal(found["attention"], plain[1])
    with pytest.raises(ZeroDivisionError), CheapDropout():
        raise ZeroDivisionError
    assert (F.dropout, F.scaled_dot_product_attention) == own
