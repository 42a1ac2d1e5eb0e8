"""Mixup for any recipe: one word of a stage, which an objective's own word overrules."""

import pytest
import torch

from layerstill.errors import UserError
from layerstill.heads import Classes
from layerstill.knowledge.views import Clean, Mixup
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training.module import DistillationModule
from tests.tiny import EXAMPLES, batch, no_dropout, task_recipes, tiny_model


def mixed(name: str) -> Recipe:
    return Recipe.load(name, tuple(f"stages.{i}.view=mixup" for i in range(len(Recipe.load(name).stages))))


def modules(recipe: Recipe, family: str = "bert"):
    for stage in recipe.stages:
        teacher = tiny_model(family, **no_dropout(family))
        torch.manual_seed(1)
        student = build_student(teacher, 2, recipe.student, seed=0)
        yield DistillationModule(student, teacher, stage, 0, Classes(), examples=EXAMPLES).train()


@pytest.mark.parametrize("name", task_recipes())
def test_one_word_puts_a_stage_of_any_shipped_recipe_under_mixup(name):
    if any(o.remembers for stage in Recipe.load(name).stages for o in stage.objectives.values()):
        with pytest.raises(
            UserError, match="objective 'contrast': its distance remembers whole texts; set view: clean"
        ):
            next(modules(mixed(name)))
        return
    for module, clean in zip(modules(mixed(name)), modules(Recipe.load(name)), strict=True):
        assert all(o.spec.view == Mixup() and o.spec.batch_coupled for o in module.objectives)
        module.clock.epoch = clean.clock.epoch = 1  # where ramps by epoch have begun
        out, before = module(**batch()), clean(**batch())
        out["loss"].backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.student.parameters())
        for objective, term in out["terms"].items():
            assert torch.isfinite(term.value), objective
            own = clean.stage.objectives[objective].mixes
            assert (term.value.item() == before["terms"][objective].value.item()) == own, objective


def test_both_models_see_the_same_mixture_and_labels_are_shared_as_it_says():
    """The terms written out: embeddings, masks and labels mixed by hand, both models run on the mixture."""
    recipe = mixed("kd")
    (module,) = modules(recipe)
    data = batch()
    terms = module(**data)["terms"]
    lam = module._draw(Mixup()).lam
    mask = data["attention_mask"] | data["attention_mask"].flip(0)
    logits = {}
    for who, model in (("student", module.student), ("teacher", module.teacher)):
        embedded = model.bert.embeddings(data["input_ids"])
        embedded = lam * embedded + (1 - lam) * embedded.flip(0)
        extended = (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        hidden = model.bert.encoder(embedded, attention_mask=extended)[0]
        logits[who] = model.classifier(model.bert.pooler(hidden))
    entropy = torch.nn.functional.cross_entropy
    task = lam * entropy(logits["student"], data["labels"])
    task = task + (1 - lam) * entropy(logits["student"], data["labels"].flip(0))
    torch.testing.assert_close(terms["task"].value, task, rtol=1e-4, atol=1e-5)
    p, q = (torch.log_softmax(logits[who] / 2, -1) for who in ("teacher", "student"))
    soft = 4 * (p.exp() * (p - q)).sum(-1).mean()
    torch.testing.assert_close(terms["soft targets"].value, soft, rtol=1e-4, atol=1e-5)


def test_an_objectives_own_view_wins_and_survives_yaml():
    recipe = Recipe.load("kd", ("stages.0.view.mixup.alpha=0.4", "stages.0.objectives.task.view=clean"))
    views = {name: o.view for name, o in recipe.stages[0].viewed().items()}
    assert views == {"task": Clean(), "soft targets": Mixup(alpha=0.4)}
    assert Recipe.from_data(recipe.to_data()).stages[0].viewed() == recipe.stages[0].viewed()
    (module,) = modules(recipe)
    (clean,) = modules(Recipe.load("kd"))
    terms, before = module(**batch())["terms"], clean(**batch())["terms"]
    torch.testing.assert_close(terms["task"].value, before["task"].value)
    assert terms["soft targets"].value.item() != pytest.approx(before["soft targets"].value.item())
    assert len({recipe.hash, mixed("kd").hash, Recipe.load("kd").hash}) == 3


def test_a_micro_batch_of_one_has_nothing_to_mix():
    sizes = ("stages.0.batch_size=4", "stages.0.accumulation=4")
    with pytest.raises(UserError, match="stages.0: mixup mixes .* batch_size 4 / accumulation 4 leaves one in each"):
        Recipe.load("kd", ("stages.0.view=mixup", *sizes))
    Recipe.load("kd", sizes)
    own = ("stages.0.objectives.task.view=clean", "stages.0.objectives.soft targets.view=clean")
    Recipe.load("kd", ("stages.0.view=mixup", *own, *sizes))


def test_what_cannot_be_mixed_is_refused_with_the_reason():
    with pytest.raises(UserError, match="'task': a causal model answers at an example's last token.*set view: clean"):
        list(modules(mixed("kd"), "gpt2"))
    (module,) = modules(Recipe.load("kd", ("stages.0.view=mixup", "stages.0.objectives.task.view=clean")), "gpt2")
    assert torch.isfinite(module(**batch())["loss"])
    with pytest.raises(UserError, match="stages.0.view: unknown view 'mixpu': did you mean 'mixup'"):
        Recipe.load("kd", ("stages.0.view=mixpu",))
