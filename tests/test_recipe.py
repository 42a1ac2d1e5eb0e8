"""Recipes: strict, the same in YAML and Python, and clear about what is wrong."""

import json

import pytest
import yaml

from layerstill.errors import UserError
from layerstill.knowledge.alignment import ALIGNMENTS
from layerstill.knowledge.distances import DISTANCES, KL
from layerstill.knowledge.mappings import MAPPINGS, layer_name, layer_number
from layerstill.knowledge.objective import Objective
from layerstill.knowledge.signals import SIGNALS, HiddenStates
from layerstill.knowledge.weights import Constant, Ramp, Unlock
from layerstill.names import shipped_recipes
from layerstill.recipe import Recipe, recipe_json_schema
from layerstill.recipe_files import recipe_text

EXPECTED = (
    "finetune kd pkd tinybert minilm minilmv2 hid-cls hid-seq att-mse att-kl att-kl+val-kl att-kl+hid-seq "
    "att-mse+hid-seq rail-kd-l rail-kd-c u-ild l-ild l-ild-supplementary cr-ild cr-ild-released bert-emd rkd best "
    "best-pairs hid-cls-contrast text-att-mse text-att-kl text-att-kl+val-kl text-minilmv2 text-hid-seq text-hid-cls "
    "text-tinybert text-kd text-distilbert text-glmd text-minilm"
).split()


def minimal(**objective) -> dict:
    term = {"signal": "hidden_states", "mapping": "last", "distance": "mse"} | objective
    return {"stages": [{"epochs": 1, "learning_rate": 1e-4, "objectives": {"x": term}}]}


def test_the_recipes_that_come_along_are_these():
    assert sorted(EXPECTED) == shipped_recipes()


@pytest.mark.parametrize("name", EXPECTED)
def test_shipped_recipes_survive_yaml_and_state_paper_equation_and_deviations(name):
    recipe = Recipe.load(name)
    assert Recipe.from_data(yaml.safe_load(recipe.to_yaml())) == recipe
    assert Recipe.from_data(recipe.to_data()).hash == recipe.hash
    header = [line for line in recipe_text(name).split("\n") if line.startswith("#")]
    for word in ("# Paper: ", "# Equation: ", "# Deviations: "):
        assert any(line.startswith(word) for line in header), word
    assert "arXiv" in recipe_text(name)


def test_hashes_differ_and_follow_every_setting():
    assert len({Recipe.load(n).hash for n in EXPECTED}) == len(EXPECTED)
    assert Recipe.load("kd", ("stages.0.optimiser.beta2=0.98",)).hash != Recipe.load("kd").hash


def test_python_words_and_yaml_words_are_the_same():
    by_yaml = Objective.model_validate(
        minimal(weight="1/3", distance={"kl": {"temperature": 2}})["stages"][0]["objectives"]["x"]
    )
    by_python = Objective(
        signal=HiddenStates(), mapping=MAPPINGS["last"](), distance=KL(temperature=2.0), weight=Constant(value=1 / 3)
    )
    assert by_yaml == by_python


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"stages": []}, "stages: List should have at least 1 item"),
        (minimal() | {"stagse": 1}, "unknown key 'stagse': did you mean 'stages'"),
        (minimal(wieght=2), "stages.0.objectives.x: unknown key 'wieght': did you mean 'weight'"),
        (minimal(distance="msse"), "stages.0.objectives.x.distance: unknown distance 'msse': did you mean 'mse'"),
        (
            minimal(distance={"mse": {"temperature": 2}}),
            "distance.mse: unknown key 'temperature': it takes no settings",
        ),
        (
            minimal(distance={"kl": {"temperature": 0}}),
            "distance.kl.temperature: Input should be greater than or equal to 0.01, got 0",
        ),
        (minimal(distance={"kl": {"temperature": ".inf"}}), "distance.kl.temperature"),
        (minimal(distance={"kl": {}, "mse": {}}), r"a distance is a name or one \{name: settings\} pair"),
        (minimal(mapping=None), "signal hidden_states needs a mapping; known: uniform"),
        (minimal(signal="logits"), "signal logits belongs to no layer, so it takes no mapping"),
        (minimal(distance=None), "signal hidden_states needs a distance"),
        (minimal(signal="attention", alignment="linear"), "signal attention has no width to align"),
        (minimal(alignment={"same_as": {"objective": "y"}}), "uses the alignment of unknown objective 'y'"),
        (minimal(mapping={"explicit": {"pairs": {"layer 0": "layer 1"}}}), "'layer 0' is not the name of a layer"),
        (minimal(weight=-1), "weight"),
        (minimal(weight=0), "every weight is 0 throughout the stage"),
        (minimal(weight="1/0"), "weight"),
        (minimal(target="student", alignment="linear"), "a consistency term trains no map of its own"),
        ({"stages": "none"}, "stages: Input should be a valid list"),
        ([1], "a recipe is a mapping with the key 'stages', got list"),
    ],
)
def test_mistakes_are_named_with_their_place(data, message):
    with pytest.raises(UserError, match=message):
        Recipe.from_data(data)


@pytest.mark.parametrize("name", ["a.b", "a/b", ""])
def test_objective_names_that_could_be_mistaken_for_paths_are_refused(name):
    data = minimal()
    data["stages"][0]["objectives"] = {name: data["stages"][0]["objectives"]["x"]}
    with pytest.raises(UserError, match="must not be empty and must not contain"):
        Recipe.from_data(data)


@pytest.mark.parametrize(
    ("override", "get", "value"),
    [
        ("stages.0.epochs=3", lambda r: r.stages[0].epochs, 3),
        ("stages.1.learning_rate=2e-5", lambda r: r.stages[1].learning_rate, 2e-5),
        ("stages.0.objectives.attention.weight=1/4", lambda r: r.stages[0].objectives["attention"].weight.value, 0.25),
        (
            "stages.0.objectives.attention.distance.kl.temperature=4",
            lambda r: r.stages[0].objectives["attention"].distance.temperature,
            4,
        ),
        (
            "stages.0.objectives.attention.mapping=reversed",
            lambda r: type(r.stages[0].objectives["attention"].mapping).__name__,
            "Reversed",
        ),
        ("stages.0.optimiser.warmup=0", lambda r: r.stages[0].optimiser.warmup, 0),
        ("student.initialisation.explicit.layers=[1, 8, 12]", lambda r: r.student.initialisation.layers, [1, 8, 12]),
        (
            "stages.0.objectives.attention.weight={ramp: {end: 0.1}}",
            lambda r: r.stages[0].objectives["attention"].weight,
            Ramp(end=0.1),
        ),
    ],
)
def test_set_overrides_anything(override, get, value):
    if override.startswith("student.initialisation.explicit"):
        override_first = ("student.initialisation=explicit",)
    else:
        override_first = ()
    assert get(Recipe.load("att-kl", (*override_first, override))) == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.0.epochs", "write dotted.path=value"),
        ("stages.5.epochs=1", "there is no stages.5; 2 entries, counted from 0"),
        ("stages.first.epochs=1", "there is no stages.first"),
        ("stages.0.epochs=many", "stages.0.epochs: Input should be a valid number, got 'many'"),
        ("stages.0.epochs=[1", "--set stages.0.epochs"),
        ("stages.0.epochs.x=1", "'x' cannot be set inside"),
        ("stages.1.objectives.tsk=null", "there is no 'tsk' to leave out: did you mean 'task'"),
        ("stages.0.seed=1", "stages.0: unknown key 'seed': it is not part of a recipe; give --seed"),
        ("max_length=64", "unknown key 'max_length': it is not part of a recipe; give --max-length"),
    ],
)
def test_set_says_what_is_wrong(override, message):
    with pytest.raises(UserError, match=message):
        Recipe.load("att-kl", (override,))


def test_yaml_files(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(recipe_text("rail-kd-l"), "utf-8")
    assert Recipe.load(path).hash == Recipe.load("rail-kd-l").hash
    assert (Recipe.load(path).name, Recipe.load("rail-kd-l").name) == ("mine", "rail-kd-l")
    path.write_text("stages:\n  - epochs: 1\n    epochs: 2\n", "utf-8")
    with pytest.raises(UserError, match=r"mine.yaml line 3: key 'epochs' appears twice"):
        Recipe.load(path)
    path.write_text("stages: [", "utf-8")
    with pytest.raises(UserError, match=r"mine.yaml line 1"):
        Recipe.load(path)
    path.write_text("stages: !!python/object/apply:os.system ['true']\n", "utf-8")
    with pytest.raises(UserError, match="could not determine a constructor"):
        Recipe.load(path)
    with pytest.raises(UserError, match="No such file"):
        Recipe.load(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="unknown recipe 'rail-kd': did you mean 'rail-kd-l'"):
        Recipe.load("rail-kd")


def test_the_json_schema_knows_every_word():
    text = json.dumps(recipe_json_schema())
    for words in (SIGNALS, MAPPINGS, ALIGNMENTS, DISTANCES):
        for word in words:
            assert f'"{word}"' in text, word


def test_weights_over_a_stage():
    ramp = Ramp(start=0, end=0.1, per="epoch")
    assert [ramp.at(e, 20, 0, 100) for e in (0, 7, 19)] == pytest.approx([0, 0.035, 0.095])
    steps = Ramp(start=1, end=0)
    assert [steps.at(0, 1, s, 11) for s in (0, 5, 10)] == pytest.approx([1, 0.5, 0])
    assert [Unlock(value=2, after=0.5).at(0, 1, s, 10) for s in (4, 5)] == [0, 2]


def test_layers_are_named():
    assert [layer_name(k) for k in (0, 3)] == ["embeddings", "layer 3"]
    assert [layer_number(n) for n in ("embeddings", "layer 12")] == [0, 12]
    with pytest.raises(ValueError, match="is not the name of a layer"):
        layer_number("12")


def test_null_leaves_an_objective_out_and_is_a_value_elsewhere():
    left = Recipe.load("att-kl", ("stages.1.objectives.task=null",)).stages[1].objectives
    assert list(left) == [name for name in Recipe.load("att-kl").stages[1].objectives if name != "task"]
    assert Recipe.load("att-kl", ("stages.1.patience=null",)).stages[1].patience is None
    with pytest.raises(UserError, match="stages.0.objectives"):
        Recipe.load("att-kl", ("stages.0.objectives=null",))
