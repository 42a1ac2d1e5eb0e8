"""Starts and mappings on running text, with a teacher of 12 layers as in How to Distill your BERT."""

import json

import pytest
import torch
from safetensors.torch import load_file

from layerstill.students.initialisation import parse_initialisation
from tests.tiny import WORDS, save_tiny, save_tiny_masked_lm


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("starts")
    save_tiny(folder / "teacher", layers=12)
    save_tiny_masked_lm(folder / "llama", "llama", num_hidden_layers=12)
    (folder / "texts.txt").write_text("\n\n".join(" ".join(WORDS[i % 9 :]) for i in range(40)) + "\n", "utf-8")
    return folder


def words(place, verb: str, *more: str, teacher: str = "teacher") -> list[str]:
    line = f"{verb} {place}/{teacher} --task text --data {place}/texts.txt --student-layers 3 --max-length 16 -q"
    return [*f"{line} --batch-size 8 --precision fp32 --max-steps 1".split(), *more]


@pytest.mark.parametrize("teacher", ["teacher", "llama"])
@pytest.mark.parametrize(
    ("init", "layers"),
    [("1,8,12", [1, 8, 12]), ("every-k", [4, 8, 12]), ("first-k", [1, 2, 3]), ("random", None)],
)
def test_the_student_starts_from_the_layers_that_are_named(init, layers, teacher, place, call, tmp_path):
    more = "--init", init, "--set", "stages.0.learning_rate=1e-12"
    status, _, err = call(words(place, "distill", *more, "--output", str(tmp_path / "s"), teacher=teacher))
    assert status == 0, err
    result = json.loads((tmp_path / "s" / "result.json").read_text("utf-8"))
    assert result["student"]["init"]["layers"] == (layers or "random weights")
    status, out, err = call(words(place, "plan", *more, "--json", teacher=teacher))
    assert status == 0, err
    assert json.loads(out)["initialisation"] == layers
    whole = {n.removeprefix("bert."): w for n, w in load_file(place / teacher / "model.safetensors").items()}
    stem = "encoder.layer" if teacher == "teacher" else "model.layers"
    for name, weight in load_file(tmp_path / "s" / "model.safetensors").items():
        if not name.startswith(stem):
            torch.testing.assert_close(weight, whole[name], msg=name)
            continue
        number, rest = name.removeprefix(f"{stem}.").split(".", 1)
        source = 0 if layers is None else layers[int(number)] - 1
        there = whole[f"{stem}.{source}.{rest}"]
        if layers is not None:
            torch.testing.assert_close(weight, there, msg=name)
        elif weight.ndim == 2:
            assert not torch.allclose(weight, there), name


@pytest.mark.parametrize(
    ("mapping", "pairs"),
    [
        ("last", ["layer 3 <- layer 12"]),
        ("uniform", ["layer 1 <- layer 4", "layer 2 <- layer 8", "layer 3 <- layer 12"]),
    ],
)
@pytest.mark.parametrize("recipe", ["text-att-mse", "text-att-kl", "text-minilm", "text-hid-seq"])
def test_last_and_evenly_spread_layers_are_one_setting_apart(recipe, mapping, pairs, place, call):
    term = "hidden states" if recipe == "text-hid-seq" else "attention"
    more = "--recipe", recipe, "--set", f"stages.0.objectives.{term}.mapping={mapping}", "--json"
    status, out, err = call(words(place, "plan", *more))
    assert status == 0, err
    (row,) = [row for row in json.loads(out)["stages"][0]["objectives"] if row["objective"] == term]
    assert row["pairs"] == pairs


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("1,8", "initialisation names 2 layers, but the student has 3"),
        ("1,8,13", "initialisation names layer 13, but the source has 12 layers"),
        ("0,8,12", "layers are counted from 1"),
    ],
)
def test_layers_that_there_are_not_are_refused(init, message, place, call, tmp_path):
    status, _, err = call(words(place, "distill", "--init", init, "--output", str(tmp_path / "s")))
    assert status == 2
    assert message in " ".join(err.split())
    assert not (tmp_path / "s").exists()


def test_layers_are_read_as_they_are_written():
    assert parse_initialisation("1,8,12") == {"explicit": {"layers": [1, 8, 12]}}
