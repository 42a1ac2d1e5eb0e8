"""Tasks of several labels from end to end: every verb, on the command line and in Python."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification

from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.evaluation.predictions import load_predictions
from layerstill.heads import MultiLabel
from layerstill.training.models import load_for_finetuning
from tests.tiny import WORDS, save_tiny

NAMES = ("bad", "fine", "good")
MULTI = {"problem_type": "multi_label_classification"}


def examples(rows: int, seed: int) -> list[tuple[str, list[str]]]:
    """Texts of a few words, with the labels whose word is in them."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, int(rng.integers(3, 10)))) for _ in range(rows)]
    return [(text, [name for name in NAMES if name in text.split()]) for text in texts]


def write_bars(path: Path, rows: list) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("text,label\n" + "".join(f"{text},{'|'.join(labels)}\n" for text, labels in rows), "utf-8")


def write_lists(path: Path, rows: list) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": t, "label": labels}) + "\n" for t, labels in rows), "utf-8")


def write_columns(path: Path, rows: list, names: tuple = NAMES) -> None:
    path.parent.mkdir(exist_ok=True)
    lines = [",".join([text, *(str(int(name in labels)) for name in names)]) for text, labels in rows]
    path.write_text("\n".join([f"text,{','.join(names)}", *lines]) + "\n", "utf-8")


FORMS = {"bars": (write_bars, "csv", ""), "lists": (write_lists, "jsonl", ""),
         "columns": (write_columns, "csv", "--label-column bad,fine,good")}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    save_tiny(folder / "teacher", **MULTI)
    save_tiny(folder / "classes")
    for form, (write, suffix, _) in FORMS.items():
        for split, rows, seed in (("train", 40, 0), ("dev", 20, 1), ("test", 20, 2)):
            write(folder / form / f"{split}.{suffix}", examples(rows, seed))
    return folder


def words(place, form: str = "bars") -> str:
    return f"--task multilabel --data {place}/{form} {FORMS[form][2]} --max-length 32"


SHORT = "--student-layers 2 --max-steps 3 --batch-size 8"


def distilled(place, call, output: Path, extra: str = "", form: str = "bars") -> dict:
    status, out, err = call(f"distill {place}/teacher {words(place, form)} {SHORT} --output {output} --json {extra}")
    assert status == 0, err
    return json.loads(out)


def test_the_three_forms_of_a_file_give_the_same_task_and_the_same_student(place, call, tmp_path):
    tasks = [Task.from_files("multilabel", place / "bars"), Task.from_files("multilabel", place / "lists")]
    tasks.append(Task.from_files("multilabel", place / "columns", label_column="bad,fine,good"))
    assert tasks[0] == tasks[1] == tasks[2]
    assert tasks[0].labels == NAMES
    assert tasks[0].metrics == ("f1_micro", "f1_macro", "subset_accuracy")
    assert tasks[0].splits["dev"].labels == [[int(n in y) for n in NAMES] for _, y in examples(20, 1)]
    runs = [distilled(place, call, tmp_path / form, "--recipe kd", form) for form in FORMS]
    assert runs[0]["metrics"] == runs[1]["metrics"] == runs[2]["metrics"]
    weights = [load_file(tmp_path / form / "model.safetensors") for form in FORMS]
    for name, tensor in weights[0].items():
        assert np.array_equal(tensor, weights[1][name]), name
        assert np.array_equal(tensor, weights[2][name]), name


def test_finetune_then_evaluate(place, call, tmp_path):
    status, out, err = call(
        f"finetune {place}/classes {words(place)} --epochs 8 --batch-size 8 --learning-rate 3e-3 --output {tmp_path}/t"
    )
    assert status == 0, err
    assert "dev of multilabel (last evaluation): f1_micro" in out
    record = json.loads((tmp_path / "t" / "result.json").read_text("utf-8"))
    config = json.loads((tmp_path / "t" / "config.json").read_text("utf-8"))
    assert config["problem_type"] == "multi_label_classification"
    assert list(config["id2label"].values()) == list(NAMES)
    status, out, err = call(f"evaluate {tmp_path}/t {words(place)} --json")
    assert status == 0, err
    found = json.loads(out)
    assert found["metrics"] == {name: record["metrics"][name] for name in ("f1_micro", "f1_macro", "subset_accuracy")}
    assert found["metrics"]["f1_micro"] > 0.5, "words that are labels can be learnt"
    assert found["head"] == record["head"] == {"kind": "multilabel", "threshold": 0.5}
    assert found["by_label"].keys() == record["by_label"].keys() == set(NAMES)
    assert sum(row["support"] for row in found["by_label"].values()) == sum(len(y) for _, y in examples(20, 1))
    status, out, _ = call(f"evaluate {tmp_path}/t {words(place)} --split test")
    assert status == 0
    assert "test of multilabel, 20 examples: f1_micro" in out
    assert "threshold 0.5" in out
    assert "precision" in out
    assert "support" in out


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "deberta-v2"])
def test_new_outputs_start_at_the_log_odds_of_their_labels_and_trained_ones_stay(family, place, tmp_path):
    task = Task.from_files("multilabel", place / "bars")
    save_tiny(tmp_path / "two", family, labels=2)
    model = load_for_finetuning(str(tmp_path / "two"), task)
    shares = np.array(task.splits["train"].labels).mean(0)
    found = [p for n, p in model.named_parameters() if n.endswith(".bias") and p.shape == (3,)]
    assert torch.sigmoid(found[-1]).tolist() == pytest.approx(list((40 * shares + 1) / 42), abs=1e-6)
    with torch.no_grad():
        found[-1].fill_(0.25)
    model.save_pretrained(tmp_path / "trained")
    again = load_for_finetuning(str(tmp_path / "trained"), task)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))


def test_a_threshold_is_given_or_tuned_on_train_and_stated(place, call):
    def scored(extra: str) -> dict:
        status, out, err = call(f"evaluate {place}/teacher {words(place)} --json {extra}")
        assert status == 0, err
        return json.loads(out)

    low, high, tuned = scored("--threshold 0.01"), scored("--threshold 0.99"), scored("--threshold auto")
    assert low["by_label"]["bad"]["recall"] >= high["by_label"]["bad"]["recall"]
    assert low["metrics"] != high["metrics"]
    assert (low["head"]["threshold"], high["head"]["threshold"]) == (0.01, 0.99)
    assert tuned["head"]["threshold_tuned_on"] == "40 of 40 texts of train, for f1_micro"
    best = max(scored(f"--split train --threshold {t}")["metrics"]["f1_micro"] for t in (0.01, 0.3, 0.5, 0.7, 0.99))
    assert scored(f"--split train --threshold {tuned['head']['threshold']}")["metrics"]["f1_micro"] >= best
    for extra, message in (
        ("--threshold 1.5", "--threshold 1.5: use a number between 0 and 1, or auto"),
        ("--threshold some", "--threshold some: use a number between 0 and 1, or auto"),
        ("--split train --threshold auto", "--threshold auto: it is tuned on train, and train cannot be scored"),
    ):
        status, _, err = call(f"evaluate {place}/teacher {words(place)} {extra}")
        assert status == 2
        assert message in err
    status, _, err = call(f"evaluate {place}/teacher --task multilabel --data {place}/bars/dev.csv --threshold auto")
    assert status == 2
    assert "--threshold auto: it is tuned on train, and a single file has none" in err
    (place / "one").mkdir(exist_ok=True)
    for split in ("train", "dev"):
        (place / "one" / f"{split}.csv").write_text("text,label\ngood film,good\nbad,bad\nfine,fine\n", "utf-8")
    status, _, err = call(f"evaluate {place}/classes --task classification --data {place}/one --threshold 0.3")
    assert status == 2
    assert "--threshold: task classification decides without one; it is for --task multilabel" in err


@pytest.mark.parametrize("recipe", ["kd", "hid-seq", "rail-kd-l", "cr-ild", "tinybert", "finetune"])
def test_distil_plan_and_cache(recipe, place, call, tmp_path):
    record = distilled(place, call, tmp_path / "live", f"--recipe {recipe} --cache off")
    config = json.loads((tmp_path / "live" / "config.json").read_text("utf-8"))
    assert config["problem_type"] == "multi_label_classification"
    assert record["head"]["threshold"] == 0.5
    assert list(record["by_label"]) == list(NAMES)
    if recipe != "finetune":
        assert set(record["teacher_metrics"]) == {"f1_micro", "f1_macro", "subset_accuracy"}
    predictions = load_file(tmp_path / "live" / "predictions.safetensors")
    assert predictions["logits"].shape == predictions["labels"].shape == (20, 3)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "live").eval()
    assert model.config.id2label == dict(enumerate(NAMES))
    card = (tmp_path / "live" / "README.md").read_text("utf-8")
    assert "text-multilabel" in card
    assert "threshold 0.5" in card
    status, _, err = call(f"plan {place}/teacher {words(place)} {SHORT} --recipe {recipe}")
    assert status == 0, err
    if recipe == "finetune":
        return
    where = tmp_path / "shared"
    status, _, err = call(f"cache {place}/teacher {words(place)} --student-layers 2 --recipe {recipe} --cache {where}")
    assert status == 0, err
    cached = distilled(place, call, tmp_path / "cached", f"--recipe {recipe} --cache {where}")
    for name, value in record["metrics"].items():
        assert cached["metrics"][name] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-6))


def test_resumed_and_finished_runs_stay(place, call, tmp_path):
    first = distilled(place, call, tmp_path / "s", "--recipe kd")
    assert distilled(place, call, tmp_path / "s", "--recipe kd") == first


def test_diagnose_does_all_that_needs_no_single_class(place, call, tmp_path):
    distilled(place, call, tmp_path / "s", "--recipe kd")
    status, out, err = call(f"diagnose {tmp_path}/s --task multilabel --data {place}/bars --examples 20 --json")
    assert status == 0, err
    found = json.loads(out)
    assert set(found) == set("gap agreement weight_noise slice_1d slice_2d hessian cka made_with".split())
    assert 0 <= found["agreement"]["dev"]["teacher"] <= 1
    assert all(math.isfinite(value) for value in found["slice_1d"]["dev"])
    assert found["hessian"]["trace"] > 0


def test_a_study_and_its_report(place, call, tmp_path):
    file = tmp_path / "study.yaml"
    base = {"model": str(place / "classes"), "task": "marks", "recipe": "kd", "student_layers": 2, "max_length": 32}
    study = {
        "name": "labels",
        "base": {**base, "total_steps": 4, "batch_size": 8},
        "teacher": {"max_steps": 4, "learning_rate": 1e-3},
        "tasks": {"marks": {"kind": "multilabel", "data": str(place / "columns"), "label_column": "bad,fine,good"}},
        "axes": {"recipe": ["kd", "finetune"], "seed": [0, 1]},
    }
    file.write_text(yaml.safe_dump(study), "utf-8")
    status, _, err = call(f"study {file} --output {tmp_path}/out --json")
    assert status == 0, err
    status, _, err = call(f"report {tmp_path}/out --output {tmp_path}/report.html")
    assert status == 0, err
    assert "f1_micro" in (tmp_path / "report.html").read_text("utf-8")
    run = next((tmp_path / "out").rglob("result.json")).parent
    adds = load_predictions(run).contributions("f1_micro")
    assert len(adds) == 20
    assert adds.mean() == pytest.approx(json.loads((run / "result.json").read_text("utf-8"))["metrics"]["f1_micro"])


def test_few_samples_work_and_regimes_of_classes_are_refused_in_one_sentence(place, call, tmp_path):
    record = distilled(place, call, tmp_path / "s", "--recipe kd --few-samples 24")
    assert record["regime"]["examples"] == {"before": 40, "after": 24}
    for regime in ("--label-noise 0.1", "--regime long_tail=3", "--regime keep.bad=0.5",
                   "--few-samples 8 --regime stratified=true"):  # fmt: skip
        status, _, err = call(f"distill {place}/teacher {words(place)} {SHORT} {regime} --output {tmp_path}/x")
        assert status == 2
        assert "it is about classes, and task multilabel has any number of labels per text" in err


def test_out_of_domain_sets_are_refused_in_one_sentence(place, call, tmp_path):
    status, _, err = call(
        f"distill {place}/teacher {words(place)} {SHORT} --ood {place}/bars/test.csv --output {tmp_path}/x"
    )
    assert status == 2
    assert "task multilabel has any number of labels per text" in err


def test_a_teacher_from_outside_agrees_by_names_whatever_their_order(place, call, tmp_path):
    turned = tmp_path / "turned"
    model = AutoModelForSequenceClassification.from_pretrained(place / "teacher")
    order = [2, 0, 1]
    with torch.no_grad():
        model.classifier.weight.copy_(model.classifier.weight[order])
        model.classifier.bias.copy_(model.classifier.bias[order])
    model.config.id2label = {i: NAMES[j] for i, j in enumerate(order)}
    model.config.label2id = {NAMES[j]: i for i, j in enumerate(order)}
    shutil.copytree(place / "teacher", turned)
    model.save_pretrained(turned)
    scored = []
    for teacher in (place / "teacher", turned):
        status, out, err = call(f"evaluate {teacher} {words(place)} --json")
        assert status == 0, err
        scored.append(json.loads(out))
    assert "label order of model" in call(f"evaluate {turned} {words(place)}")[2]
    assert scored[0]["metrics"] == scored[1]["metrics"]
    assert scored[0]["by_label"] == {name: scored[1]["by_label"][name] for name in NAMES}


def test_a_model_of_another_head_is_refused_both_ways(place, call, tmp_path):
    status, _, err = call(f"distill {place}/classes {words(place)} {SHORT} --output {tmp_path}/x")
    assert status == 2
    assert 'if it was trained for that, write "problem_type": "multi_label_classification" into its config.json' in err
    said = tmp_path / "said"
    shutil.copytree(place / "classes", said)
    config = json.loads((said / "config.json").read_text("utf-8"))
    (said / "config.json").write_text(json.dumps(config | MULTI), "utf-8")
    assert call(f"evaluate {said} {words(place)}")[0] == 0, "the way out works"
    plain = "text,label\ngood film,good\nbad film,bad\na fine plot,fine\n" * 4
    (tmp_path / "train.csv").write_text(plain, "utf-8")
    (tmp_path / "dev.csv").write_text(plain, "utf-8")
    status, _, err = call(
        f"distill {place}/teacher --task classification --data {tmp_path} --max-length 32 {SHORT} --output {tmp_path}/x"
    )
    assert status == 2
    assert "--task multilabel" in err


def test_a_label_without_an_example_is_told(place, call, tmp_path):
    rows = [(text, [y for y in labels if y != "fine"]) for text, labels in examples(40, 0)]
    write_columns(tmp_path / "d" / "train.csv", rows)
    write_columns(tmp_path / "d" / "dev.csv", examples(20, 1))
    status, _, err = call(
        f"distill {place}/teacher --task multilabel --data {tmp_path}/d --label-column bad,fine,good --max-length 32 "
        f"{SHORT} --output {tmp_path}/s"
    )
    assert status == 0, err
    assert "train has no example of 1 of 3 labels: fine" in err


def test_a_tenth_is_held_out_of_a_single_file(place, call):
    task = Task.from_files("multilabel", place / "bars" / "train.csv")
    assert (len(task.splits["train"]), len(task.splits["dev"])) == (36, 4)
    assert "held out 4 of 40" in task.notices[0]


def test_wrong_columns_are_refused(place):
    with pytest.raises(UserError, match="column 'text' is both text and label"):
        Task.from_files("multilabel", place / "columns", text_columns=("text",), label_column="text,bad")
    with pytest.raises(UserError, match=r"no column 'awful' \(from --label-column\)"):
        Task.from_files("multilabel", place / "columns", label_column="bad,awful")


def test_whoever_has_several_labels_and_asks_for_classes_is_told_of_multilabel(place):
    for form, column in (("columns", "bad,fine,good"), ("lists", "label"), ("bars", "label")):
        with pytest.raises(UserError, match="--task multilabel"):
            Task.from_files("classification", place / form, label_column=column)


def test_the_threshold_is_a_setting_of_the_head(place):
    task = Task.from_files(MultiLabel(threshold=0.3), place / "bars")
    assert task.head.threshold == 0.3
