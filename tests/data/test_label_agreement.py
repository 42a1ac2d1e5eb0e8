"""Classes of test sets and models: the same under other names, taken together, or refused."""

import pytest

from layerstill.data.label_agreement import fit, fit_all, meaning
from layerstill.data.ood import OodSet
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError


def model(*labels: str, texts: int = 2, positive: str | None = None) -> Task:
    kind = "classification" if labels else "regression"
    split = Split([("a",) * texts], [0])
    return Task("letters", kind, {"dev": split}, labels, ("accuracy",), positive)


def gold(*labels, texts: int = 2, **more) -> OodSet:
    return OodSet("far", [(f"text {i}",) * texts for i in range(len(labels))], list(labels), **more)


THREE = ("contradiction", "entailment", "neutral")  # in the order of a model that is not the data's


@pytest.mark.parametrize(
    ("names", "one"),
    [
        (("entails", "Entailment", "ENTAILED"), "entailment"),
        (("non-entailment", "Not Entailment", "not_entailment"), "not_entailment"),
        (("paraphrase", "duplicate", "Equivalent"), "equivalent"),
        (("not_paraphrase", "not-duplicate"), "not_equivalent"),
        (("pos", "Positive"), "positive"),
    ],
)
def test_spellings_of_one_class(names, one):
    assert {meaning(name) for name in names} == {one}


def test_the_same_names_follow_the_models_order():
    fitted = fit(gold("neutral", "entailment"), model(*THREE))
    assert fitted.split.labels == [2, 1]
    assert (fitted.labels, fitted.of_class, fitted.notices) == (THREE, (0, 1, 2), ("",) * 0)


def test_other_spellings():
    fitted = fit(gold("not_paraphrase", "paraphrase"), model("duplicate", "not_duplicate"))
    assert fitted.split.labels == [1, 0]
    assert fitted.labels == ("duplicate", "not_duplicate")


def test_a_three_way_model_on_two_way_labels():
    fitted = fit(gold("entailment", "not_entailment"), model(*THREE))
    assert fitted.labels == ("not_entailment", "entailment")
    assert fitted.of_class == (0, 1, 0)
    assert fitted.split.labels == [1, 0]
    assert fitted.notices == (
        "ood far: scored as not_entailment or entailment; neutral and contradiction are not_entailment",
    )


def test_a_two_way_model_on_three_way_labels():
    fitted = fit(gold("entailment", "neutral", "contradiction"), model("entailment", "not_entailment"))
    assert fitted.split.labels == [0, 1, 1]
    assert fitted.of_class == (0, 1)
    assert "neutral and contradiction are not_entailment" in fitted.notices[0]


def test_names_win_over_meanings():
    fitted = fit(gold("pos", "positive"), model("pos", "positive"))
    assert fitted.split.labels == [0, 1]


def test_scores_stay_scores():
    fitted = fit(gold(0.5, 4.0), model())
    assert fitted.split.labels == [0.5, 4.0]
    assert fitted.labels == fitted.of_class == ()


def test_what_a_user_should_know():
    fitted = fit(gold("entailment", "entailment", left_out=3), model(*THREE))
    assert fitted.notices == (
        "ood far: 3 of 5 rows have no usable gold label and are left out",
        "ood far: every example is 'entailment'",
    )


@pytest.mark.parametrize(
    ("ood", "task", "message"),
    [
        (
            gold("negative", "positive"),
            model(*THREE),
            "its labels are negative, positive, the model's contradiction, enta",
        ),
        (
            gold("entailment", "maybe"),
            model(*THREE),
            "say which is which with --ood-labels 'far:entailment=contradiction",
        ),
        (gold("Pos"), model("pos", "positive"), "its labels are Pos"),
        (gold("a", texts=1), model("a", "b"), "its examples are one text, those of task letters two texts; leave this"),
        (gold("a"), model("a", "b", texts=1), "its examples are two texts, those of task letters one text"),
        (gold("entailment"), model(), "it has classes, and task letters has scores"),
    ],
)
def test_sets_that_do_not_fit_are_refused(ood, task, message):
    with pytest.raises(UserError) as error:
        fit(ood, task)
    assert message in str(error.value)


def test_two_sets_of_one_name():
    with pytest.raises(UserError, match="--ood far: two sets have this name; tell them apart: far-1=PATH, far-2=PATH"):
        fit_all([gold("a"), gold("b")], model("a", "b"))
