"""`layerstill compress` from end to end: on a tiny teacher, as a user calls it."""

import json
import shutil

import pytest

import layerstill
from layerstill import Options, UserError
from layerstill.acts.compress import RECORD
from layerstill.acts.ladder import climb_down
from layerstill.compression.choice import Budget
from layerstill.data.tasks import Task
from layerstill.export.session import OnnxModel
from layerstill.training.models import load_config
from tests.tiny import save_teacher_and_data, save_tiny

LENGTH = 16


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A teacher of three layers, data, and a finished compression to one student of two layers."""
    return save_teacher_and_data(tmp_path_factory.mktemp("compress"))


def options(**more):
    return Options(max_length=LENGTH, progress=False, **more)


@pytest.fixture(scope="module")
def done(home):
    task = Task.from_files("classification", home / "data")
    how = options(max_steps=4)
    found = layerstill.compress(
        home / "teacher", task, home / "out", Budget(max_drop=100), "quick", how, layers=[2], threads=1
    )
    return found, task


def words(home, *more: str) -> list[str]:
    start = f"compress {home}/teacher --task classification --data {home}/data --effort quick --max-length {LENGTH}"
    return [*start.split(), "--max-steps", "4", "--layers", "2", "--output", str(home / "out"), *more]


def test_teacher_and_student_stand_in_one_table_in_every_form(home, done):
    found, task = done
    assert [(row.model, row.form) for row in found.rows] == [
        (model, form) for model in ("teacher", "2 layers") for form in ("torch", "onnx", "int8")
    ]
    teacher, student = found.rows[0], found.rows[3]
    assert (teacher.kept, teacher.agreement, teacher.layers, student.layers) == (100, 1, 3, 2)
    assert all(row.p50_ms > 0 and row.disk_mb > 0 and row.memory_mb is not None for row in found.rows)
    assert student.parameters < teacher.parameters
    for row in found.rows[1:3]:
        path = home / "out" / row.path
        logits = OnnxModel(path.parent, path.name).logits(task.splits["dev"].texts)
        assert task.score(logits)[task.metrics[0]] == row.score
    assert found.choice.row in found.rows


def test_the_folder_holds_models_files_and_the_page(home, done):
    out = home / "out"
    assert {path.name for path in out.iterdir()} == {
        "2-layers", "teacher-onnx", RECORD, "README.md", "compress.html"
    }  # fmt: skip
    assert (out / "2-layers" / "onnx" / "run.py").is_file()
    assert "2 layers" in (out / "README.md").read_text("utf-8")
    page = (out / "compress.html").read_text("utf-8")
    assert page.count('transform="translate(') == 12  # six models in the pictures for a desktop and for a phone
    assert '<b class="mark">ship this</b>' in page
    assert "quantised teacher</b>" in page
    assert "http://" not in page
    assert "https://" not in page


def test_the_same_again_trains_nothing_and_applies_another_budget(home, done, call):
    before = (home / "out" / "2-layers" / "model.safetensors").stat().st_mtime_ns
    status, out, _ = call(words(home, "--max-mb", "0.000001", "--json"))
    record = json.loads(out)
    assert status == 1
    assert record["ship"] is None
    assert record["verdict"][0] == "No model fits the budget."
    status, out, err = call(words(home, "--max-drop", "100"))
    assert status == 0
    assert "only the budget is applied again" in err
    assert "Ship " in out
    assert (home / "out" / "2-layers" / "model.safetensors").stat().st_mtime_ns == before


def test_another_compression_in_the_folder_is_refused(home, done, call):
    status, _, err = call([*words(home), "--seed", "5"])
    assert status == 2
    assert "seed is 0 there and 5 here" in err
    status, _, err = call([*words(home)[:-2], "--output", str(home / "out"), "--effort", "normal"])
    assert status == 2
    status, _, err = call([word if word != str(home / "out") else str(home / "data") for word in words(home)])
    assert status == 2
    assert "not empty" in err
    assert {path.name for path in (home / "data").iterdir()} == {"train.csv", "dev.csv"}


def test_an_interrupted_one_goes_on_and_another_student_is_added(home, done, tmp_path, call):
    """What is left of the rows is trained, the same as without the interruption. The added student has the teacher's
    name, which must not make it one."""
    first = done[0]
    shutil.copytree(home / "out", tmp_path / "out")
    record = json.loads((tmp_path / "out" / RECORD).read_text("utf-8"))
    settings = {
        key: record[key] for key in record if key not in {"rows", "trials", "chosen", "examples", "metric", "verdicts"}
    }
    (tmp_path / "out" / RECORD).write_text(json.dumps(settings), "utf-8")
    shutil.rmtree(tmp_path / "out" / "2-layers")
    save_tiny(tmp_path / "teacher", layers=1, width=24)
    given = [word if word != str(home / "out") else str(tmp_path / "out") for word in words(home, "--json")]
    status, out, err = call([*given, "--student", str(tmp_path / "teacher"), "--max-drop", "100"])
    assert status == 0, err
    rows = json.loads(out)["rows"]
    assert list(dict.fromkeys(row["model"] for row in rows)) == ["teacher", "2 layers", "student teacher"]
    assert [row["teaches"] for row in rows] == [True] * 3 + [False] * 6
    assert [row["score"] for row in rows[:6]] == [row.score for row in first.rows]
    weights = [place / "out" / "2-layers" / "model.safetensors" for place in (home, tmp_path)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_dry_run_says_what_it_will_do_and_writes_nothing(home, tmp_path, call):
    given = [word if word != str(home / "out") else str(tmp_path / "out") for word in words(home, "--dry-run")]
    given[given.index("quick")] = "normal"
    status, out, _ = call(given)
    assert status == 0
    assert "4 candidates, each as a student of 2 layers" in out
    assert "student of 2 layers, 4 updates" in out
    assert "in all about" in out
    assert not (tmp_path / "out").exists()
    nowhere = [word for word in given if word not in ("--output", str(tmp_path / "out"))]
    status, out, _ = call(nowhere)
    assert status == 0
    assert "in all about" in out
    status, _, err = call([word for word in nowhere if word != "--dry-run"])
    assert status == 2
    assert "--output DIR" in err


@pytest.mark.slow
def test_trials_choose_how_all_students_are_trained(home, tmp_path):
    task = Task.from_files("classification", home / "data")
    found = layerstill.compress(
        home / "teacher", task, tmp_path / "out", Budget(max_drop=100), "normal", options(max_steps=2), layers=[1]
    )
    assert [trial["updates"] for trial in found.trials] == [2] * 4, "no trial is longer than a student's training"
    assert found.record["chosen"]["recipe"] == "best"
    names = [trial["name"] for trial in found.trials]
    chosen = found.record["chosen"]
    assert f"{chosen['recipe']}, {chosen['start']}, rate x{chosen['rate']:g}" in names


def test_the_ladder_is_decided_before_anything_is_trained(home):
    task = Task.from_files("classification", home / "data")
    ladder = climb_down(str(home / "teacher"), task, "normal", options())
    slim = ("2 layers, half feed-forward", "2-layers-half-feed-forward")
    assert [(one.name, one.folder) for one in ladder.students] == [
        ("2 layers", "2-layers"),
        ("1 layer", "1-layers"),
        slim,
    ]
    whole = load_config(str(home / "teacher"), task.head)
    made = ladder.recipe(ladder.candidates[0], 37, ladder.students[-1]).student
    assert made.intermediate_size == whole.intermediate_size // 2
    for effort, layers in (("quick", None), ("normal", [1])):
        others = climb_down(str(home / "teacher"), task, effort, options(), layers).students
        assert slim not in [(one.name, one.folder) for one in others], "only where nobody said which students"
    recipe = ladder.recipe(ladder.candidates[0], 37, ladder.middle)
    steps = -(-len(task.splits["train"]) // recipe.stages[0].batch_size)
    assert 36 < recipe.stages[0].epochs * steps <= 37
    with pytest.raises(UserError, match="--layers 4: the teacher has 3 layers"):
        climb_down(str(home / "teacher"), task, "normal", options(), [4])


def test_a_student_that_cannot_be_trained_is_refused_before_anything_is(home, tmp_path, call):
    save_tiny(tmp_path / "short", layers=1, positions=8)
    given = [word if word != str(home / "out") else str(tmp_path / "out") for word in words(home)]
    status, _, err = call([*given, "--student", str(tmp_path / "short")])
    assert status == 2
    assert "allows 8 tokens" in err
    assert not (tmp_path / "out").exists()
