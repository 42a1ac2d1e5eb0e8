"""Students: the right layers, a plain folder, in every family."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from layerstill.errors import UserError
from layerstill.families import layers_of
from layerstill.students.build import build_student
from layerstill.students.initialisation import parse_initialisation
from layerstill.students.spec import StudentSpec
from tests.tiny import FAMILIES, batch, tiny_model


def spec(**settings) -> StudentSpec:
    return StudentSpec.model_validate(settings)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("initialisation", "expected"),
    [("first-k", [1, 2]), ("last-k", [3, 4]), ("every-k", [2, 4]), ({"explicit": {"layers": [1, 4]}}, [1, 4])],
)
def test_layers_come_from_where_they_should(family, initialisation, expected):
    teacher = tiny_model(family)
    student = build_student(teacher, 2, spec(initialisation=initialisation), seed=0)
    for mine, number in zip(layers_of(student), expected, strict=True):
        theirs = layers_of(teacher)[number - 1].state_dict()
        for name, tensor in mine.state_dict().items():
            if name in theirs:
                torch.testing.assert_close(tensor, theirs[name], atol=0, rtol=0)
        # ModernBERT's first layer has no norm before attention, which a later layer has.
        assert set(theirs) - set(mine.state_dict()) <= {"attn_norm.weight"}
    shared = {n: p for n, p in teacher.state_dict().items() if "embed" in n or "classifier" in n}
    for name, tensor in shared.items():
        torch.testing.assert_close(student.state_dict()[name], tensor, atol=0, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_is_a_plain_model_folder(family, tmp_path):
    student = build_student(tiny_model(family), 2, spec(), seed=0).eval()
    student.save_pretrained(tmp_path)
    loaded, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    data = batch()
    inputs = {"input_ids": data["input_ids"], "attention_mask": data["attention_mask"]}
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(**inputs).logits, student(**inputs).logits)


def test_a_student_of_all_layers_is_the_teacher():
    teacher = tiny_model()
    student = build_student(teacher, 4, spec(), seed=0).eval()
    inputs = {k: v for k, v in batch().items() if k != "labels"}
    with torch.no_grad():
        torch.testing.assert_close(student(**inputs).logits, teacher(**inputs).logits, atol=0, rtol=0)


def test_kinds_of_layers_are_cut_with_the_layers():
    teacher = tiny_model("modernbert")
    kinds = teacher.config.layer_types
    student = build_student(teacher, 2, spec(initialisation="every-k"), seed=0)
    assert student.config.layer_types == [kinds[1], kinds[3]]


@pytest.mark.parametrize("part", ["embeddings", "pooler", "head"])
def test_parts_can_be_left_random(part):
    teacher = tiny_model()
    names = {
        "embeddings": "bert.embeddings.word_embeddings.weight",
        "pooler": "bert.pooler.dense.weight",
        "head": "classifier.weight",
    }
    student = build_student(teacher, 2, spec(**{part: "random"}), seed=0)
    for other, name in names.items():
        same = torch.equal(student.state_dict()[name], teacher.state_dict()[name])
        assert same == (other != part), other


def test_random_weights_and_random_layers():
    teacher = tiny_model(layers=8)
    torch.manual_seed(0)
    fresh = build_student(teacher, 2, spec(initialisation="random"), seed=0)
    name = "encoder.layer.0.output.dense.weight"
    assert not torch.equal(fresh.bert.get_parameter(name), teacher.bert.get_parameter(name))
    from layerstill.students.build import chosen_layers

    drawn = {tuple(chosen_layers(teacher.config, 3, spec(initialisation="random-k"), seed)) for seed in range(10)}
    assert len(drawn) > 3
    assert all(list(d) == sorted(set(d)) for d in drawn)


def test_another_checkpoint_can_start_the_student():
    parent, teacher = tiny_model(seed=3, labels=2), tiny_model(seed=0)
    teacher.config.id2label = {0: "bad", 1: "fine", 2: "good"}
    student = build_student(parent, 2, spec(), seed=0, labels=teacher.config)
    name = "bert.encoder.layer.1.output.dense.weight"
    torch.testing.assert_close(student.get_parameter(name), parent.get_parameter(name), atol=0, rtol=0)
    assert student.config.id2label == {0: "bad", 1: "fine", 2: "good"}
    assert student.classifier.out_features == 3


@pytest.mark.parametrize(
    ("depth", "initialisation", "message"),
    [
        (0, "first-k", "a student of 0 layers does not fit a source of 4; choose 1 to 4"),
        (5, "first-k", "a student of 5 layers does not fit a source of 4"),
        (3, "every-k", "3 student layers do not divide 4 source layers; use 1, 2, 4 layers"),
        (2, "1,2,3", "names 3 layers, but the student has 2"),
        (2, "1,9", "names layer 9, but the source has 4 layers"),
    ],
)
def test_depths_that_do_not_fit_are_refused_with_what_would(depth, initialisation, message):
    with pytest.raises(UserError, match=message):
        build_student(tiny_model(), depth, spec(initialisation=parse_initialisation(initialisation)), seed=0)
