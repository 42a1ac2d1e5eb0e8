"""Labels under other names, and a teacher whose labels have changed places."""

import shlex
import subprocess

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from transformers import BertConfig

from layerstill import Task, UserError, predict
from layerstill.data.checks import chance_notices
from layerstill.data.label_agreement import agree_on_labels
from layerstill.data.label_map import read_label_map, with_label_map
from tests.tiny import WORDS, save_tiny

ROWS = [(f"text {i}", ("bad", "good")[i % 2]) for i in range(40)]


@pytest.fixture
def task() -> Task:
    return Task.from_data({"train": ROWS, "dev": ROWS}, "classification")


def scored(task: Task, decided: np.ndarray) -> list[str]:
    logits = np.eye(len(task.labels))[decided]
    return chance_notices(task, task.score(logits), logits)


def test_labels_change_places_at_once(task: Task) -> None:
    turned = with_label_map(task, read_label_map("bad=good, good=bad"))
    assert turned.labels == ("good", "bad")
    assert turned.splits == task.splits
    assert with_label_map(task, {"bad": "NEGATIVE"}).labels == ("NEGATIVE", "good")


@pytest.mark.parametrize("text", ["", "bad", "bad=", "=good", "bad=x,bad=y", "bad=x,,good=y"])
def test_what_is_no_map_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--label-map"):
        read_label_map(text)


def test_unknown_labels_and_two_of_one_name_are_refused(task: Task) -> None:
    with pytest.raises(UserError, match="no label 'god': did you mean 'good'"):
        with_label_map(task, {"god": "x"})
    with pytest.raises(UserError, match="two labels would be called 'good'"):
        with_label_map(task, {"bad": "good"})


def test_a_teacher_with_its_labels_the_wrong_way_round_is_told_from_one_that_guesses(task: Task) -> None:
    gold = task.gold("dev")
    assert scored(task, gold) == []
    (said,) = scored(task, 1 - gold)
    assert "labels have changed places" in said
    assert "accuracy 0.0000 on dev, and 1.0000" in said
    assert said.endswith("--label-map bad=good,good=bad")
    (said,) = scored(task, np.arange(len(gold)) // 2 % 2)
    assert "is at chance" in said
    (said,) = scored(task, np.zeros_like(gold))
    assert "is at chance" in said


def test_the_way_out_that_is_named_works(task: Task) -> None:
    gold = task.gold("dev")
    (said,) = scored(task, 1 - gold)
    mended = with_label_map(task, read_label_map(said.split("--label-map ")[1]))
    # The teacher's outputs keep their places: the data's labels move to them.
    mended = mended.with_label_order(task.labels)
    assert mended.score(np.eye(2)[1 - gold])["accuracy"] == 1


def test_three_classes_in_a_circle() -> None:
    rows = [(f"text {i}", "abc"[i % 3]) for i in range(60)]
    task = Task.from_data({"train": rows, "dev": rows}, "classification")
    (said,) = scored(task, (task.gold("dev") + 1) % 3)
    assert said.endswith("--label-map a=b,b=c,c=a")


def test_the_way_out_also_works_for_a_teacher_that_does_not_name_its_labels(task: Task) -> None:
    unnamed = BertConfig(num_labels=2)
    gold = task.gold("dev")
    asked, _ = agree_on_labels(task, unnamed, "teacher")
    (said,) = scored(asked, 1 - gold)
    mended = with_label_map(task, read_label_map(said.split("--label-map ")[1]))
    mended, _ = agree_on_labels(mended, unnamed, "teacher")
    assert mended.score(np.eye(2)[1 - gold])["accuracy"] == 1


def test_a_second_map_is_in_the_names_of_the_data(tmp_path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(200)))
    task = Task.from_files("classification", tmp_path / "train.csv").with_dev()
    mapped = with_label_map(task, {"0": "neg", "1": "pos"})
    gold = mapped.gold("dev")
    said = scored(mapped, 1 - gold)
    assert said
    assert said[0].endswith("--label-map 0=pos,1=neg")
    assert with_label_map(task, read_label_map("0=pos,1=neg")).labels == ("pos", "neg")


def in_turn(names: tuple[str, ...]) -> Task:
    rows = [(f"text {i}", names[i % len(names)]) for i in range(60)]
    return Task.from_data({"train": rows, "dev": rows}, "classification")


@pytest.mark.parametrize("names", [("not so good", "it's good"), ("$x `y`", "a;b"), ("US", "us"), ("a", "b=c")])
def test_the_option_that_is_named_can_be_pasted_into_a_shell(names) -> None:
    task = in_turn(names)
    gold = task.gold("dev")
    (said,) = scored(task, 1 - gold)
    if "--label-map" not in said:
        assert any("=" in name or "," in name for name in names)
        assert said.endswith("give the data these names")
        return
    option, value = shlex.split(said[said.index("--label-map") :])
    done = subprocess.run(f"printf %s {said.split('--label-map ')[1]}", shell=True, capture_output=True, text=True)
    assert (option, value) == ("--label-map", done.stdout)
    mended = with_label_map(task, read_label_map(value)).with_label_order(task.labels)
    assert mended.score(np.eye(2)[1 - gold])["accuracy"] == 1


@pytest.mark.parametrize("names", [("good, very", "bad"), ("a=b", "c"), ("a=b", "c,d")])
def test_names_that_cannot_be_given_are_not_offered(names) -> None:
    task = in_turn(names)
    (said,) = scored(task, 1 - task.gold("dev"))
    assert "--label-map" not in said
    with pytest.raises(UserError) as error:
        agree_on_labels(task, BertConfig(id2label={0: "x", 1: "y"}, label2id={"x": 0, "y": 1}), "teacher")
    assert "--label-map" not in str(error.value)


def test_data_that_differ_from_the_model_in_case_are_mended_by_the_names_that_are_said(tmp_path) -> None:
    (tmp_path / "train.csv").write_text(
        "text,label\n" + "".join(f"t {i},{('BAD', 'GOOD')[i % 2]}\n" for i in range(200))
    )
    task = Task.from_files("classification", tmp_path / "train.csv").with_dev()
    config = BertConfig(id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1})
    asked, _ = agree_on_labels(task, config, "teacher")
    gold = asked.gold("dev")
    (said,) = scored(asked, 1 - gold)
    mended = with_label_map(task, read_label_map(said.split("--label-map ")[1]))
    assert mended.source.label_map == {"BAD": "good", "GOOD": "bad"}
    mended, _ = agree_on_labels(mended, config, "teacher")
    assert mended.score(np.eye(2)[1 - gold])["accuracy"] == 1


def test_a_map_whose_names_the_model_writes_otherwise_is_named_in_the_words_of_the_data(tmp_path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(200)))
    task = with_label_map(
        Task.from_files("classification", tmp_path / "train.csv").with_dev(), {"0": "neg", "1": "pos"}
    )
    config = BertConfig(id2label={0: "NEG", 1: "POS"}, label2id={"NEG": 0, "POS": 1})
    asked, _ = agree_on_labels(task, config, "teacher")
    (said,) = scored(asked, 1 - asked.gold("dev"))
    assert said.endswith("--label-map 0=POS,1=NEG")


def test_a_dev_set_too_small_to_tell_a_good_teacher_from_guessing_is_called_so() -> None:
    small = Task.from_data({"train": ROWS, "dev": ROWS[:4]}, "classification")
    (said,) = scored(small, small.gold("dev"))
    assert said.startswith(
        "dev has 4 examples, too few to tell a good teacher from one that guesses: its accuracy is 1.0"
    )
    (said,) = scored(small, np.zeros_like(small.gold("dev")))
    assert "is at chance" in said


def test_the_column_of_one_of_a_teachers_labels_is_told_from_another_task() -> None:
    marks = Task.from_data([{"text": t, "good": int(y == "good")} for t, y in ROWS], label_column="good")
    names = dict(enumerate(["awful", "bad", "good"]))
    teacher = BertConfig(id2label=names, label2id={name: i for i, name in names.items()})
    with pytest.raises(UserError, match="it is --task multilabel --label-column awful,bad,good"):
        agree_on_labels(marks, teacher, "teacher x", subset=True)


def test_evaluate_says_that_labels_have_changed_places(call, tmp_path) -> None:
    model = save_tiny(tmp_path / "m", names=("bad", "good"))
    texts = [f"{one} {two}" for one in WORDS[:6] for two in WORDS]
    sure = np.median([one.probability for one in predict(model, texts)])  # of one answer: a random model has no other
    weights = load_file(model / "model.safetensors")
    weights["classifier.bias"][0] -= float(np.log(sure / (1 - sure)))
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    said = [one.label for one in predict(model, texts)]
    assert set(said) == {"bad", "good"}
    for name, labels in (("right", said), ("wrong", [{"bad": "good", "good": "bad"}[label] for label in said])):
        rows = "".join(f"{text},{label}\n" for text, label in zip(texts, labels, strict=True))
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{rows}", "utf-8")
    told = "note: labels have changed places: the model scores accuracy 0.0000 on dev, and 1.0000 if it is taken to "
    status, _, err = call(f"evaluate {model} --task classification --data {tmp_path}/wrong.csv")
    assert status == 0
    assert told in err
    option = err.split("If that is what it means: ")[1].split("\n")[0]
    status, out, err = call(f"evaluate {model} --task classification --data {tmp_path}/wrong.csv {option}")
    assert "accuracy 1.0000" in out
    assert "changed places" not in err
    assert "changed places" not in call(f"evaluate {model} --task classification --data {tmp_path}/right.csv")[2]
