"""Weight noise and slices: lengths of filters, weights put back, values at known places of a known surface."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerstill.data.tasks import Split
from layerstill.evaluation.flatness import Weights, mean_loss, slice_1d, slice_2d, weight_noise
from layerstill.evaluation.predict import batches_of
from layerstill.heads import Classes, Scores
from tests.tiny import WORDS, tiny_model, tiny_tokenizer


def state_of(model) -> dict:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_every_filter_of_a_direction_is_as_long_as_the_models():
    model = tiny_model()
    made = Weights(model).direction(0, "x")
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    for parameter, direction in zip(matrices, made, strict=True):
        torch.testing.assert_close(direction.norm(dim=1), parameter.detach().norm(dim=1), rtol=1e-5, atol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(made, Weights(model).direction(0, "x"), strict=True))
    assert not torch.equal(made[1], Weights(model).direction(1, "x")[1])


def test_filters_of_gpt2_are_columns():
    model = tiny_model("gpt2")
    weight = model.transformer.h[0].mlp.c_fc.weight
    at = next(i for i, p in enumerate(p for p in model.parameters() if p.ndim >= 2) if p is weight)
    direction = Weights(model).direction(0, "x")[at]
    torch.testing.assert_close(direction.norm(dim=0), weight.detach().norm(dim=0), rtol=1e-5, atol=1e-7)
    assert not torch.allclose(direction.norm(dim=1), weight.detach().norm(dim=1))


def test_scaling_a_layer_scales_its_direction():
    model = tiny_model()
    before = Weights(model).direction(0, "x")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)  # a power of two: exact
    after = Weights(model).direction(0, "x")
    assert all(torch.equal(8 * a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("family", ["bert", "albert", "gpt2"])
def test_weights_come_back_bit_for_bit_whatever_happens(family):
    model = tiny_model(family)
    before = state_of(model)
    weights = Weights(model)
    first, second = weights.direction(0, "a"), weights.direction(0, "b")
    with weights.moved((0.1, first), (-1 / 3, second)):
        moved = state_of(model)
    assert same(before, state_of(model))
    changed = {name for name in before if not torch.equal(before[name], moved[name])}
    named = dict(model.named_parameters())
    assert changed == {name for name, p in named.items() if p.ndim >= 2 and p.abs().sum() > 0}
    with pytest.raises(ZeroDivisionError), weights.moved((0.1, first)):
        raise ZeroDivisionError
    assert same(before, state_of(model))
    weight_noise(model, {"train": lambda: 0.0}, seed=0, draws=2)
    slice_1d(model, {"train": lambda: 0.0}, 0)
    slice_2d(model, lambda: 0.0, 0, (-0.3, 0.7), (0.1, 0.9))
    assert same(before, state_of(model))


class Bowl(nn.Module):
    """One filter of 50 weights and a bias; the surface is the squared distance from where it starts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(1.0, 51)[None].double())
        self.bias = nn.Parameter(torch.ones(1).double())
        self.start = self.weight.detach().clone()

    def height(self) -> float:
        return (((self.weight - self.start) ** 2).sum() + (self.bias - 1) ** 2).item()


def test_noise_on_a_bowl_has_the_height_of_its_length():
    bowl = Bowl()
    length = float(bowl.start.norm())
    made = weight_noise(bowl, {"train": bowl.height, "dev": lambda: 2.0}, seed=0, sigmas=(0, 0.1, 0.5), draws=4)
    np.testing.assert_allclose(made["train"]["mean"], [0, (0.1 * length) ** 2, (0.5 * length) ** 2], rtol=1e-9)
    np.testing.assert_allclose(made["train"]["sd"], [0, 0, 0], atol=1e-9)
    assert made["dev"] == {"mean": [2.0, 2.0, 2.0], "sd": [0.0, 0.0, 0.0]}
    assert (made["sigmas"], made["draws"]) == ([0, 0.1, 0.5], 4)


def test_mean_and_sd_are_those_of_the_draws():
    bowl, seen = Bowl(), []

    def first_weight() -> float:
        seen.append(bowl.weight[0, 0].item())
        return seen[-1]

    made = weight_noise(bowl, {"train": first_weight}, seed=3, sigmas=(0.2,), draws=5)
    assert len(set(seen)) == 5
    assert made["train"]["mean"] == [pytest.approx(np.mean(seen))]
    assert made["train"]["sd"] == [pytest.approx(np.std(seen, ddof=1))]


def test_slices_of_a_bowl_are_parabolas():
    bowl = Bowl()
    length = float(bowl.start.norm())
    line = slice_1d(bowl, {"train": bowl.height}, 0)
    np.testing.assert_allclose(line["train"], [(a * length) ** 2 for a in line["alpha"]], atol=1e-8)
    made = slice_2d(bowl, bowl.height, 0)
    one, two = (Weights(bowl).direction(0, "slice", k)[0] for k in range(2))
    for a, row in zip(made["alpha"], made["loss"], strict=True):
        for b, value in zip(made["beta"], row, strict=True):
            assert value == pytest.approx(float(((a * one + b * two) ** 2).sum()), rel=1e-9, abs=1e-9)
    middle = len(made["beta"]) // 2
    np.testing.assert_allclose([row[middle] for row in made["loss"]], line["train"][::2], rtol=1e-9, atol=1e-9)


def test_what_is_not_finite_is_left_out_of_a_slice():
    bowl = Bowl()
    assert slice_1d(bowl, {"train": lambda: math.inf}, 0, (0.0,))["train"] == [None]
    assert slice_2d(bowl, lambda: math.nan, 0, (0.0,), (0.0,))["loss"] == [[None]]


def test_the_middle_of_a_slice_is_the_models_loss_whatever_the_batches():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    texts = [(" ".join(WORDS[: 1 + (7 * i) % 11]),) for i in range(20)]
    split = Split(texts, [i % 3 for i in range(20)])
    with torch.no_grad():
        one_by_one = torch.cat([model(**tokenizer(*t, return_tensors="pt")).logits for t in texts])
    expected = F.cross_entropy(one_by_one, torch.tensor(split.labels)).item()
    for size in (3, 64):
        batches = batches_of(split, tokenizer, 32, "cpu", Classes(), size)
        assert mean_loss(model, batches, head=Classes()) == pytest.approx(expected, rel=1e-5)
        middle = slice_1d(model, {"train": lambda batches=batches: mean_loss(model, batches, Classes())}, 0, (0.0,))
        assert middle["train"] == [pytest.approx(expected, rel=1e-5)]


def test_the_loss_of_a_score_is_its_squared_error():
    model, tokenizer = tiny_model(labels=1), tiny_tokenizer()
    split = Split([("good",), ("bad film",)], [0.5, 2.0])
    with torch.no_grad():
        scores = [model(**tokenizer(*t, return_tensors="pt")).logits.item() for t in split.texts]
    expected = ((scores[0] - 0.5) ** 2 + (scores[1] - 2.0) ** 2) / 2
    assert mean_loss(model, batches_of(split, tokenizer, 32, "cpu", Scores()), head=Scores()) == pytest.approx(expected)
