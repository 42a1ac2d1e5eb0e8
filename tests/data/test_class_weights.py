"""Class weights: what a class counts in the loss on labels."""

import json

import pytest
import torch
from torch.nn import functional as F

from layerstill import Task, UserError
from layerstill.data.class_weights import with_class_weights

RARE = [("this is a common text", "common")] * 9 + [("something rare", "rare")] * 3


@pytest.fixture
def task() -> Task:
    return Task.from_data({"train": RARE, "dev": RARE[-4:]}, "classification")


def test_balanced_gives_each_class_the_same_share_and_leaves_the_mean_at_1(task: Task) -> None:
    weighted = with_class_weights(task, "balanced")
    assert dict(zip(weighted.labels, weighted.head.class_weights, strict=True)) == pytest.approx(
        {"common": 12 / (2 * 9), "rare": 12 / (2 * 3)}
    )
    labels = torch.tensor(task.splits["train"].labels)
    zero = torch.zeros(len(labels), 2)
    assert weighted.head.errors(zero, labels).sum() == pytest.approx(float(task.head.errors(zero, labels).sum()))


def test_the_loss_is_cross_entropy_times_the_weight_of_the_class(task: Task, tmp_path) -> None:
    (tmp_path / "weights.json").write_text(json.dumps({"common": 1, "rare": 7}))
    weighted = with_class_weights(task, tmp_path / "weights.json")
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 2), torch.tensor([0, 1, 1, -100, 0])
    ratio = torch.tensor([7.0 if task.labels[y] == "rare" else 1.0 for y in labels.clamp(min=0)])
    mean = (9 * 1 + 3 * 7) / 12
    expected = F.cross_entropy(logits, labels, reduction="none") * ratio / mean
    assert torch.allclose(weighted.head.errors(logits, labels), expected)


def test_weights_follow_their_classes_into_another_order(task: Task) -> None:
    weighted = with_class_weights(task, {"common": 1, "rare": 4})
    turned = weighted.with_label_order(tuple(reversed(task.labels)))
    assert turned.head.class_weights == weighted.head.class_weights[::-1]
    more = weighted.with_label_order((*task.labels, "never seen"))
    assert more.head.class_weights == [*weighted.head.class_weights, 1.0]


def test_a_class_without_training_examples_has_weight_1(task: Task) -> None:
    three = task.with_label_order((*task.labels, "never seen"))
    assert with_class_weights(three, "balanced").head.class_weights[2] == 1


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"common": 1}, "no weight for class 'rare'"),
        ({"common": 1, "rare": 2, "other": 1}, "there is no class 'other'"),
        ({"common": 1, "rare": 0}, "the weight of class 'rare' is 0"),
        ({"common": 1, "rare": True}, "the weight of class 'rare' is True"),
        ("nowhere.json", "no such file; use `balanced`"),
    ],
)
def test_weights_that_are_none_are_refused(task: Task, weights, said) -> None:
    with pytest.raises(UserError, match=said):
        with_class_weights(task, weights)


def test_other_kinds_of_tasks_have_no_class_weights() -> None:
    scores = Task.from_data([(f"text {i}", i / 9) for i in range(40)], "regression")
    with pytest.raises(UserError, match="class weights: they are for one class per text"):
        with_class_weights(scores, "balanced")


def test_the_record_of_a_head_without_weights_says_nothing_of_them(task: Task) -> None:
    assert task.head.record() == {"kind": "classification"}
    assert "class_weights" in with_class_weights(task, "balanced").head.record()
