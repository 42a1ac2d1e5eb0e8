"""The first card and the table below it: which student, what is lost, what is gained, and how sure that is."""

import json

import numpy as np
import pytest
from scipy import stats

from layerstill import Options
from layerstill.acts import distill, report
from layerstill.evaluation.predictions import TEACHER_FILE, load_predictions
from tests.reporting.example import EXAMPLES, result, write_compression, write_run, write_student, write_teacher
from tests.tiny import save_tiny, write_csv

RIGHT = np.arange(EXAMPLES) < 170
"""What the teacher gets right: 85 %."""


def but(lost, gained=0):
    """The teacher's answers with some right ones made wrong, and some wrong ones right."""
    changed = RIGHT.copy()
    changed[:lost] = False
    changed[170 : 170 + gained] = True
    return changed


@pytest.fixture
def folder(tmp_path):
    teacher = write_teacher(tmp_path / "teacher", RIGHT)
    write_student(tmp_path / "three", teacher, but(12, 2), 3)
    write_student(tmp_path / "four", teacher, but(4, 2), 4)
    return tmp_path


def test_one_seed_is_tested_over_the_examples(folder):
    """McNemar's exact test by hand: of 14 examples on which the two differ, the student loses 12."""
    models = {model.name: model for model in report(folder).models}
    three, four = models["3 layers"].loss, models["4 layers"].loss
    by_hand = [2 * stats.binom.cdf(2, 14, 0.5), 2 * stats.binom.cdf(2, 6, 0.5)]
    assert [loss.comparison.test.p for loss in (three, four)] == pytest.approx(by_hand)
    assert by_hand[0] < 0.02
    assert [loss.comparison.p_holm for loss in (three, four)] == pytest.approx([2 * by_hand[0], by_hand[1]])
    assert [loss.points for loss in (three, four)] == pytest.approx([5.0, 1.0])
    assert three.comparison.interval.high < 0 < four.comparison.interval.high


def test_the_card_names_the_smallest_student_that_loses_little(folder):
    (card,) = report(folder).cards
    assert (card.title, card.which, card.mark, card.path) == ("mrpc", "4 layers", "", str(folder / "four"))
    facts = {fact.name: (fact.value, fact.detail) for fact in card.facts}
    assert facts["accuracy"] == ("84.0", "teacher 85.0")
    value, detail = facts["lost"]
    assert value == "1.0 points"
    assert detail.startswith("keeps 98.8 %; 95 % interval ")
    assert detail.endswith(", p = 0.69 after Holm, 3 comparisons, paired over 200 examples")
    assert facts["gained"] == ("4 of 6 layers", "its speed was not measured")
    assert facts["size"] == ("19.2 M parameters", "of 22.7 M")
    said = " ".join(card.sentences)
    assert "It is the smallest of 2 students that lose at most 2 points." in said
    assert "4 layers 84.0 (n = 1) against 3 layers 80.0: difference 4.0, 95 % interval" in said
    assert "(over examples); evidence that 4 layers is higher (p = 0.023 after Holm, 3 comparisons)" in said
    assert "One seed" in said


def test_without_a_student_that_loses_little_the_best_is_named(folder):
    teacher = folder / "teacher"
    write_student(folder / "two", teacher, but(30), 2)
    (folder / "four" / "result.json").unlink()
    (card,) = report(folder).cards
    assert card.which == "3 layers"
    assert "It scores highest of 2 students; none loses as little as 2 points." in card.sentences


def test_predictions_of_another_teacher_are_not_used(folder):
    record = json.loads((folder / "teacher" / "result.json").read_text("utf-8"))
    record["metrics"]["accuracy"] = 0.9  # it was trained anew since
    (folder / "teacher" / "result.json").write_text(json.dumps(record), "utf-8")
    for name in ("three", "four"):
        data = json.loads((folder / name / "result.json").read_text("utf-8"))
        data["teacher_metrics"]["accuracy"] = 0.88
        (folder / name / "result.json").write_text(json.dumps(data), "utf-8")
    (card,) = report(folder).cards
    lost = next(fact for fact in card.facts if fact.name == "lost")
    assert lost.value == "4.0 points"
    said = "not tested: what the teacher said of each example was not kept; the same command with a new --output keeps"
    assert said in lost.detail


def test_a_teacher_that_is_no_run_is_held_against_what_its_students_kept_of_it(folder):
    """The commonest teacher is any fine-tuned folder or a name on the hub."""
    tests = [m.loss.comparison.test.p for m in report(folder).models if m.student]
    (folder / "teacher" / "predictions.safetensors").rename(folder / "three" / TEACHER_FILE)
    assert [m.loss.comparison.test.p for m in report(folder).models if m.student] == tests
    (folder / "teacher" / "result.json").unlink()
    (folder / "teacher" / "config.json").unlink()
    (folder / "teacher").rename(folder / "moved")
    assert [m.loss.comparison.test.p for m in report(folder).models if m.student] == tests


def test_a_run_keeps_what_its_teacher_said(tmp_path):
    save_tiny(tmp_path / "m", layers=2)
    (tmp_path / "d").mkdir()
    for split, seed in (("train", 0), ("dev", 1)):
        write_csv(tmp_path / "d" / f"{split}.csv", rows=30, seed=seed)
    done = distill(
        tmp_path / "m", tmp_path / "d", "kd", 1, tmp_path / "s", Options(max_steps=2, max_length=32, progress=False)
    )
    (student,) = (m for m in report(tmp_path).models if m.student)
    assert student.loss.comparison.test.pairs <= 30
    kept = load_predictions(done.folder, TEACHER_FILE)
    assert kept.contributions("accuracy").mean() == pytest.approx(done.record.teacher_metrics["accuracy"])


def test_why_a_loss_is_not_tested_is_said(folder):
    def why() -> list[str]:
        (card,) = report(folder).cards
        return next(fact.detail for fact in card.facts if fact.name == "lost").split("not tested: ")[1:]

    assert why() == []
    for name in ("three", "four"):
        (folder / name / "predictions.safetensors").unlink()
    assert why() == [
        "what the student said of each example is not in its folder; the same command with a new --output keeps it"
    ]


def test_several_seeds_are_tested_by_their_mean(tmp_path):
    teacher = write_teacher(tmp_path / "teacher", RIGHT)
    for seed, lost in enumerate((6, 8, 10)):
        place = write_student(tmp_path / f"kd-{seed}", teacher, but(lost))
        record = json.loads((place / "result.json").read_text("utf-8"))
        (place / "result.json").write_text(json.dumps(record | {"seed": seed}), "utf-8")
    (model,) = (m for m in report(tmp_path).models if m.student)
    assert model.loss.points == pytest.approx(4.0)
    assert model.loss.comparison.of_models
    # Ten examples differ, all to the student's disadvantage, so 2 of 2^10 patterns of signs are as far from 0.
    assert model.loss.comparison.test.p == pytest.approx(2 / 2**10)


def test_a_control_without_a_teacher_is_held_against_that_of_the_others(folder):
    data = result("finetune", "mrpc", 0, 0.7)
    write_run(folder / "plain", data, curves=False)
    models = {model.name: model for model in report(folder).models}
    assert models["finetune"].loss.points == pytest.approx(15.0)
    assert models["teacher"].loss is None


def test_quantised_files_and_the_teacher_are_marked(folder, call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    students = {"4 layers": folder / "four", "3 layers": folder / "three"}
    write_compression(folder, folder / "teacher", students, "teacher, int8")
    found = report(folder, folder / "r.html")
    marks = {(m.name, m.form): m.mark for m in found.models}
    assert marks["teacher", "torch"] == "teacher"
    assert marks["teacher", "int8"] == "quantised teacher"
    assert marks["teacher", "onnx"] == "exported teacher"
    assert (marks["3 layers", "torch"], marks["3 layers", "int8"]) == ("", "quantised")
    (card,) = found.cards
    assert (card.which, card.mark) == ("teacher, ONNX int8", "quantised teacher")
    facts = {fact.name: (fact.value, fact.detail) for fact in card.facts}
    assert facts["gained"] == ("3.0 times as fast", "5.0 of 15.0 ms a text")
    assert facts["size"] == ("22.5 MB", "of 90.0 MB, 4.0 times smaller")
    assert "95 % interval 90.0 to 101.0 %, paired over examples" in facts["lost"][1]
    assert any(line.startswith("The best student is 4 layers: 84.0, lost 1.0 points") for line in card.sentences)
    page = (folder / "r.html").read_text("utf-8")
    assert 'teacher, ONNX int8 <b class="mark">quantised teacher</b>' in page
    assert '<b class="mark">teacher</b>' in page
    assert 'class="swatch hollow"' in page  # the legend has the teacher's star, hollow for int8
    assert "mrpc: accuracy against milliseconds for one text" in page
    status, out, _ = call(f"report {folder}")
    assert status == 0
    assert out.startswith("mrpc: teacher, ONNX int8 (quantised teacher)\n")
    assert "finetune (teacher)" in out


def test_an_exported_teachers_folder_is_found_by_its_fingerprint(folder):
    for name in ("three", "four"):
        place = folder / name / "run.json"
        place.write_text(json.dumps(json.loads(place.read_text("utf-8")) | {"teacher_fingerprint": "f00"}), "utf-8")
    record = {"source": "f00", "split": "dev", "task": "mrpc", "files": {}}
    record["files"]["int8"] = {
        "path": "model.int8.onnx",
        "mb": 20.0,
        "fit": True,
        "parity": {"scores": {"accuracy": 0.84}, "torch_scores": {"accuracy": 0.85}},
    }
    for place, source in (("shipped", "f00"), ("foreign", "bar")):
        (folder / place).mkdir()
        (folder / place / "export.json").write_text(json.dumps(record | {"source": source}), "utf-8")
    (model,) = (m for m in report(folder).models if m.form == "int8")
    assert (model.mark, model.path) == ("quantised teacher", str(folder / "shipped" / "model.int8.onnx"))
    assert model.loss.points == pytest.approx(1.0)
    assert "The quantised teacher scores 84.0, has 20.0 MB." in report(folder).cards[0].sentences


@pytest.mark.parametrize("content", ["x", "[]", '{"rows": 3}', '{"rows": [{}], "task": "mrpc", "metric": "accuracy"}'])
def test_a_damaged_compress_record_does_no_harm(content, folder):
    before = report(folder).cards
    (folder / "compress.json").write_text(content, "utf-8")
    (folder / "three" / "onnx").mkdir()
    (folder / "three" / "onnx" / "export.json").write_text(content, "utf-8")
    assert report(folder).cards == before
