"""What several labels are trained on: the formulas, and what may not change a loss or a gradient."""

import pytest
import torch

from layerstill.heads import MultiLabel
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training.module import DistillationModule
from tests.tiny import batch, no_dropout, tiny_model

HEAD = MultiLabel()


def module_for(recipe: str, *sets: str) -> DistillationModule:
    """Teacher 4 layers, student 2, no dropout, in float64 so that sums can be compared."""
    loaded = Recipe.load(recipe, sets)
    teacher = tiny_model(sharp=2.0, **no_dropout("bert")).double()
    torch.manual_seed(1)
    student = build_student(teacher, 2, loaded.student, seed=0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    module = DistillationModule(student, teacher, loaded.stages[0], seed=0, head=HEAD).double()
    module.clock.epoch, module.clock.epochs = 1, 2
    return module.train()


def labelled_batch() -> dict:
    """Four texts of unequal length; two labels of the first are not known."""
    labels = HEAD.pad_labels([[1, -100, -100], [0, 1, 1], [0, 0, 0], [1, 1, 0]], 9)
    return batch(lengths=[9, 3, 6, 8]) | {"labels": labels}


def loss_and_gradients(module, data, units=None):
    out = module(units=units, **data)
    out["loss"].backward()
    return {name: term.value.detach() for name, term in out["terms"].items()}


def gradients(module):
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return found


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


TEMPERATURE = "stages.0.objectives.soft targets.distance={kl: {temperature: 2}}"


def test_kd_is_binary_cross_entropy_and_binary_kl_each_a_mean_over_what_is_known():
    module, data = module_for("kd", TEMPERATURE), labelled_batch()
    terms = loss_and_gradients(module, data)
    inputs = {name: data[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        s, t = module.student(**inputs).logits, module.teacher(**inputs).logits
    known, y = data["labels"] >= 0, data["labels"].double()
    q = torch.sigmoid(s)
    errors = -(y * q.log() + (1 - y) * (1 - q).log())[known]
    assert len(errors) == 10
    assert terms["task"].item() == pytest.approx(errors.mean().item(), rel=1e-9)
    p, q = torch.sigmoid(t / 2), torch.sigmoid(s / 2)
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert terms["soft targets"].item() == pytest.approx(4 * divergence.mean().item(), rel=1e-9)


@pytest.mark.parametrize("recipe", ["kd", "hid-seq", "tinybert", "rail-kd-l", "cr-ild"])
def test_more_padding_changes_nothing(recipe):
    module, data = module_for(recipe), labelled_batch()
    wide = {
        name: torch.nn.functional.pad(values, (0, 3)) if values.ndim == 2 and name != "labels" else values
        for name, values in data.items()
    }
    first, of_first = loss_and_gradients(module, data), gradients(module)
    second, of_second = loss_and_gradients(module, wide), gradients(module)
    assert_same(first, second)
    assert_same(of_first, of_second)


@pytest.mark.parametrize("recipe", ["kd", "hid-seq", "tinybert", "rail-kd-l"])
def test_a_batch_in_parts_gives_the_loss_and_gradient_of_the_whole(recipe):
    module, data = module_for(recipe), labelled_batch()
    whole, of_whole = loss_and_gradients(module, data), gradients(module)
    units = module.count_units(data)
    terms: dict = {}
    for rows in (slice(0, 1), slice(1, 4)):
        for name, value in loss_and_gradients(module, {k: v[rows] for k, v in data.items()}, units).items():
            terms[name] = terms.get(name, 0) + value
    assert_same(whole, terms)
    assert_same(of_whole, gradients(module))


def test_a_text_without_any_known_label_teaches_by_soft_targets_alone():
    module, data = module_for("kd"), labelled_batch()
    alone = {name: values[:1] for name, values in data.items()}
    alone["labels"] = HEAD.without_labels(alone["labels"])
    terms = loss_and_gradients(module, alone)
    assert terms["task"].item() == 0
    assert terms["soft targets"].item() > 0
