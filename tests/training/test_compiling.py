"""Compiled layers compute what plain ones do, and leave no trace."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from layerstill.acts import distill
from layerstill.data.tasks import Task
from layerstill.families import layers_of
from layerstill.recipe import Recipe
from layerstill.training.arguments import Options
from layerstill.training.compiling import compiled_layers
from layerstill.training.dropout import CheapDropout
from tests.command import status_of
from tests.tiny import batch, no_dropout, save_tiny, tiny_model, write_csv

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler (g++)")


@needs_compiler
@pytest.mark.parametrize(
    ("family", "recipe"), [("bert", "tinybert"), pytest.param("llama", "att-kl", marks=pytest.mark.slow)]
)
def test_a_compiled_run_learns_what_a_plain_one_does(family, recipe, tmp_path):
    """Both stages of two-stage recipes, every length of batch, recorded attention and hidden states."""
    for split, rows in (("train", 16), ("dev", 6)):
        write_csv(tmp_path / f"{split}.csv", rows=rows)
    task = Task.from_files("classification", tmp_path)
    teacher = str(save_tiny(tmp_path / "teacher", family, **no_dropout(family)))
    short = Recipe.load(recipe).limited(1, 4, 1e-3)
    students = []
    for compiled in (False, True):
        options = Options(max_length=32, progress=False, precision="fp32", compile=compiled)
        folder = distill(teacher, task, short, 2, tmp_path / f"s{compiled}", options).folder
        students.append(load_file(folder / "model.safetensors"))
    for name, weight in students[0].items():
        torch.testing.assert_close(students[1][name], weight, rtol=1e-3, atol=1e-5, msg=name)
    start = AutoModelForSequenceClassification.from_pretrained(teacher).state_dict()
    assert any(not torch.equal(w, start[n]) for n, w in students[1].items() if n in start)


@needs_compiler
@pytest.mark.parametrize(
    ("family", "recipe"), [("bert", "att-kl"), pytest.param("llama", "att-kl", marks=pytest.mark.slow)]
)
def test_what_no_objective_reaches_is_frozen_when_compiled_too(family, recipe, tmp_path):
    for split, rows in (("train", 8), ("dev", 6)):
        write_csv(tmp_path / f"{split}.csv", rows=rows)
    task = Task.from_files("classification", tmp_path)
    teacher = str(save_tiny(tmp_path / "teacher", family))
    data = Recipe.load(recipe).limited(1, 8, 1e-1).to_data()
    data["stages"] = data["stages"][:1]
    data["stages"][0]["optimiser"] = {"weight_decay": 0.9, "warmup": 0, "schedule": "constant"}
    options = Options(max_length=32, progress=False, precision="fp32", compile=True)
    folder = distill(teacher, task, Recipe.from_data(data), 2, tmp_path / "s", options).folder
    value = {
        "bert": "bert.encoder.layer.{}.attention.self.value.weight",
        "llama": "model.layers.{}.self_attn.v_proj.weight",
    }
    origin = json.loads((folder / "result.json").read_text("utf-8"))["student"]["init"]["layers"]
    before = load_file(tmp_path / "teacher" / "model.safetensors")[value[family].format(origin[1] - 1)]
    assert torch.equal(before, load_file(folder / "model.safetensors")[value[family].format(1)])


@pytest.mark.parametrize("verb", ["distill", "plan"])
def test_without_a_compiler_it_is_refused(verb, tmp_path):
    teacher = str(save_tiny(tmp_path / "teacher"))
    write_csv(tmp_path / "train.csv")
    line = f"{verb} {teacher} --task classification --data {tmp_path}/train.csv --student-layers 2 --max-length 32 -q"
    words = [sys.executable, "-m", "layerstill", *line.split(), "--compile", "--output", str(tmp_path / "s")]
    environment = {n: v for n, v in os.environ.items() if n != "CXX"} | {"PATH": str(tmp_path)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: --compile: no working C++ compiler is on this machine")
    assert not (tmp_path / "s").exists()


@needs_compiler
def test_dropout_in_compiled_layers_drops():
    model = tiny_model("bert", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5).train()
    ids = batch()["input_ids"]
    with compiled_layers(model), CheapDropout():
        torch.manual_seed(0)
        first, second = (model(input_ids=ids).logits for _ in "ab")
        torch.manual_seed(0)
        again = model(input_ids=ids).logits
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)


def test_nothing_of_it_stays_also_after_an_error():
    model = tiny_model("bert")
    before = [vars(layer).keys() for layer in layers_of(model)]

    def fail() -> None:
        with compiled_layers(model):
            assert all("forward" in vars(layer) for layer in layers_of(model))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [vars(layer).keys() for layer in layers_of(model)] == before


@pytest.mark.parametrize("verb", ["distill", "plan"])
def test_a_family_that_is_read_by_hooks_inside_its_layers_is_refused(verb, tmp_path, capsys):
    teacher = str(save_tiny(tmp_path / "teacher", "mpnet"))
    write_csv(tmp_path / "train.csv")
    line = f"{verb} {teacher} --task classification --data {tmp_path}/train.csv --student-layers 2 --max-length 32 -q"
    assert status_of(*line.split(), "--compile", "--output", str(tmp_path / "s")) == 2
    assert "error: --compile: q, k, v of model family 'mpnet' are read by hooks" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
