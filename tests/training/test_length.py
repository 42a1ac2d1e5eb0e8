"""How long `epochs: auto` is, and that everything that asks gets the same number."""

import json
from itertools import pairwise

import pytest

from layerstill import Recipe, UserError
from layerstill.studies.job import with_steps
from layerstill.training.length import automatic_epochs, settled, steps_of
from tests.tiny import save_tiny, write_csv

AUTO = "stages.0.epochs=auto"


@pytest.mark.parametrize(
    ("examples", "epochs"), [(1, 30), (700, 30), (1_600, 30), (5_000, 9.6), (10_000, 4.8), (16_000, 3), (400_000, 3)]
)
def test_48_000_examples_are_seen_within_3_to_30_epochs(examples, epochs):
    assert automatic_epochs(examples) == epochs


def test_more_examples_never_mean_fewer_updates_or_more_epochs():
    stage = Recipe.load("kd", (AUTO,)).stages[0]
    sizes = [round(1.2**k) for k in range(1, 70)]
    epochs = [automatic_epochs(n) for n in sizes]
    assert epochs == sorted(epochs, reverse=True)
    steps = [steps_of(stage, n, None) for n in sizes]
    # Epochs are rounded to a decimal, which moves a length by less than two hundredths.
    assert all(later > 0.98 * earlier for earlier, later in pairwise(steps))


def test_a_settled_recipe_has_numbers_and_says_so():
    recipe = Recipe.load("hid-seq", (AUTO,))
    done, notes = settled(recipe, {"task": 5_000})
    assert [stage.epochs for stage in done.stages] == [9.6, 10]
    assert notes == ["stage 1, epochs: 9.6 (auto: 1,508 updates)"]
    assert done.hash != recipe.hash
    assert settled(done, {"task": 5_000}) == (done, [])
    assert settled(recipe, {"supplementary": 5_000}) == (recipe, [])


def test_only_that_word_is_a_length():
    with pytest.raises(UserError, match=r"recipe kd: stages.0.epochs: Input should be a valid number, got 'automatic'"):
        Recipe.load("kd", ("stages.0.epochs=automatic",))
    assert Recipe.from_data(Recipe.load("kd", (AUTO,)).to_data()).stages[0].epochs == "auto"


def test_a_stage_may_take_a_share_of_the_automatic_length():
    recipe = Recipe.load("kd", ("stages.0.epochs=3/4 auto",))
    assert Recipe.from_data(recipe.to_data()) == recipe
    assert steps_of(recipe.stages[0], 5000, None) == round(
        0.75 * steps_of(Recipe.load("kd", (AUTO,)).stages[0], 5000, None)
    )
    assert settled(recipe, {"task": 5000})[0].stages[0].epochs == pytest.approx(0.75 * automatic_epochs(5000))
    assert recipe.limited("auto", None, None) == recipe
    assert Recipe.load("kd").limited("auto", None, None).stages[0].epochs == "auto"
    for wrong in ("5/4 auto", "0/4 auto", "3/0 auto", "auto 3/4"):
        with pytest.raises(UserError, match=r"stages.0.epochs"):
            Recipe.load("kd", (f"stages.0.epochs={wrong}",))


def test_shares_and_totals_of_steps_know_what_it_stands_for():
    recipe = Recipe.load("hid-seq", ("stages.0.epochs=auto", "stages.1.epochs=9.6"))
    sizes = {"task": 5_000}
    assert [steps_of(s, 5_000, None) for s in with_steps(recipe, sizes, 200, None, 1).stages] == [100, 100]
    assert [steps_of(s, 5_000, None) for s in with_steps(recipe, sizes, None, None, 0.5).stages] == [754, 754]


def test_plan_training_and_record_agree_on_the_number(call, tmp_path):
    for split in ("train", "dev"):
        write_csv(tmp_path / f"{split}.csv", rows=12)
    save_tiny(tmp_path / "teacher")
    words = f"{tmp_path}/teacher --task classification --data {tmp_path} --recipe kd --student-layers 2 --set {AUTO}"
    words += " --batch-size 8 --max-length 16"
    _, planned, _ = call(f"plan {words} --json")
    assert json.loads(planned)["stages"][0]["steps"] == 60
    status, _, said = call(f"distill {words} --output {tmp_path}/run")
    assert status == 0
    assert "epochs: 30 (auto: 60 updates)" in said
    result = json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))
    trained = Recipe.load(tmp_path / "run" / "recipe.yaml")
    assert (result["train"]["steps"], trained.stages[0].epochs) == (60, 30)
    assert result["recipe_hash"] == trained.hash
    status, _, said = call(f"distill {words} --output {tmp_path}/run")
    assert (status, "already holds this run" in said) == (0, True)
