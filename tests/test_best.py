"""The recipe that `distill` takes by itself: it binds to every family, head and shape of student; and even spacing."""

import json
import random

import pytest
from safetensors.torch import load_file

import layerstill
from layerstill import Recipe, UserError
from layerstill.data.tasks import Task
from layerstill.heads import HEADS, head_named
from layerstill.knowledge.mappings import Uniform, spread
from layerstill.students.initialisation import EveryK, Spread
from layerstill.training.arguments import Options
from layerstill.training.length import settled
from layerstill.training.misfits import refuse_misfits
from tests.tiny import DECODERS, FAMILIES, save_tiny, tiny_config, write_csv

RNG = random.Random(0)


DEFAULTS = ("best", "best-pairs")


@pytest.mark.parametrize("recipe", DEFAULTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_best_binds_to_every_family_and_head(family, recipe):
    teacher = tiny_config(family)
    for word in HEADS:
        if word == "tokens" and family in DECODERS:
            continue
        for depth in (1, 3, 4):
            refuse_misfits(Recipe.load(recipe), teacher, teacher, depth, 0, head_named(word))


@pytest.mark.parametrize("recipe", DEFAULTS)
@pytest.mark.parametrize("narrower", ["student.hidden_size=24", "student.intermediate_size=48"])
def test_best_binds_to_narrower_students(narrower, recipe):
    teacher = tiny_config("bert")
    refuse_misfits(Recipe.load(recipe, (narrower,)), teacher, teacher, 2, 0, head_named("classification"))


@pytest.mark.parametrize("two_texts", [False, True])
def test_examples_of_two_texts_have_a_recipe_of_their_own(two_texts, tmp_path, call):
    """By the command line and in Python, where no recipe is named; both train as long as each other."""
    (tmp_path / "data").mkdir()
    for split in ("train", "dev"):
        write_csv(tmp_path / "data" / f"{split}.csv", two_texts=two_texts)
    save_tiny(tmp_path / "teacher")
    columns = "--text-columns text,other" if two_texts else "--text-columns text"
    line = f"distill {tmp_path}/teacher --task classification --data {tmp_path}/data {columns} --student-layers 2"
    status, _, err = call(f"{line} --max-steps 2 --max-length 16 --quiet --output {tmp_path}/one")
    assert status == 0, err
    task = Task.from_files("classification", tmp_path / "data", text_columns=("text", "other")[: 1 + two_texts])
    options = Options(max_steps=2, max_length=16, progress=False)
    layerstill.distill(tmp_path / "teacher", task, None, 2, tmp_path / "two", options)
    expected = "best-pairs" if two_texts else "best"
    for name in ("one", "two"):
        result = json.loads((tmp_path / name / "result.json").read_text("utf-8"))
        assert result["recipe"] == expected
        assert result["train"]["steps"] == (4 if two_texts else 2)
    assert (
        load_file(tmp_path / "one" / "model.safetensors")["classifier.weight"]
        == load_file(tmp_path / "two" / "model.safetensors")["classifier.weight"]
    ).all()


def test_the_default_recipes_are_equally_long():
    for examples in (100, 3_668, 40_000):
        one, several = (settled(Recipe.load(name), {"task": examples})[0].stages for name in DEFAULTS)
        assert sum(float(stage.epochs) for stage in several) == pytest.approx(float(one[0].epochs), abs=0.002)
        assert float(several[0].epochs) == pytest.approx(3 * float(several[1].epochs), abs=0.01)


def test_spread_is_even_ends_with_the_last_and_is_every_k_where_that_is_possible():
    assert spread(4, 6) == [2, 3, 5, 6]
    assert spread(5, 6) == [1, 2, 4, 5, 6]
    for T in range(1, 25):
        for S in range(1, T + 1):
            layers = Spread().choose(S, T, RNG)
            assert layers is not None
            assert layers[-1] == T
            gaps = {b - a for a, b in zip([0, *layers], layers, strict=False)}
            assert max(gaps) - min(gaps) <= 1
            assert min(gaps) >= 1
            if T % S == 0:
                assert layers == EveryK().choose(S, T, RNG)


def test_a_uniform_mapping_can_be_spread_as_the_start_is():
    pairs = Uniform(uneven="spread").draw_pairs(4, 6, RNG)
    assert [(p.student, p.teacher) for p in pairs] == [(1, 2), (2, 3), (3, 5), (4, 6)]
    with pytest.raises(UserError, match="does not divide"):
        Uniform(uneven="spread").draw_pairs(6, 4, RNG)
    with pytest.raises(UserError, match="uneven: spread"):
        Uniform().draw_pairs(4, 6, RNG)
