"""The distillation module: what it trains, what it leaves alone, what it refuses."""

import copy

import pytest
import torch

from layerstill.errors import ObjectiveError, UserError
from layerstill.heads import Classes
from layerstill.knowledge.mappings import Group, Last, Random, Uniform
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training.module import DistillationModule
from tests.tiny import DECODERS, EXAMPLES, FAMILIES, batch, task_recipes, tiny_model


def recipe_of(objectives: dict, **stage) -> Recipe:
    return Recipe.from_data({"stages": [{"epochs": 1, "learning_rate": 1e-3, **stage, "objectives": objectives}]})


def make(recipe: Recipe, stage: int = 0, depth: int = 2, **config) -> DistillationModule:
    teacher = tiny_model(**config)
    torch.manual_seed(1)
    student = build_student(teacher, depth, recipe.student, seed=0)
    return DistillationModule(student, teacher, recipe.stages[stage], 0, Classes(), examples=EXAMPLES)


RAIL = {
    "signal": {"hidden_states": {"pool": "mean"}},
    "mapping": "random",
    "alignment": {"linear": {"sides": "both", "width": 8}},
    "distance": "normalized_squared",
}
HIDDEN = {"signal": "hidden_states", "mapping": "last", "distance": "mse"}


def train_two_steps(recipe: Recipe, **config) -> None:
    """Every objective finite and not zero, every map trained."""
    for stage in range(len(recipe.stages)):
        module = make(recipe, stage, **config)
        module.clock.epoch, module.clock.epochs, module.clock.steps = 1, 4, 2
        module.freeze_unreached(batch())
        optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3)
        before = {n: p.detach().clone() for n, p in module.objectives.named_parameters() if p.requires_grad}
        for step in range(2):
            module.clock.step = step
            out = module(**batch(seed=step))
            for objective, term in out["terms"].items():
                assert torch.isfinite(term.value), objective
                assert term.value.item() != 0, objective
            optimiser.zero_grad()
            out["loss"].backward()
            optimiser.step()
            module.finish_step()
        for n, parameter in module.objectives.named_parameters():
            if n in before:
                assert not torch.equal(parameter, before[n]), f"{n} is not trained"


@pytest.mark.parametrize("name", task_recipes())
@pytest.mark.parametrize("family", FAMILIES)
def test_every_shipped_recipe_trains_two_steps_in_every_family(family, name):
    first_tokens = name in {"pkd", "hid-cls", "hid-cls-contrast", "text-hid-cls"}
    if family in DECODERS and first_tokens:
        with pytest.raises(UserError, match="in a causal model the first token sees only itself"):
            make(Recipe.load(name), family=family)
        return
    # 48 relation heads must divide heads times head width, which two of the families choose apart from the hidden size.
    fewer = tuple(f"stages.0.objectives.{q}.signal.relation.heads=8" for q in ("queries", "keys", "values"))
    train_two_steps(Recipe.load(name, fewer if name.endswith("minilmv2") else ()), family=family)


@pytest.mark.parametrize("name", task_recipes())
def test_every_shipped_recipe_trains_a_narrower_student(name):
    width = 48 if name.endswith("minilmv2") else 24
    train_two_steps(Recipe.load(name, (f"student.hidden_size={width}", "student.intermediate_size=40")))


def test_a_width_that_relation_heads_do_not_divide_is_refused_with_those_that_do():
    with pytest.raises(
        UserError, match="48 relation heads do not divide the student's width 24; set .* to one of 1, 2, .*12, 24"
    ):
        make(Recipe.load("minilmv2", ("student.hidden_size=24",)))


def test_only_the_teacher_is_outside_and_only_the_student_is_saved(tmp_path):
    module = make(recipe_of({"random layers": RAIL}))
    parts = {n.split(".")[0] for n, _ in module.named_parameters()}
    assert parts == {"student", "objectives"}
    module.student.save_pretrained(tmp_path)
    from safetensors import safe_open
    from transformers import AutoModelForSequenceClassification

    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(module.student.state_dict())
    loaded, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert loaded.config.num_hidden_layers == 2


def test_what_no_objective_reaches_is_frozen():
    module = make(recipe_of({"attention": {"signal": "attention", "mapping": "last", "distance": "mse"}}))
    frozen = module.freeze_unreached(batch())
    assert any("classifier" in n for n in frozen)
    assert any("layer.1.attention.self.value" in n for n in frozen)
    assert not any("layer.0" in n or "layer.1.attention.self.query" in n for n in frozen)
    # A frozen module is what DDP needs: every parameter that is left gets a gradient.
    module(**batch())["loss"].backward()
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)


def test_trying_the_objectives_leaves_the_random_state_alone():
    module = make(recipe_of({"task": {"signal": "labels"}}))
    torch.manual_seed(5)
    module.freeze_unreached(batch())
    after = torch.rand(3)
    torch.manual_seed(5)
    torch.testing.assert_close(after, torch.rand(3))


def test_a_zero_objective_stops_the_run_and_is_named():
    teacher = tiny_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    recipe = recipe_of({"task": {"signal": "labels"}, "nothing to learn": {**HIDDEN, "mapping": "uniform"}})
    student = build_student(teacher, 4, recipe.student, seed=0)
    module = DistillationModule(student, teacher, recipe.stages[0], seed=0, head=Classes())
    with pytest.raises(ObjectiveError, match="'nothing to learn' is zero on the first batch"):
        module.freeze_unreached(batch())


def test_an_objective_that_is_not_finite_stops_the_run_and_is_named():
    module = make(recipe_of({"hidden states": HIDDEN}))
    with torch.no_grad():
        module.teacher.bert.encoder.layer[3].output.LayerNorm.bias.fill_(float("nan"))
    with pytest.raises(ObjectiveError, match="'hidden states' is not finite"):
        module.freeze_unreached(batch())


def test_two_modules_in_one_process_do_not_disturb_each_other():
    recipe = Recipe.load("att-kl")
    alone = make(recipe)
    expected = {n: t.value.item() for n, t in alone.eval().terms(batch())[0].items()}
    one, two = make(recipe), make(Recipe.load("minilm"), seed=7)
    two.eval().terms(batch(seed=9))
    assert {n: t.value.item() for n, t in one.eval().terms(batch())[0].items()} == expected


def test_changing_the_mapping_changes_the_loss():
    # One port's attention mapping ignored its argument.
    values = set()
    for mapping in ("uniform", "first", "reversed", {"last": {"layers": "all"}}):
        module = make(recipe_of({"a": {"signal": "attention", "mapping": mapping, "distance": "mse"}}))
        values.add(module.eval().terms(batch())[0]["a"].value.item())
    assert len(values) == 4


def test_last_mapping_of_tinybert_is_l_ild_with_mse():
    objectives = {
        "attention": {"signal": "attention", "distance": "mse"},
        "hidden": {"signal": "hidden_states", "distance": "mse"},
    }
    last = {n: {**o, "mapping": "last"} for n, o in objectives.items()}
    explicit = {n: {**o, "mapping": {"explicit": {"pairs": {"layer 2": "layer 4"}}}} for n, o in objectives.items()}
    a, b = (make(recipe_of(o)).eval().terms(batch())[0] for o in (last, explicit))
    for name in objectives:
        assert a[name].value.item() == b[name].value.item()


def test_rail_kd_with_first_tokens_and_a_fixed_mapping_is_pkds_term():
    first = {"signal": {"hidden_states": {"pool": "first"}}, "mapping": "uniform"}
    rail = make(recipe_of({"t": {**first, "distance": "normalized_squared"}})).eval().terms(batch())[0]["t"]
    released = {"normalized_squared": {"mean_over": "elements"}}
    pkd = make(recipe_of({"t": {**first, "distance": released, "layers": "mean"}})).eval().terms(batch())[0]["t"]
    layers, width = 2, 48
    assert rail.value.item() == pytest.approx(layers * width * pkd.value.item(), rel=1e-5)


def test_rail_kd_with_as_many_candidates_as_student_layers_is_the_identity():
    module = make(recipe_of({"random layers": RAIL}), depth=4)
    for epoch in range(5):
        assert module.objectives[0].groups(epoch, 0) == [Group((i,), (i,)) for i in (1, 2, 3)]


def test_random_layers_are_redrawn_by_epoch_the_same_everywhere():
    mapping = Random(redraw="epoch")
    recipe = recipe_of({"random layers": {**RAIL, "mapping": mapping}})
    one, two = make(recipe).objectives[0], make(recipe, seed=5).objectives[0]
    drawn = [one.groups(epoch, step) for epoch in range(12) for step in (0, 3)]
    assert drawn[::2] == drawn[1::2], "redrawn within an epoch"
    assert len({tuple(d) for d in drawn}) > 1, "never redrawn"
    torch.manual_seed(99)
    assert drawn == [two.groups(epoch, step) for epoch in range(12) for step in (0, 3)], "depends on outer state"
    per_step = make(recipe_of({"random layers": {**RAIL, "mapping": Random(redraw="step")}})).objectives[0]
    assert len({tuple(per_step.groups(0, step)) for step in range(12)}) > 1


def test_mixup_of_teacher_and_student_is_the_same_and_changes_with_the_step():
    module = make(Recipe.load("cr-ild"))
    module.eval()
    a, again = (module.terms(batch())[0]["attention"].value.item() for _ in range(2))
    module.clock.step = 1
    assert a == again
    assert module.terms(batch())[0]["attention"].value.item() != a


def test_consistency_is_zero_when_nothing_is_mixed():
    recipe = recipe_of({"hidden": {**HIDDEN, "target": "student"}, "task": {"signal": "labels"}})
    module = make(recipe, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    assert module.terms(batch())[0]["hidden"].value.item() == 0


def test_the_moving_average_moves_by_its_decay_and_is_no_parameter_of_the_optimiser():
    target = {"moving_average": {"decay": 0.75}}
    module = make(recipe_of({"task": {"signal": "labels"}, "hidden": {**HIDDEN, "target": target, "view": "mixup"}}))
    name = "bert.encoder.layer.0.output.dense.weight"
    kept = module.average["student"].get_parameter(name)
    start = kept.detach().clone()
    with torch.no_grad():
        module.student.get_parameter(name).add_(1.0)
    module.finish_step()
    torch.testing.assert_close(kept, start + 0.25)
    assert not kept.requires_grad
    assert not module.train().average.training


def test_finishing_steps_moves_schedules_mixup_and_mappings():
    module = make(Recipe.load("cr-ild")).eval()
    first = module.terms(batch())[0]["attention"].value.item()
    module.finish_step()
    assert module.terms(batch())[0]["attention"].value.item() != first
    assert (module.clock.step, module.clock.epoch) == (1, 0)
    module.finish_step(epoch=1)
    assert (module.clock.step, module.clock.epoch) == (2, 1)


def test_losses_under_autocast_are_computed_in_full_width():
    module = make(
        recipe_of(
            {"a": {"signal": "attention", "mapping": "last", "distance": "mse"}, "h": {**HIDDEN, "alignment": "linear"}}
        )
    ).eval()
    full = {n: t.value for n, t in module.terms(batch())[0].items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = {n: t.value for n, t in module.terms(batch())[0].items()}
    for name, value in narrow.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full[name], rtol=0.05, atol=0)


def test_the_mean_over_layers_counts_a_concatenation_once():
    values = []
    for layers in ("sum", "mean"):
        alignment = {"linear": {"sides": "both", "width": 8}}
        mapping = {"uniform": {"meet": "concatenated"}}
        module = make(recipe_of({"x": {**RAIL, "mapping": mapping, "alignment": alignment, "layers": layers}}))
        values.append(module.eval().terms(batch())[0]["x"].value.item())
    assert values[0] == values[1]


def test_maps_of_another_objective_must_serve_the_layers_asked_for():
    per_layer = {**HIDDEN, "mapping": "last", "alignment": {"linear": {"maps": "per_layer"}}}
    borrowed = {**HIDDEN, "mapping": "first", "alignment": {"same_as": {"objective": "a"}}}
    with pytest.raises(UserError, match="'b' needs maps for layer 1, layer 2, but those it uses serve layer 2"):
        make(recipe_of({"a": per_layer, "b": borrowed}))


def test_a_frozen_teacher_side_stays_and_a_trained_one_moves():
    for training, moves in (("trained", True), ("frozen", False), ("orthogonal", False)):
        alignment = {"linear": {"sides": "both", "width": 8, "teacher": training}}
        module = make(recipe_of({"random layers": {**RAIL, "alignment": alignment}}))
        weight = module.objectives[0].aligner.teacher.weight
        assert weight.requires_grad == moves
        if training == "orthogonal":
            torch.testing.assert_close(weight[0] @ weight[0].T, torch.eye(8), atol=1e-5, rtol=0)
        spread = module.terms(batch())[0]["random layers"].spread
        assert (spread is not None) == moves


def test_widths_that_do_not_fit_are_refused_with_the_way_out():
    teacher = tiny_model(width=48)
    student = tiny_model(width=24, layers=2)
    for objective, message in (
        (HIDDEN, r"'x': the student is 24 wide and the teacher 48: set alignment: linear"),
        (
            {**HIDDEN, "alignment": {"linear": {"width": 30}}},
            "width 30 differs from the teacher's 48, and only the student is mapped",
        ),
    ):
        with pytest.raises(UserError, match=message):
            DistillationModule(student, teacher, recipe_of({"x": objective}).stages[0], 0, Classes())
    linear = recipe_of({"x": {**HIDDEN, "alignment": "linear"}}).stages[0]
    assert DistillationModule(student, teacher, linear, 0, Classes()).terms(batch())[0]["x"].value > 0


def test_unequal_heads_are_refused_and_relations_offered():
    teacher, student = tiny_model(heads=4), tiny_model(heads=2, layers=2)
    attention = {"signal": "attention", "mapping": "last", "distance": "mse"}
    with pytest.raises(
        UserError, match="the student has 2 attention heads and the teacher 4.*queries with keys in other heads"
    ):
        DistillationModule(student, teacher, recipe_of({"x": attention}).stages[0], 0, Classes())
    relation = {"signal": {"relation": {"of": "Q-K", "heads": 8}}, "mapping": "last", "distance": "kl"}
    assert (
        DistillationModule(student, teacher, recipe_of({"x": relation}).stages[0], 0, Classes())
        .terms(batch())[0]["x"]
        .value
        > 0
    )


@pytest.mark.parametrize("mapping", [Uniform(), Last(layers="all"), Uniform(meet="concatenated")])
def test_every_distance_works_with_every_alignment_and_gradients_flow(mapping):
    from layerstill.knowledge.distances import DISTANCES

    alignments = [
        "none",
        "linear",
        {"linear": {"maps": "per_layer"}},
        {"linear": {"sides": "both", "width": 6}},
        {"linear": {"sides": "both", "width": 6, "maps": "per_layer", "bias": False}},
        {"linear": {"sides": "both", "width": 6, "teacher": "orthogonal"}},
    ]
    for distance, word in DISTANCES.items():
        signal = {"hidden_states": {"pool": "mean"}} if word.over_batch else "hidden_states"
        for alignment in alignments:
            if mapping.meet == "concatenated" and "per_layer" in str(alignment):
                continue
            if word.remembers and mapping.meet == "each":
                continue  # several comparisons, of which it remembers none
            objective = {"signal": signal, "mapping": mapping, "alignment": alignment, "distance": distance}
            module = make(recipe_of({"x": objective}))
            module(**batch())["loss"].backward()
            trained = [p for p in module.objectives.parameters() if p.requires_grad]
            assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained), (distance, alignment)


def test_the_students_configuration_is_its_own():
    teacher = tiny_model()
    student = build_student(teacher, 2, Recipe.load("kd").student, seed=0)
    assert student.config is not teacher.config
    before = copy.deepcopy(teacher.config.to_dict())
    student.config.num_hidden_layers = 1
    assert teacher.config.to_dict() == before


def test_trials_and_evaluations_leave_the_masses_of_an_optimal_transport_alone():
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    module = make(Recipe.load("bert-emd"), **still)
    before = {name: tensor.clone() for name, tensor in module.owned().items()}
    module.freeze_unreached(batch())
    module.finish_step()
    module.eval()
    module(**batch())
    module.terms(batch())
    module.finish_step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.owned().items())
    module.train()(**batch())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.owned().items()), "before the step ends"
    module.eval().terms(batch(seed=2))
    other = make(Recipe.load("bert-emd"), **still).train()
    other(**batch())
    for each in (module, other):
        each.finish_step()
    for name, tensor in module.owned().items():
        assert torch.equal(tensor, other.owned()[name]), "an evaluation within a step is none of its"
        assert torch.equal(tensor, before[name]) == ("aligner" in name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("bert-emd", "objective 'attention scores' weighs whole steps, and accumulation splits batches"),
        ("rkd", "objective 'distances' relates the examples of a batch to each other, and accumulation splits batches"),
    ],
)
def test_accumulation_is_refused_where_a_term_takes_the_whole_step(name, why):
    with pytest.raises(UserError, match=f"{why}; set accumulation: 1"):
        Recipe.load(name, ("stages.0.accumulation=2",))


@pytest.mark.parametrize("signal", ["attention", {"relation": {"of": "V-V"}}])
@pytest.mark.parametrize("mapping", ["attended", {"uniform": {"meet": "concatenated"}}])
def test_maps_meet_layer_by_layer(signal, mapping):
    # Once only the first layers of a group were compared, without a word.
    with pytest.raises(UserError, match="token-by-token maps meet layer by layer"):
        make(recipe_of({"x": {"signal": signal, "mapping": mapping, "distance": "mse"}}))
