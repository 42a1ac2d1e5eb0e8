"""Labels under other names, and a teacher whose labels have changed places."""

import numpy as np
import pytest
from transformers import BertConfig

from layerstill import Task, UserError
from layerstill.data.checks import chance_notices
from layerstill.data.label_agreement import agree_on_labels
from layerstill.data.label_map import read_label_map, with_label_map

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
