"""Several scores a text, from end to end: read, trained, taken over by a student, scored, asked for and exported."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from layerstill import Task, UserError
from layerstill.heads import Scores, head_of
from layerstill.metrics.by_name import METRICS
from layerstill.training.gold import Gold
from layerstill.training.models import load_config
from tests.tiny import WORDS, save_tiny

NAMES = ("mood", "length", "plots")
SHORT = "--max-length 32 --max-steps 4 --batch-size 8"


def write_scores(path, rows: int, seed: int) -> None:
    """Texts whose three scores follow from their words."""
    rng = np.random.default_rng(seed)
    lines = [f"text,{','.join(NAMES)}"]
    for _ in range(rows):
        words = rng.choice(WORDS, int(rng.integers(3, 10))).tolist()
        mood = sum(word in {"good", "great"} for word in words) - sum(word in {"bad", "awful"} for word in words)
        lines.append(f"{' '.join(words)},{mood / 2},{len(words) / 10},{words.count('plot')}")
    path.write_text("\n".join(lines) + "\n", "utf-8")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores")
    scores = {"problem_type": "regression", "sharp": 1.0}
    save_tiny(folder / "base", layers=3, names=("x", "y", "z"), **scores)
    save_tiny(folder / "turned", layers=3, names=("plots", "mood", "length"), **scores)
    (folder / "data").mkdir()
    write_scores(folder / "data" / "train.csv", 48, 0)
    write_scores(folder / "data" / "dev.csv", 24, 1)
    return folder


def words(home) -> str:
    return f"--task regression --data {home}/data --label-column {','.join(NAMES)}"


@pytest.fixture(scope="module")
def student(home):
    """A student of the teacher whose targets stand in another order."""
    from tests.command import status_of

    run = f"distill {home}/turned {words(home)} --recipe kd --student-layers 2 {SHORT} --output {home}/student"
    assert status_of(*run.split()) == 0
    return home / "student"


def loaded(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder)


def test_fine_tuning_learns_all_of_them_and_says_how_well(home, call):
    how = "--max-length 32 --epochs 25 --batch-size 8 --learning-rate 3e-3 --precision fp32"
    status, out, err = call(f"finetune {home}/base {words(home)} {how} --output {home}/tuned")
    assert status == 0, err
    record = json.loads((home / "tuned" / "result.json").read_text())
    config = json.loads((home / "tuned" / "config.json").read_text())
    assert config["problem_type"] == "regression"
    assert list(config["id2label"].values()) == list(NAMES)
    assert set(record["by_label"]) == set(NAMES)
    assert record["metrics"]["pearson"] > 0.5, "they can be learnt"
    for name in ("pearson", "spearman"):
        assert record["metrics"][name] == pytest.approx(np.mean([row[name] for row in record["by_label"].values()]))
    tensors = load_file(home / "tuned" / "predictions.safetensors")
    said, gold = tensors["logits"].numpy(), tensors["labels"].numpy()
    assert said.shape == gold.shape == (24, 3)
    for i, name in enumerate(NAMES):
        row = record["by_label"][name]
        assert row["mse"] == pytest.approx(((said[:, i] - gold[:, i]) ** 2).mean(), rel=1e-5)
        assert row["pearson"] == pytest.approx(METRICS["pearson"](gold[:, i], said[:, i]), rel=1e-5)
        assert row["support"] == 24
    status, out, err = call(f"evaluate {home}/tuned")
    assert status == 0, err
    worst = min(NAMES, key=lambda name: record["by_label"][name]["pearson"])
    header = next(i for i, line in enumerate(out.splitlines()) if line.startswith("label"))
    assert out.splitlines()[header].split() == ["label", "pearson", "spearman", "mse", "support"]
    assert out.splitlines()[header + 1].startswith(worst)
    assert "| dev | pearson | spearman | mse | support |" in (home / "tuned" / "README.md").read_text()


def test_a_student_takes_over_its_teachers_order_and_every_verb_knows_it(home, student, call, tmp_path):
    assert list(loaded(student).config.id2label.values()) == ["plots", "mood", "length"]
    status, out, err = call(f"evaluate {student} --json")
    assert status == 0, err
    found, record = json.loads(out), json.loads((student / "result.json").read_text())
    assert found["by_label"] == record["by_label"]
    status, out, err = call(f"predict {student} --data {home}/data/dev.csv --output {tmp_path}/said.csv")
    assert status == 0, err
    rows = list(csv.DictReader((tmp_path / "said.csv").open()))
    said = load_file(student / "predictions.safetensors")["logits"].numpy()
    for i, name in enumerate(("plots", "mood", "length")):
        assert [float(row[f"score_{name}"]) for row in rows] == pytest.approx(said[:, i].tolist(), abs=1e-5)
    status, _, err = call(f"export {student}")
    assert status == 0, err
    status, _, err = call(f"predict {student}/onnx --data {home}/data/dev.csv --output {tmp_path}/exported.jsonl")
    assert status == 0, err
    lines = [json.loads(line) for line in (tmp_path / "exported.jsonl").read_text().splitlines()]
    assert [line["score_mood"] for line in lines] == pytest.approx(said[:, 1].tolist(), abs=1e-3)
    text = rows[0]["text"]
    done = subprocess.run([sys.executable, student / "onnx" / "run.py", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    parts = dict(part.split(" ") for part in done.stdout.split("\t")[0].split(", "))
    assert list(parts) == ["plots", "mood", "length"]
    assert [float(part) for part in parts.values()] == pytest.approx(said[0].tolist(), abs=1e-3)
    for verb in (f"diagnose {student} --parts gap", f"plan {home}/turned {words(home)} --student-layers 2 --recipe kd"):
        status, _, err = call(f"{verb} --max-length 32" if verb.startswith("plan") else verb)
        assert status == 0, err


def test_soft_targets_are_the_squared_error_between_the_predictions_of_both(home, call, tmp_path):
    how = f"{SHORT} --precision fp32 --student-layers 2"
    for recipe in ("kd", "rail-kd-l", "cr-ild"):
        run = f"distill {home}/turned {words(home)} --recipe {recipe} {how} --output {tmp_path}/{recipe}"
        status, _, err = call(run)
        assert status == 0, err
    head, rng = Scores(), torch.Generator().manual_seed(0)
    from layerstill.knowledge.distances import KL

    ours, theirs = torch.randn(5, 3, generator=rng), torch.randn(5, 3, generator=rng)
    total, count = head.distance(KL())(ours, theirs, torch.ones(5, 1, dtype=torch.bool))
    assert float(total / count) == pytest.approx(float(((ours - theirs) ** 2).mean()))


def test_the_loss_is_that_of_transformers_and_unknown_scores_count_nowhere(home):
    model, head = loaded(home / "base").eval(), Scores()
    assert isinstance(head_of(load_config(str(home / "base"))), Scores)
    ids = torch.tensor([[2, 7, 8, 3], [2, 9, 10, 3]])
    gold = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, 0.25]])
    out = model(input_ids=ids, labels=gold)
    torch.testing.assert_close(head.errors(out.logits, gold).mean(), out.loss)
    gold[0, 1] = float("nan")
    errors = head.errors(out.logits, gold)
    assert int(Gold(gold).count(head)) == 5
    assert errors[0, 1] == 0
    assert errors.isfinite().all()


def test_scores_of_targets_leave_unknown_ones_out():
    said = np.array([[1.0, 5.0], [2.0, 6.0], [4.0, 5.5], [3.0, 9.0]])
    gold = np.array([[1.0, np.nan], [2.0, 1.0], [4.0, np.nan], [3.0, 4.0]])
    found = Scores().by_label(("a", "b"), said, gold)
    assert found["a"] == pytest.approx({"pearson": 1, "spearman": 1, "mse": 0, "support": 4})
    assert found["b"] == pytest.approx({"pearson": 1, "spearman": 1, "mse": 25, "support": 2})
    assert Scores().score(("pearson",), ("a", "b"), said, gold)["pearson"] == pytest.approx(1)


def test_tasks_in_python_have_rows_of_scores_in_any_order():
    rows = {"train": [("a text", 0)] * 4, "dev": [("a text", 0)] * 4}
    split = Task.from_data(rows, "regression").splits["train"].relabelled([[1, 2.5], [0, 1], [2, 3], [4, 5]])
    task = Task("two", "regression", {"train": split, "dev": split}, ("a", "b"))
    turned = task.with_label_order(("b", "c", "a")).splits["train"].labels
    assert [[row[0], row[2]] for row in turned] == [[2.5, 1], [1, 0], [3, 2], [5, 4]]
    assert all(np.isnan(row[1]) for row in turned)
    with pytest.raises(UserError, match=r"example 2: \[1\] where a score is needed for each of a, b"):
        Task("two", "regression", {"train": split.relabelled([[1, 2], [1], [1, 2], [1, 2]])}, ("a", "b"))


@pytest.mark.parametrize(
    ("column", "change", "said"),
    [
        ("mood,length,plot", None, "no column 'plot' (from --label-column)"),
        ("mood,,plots", None, "a name between two commas is missing"),
        ("mood,length,mood", None, "column 'mood' is named twice"),
        ("mood,text", None, "column 'text' is both text and label"),
        ("mood,length,plots", ",much", "train.csv line 3: score plots 'much' is not a finite number"),
        ("mood,length,plots", ",", "train.csv line 3: score plots '' is not a finite number; it is missing"),
    ],
)
def test_columns_that_hold_no_scores_are_refused(column, change, said, home, tmp_path, call):
    lines = (home / "data" / "train.csv").read_text().splitlines()
    if change is not None:
        lines[2] = lines[2].rpartition(",")[0] + change
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    run = f"finetune {home}/base --task regression --data {tmp_path}/train.csv --output {tmp_path}/out"
    status, _, err = call(f"{run} --label-column {column}")
    assert status == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_other_targets_and_sets_of_one_score_are_refused_with_a_way_out(home, student, call, tmp_path):
    run = f"distill {home}/base {words(home)} --recipe kd --student-layers 2 {SHORT} --output {tmp_path}/out"
    status, _, err = call(run)
    assert status == 2
    assert "knows the labels x, y, z, and the data have mood, length, plots" in err
    status, _, err = call(f"{run} --label-map mood=x,length=y,plots=z")
    assert status == 0, err
    status, _, err = call(f"evaluate {student} --ood far={home}/data/dev.csv")
    assert status == 2
    assert "it is read as one score a text" in err
