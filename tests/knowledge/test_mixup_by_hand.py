"""Mixup and its consistency term, each written out by hand."""

import random

import numpy as np
import pytest
import torch
from scipy import stats

from layerstill.heads import Classes
from layerstill.knowledge.views import Mixup
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training.module import DistillationModule
from tests.tiny import batch, no_dropout, tiny_model

HIDDEN = {"signal": "hidden_states", "mapping": "last", "distance": "mse"}


def by_name(objectives) -> dict:
    return {objective.name: objective for objective in objectives}


def module_of(objectives: dict, **student) -> DistillationModule:
    """A module of one stage with these objectives, its student moved away from the teacher it was cut from."""
    stage = {"epochs": 1, "learning_rate": 1e-3, "objectives": objectives}
    recipe = Recipe.from_data({"student": student, "stages": [stage]})
    teacher = tiny_model("bert", sharp=2.0, **no_dropout("bert")).double()
    torch.manual_seed(1)
    small = build_student(teacher, 2, recipe.student, seed=0)
    module = DistillationModule(small, teacher, recipe.stages[0], 0, Classes()).double().train()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return module


def first_layer_input(module: DistillationModule, data: dict) -> torch.Tensor:
    """What the student's layer 1 gets on the objectives' view, which comes after any clean pass for a target."""
    seen = []
    layer = module.student.bert.encoder.layer[0]
    handle = layer.register_forward_hook(lambda _, args, output: seen.append(args[0].detach()))
    module(**data)
    handle.remove()
    return seen[-1]


def lambda_of(mixed: torch.Tensor, plain: torch.Tensor) -> float:
    """lambda in mixed = lambda plain + (1 - lambda) plain of the partner; 1 for what is not mixed."""
    partner = plain.flip(0)
    apart = plain - partner
    lam = ((mixed - partner) * apart).sum() / apart.square().sum()
    torch.testing.assert_close(mixed, lam * plain + (1 - lam) * partner)
    return float(lam)


@pytest.mark.parametrize("alpha", [0.4, 1.0, 3.0])
def test_an_example_never_counts_less_than_its_partner(alpha):
    """The drawn lambda is max(lambda, 1 - lambda) of a Beta(alpha, alpha): a Beta folded at one half."""
    rng = random.Random(3)
    drawn = np.array([Mixup(alpha=alpha).draw(rng).lam for _ in range(2000)])
    assert drawn.min() >= 0.5
    beta = stats.beta(alpha, alpha)
    assert stats.kstest(drawn, lambda x: np.where(x < 0.5, 0, beta.cdf(x) - beta.cdf(1 - x))).pvalue > 0.01


def test_nor_does_it_in_what_a_student_is_fed():
    module = module_of({"h": HIDDEN | {"alignment": "linear", "view": "mixup"}})
    data = batch(tokens=7, lengths=[7, 7, 7, 7])
    plain = module.student.bert.embeddings(data["input_ids"]).detach()
    lambdas = []
    for step in range(40):
        module.clock.step = step
        lambdas.append(lambda_of(first_layer_input(module, data), plain))
    assert min(lambdas) >= 0.5
    assert max(lambdas) > 0.9
    assert len({round(lam, 6) for lam in lambdas}) == 40


def hidden(model: torch.nn.Module, embedded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Last hidden states of a tiny BERT on embeddings `(B, N, D)` under a mask `(B, N)`."""
    extended = (1.0 - mask[:, None, None, :].to(embedded)) * torch.finfo(embedded.dtype).min
    return model.bert.encoder(embedded, attention_mask=extended)[0]


def mean_square(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (a - b)[mask.bool()].square().mean()


@pytest.mark.parametrize("width", [None, 24])
@pytest.mark.parametrize("target", ["student", {"moving_average": {"decay": 0.5}}])
def test_what_a_student_should_be_consistent_with_is_mapped_too(target, width):
    """lambda MSE(W h_mixed, V h_clean) + (1 - lambda) MSE(W h_mixed, V h_partner): V is W, or under a moving average
    the average of W, whose weights have stayed behind here. The student's width must not matter."""
    consistent = HIDDEN | {"alignment": {"same_as": {"objective": "h"}}, "target": target, "view": "mixup"}
    sizes = {"hidden_size": width, "attention_heads": 4} if width else {}
    module = module_of({"h": HIDDEN | {"alignment": "linear", "view": "mixup"}, "consistent": consistent}, **sizes)
    data = batch()
    mask, partner_mask = data["attention_mask"], data["attention_mask"].flip(0)

    of_target, of_targets_map = module.student, by_name(module.objectives)["h"].aligner.student
    if target != "student":
        of_target, of_targets_map = (
            module.average["student"],
            by_name(module.average["objectives"])["h"].aligner.student,
        )
    found = module(**data)["terms"]["consistent"].value

    own_map = by_name(module.objectives)["h"].aligner.student
    embedded = module.student.bert.embeddings(data["input_ids"])
    lam = lambda_of(first_layer_input(module, data), embedded.detach())
    mixed = hidden(module.student, lam * embedded + (1 - lam) * embedded.flip(0), mask | partner_mask)
    clean = hidden(of_target, of_target.bert.embeddings(data["input_ids"]), mask)

    def expected(map_of_target) -> torch.Tensor:
        mapped = map_of_target(clean)
        own = mean_square(own_map(mixed, 0), mapped, mask)
        return lam * own + (1 - lam) * mean_square(own_map(mixed, 0), mapped.flip(0), partner_mask)

    torch.testing.assert_close(found, expected(lambda h: of_targets_map(h, 0)))
    if target != "student":
        assert abs(expected(lambda h: own_map(h, 0)) - found) > 1e-3 * found, "the live map is another"


def test_on_clean_input_a_student_agrees_with_itself():
    """Both sides are the same vectors under the same map, so the term is 0; without its map on one side it is not."""
    consistent = HIDDEN | {"alignment": {"same_as": {"objective": "h"}}, "target": "student"}
    module = module_of({"h": HIDDEN | {"alignment": "linear"}, "consistent": consistent})
    terms = module(**batch())["terms"]
    assert terms["consistent"].value.item() == pytest.approx(0, abs=1e-12)
    assert terms["h"].value.item() > 1e-3


@pytest.mark.parametrize("recipe", ["cr-ild", "cr-ild-released"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_gradient_checkpoints_mix_again_what_was_mixed(family, recipe):
    """The second forward pass of a checkpoint must see the mixture, too: transformers before 5.23 lost it."""

    def gradients(checkpoints: bool) -> dict[str, torch.Tensor]:
        loaded = Recipe.load(recipe)
        teacher = tiny_model(family, sharp=2.0, **no_dropout(family))
        torch.manual_seed(1)
        student = build_student(teacher, 2, loaded.student, seed=0)
        if checkpoints:
            student.activation_checkpointing_enable({"use_reentrant": False})
        module = DistillationModule(student, teacher, loaded.stages[0], 0, Classes()).train()
        module.clock.epoch, module.clock.epochs = 1, 2
        module(**batch())["loss"].backward()
        return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradient, checkpointed[name], msg=name)
