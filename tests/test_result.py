"""`result.json` in types: strict when it is written, generous when it is read, the same classes for both."""

import json

import pytest

from layerstill.errors import UserError
from layerstill.result import Record, Result, TrainPart
from tests.tiny import save_tiny

WHOLE = {
    "recipe": "kd",
    "recipe_hash": "0123",
    "teacher": None,
    "task": "mrpc",
    "seed": 3,
    "student": {"layers": 2, "hidden_size": 48, "parameters": 99, "init": {"layers": [1, 2], "from": "teacher"}},
    "metrics": {"accuracy": 0.5, "f1": 1.0, "selected": "best of 3"},
    "head": {"kind": "classification"},
    "by_label": {},
    "teacher_metrics": {},
    "verdict": [],
    "regime": {"few_samples": 8},
    "ood": {"far": {"metrics": {"accuracy": 0.25}, "parts": {}}},
    "supplementary": None,
    "tuning": None,
    "unlabelled": None,
    "augmented": None,
    "teacher_probabilities": None,
    "teachers": None,
    "text": None,
    "train": dict.fromkeys(TrainPart.model_fields, 2.0) | {"examples": 4, "steps": 2, "precision": "fp32"},
    "environment": {"torch": "2"},
}


def test_what_is_written_is_read(tmp_path):
    record = Record.model_validate(WHOLE)
    record.write(tmp_path)
    text = (tmp_path / "result.json").read_text("utf-8")
    assert json.loads(text) == WHOLE
    assert list(json.loads(text)) == list(WHOLE)
    assert Record.read(tmp_path, "") == record
    assert record.scores == {"accuracy": 0.5, "f1": 1.0}
    assert record.selected == "best of 3"


@pytest.mark.parametrize("place", [None, "student", "train"])
@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_nothing_is_written_that_is_not_whole(place, change, tmp_path):
    data = json.loads(json.dumps(WHOLE))
    part = data[place] if place else data
    if change == "unknown":
        part["colour"] = "red"
    else:
        del part[{"student": "init", "train": "seconds", None: "regime"}[place]]
    name = {"student": "StudentPart", "train": "TrainPart", None: "Record"}[place]
    with pytest.raises(ValueError, match=f"{name}: missing or unknown: (colour|init|seconds|regime)$"):
        Record.model_validate(data).write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_results_of_other_versions_are_read_and_stay_as_they_are(tmp_path):
    old = {"recipe": "kd", "task": "mrpc", "seed": 0, "student": {"layers": 3, "parameters": 5}, "metrics": {"f1": 1.0}}
    new = WHOLE | {"colour": "red", "train": {"steps": 3, "joules": 7}}
    for data in (old, new):
        (tmp_path / "result.json").write_text(json.dumps(data), "utf-8")
        record = Record.read(tmp_path, "")
        assert Result(record, tmp_path).data == data
    assert Record.model_validate(old).selected == "last"
    assert Record.model_validate(old).ood == {}


@pytest.mark.parametrize("text", ["", "x", "[]", "3", "{}", "[" * 100_000, json.dumps(WHOLE | {"student": 3})])
def test_a_damaged_result_is_one_line(text, tmp_path):
    (tmp_path / "result.json").write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"result.json: damaged; delete it$"):
        Record.read(tmp_path, "delete it")


def test_no_result_is_none(tmp_path):
    assert Record.read(tmp_path, "") is None


def test_the_student_is_loaded_from_the_folder(tmp_path):
    save_tiny(tmp_path / "s")
    result = Result(Record.model_validate(WHOLE), tmp_path / "s")
    assert type(result.student).__name__ == "BertForSequenceClassification"
    assert not result.student.training
    assert result.student is result.student
    (tmp_path / "s" / "model.safetensors").unlink()
    again = Result(Record.model_validate(WHOLE), tmp_path / "s")
    with pytest.raises(UserError, match=r"its model cannot be loaded: .*model.safetensors"):
        again.student  # noqa: B018
