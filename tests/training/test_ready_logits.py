"""Ready soft labels in place of a teacher: what they are read as, what a run on them equals, what is refused."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from layerstill.acts import distill, plan
from layerstill.data.probabilities import Probabilities, read_probabilities
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError
from layerstill.heads import Classes, MultiLabel, Scores, Tokens
from layerstill.recipe import Recipe
from layerstill.training import stages
from layerstill.training.arguments import Options
from layerstill.training.ready_logits import ReadyLogits
from tests.tiny import save_tiny, write_csv


class Stopped(Exception):
    pass


class StopAt(TrainerCallback):
    """Ends a run after some step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Stopped


QUIET = Options(progress=False, max_length=32, precision="fp32")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A teacher, and data whose training file says, in columns of several kinds, what the teacher says."""
    folder = tmp_path_factory.mktemp("ready")
    save_tiny(folder / "teacher", sharp=2.0)
    (folder / "data").mkdir()
    write_csv(folder / "data" / "dev.csv", rows=6, seed=1)
    write_csv(folder / "plain.csv", rows=16)
    lines = [line.rsplit(",", 1) for line in (folder / "plain.csv").read_text("utf-8").splitlines()[1:]]
    model = AutoModelForSequenceClassification.from_pretrained(folder / "teacher").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "teacher")
    rows = []
    for text, label in lines:
        with torch.no_grad():
            row = model(**tokenizer(text, return_tensors="pt")).logits[0].double().softmax(-1).tolist()
        named = dict(zip(("bad", "fine", "good"), row, strict=True))
        mixed = {"p_good": named["good"], "p_bad": named["bad"], "p_fine": named["fine"]}
        rows.append({"text": text, "label": label, "listed": row, "named": named} | mixed)
    (folder / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder


@pytest.fixture(scope="module")
def task(place):
    return Task.from_files("classification", place / "data")


def short(*overrides: str, recipe: str = "kd") -> Recipe:
    every = ("stages.0.epochs=2", "stages.0.batch_size=8", "stages.0.learning_rate=1e-3")
    return Recipe.load(recipe, (*every, *overrides))


def words(place, output, more: str, data: str = "data") -> str:
    line = f"distill --task classification --data {place}/{data} --max-length 32 --student-layers 2 --precision fp32"
    return f"{line} --recipe kd --epochs 2 --batch-size 8 --learning-rate 1e-3 {more} --output {output}"


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("columns", ["p_good,p_bad,p_fine", "listed", "named"])
def test_a_run_on_ready_probabilities_is_the_run_with_the_teacher_that_gave_them(columns, place, task, call, tmp_path):
    """The student starts from the teacher's own weights in both, so that nothing else differs."""
    start = f"--init-from {place}/teacher"
    status, _, err = call(words(place, tmp_path / "ready", f"--teacher-probabilities {columns} {start}"))
    assert status == 0, err
    assert "the most probable class is the label of" in err
    distill(str(place / "teacher"), task, short(), 2, tmp_path / "live", QUIET, init_from=place / "teacher")
    ready, live = weights(tmp_path / "ready"), weights(tmp_path / "live")
    for name in live:
        torch.testing.assert_close(ready[name], live[name], rtol=1e-3, atol=2e-4)
    losses = []
    for name in ("ready", "live"):
        lines = (tmp_path / name / "metrics.jsonl").read_text("utf-8").splitlines()
        losses.append([json.loads(line)["objectives"]["soft targets"] for line in lines])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    result = json.loads((tmp_path / "ready" / "result.json").read_text("utf-8"))
    assert result["teacher"] is None
    assert result["teacher_metrics"] == {}
    assert result["teacher_probabilities"]["columns"] == columns.split(",")
    assert "distilled from ready soft labels" in (tmp_path / "ready" / "README.md").read_text("utf-8")
    config = json.loads((tmp_path / "ready" / "config.json").read_text("utf-8"))
    assert config["id2label"] == {"0": "bad", "1": "fine", "2": "good"}


def test_probabilities_become_logarithms_and_texts_that_are_there_twice_have_the_mean(task):
    mask = torch.ones(3, 2, dtype=torch.bool)
    rows = np.log(np.array([[0.2, 0.8], [0.9, 0.1], [0.6, 0.4]]))
    logits = ReadyLogits([7, 9, 7], rows, Classes()).read([9, 7, 7], mask).logits
    torch.testing.assert_close(logits, torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]).log())
    log_odds = np.array([MultiLabel().logits_of([0.5, 0.9], "here")])
    several = ReadyLogits([1], log_odds, MultiLabel()).read([1], mask[:1]).logits
    torch.testing.assert_close(several.sigmoid(), torch.tensor([[0.5, 0.9]]))
    sure = Probabilities("here", task.labels, [("a",)], [[1.0, 0.0, 0.0]]).logits(Split([("a",)], []), task)
    np.testing.assert_allclose(sure, np.log([[1.0, 1e-6, 1e-6]]))


def test_fewer_examples_find_their_own(place, task, tmp_path):
    found = read_probabilities(place / "data" / "train.jsonl", ["listed"], task)
    part = task.limited(5).splits["train"]
    assert np.allclose(found.of(part, task), found.of(task.splits["train"], task)[:5])
    other = task.with_label_order(("good", "bad", "fine"))
    assert np.allclose(found.of(part, other), found.of(part, task)[:, [2, 0, 1]])


def test_columns_in_the_order_of_the_labels_are_said_to_be_that(place, task, call, tmp_path):
    text = (place / "data" / "train.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    data = [{"text": r["text"], "label": r["label"], **dict(zip("xyz", r["listed"], strict=True))} for r in rows]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data), "utf-8")
    found = read_probabilities(tmp_path / "train.jsonl", ["x", "y", "z"], task)
    assert "in their order x is bad, y is fine, z is good" in found.notices[0]
    named = read_probabilities(place / "data" / "train.jsonl", ["p_fine", "p_good", "p_bad"], task)
    split = task.splits["train"]
    assert np.allclose(found.of(split, task), named.of(split, task))


def test_a_stopped_run_goes_on_and_other_probabilities_are_another_run(place, task, tmp_path, monkeypatch):
    found = read_probabilities(place / "data" / "train.jsonl", ["listed"], task)

    def run(folder, given=found):
        return distill(None, task, short(), 2, folder, QUIET, place / "teacher", probabilities=given)

    run(tmp_path / "whole")
    original = stages.DistillationTrainer.__init__

    def with_stop(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.add_callback(StopAt(3))

    with monkeypatch.context() as patch:
        patch.setattr(stages.DistillationTrainer, "__init__", with_stop)
        with pytest.raises(Stopped):
            run(tmp_path / "s")
    run(tmp_path / "s")
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "s")
    assert all(torch.equal(a[name], b[name]) for name in a)
    changed = Probabilities(found.source, found.labels, found.texts, [[1.0, 0.0, 0.0], *found.rows[1:]])
    with pytest.raises(UserError, match="holds another run: teacher_probabilities"):
        run(tmp_path / "s", changed)


@pytest.mark.parametrize("blank", [False, True])
def test_the_student_may_be_a_model_of_its_own_and_needs_no_weights(blank, place, task, call, tmp_path):
    save_tiny(tmp_path / "own", "distilbert", layers=3)
    if blank:
        (tmp_path / "own" / "model.safetensors").unlink()
    more = f"--student {tmp_path}/own --teacher-probabilities listed"
    status, _, err = call(words(place, tmp_path / "s", more).replace("--student-layers 2 ", ""))
    assert status == 0, err
    assert ("starts from random ones" in err) is blank
    result = json.loads((tmp_path / "s" / "result.json").read_text("utf-8"))
    started = "random weights" if blank else [1, 2, 3]
    assert result["student"]["init"] == {"layers": started, "from": str(tmp_path / "own")}
    assert (result["teacher"], result["verdict"]) == (None, [])
    found = read_probabilities(place / "data" / "train.jsonl", ["listed"], task)
    made = plan(None, task, short(), None, QUIET, student=tmp_path / "own", probabilities=found)
    assert (made.teacher_parameters, made.student_layers, made.stages[0].teacher_seconds) == (0, 3, 0)


def test_a_plan_has_no_teacher(place, task):
    found = read_probabilities(place / "data" / "train.jsonl", ["listed"], task)
    made = plan(None, task, short(), 2, QUIET, place / "teacher", probabilities=found)
    assert made.teacher_parameters == made.stages[0].teacher_depth == 0
    assert made.stages[0].steps == 4


REFUSED = [
    (
        "--teacher-probabilities listed",
        "without a teacher, name the model that the student is cut from with --init-from",
    ),
    (
        "--init-from {p}/teacher",
        "TEACHER: give the model that teaches; or its soft labels with --teacher-probabilities",
    ),
    ("{i} --teacher-probabilities listed --learning-rate auto", "--learning-rate auto: rates are tried with a teacher"),
    ("{p}/teacher --teacher-probabilities listed", "they replace a teacher, and"),
    ("{i} --teacher-probabilities listed --recipe finetune", "recipe finetune uses no teacher"),
    ("{i} --teacher-probabilities listed --recipe minilm", "the terms 'attention', 'values' of recipe minilm"),
    ("{i} --teacher-probabilities listed --set stages.0.view=mixup", "the terms 'soft targets' (mixed inputs) of"),
    ("{i} --teacher-probabilities listed --set stages.0.evaluate=objectives", "evaluates its objectives on dev"),
    (
        "{i} --teacher-probabilities listed --augment 2",
        "--augment: --teacher-probabilities are about the training examples",
    ),
    ("{i} --teacher-probabilities p_good,p_bad", "2 columns, and task classification has 3 labels (bad, fine, good)"),
    ("{i} --teacher-probabilities p_god,p_bad,p_fine", "no column 'p_god' (from --teacher-probabilities)"),
    ("{i} --teacher-probabilities p_bad,p_bad,p_fine", "column 'p_bad' is named twice"),
    ("{i} --teacher-probabilities p_bad", "one number, and task classification has 3 labels"),
    ("{i} --teacher-probabilities text", "where a list of probabilities is expected"),
]


@pytest.mark.parametrize(("more", "message"), REFUSED)
def test_what_does_not_go_together_is_refused(more, message, place, call, tmp_path):
    more = more.format(p=place, i=f"--init-from {place}/teacher")
    status, out, err = call(words(place, tmp_path / "s", f"{more} --json"))
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "s").exists()


WRONG = [
    ([0.5, 0.3, 0.1], "line 3: the probabilities of its 3 classes sum to 0.9, not 1"),
    ([1.2, -0.2, 0.0], "line 3: 1.2 is not a probability"),
    ([-0.1, 1.0, 0.1], "line 3: -0.1 is not a probability"),
    ([0.5, 0.5], "line 3, column 'p': 2 probabilities, and task"),
    ([0.5, "x", 0.5], "line 3, column 'p': 'x' where a probability"),
    ([0.5, None, 0.5], "line 3, column 'p': None where"),
    ({"bad": 0.5, "fine": 0.5}, "nothing for label 'good'; it has bad, fine"),
    ({"bad": 0.5, "fine": 0.5, "good": 0, "odd": 0}, "'odd' is not one of the labels bad, fine, good"),
    ([math.nan, 0.5, 0.5], "nan where a probability is expected"),
]


@pytest.mark.parametrize(("value", "message"), WRONG)
def test_a_row_that_is_no_distribution_is_told_with_its_line(value, message, task, tmp_path):
    good = [{"text": t[0], "label": "bad", "p": [0.2, 0.3, 0.5004]} for t in task.splits["train"].texts[:4]]
    good[2]["p"] = value
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in good), "utf-8")
    with pytest.raises(UserError, match="t.jsonl line 3") as caught:
        read_probabilities(tmp_path / "t.jsonl", ["p"], task)
    assert message in str(caught.value)


def test_examples_without_probabilities_are_counted(place, task):
    found = read_probabilities(place / "data" / "train.jsonl", ["listed"], task)
    part = Probabilities("FILE", found.labels, found.texts[:10], found.rows[:10])
    missing = len(set(task.splits["train"].texts) - set(found.texts[:10]))
    assert missing
    with pytest.raises(UserError, match=r"of 16 training examples have no row in FILE, "):
        part.of(task.splits["train"], task)


def test_rows_made_in_python_are_checked_too(place, task, tmp_path):
    texts = task.splits["train"].texts
    with pytest.raises(UserError, match=f"3 rows for {len(texts)} texts"):
        Probabilities("mine", task.labels, texts, [[0.2, 0.3, 0.5]] * 3)
    for rows, message in (
        ([[0.2, 0.8]] * len(texts), "row 1 of mine has 2 numbers, and there are 3 labels"),
        ([[0.2, 0.3, 0.4]] * len(texts), "row 1 of mine: the probabilities of its 3 classes sum to 0.9"),
    ):
        given = Probabilities("mine", task.labels, texts, rows)
        with pytest.raises(UserError, match=message):
            distill(None, task, short(), 2, tmp_path / "s", QUIET, place / "teacher", probabilities=given)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("head", [Tokens(), Scores()])
def test_heads_without_probabilities_say_so_before_a_file_is_read(head, tmp_path):
    split = Split([("a", "b")], [[0, 0]] if head.per_token else [0.5])
    task = Task("t", head, {"train": split, "dev": split}, ("O",) if head.per_token else ())
    with pytest.raises(UserError, match=f"of classes or labels of a text, and this task has {head.gives}"):
        read_probabilities(tmp_path / "none.conll", ["p"], task)
