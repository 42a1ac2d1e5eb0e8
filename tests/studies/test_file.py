"""The study file: what it takes, what it refuses, and what it expands to."""

import pytest
import yaml

from layerstill.errors import UserError
from layerstill.recipe import Recipe
from layerstill.studies.expand import expand, tuned
from layerstill.studies.file import load_study
from layerstill.studies.job import divided, with_steps
from layerstill.training.arguments import steps_of
from tests.studies.small import study_data, write_study


def runs_of(tmp_path, **sections):
    return expand(load_study(write_study(tmp_path, **sections)), tmp_path)


def test_every_combination_is_a_run_and_the_last_axis_moves_fastest(tmp_path):
    axes = {"recipe": ["kd", "att-kl"], "initialisation": ["1,2", "every-k"], "seed": [3, 4]}
    runs = runs_of(tmp_path, axes=axes)
    assert [tuple(run.coordinates.values()) for run in runs] == [
        (recipe, start, seed) for recipe in axes["recipe"] for start in axes["initialisation"] for seed in axes["seed"]
    ]
    assert [run.recipe.name for run in runs] == ["kd"] * 4 + ["att-kl"] * 4
    assert runs[0].recipe.to_data()["student"]["initialisation"] == {"explicit": {"layers": [1, 2]}}
    assert runs[2].recipe.to_data()["student"]["initialisation"] == "every-k"
    assert [run.settings.seed for run in runs[:2]] == [3, 4]


def test_conditions_leave_out_and_keep(tmp_path):
    axes = {"recipe": ["kd", "att-kl", "finetune"], "regime": [{}, {"few_samples": 10}], "seed": [0, 1]}
    runs = runs_of(tmp_path, axes=axes, exclude=[{"recipe": ["kd", "finetune"], "regime": {"few_samples": 10}}])
    assert {(run.coordinates["recipe"], run.coordinates["regime"]) for run in runs} == {
        ("kd", "full"),
        ("att-kl", "full"),
        ("att-kl", "few_samples 10"),
        ("finetune", "full"),
    }
    runs = runs_of(tmp_path, axes=axes, only=[{"recipe": "kd", "seed": 1}, {"recipe": "finetune", "regime": "full"}])
    assert [tuple(run.coordinates.values()) for run in runs] == [
        ("kd", "full", 1),
        ("kd", "few_samples 10", 1),
        ("finetune", "full", 0),
        ("finetune", "full", 1),
    ]
    with pytest.raises(UserError, match="leave none of 12 runs"):
        runs_of(tmp_path, axes=axes, exclude=[{"seed": [0, 1]}])


def test_arms_paths_and_every_stage_reach_the_recipe(tmp_path):
    arm = {"name": "last only", "recipe": "u-ild", "set": {"stages.0.objectives.attention.mapping": "last"}}
    axes = {"recipe": ["att-kl", arm], "stages.0.optimiser.clip": [1, 2], "teacher.seed": [5]}
    base = {"set": {"stages.*.optimiser.schedule": "constant"}, "batch_size": 4, "learning_rate": 1e-3}
    first, _, _, last = runs_of(tmp_path, axes=axes, base=base)
    assert last.recipe.name == last.coordinates["recipe"] == "last only"
    assert last.recipe.to_data()["stages"][0]["objectives"]["attention"]["mapping"] == "last"
    assert [stage.optimiser.schedule for stage in last.recipe.stages] == ["constant", "constant"]
    assert {(stage.batch_size, stage.learning_rate) for stage in last.recipe.stages} == {(4, 1e-3)}
    assert (first.recipe.stages[0].optimiser.clip, last.recipe.stages[0].optimiser.clip) == (1, 2)
    assert last.teacher.seed == 5
    assert last.teacher.max_steps == 4


def test_a_recipe_file_is_found_beside_the_study(tmp_path):
    (tmp_path / "mine.yaml").write_text(Recipe.load("kd").to_yaml(), "utf-8")
    (run,) = runs_of(tmp_path, axes={"recipe": ["mine.yaml"]})
    assert run.recipe.hash == Recipe.load("kd").limited(None, 8, None).hash


def test_tuned_values_replace_and_coordinates_stay(tmp_path):
    study = load_study(write_study(tmp_path))
    run = expand(study, tmp_path)[3]
    made = tuned(study, tmp_path, run, {"learning_rate": 0.5, "stages.1.batch_size": 16})
    assert made.coordinates == run.coordinates == {"recipe": "att-kl", "seed": 1}
    assert [stage.learning_rate for stage in made.recipe.stages] == [0.5, 0.5]
    assert made.settings.seed == 1


def test_quick_puts_its_values_in_place(tmp_path):
    quick = {"axes.seed": [7], "base.total_steps": 2, "tasks.moods.train_examples": 9, "question": "fast?"}
    path = write_study(tmp_path, quick=quick)
    study = load_study(path, quick=True)
    assert study.axes == {"recipe": ["kd", "att-kl"], "seed": [7]}
    assert study.base["total_steps"] == 2
    assert study.tasks["moods"].train_examples == 9
    assert study.tasks["moods"].data == "data"
    assert study.question == "fast?"
    assert load_study(path).axes["seed"] == [0, 1]


def test_tune_takes_its_fields_beside_its_settings(tmp_path):
    tune = {"learning_rate": [1e-4, 1e-3], "stages.0.batch_size": [4, 8], "per": ["recipe"]}
    made = load_study(write_study(tmp_path, tune=tune)).tune
    assert made.candidates() == [
        {"learning_rate": rate, "stages.0.batch_size": size} for rate in (1e-4, 1e-3) for size in (4, 8)
    ]
    assert made.rungs == [pytest.approx(1 / 3), 1.0]


MISTAKES = [
    ({"bases": {}}, "unknown key 'bases': did you mean 'base'"),
    ({"axes": {"recpie": ["kd"]}}, "unknown axis 'recpie': did you mean 'recipe'"),
    ({"axes": {"seed": []}}, "axis seed has no values"),
    ({"axes": {"seed": [1, 1]}}, "axis seed has the value 1 twice"),
    ({"axes": {"recipe": ["nope"]}}, "unknown recipe 'nope'"),
    ({"axes": {"seed": ["x"]}}, "seed: .*valid integer"),
    ({"axes": {"stages.3.epochs": [1]}}, "there is no stages.3"),
    ({"axes": {"teacher.sead": [1]}}, "unknown axis 'teacher.sead': did you mean 'teacher.seed'"),
    ({"exclude": [{"sed": 1}]}, "exclude.0 names axis 'sed': did you mean 'seed'"),
    ({"compare": {"by": "recipe", "against": "dk"}}, "compare.against 'dk': did you mean 'kd'"),
    ({"base": {"epochs": 1}}, "total_steps says how long a run is"),
    ({"base": {"batchsize": 1}}, "unknown key 'batchsize': did you mean 'batch_size'"),
    ({"tune": {"learning_rte": [1]}}, "unknown axis 'learning_rte'"),
    ({"tune": {"learning_rate": 1}}, "tune.fields.learning_rate"),
    ({"tune": {"seed": [1]}}, "seed is both tuned and an axis"),
    ({"tune": {"per": ["recipe"]}}, "tune.fields"),
    ({"tune": {"learning_rate": [1], "per": ["seed"]}}, "leave seed out"),
    ({"tune": {"learning_rate": [1], "rungs": [1, 0.5]}}, "shares must rise"),
]


@pytest.mark.parametrize(("sections", "message"), MISTAKES)
def test_mistakes_are_one_line_that_says_where(sections, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        runs_of(tmp_path, **sections)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("quick", "message"),
    [
        ({}, "the file has no section quick"),
        ({"bse.seed": 1}, "quick.bse.seed: did you mean 'base'"),
        ({"name": "x"}, "quick.name"),
        ({"base.sed": 1}, "unknown key 'sed'"),
    ],
)
def test_mistakes_of_quick(quick, message, tmp_path):
    with pytest.raises(UserError, match=message):
        expand(load_study(write_study(tmp_path, quick=quick), quick=True), tmp_path)


def test_files_that_are_no_studies(tmp_path):
    with pytest.raises(UserError, match="study file .*none.yaml"):
        load_study(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("[1]\n", "utf-8")
    with pytest.raises(UserError, match="a study is a mapping"):
        load_study(tmp_path / "list.yaml")
    text = yaml.safe_dump(study_data(tmp_path)) + "name: again\n"
    (tmp_path / "twice.yaml").write_text(text, "utf-8")
    with pytest.raises(UserError, match="key 'name' appears twice"):
        load_study(tmp_path / "twice.yaml")


def test_total_steps_are_divided_in_proportion():
    assert divided(150, [10, 10]) == [75, 75]
    assert divided(150, [20, 4]) == [125, 25]
    assert divided(10, [1, 1, 1]) == [4, 3, 3]
    assert divided(3, [1000, 1, 1]) == [1, 1, 1]
    assert divided(7, [1]) == [7]
    with pytest.raises(UserError, match="total_steps 1: the recipe has 2 stages"):
        divided(1, [1, 1])


@pytest.mark.parametrize("recipe", ["kd", "cr-ild", "rail-kd-l"])
@pytest.mark.parametrize("examples", [7, 1000, 3668])
@pytest.mark.parametrize("total", [2, 100, 149, 1001])
def test_a_run_takes_exactly_its_total_steps_whatever_its_recipe(recipe, examples, total):
    made = with_steps(Recipe.load(recipe), {"task": examples}, total, None, 1)
    assert sum(steps_of(stage, examples, None) for stage in made.stages) == total


def test_a_share_shortens_every_stage():
    recipe = Recipe.load("cr-ild")
    made = with_steps(recipe, {"task": 320}, None, 30, 1 / 3)
    assert [steps_of(stage, 320, None) for stage in made.stages] == [10, 10]
    assert with_steps(recipe, {"task": 320}, None, 30, 1) is recipe
