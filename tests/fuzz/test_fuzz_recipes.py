"""Any recipe is read or refused with a reason; what is read survives writing and either teaches or is refused."""

import copy

import pytest
import torch
import yaml
from hypothesis import event, example, given
from hypothesis import strategies as st

from layerstill.errors import UserError
from layerstill.heads import Classes
from layerstill.recipe import Recipe
from layerstill.training.module import DistillationModule
from tests.fuzz.strategies import broken_recipes, fuzz, recipes
from tests.tiny import batch, tiny_model

BATCH = batch(rows=3, tokens=6, lengths=[6, 4, 3])


@pytest.fixture(scope="module")
def models():
    return {
        "teacher": tiny_model(layers=4, width=24, heads=2),
        "student": tiny_model(layers=2, width=24, heads=2, seed=1),
        "narrow": tiny_model(layers=2, width=12, heads=3, seed=2),
    }


def read(data: object) -> Recipe | None:
    """The recipe; None if it is refused in one line that says something. Any other exception is a failure."""
    try:
        return Recipe.from_data(data)
    except UserError as error:
        assert str(error).startswith("recipe: ")
        assert len(str(error)) < 3000
        event("refused by the schema")
        return None


@fuzz(60, 3000)
@given(recipes())
def test_what_is_read_survives_writing(data):
    recipe = read(data)
    if recipe is None:
        return
    for again in (
        Recipe.from_data(recipe.to_data()),
        Recipe.from_data(yaml.safe_load(recipe.to_yaml())),
        Recipe.from_data(data),
    ):
        assert again == recipe
        assert again.hash == recipe.hash
    assert recipe.limited(epochs=3, batch_size=None, learning_rate=None).stages[0].epochs == 3


@fuzz(60, 3000)
@given(recipes(stages=1), st.sampled_from(["student", "narrow"]), st.integers(0, 3))
def test_a_recipe_teaches_or_is_refused_by_the_name_of_an_objective(models, data, student, seed):
    recipe = read(data)
    if recipe is None:
        return
    stage = recipe.stages[0]
    try:
        module = DistillationModule(copy.deepcopy(models[student]), models["teacher"], stage, seed, head=Classes())
        module.freeze_unreached(BATCH)
    except UserError as error:
        named = any(repr(name) in str(error) for name in stage.objectives)
        assert named or str(error).startswith("one stage keeps one moving average"), error
        event("refused by the models")
        return
    event("teaches")
    loss = module(**BATCH)["loss"]
    assert torch.isfinite(loss)
    loss.backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)


@fuzz(100, 4000)
@given(broken_recipes())
def test_broken_recipes_are_refused_or_harmless(data):
    recipe = read(data)
    if recipe is not None:
        assert Recipe.from_data(recipe.to_data()) == recipe


YAMLISH = st.text(st.sampled_from(list("ab01:-[]{},&*!|>%@`'\"#?\n\n  \t~.<=\\/")), max_size=60)


@fuzz(100, 10_000)
@given(YAMLISH | st.binary(max_size=40) | st.text(max_size=40))
@example("a: &a [*a]")
@example("? {a: 1}\n: 2")
@example("2020-99-99")
@example("!!bool x")
@example("!!timestamp x")
@example("!!binary x")
def test_any_file_is_a_recipe_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    try:
        Recipe.load(path)
    except UserError as error:
        assert "any.yaml" in str(error)


PATHS = st.lists(st.sampled_from(["stages", "0", "1", "-1", "objectives", "task", "weight", "", "²", "é"]) | st.text(max_size=5), max_size=5)  # fmt: skip


@fuzz(100, 5000)
@given(PATHS, YAMLISH)
def test_any_override_is_applied_or_refused(path, value):
    try:
        Recipe.load("kd", (f"{'.'.join(path)}={value}",))
    except UserError as error:
        assert str(error)
