"""What may not change a loss or a gradient: padding, the split of a batch, its order, the attention kernel."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from layerstill.heads import Classes
from layerstill.knowledge import meeting, products, signals
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training import module as distillation
from layerstill.training.module import DistillationModule
from tests.tiny import EXAMPLES, FAMILIES, batch, no_dropout, task_recipes, tiny_model


def module_for(recipe: str, stage: int = 0, family: str = "bert", **config) -> DistillationModule:
    """Teacher 4 layers, student 2, no dropout, in float64 so that sums can be compared."""
    loaded = Recipe.load(recipe)
    teacher = tiny_model(family, sharp=2.0, **no_dropout(family), **config).double()
    torch.manual_seed(1)
    student = build_student(teacher, 2, loaded.student, seed=0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    module = DistillationModule(student, teacher, loaded.stages[stage], 0, Classes(), examples=EXAMPLES).double()
    module.clock.epoch, module.clock.epochs = 1, 2
    return module.train()


def loss_and_gradients(module, data, units=None):
    module.zero_grad()
    out = module(units=units, **data)
    out["loss"].backward()
    gradients = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
    return {n: t.value.detach() for n, t in out["terms"].items()}, gradients


def assert_same(a, b, rtol=1e-8, atol=1e-10):
    for left, right in zip(a, b, strict=True):
        assert left.keys() == right.keys()
        for name, value in left.items():
            torch.testing.assert_close(value, right[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


STAGES = [(name, i) for name in task_recipes() for i in range(len(Recipe.load(name).stages))]
COUNTS_PADDING = {"cr-ild-released"}
# Mixup pairs an example with another of its batch, so splitting a batch changes what is mixed.
BATCH_COUPLED = {
    (name, i) for name, i in STAGES if any(o.batch_coupled for o in Recipe.load(name).stages[i].objectives.values())
}


@pytest.mark.parametrize(("recipe", "stage"), [s for s in STAGES if s[0] not in COUNTS_PADDING])
def test_more_padding_changes_nothing(recipe, stage):
    data = batch()
    wide = {k: torch.nn.functional.pad(v, (0, 3)) if v.ndim == 2 else v for k, v in data.items()}
    module = module_for(recipe, stage)
    assert_same(loss_and_gradients(module, data), loss_and_gradients(module, wide))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recipe", ["rail-kd-l", "cr-ild", "tinybert", "att-kl+val-kl"])
def test_more_padding_changes_nothing_in_any_family(recipe, family):
    data = batch()
    wide = {k: torch.nn.functional.pad(v, (0, 3)) if v.ndim == 2 else v for k, v in data.items()}
    module = module_for(recipe, 0, family)
    # Gemma's norms compute in float32 whatever the model's own precision.
    tolerance = (1e-5, 1e-7) if family == "gemma3_text" else (1e-8, 1e-10)
    assert_same(loss_and_gradients(module, data), loss_and_gradients(module, wide), *tolerance)


@pytest.mark.parametrize(("recipe", "stage"), STAGES)
@pytest.mark.parametrize("part", [4 * 9 * 9 * 3, 9 * 9 * 3, 1], ids=["three examples", "three heads", "one head"])
def test_maps_compared_in_parts_give_the_loss_and_gradient_of_the_whole(recipe, stage, part, monkeypatch):
    data = batch()
    module = module_for(recipe, stage)
    whole = loss_and_gradients(module, data)
    monkeypatch.setattr(meeting, "MAP_ELEMENTS", 0)
    monkeypatch.setattr(meeting, "PART_ELEMENTS", part)  # of four examples with four heads
    assert_same(whole, loss_and_gradients(module, data))


@pytest.mark.parametrize("family", ["llama", "qwen3", "mpnet"])
def test_maps_in_parts_where_heads_share_keys_or_have_a_bias(family, monkeypatch):
    module = module_for("att-kl", 0, family)
    data = batch()
    whole = loss_and_gradients(module, data)
    monkeypatch.setattr(meeting, "MAP_ELEMENTS", 0)
    monkeypatch.setattr(meeting, "PART_ELEMENTS", 9 * 9 * 3)
    assert_same(whole, loss_and_gradients(module, data))


TWO_READERS = {
    "maps": {"signal": "attention", "mapping": "uniform", "distance": "mse"},
    "rows": {"signal": {"attention": {"form": "probabilities"}}, "mapping": "uniform", "distance": "kl"},
}


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@pytest.mark.parametrize(("recipe", "products"), [("two readers", 4), ("cr-ild", 3)])
def test_a_map_that_several_terms_read_is_computed_once(recipe, products, family, monkeypatch):
    # Two readers: two layers of student and teacher each. CR-ILD: the last layer of student and teacher under mixup, and
    # of the student on the clean input, which stands for both partners.
    if recipe == "two readers":
        both = Recipe.from_data({"stages": [{"epochs": 1, "learning_rate": 1, "objectives": TWO_READERS}]})
        monkeypatch.setattr(Recipe, "load", lambda name: both)
    module, data, computed = module_for(recipe, family=family), batch(), []
    product = signals.Attention.product
    monkeypatch.setattr(signals.Attention, "product", lambda *args: computed.append(1) or product(*args))
    once = loss_and_gradients(module, data)
    assert len(computed) == products
    monkeypatch.setattr(distillation, "shared_maps", lambda readers, side: frozenset())
    computed.clear()
    each_time = loss_and_gradients(module, data)
    assert len(computed) > products
    assert_same(once, each_time)


PRODUCTS = {
    "attention": {"signal": "attention", "mapping": "uniform", "distance": "mse"},
    "keys": {"signal": {"relation": {"of": "K-K", "heads": 2}}, "mapping": "last", "distance": "mse"},
    "mixed": {"signal": "attention", "mapping": "last", "distance": "mse", "view": "mixup"},
    "consistent": {"signal": "attention", "target": "student", "mapping": "last", "distance": "mse", "view": "mixup"},
}


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("kind", PRODUCTS)
@pytest.mark.parametrize("part", [1, 3 * 9 * 9, 2**18])
def test_errors_between_products_are_those_between_whole_maps(kind, family, part, monkeypatch):
    recipe = Recipe.from_data({"stages": [{"epochs": 1, "learning_rate": 1, "objectives": {kind: PRODUCTS[kind]}}]})
    monkeypatch.setattr(Recipe, "load", lambda name: recipe)
    module = module_for(kind, family=family)
    (objective_,) = module.objectives
    assert objective_.by_factors
    monkeypatch.setitem(products.PART_ELEMENTS, "cpu", part)
    data = batch(lengths=[9, 4, 1, 7])
    by_factors = loss_and_gradients(module, data)
    objective_.meeting.by_factors = False
    assert_same(by_factors, loss_and_gradients(module, data))


@pytest.mark.parametrize(
    ("family", "attention"), [("modernbert", False), ("gpt2", False), ("mpnet", False), ("bert", True)]
)
def test_maps_with_windows_a_direction_or_a_bias_are_no_mere_products(family, attention):
    recipe = Recipe.from_data(
        {"stages": [{"epochs": 1, "learning_rate": 1, "objectives": {k: PRODUCTS[k] for k in ("attention", "keys")}}]}
    )
    teacher = tiny_model(family)
    module = DistillationModule(build_student(teacher, 2, recipe.student, 0), teacher, recipe.stages[0], 0, Classes())
    assert [o.by_factors for o in module.objectives] == [attention, True]


def test_padding_included_means_what_it_says():
    data = batch()
    wide = {k: torch.nn.functional.pad(v, (0, 3)) if v.ndim == 2 else v for k, v in data.items()}
    module = module_for("cr-ild-released")
    narrow_terms, _ = loss_and_gradients(module, data)
    wide_terms, _ = loss_and_gradients(module, wide)
    assert narrow_terms["queries"] != wide_terms["queries"]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("recipe", ["att-mse", "att-kl", "minilmv2"])
def test_a_batch_in_parts_gives_the_whole_in_causal_models(recipe, family):
    parts_give_the_whole(module_for(recipe, 0, family, heads=6 if recipe == "minilmv2" else 4))


@pytest.mark.parametrize(("recipe", "stage"), [s for s in STAGES if s not in BATCH_COUPLED])
def test_a_batch_in_parts_gives_the_loss_and_gradient_of_the_whole(recipe, stage):
    parts_give_the_whole(module_for(recipe, stage))


def parts_give_the_whole(module):
    data = batch(rows=4, lengths=[9, 3, 6, 8])
    whole = loss_and_gradients(module, data)
    units = module.count_units(data)
    terms: dict = {}
    module.zero_grad()
    for rows in (slice(0, 1), slice(1, 4)):
        part = {k: v[rows] for k, v in data.items()}
        longest = int(part["attention_mask"].sum(1).max())
        part = {k: v[:, :longest] if v.ndim == 2 else v for k, v in part.items()}
        out = module(units=units, **part)
        out["loss"].backward()
        for name, term in out["terms"].items():
            terms[name] = terms.get(name, 0) + term.value.detach()
    gradients = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
    assert_same(whole, (terms, gradients))


@pytest.mark.parametrize(("recipe", "stage"), STAGES)
def test_the_order_of_a_batch_changes_nothing(recipe, stage):
    data = batch()
    module = module_for(recipe, stage)
    # Reversal keeps the partners of mixup; what is compared with the clean partner is reversed too.
    reversed_ = {k: v.flip(0) for k, v in data.items()}
    assert_same(loss_and_gradients(module, data), loss_and_gradients(module, reversed_))


@pytest.mark.parametrize("recipe", ["att-kl", "att-mse", "minilmv2", "cr-ild"])
def test_the_attention_kernel_changes_nothing(recipe):
    data = batch()
    results = []
    for backend in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
        with sdpa_kernel([backend, SDPBackend.MATH] if backend != SDPBackend.MATH else backend):
            results.append(loss_and_gradients(module_for(recipe), data))
    assert_same(*results)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_attention_loss_is_that_of_the_models_own_eager_maps(family):
    """The slow twin: KL between the attention maps that eager models return."""
    data = batch()
    module = module_for("att-kl", 0, family)
    student, teacher = module.student, module.teacher
    value = loss_and_gradients(module, data)[0]["attention"]
    mask = data["attention_mask"].bool()
    maps = []
    for model in (student, teacher):
        # float32: in float64 eager attention of sliding layers is nan where a padded query may see nothing.
        model.float().set_attn_implementation("eager")
        with torch.no_grad():
            inputs = {"input_ids": data["input_ids"], "attention_mask": data["attention_mask"]}
            maps.append(model(**inputs, output_attentions=True).attentions)
    expected = 0.0
    for s, t in zip(maps[0], (maps[1][1], maps[1][3]), strict=True):
        row = torch.where(t > 0, t * (t.clamp(min=1e-30).log() - s.clamp(min=1e-30).log()), 0).sum(-1)
        expected += row[mask[:, None, :].expand_as(row)].mean().item()
    assert value.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("recipe", ["u-ild", "att-mse+hid-seq", "att-kl+val-kl", "hid-cls", "kd"])
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(recipe):
    teacher = tiny_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).double()
    loaded = Recipe.load(recipe, ("student.initialisation=first-k",))
    student = build_student(teacher, 4, loaded.student, seed=0)
    module = DistillationModule(student, teacher, loaded.stages[0], seed=0, head=Classes()).double()
    data = batch()
    terms, _ = module.terms(data)
    for name, term in terms.items():
        objective = loaded.stages[0].objectives[name]
        kind = type(objective.distance).__name__
        if kind in {"MSE", "KL"} and type(objective.alignment).__name__ == "NoAlignment":
            assert term.value.item() == pytest.approx(0, abs=1e-12), name
            gradients = torch.autograd.grad(
                term.value, list(student.parameters()), allow_unused=True, retain_graph=True
            )
            assert max((g.abs().max().item() for g in gradients if g is not None), default=0) < 1e-10
