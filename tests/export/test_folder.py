"""The folder of an export: whole or not there, found again, never another model's."""

import json
import shutil
import sys

import pytest
from transformers import AutoModelForSequenceClassification

import layerstill
from layerstill import Task, UserError, export
from layerstill.export.runner import INSTALL
from layerstill.heads import Classes
from tests.export.small import LENGTH, every_length, own_words, save_model
from tests.tiny import save_teacher_and_data, save_tiny, tiny_tokenizer


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return save_teacher_and_data(tmp_path_factory.mktemp("export"), "m", layers=2)


def state(folder) -> dict:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.iterdir())}


def test_the_same_again_is_what_is_there_and_other_settings_write_it_anew(place, tmp_path, call):
    words = f"export {place}/m --data {place}/data --max-drop 100 --output {tmp_path}/o"
    status, out, _ = call(f"{words} --json")
    assert status == 0
    first, found = state(tmp_path / "o"), json.loads(out)
    assert {*first} == {"config.json", "export.json", "model.onnx", "run.py", "tokenizer.json"}
    assert json.loads(first["export.json"][1]) == found
    assert found["files"]["fp32"]["path"] == "model.onnx"
    status, out, _ = call(f"{words} --json")
    assert (status, json.loads(out)) == (0, found)
    assert state(tmp_path / "o") == first
    status, out, _ = call(f"{words} --int8")
    assert status == 0
    assert "model.int8.onnx" in out
    assert {*state(tmp_path / "o")} == {*first, "model.int8.onnx"}
    (tmp_path / "o" / "model.int8.onnx").unlink()
    assert call(f"{words} --int8")[0] == 0
    assert (tmp_path / "o" / "model.int8.onnx").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["o"], "nothing is left beside it"


def test_a_folder_of_another_model_or_of_something_else_is_refused(place, tmp_path, call):
    save_tiny(tmp_path / "other", layers=2, seed=1)
    words = f"--data {place}/data --output {tmp_path}/o"
    assert call(f"export {place}/m {words}")[0] == 0
    before = state(tmp_path / "o")
    status, out, err = call(f"export {tmp_path}/other {words}")
    assert (status, out) == (2, "")
    assert f"it holds the export of another model ({place}/m" in err
    assert state(tmp_path / "o") == before
    status, _, err = call(f"export {place}/m --data {place}/data --output {place}/data")
    assert status == 2
    assert "it holds something other than an export" in err
    assert {path.name for path in (place / "data").iterdir()} == {"train.csv", "dev.csv"}


def test_what_was_stopped_leaves_nothing_and_what_was_killed_hinders_nobody(place, tmp_path, monkeypatch):
    act = sys.modules["layerstill.acts.export"]
    with monkeypatch.context() as patch:
        patch.setattr(act, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export(place / "m", place / "data", tmp_path / "o")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".o.part").mkdir()
    (tmp_path / ".o.part" / "model.onnx").write_bytes(b"half")
    assert export(place / "m", place / "data", tmp_path / "o").fit
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


MISTAKES = [
    ("{m}", "give the data of model"),
    ("{m} --data {d} --split tset", "--split tset: known: train, dev"),
    ("{m} --data {d} --max-drop -1", "--max-drop -1"),
    ("{m} --data {d} --max-length 65", "the model allows 64 tokens"),
    ("{m} --task multilabel --data {d}", "error: "),
    ("{m}/none --data {d}", "no such folder"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES)
def test_mistakes_are_one_line(words, message, place, tmp_path, call):
    words = words.format(m=place / "m", d=place / "data")
    status, out, err = call(f"export {words} --output {tmp_path}/o")
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_model_in_memory_needs_a_place_to_be_written_to(tmp_path):
    texts = every_length()
    folder = save_model(tmp_path / "m", "bert", Classes())
    task = own_words(folder, texts, Classes())
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), tiny_tokenizer()
    with pytest.raises(UserError, match="--output"):
        export(model, task, max_length=LENGTH)
    found = export(model, task, tmp_path / "o", max_length=LENGTH, tokenizer=tokenizer)
    assert found.fit
    assert found.files["fp32"].parity["scores"]["accuracy"] == 1


def test_a_model_is_compared_as_it_was_trained(place, tmp_path):
    shutil.copytree(place / "m", tmp_path / "m")
    (tmp_path / "m" / "run.json").write_text('{"task": "classification", "max_length": 17}')
    assert export(tmp_path / "m", place / "data").record["max_length"] == 17
    assert export(place / "m", place / "data", tmp_path / "o").record["max_length"] == 64, "all that the model allows"


def test_the_demos_model_needs_no_data(tmp_path):
    model = save_tiny(tmp_path / "m", names=Task.demo().labels)
    (model / "run.json").write_text('{"task": "tickets", "max_length": 32}')
    assert export(model).files["fp32"].parity["examples"] == 120


def test_without_onnxruntime_there_is_a_line_that_says_what_to_install(place, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="export needs onnxruntime") as error:
        export(place / "m", place / "data", tmp_path / "o")
    assert INSTALL in str(error.value)
    assert layerstill.export is export


def test_nobodys_files_are_deleted(place, tmp_path, call):
    """Neither what a user put beside an export, nor what a link leads to."""
    words = f"export {place}/m --data {place}/data --max-drop 100 --output {tmp_path}/o"
    assert call(words)[0] == 0
    (tmp_path / "o" / "NOTES.txt").write_text("mine")
    status, _, err = call(f"{words} --int8")
    assert status == 2
    assert "NOTES.txt in it does not belong to an export" in err
    assert (tmp_path / "o" / "NOTES.txt").read_text() == "mine"
    (tmp_path / "o" / "NOTES.txt").unlink()
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "thesis.txt").write_text("years")
    (tmp_path / ".o.part").symlink_to(tmp_path / "victim")
    status, _, err = call(f"{words} --int8")
    assert status == 2
    assert ".o.part: something is in the place where an export is built" in err
    assert (tmp_path / "victim" / "thesis.txt").read_text() == "years"
