"""Several teachers: what their mean is, what a run on it equals, and what is refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from layerstill.acts import distill, plan
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError
from layerstill.heads import Classes, MultiLabel, Scores
from layerstill.recipe import Recipe
from layerstill.training import teachers
from layerstill.training.arguments import Options
from layerstill.training.teachers import MoreTeachers, Said
from tests.other_tokenizer import save_other
from tests.tiny import save_tiny, write_csv

QUIET = Options(progress=False, max_length=32, precision="fp32")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Three teachers of the same labels: the first, one with its outputs in another order, one with other tokens."""
    folder = tmp_path_factory.mktemp("teachers")
    save_tiny(folder / "first", sharp=2.0)
    save_tiny(folder / "turned", seed=3, sharp=2.0, names=["good", "bad", "fine"])
    save_other(folder / "other", id2label={0: "bad", 1: "fine", 2: "good"}, label2id={"bad": 0, "fine": 1, "good": 2})
    (folder / "data").mkdir()
    write_csv(folder / "data" / "train.csv", rows=16)
    write_csv(folder / "data" / "dev.csv", rows=9, seed=1)
    return folder


@pytest.fixture(scope="module")
def task(place):
    return Task.from_files("classification", place / "data")


def short(recipe: str = "kd", *overrides: str) -> Recipe:
    every = ("stages.0.epochs=2", "stages.0.batch_size=8", "stages.0.learning_rate=1e-3")
    return Recipe.load(recipe, (*every, *overrides))


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_mean_is_of_probabilities_for_classes_and_labels_and_of_numbers_for_scores():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (3, 5, 4))
    shares = [0.5, 0.3, 0.2]
    powers = np.exp(logits)
    expected = np.average(powers / powers.sum(-1, keepdims=True), 0, shares)
    np.testing.assert_allclose(np.exp(Classes().mean(logits, shares)), expected, rtol=1e-9)
    likely = 1 / (1 + np.exp(-logits))
    found = MultiLabel().mean(logits, shares)
    np.testing.assert_allclose(1 / (1 + np.exp(-found)), np.average(likely, 0, shares), rtol=1e-9)
    np.testing.assert_allclose(Scores().mean(logits, shares), np.average(logits, 0, shares))
    far = np.array([[[2000.0, -2000.0]]])
    assert np.isfinite(Classes().mean(far, [1])).all()
    assert np.isfinite(MultiLabel().mean(far, [1])).all()


def test_teachers_count_by_their_score_on_dev(task):
    dev = task.splits["dev"]
    texts = list(dict.fromkeys(dev.texts))
    right = np.zeros((len(texts), 3))
    for text, label in zip(dev.texts, dev.labels, strict=True):
        right[texts.index(text), label] = 5.0
    said = Said(("a", "b"), task, texts, np.stack([right, np.roll(right, 1, 1)]))
    assert said.weights == [1.0, 0.0]
    np.testing.assert_allclose(np.argmax(said.of(dev), 1), dev.labels)
    assert [one["accuracy"] for one in said.record()] == [1.0, 0.0, 1.0]
    none = Said(("a", "b"), task, texts, np.stack([np.roll(right, 1, 1)] * 2))
    assert none.weights == [0.5, 0.5]


def test_one_more_teacher_that_is_the_same_changes_nothing(place, task, tmp_path):
    """A copy of the first teacher: the mean of both is what it says, for logits beside other terms and alone."""
    save_tiny(tmp_path / "copy", sharp=2.0, classifier_dropout=0.25)  # which only training would know
    for name, recipe in (("kd", short()), ("best", short("best"))):
        more = [tmp_path / "copy"]
        distill(str(place / "first"), task, recipe, 2, tmp_path / f"{name}-two", QUIET, more_teachers=more)
        distill(str(place / "first"), task, recipe, 2, tmp_path / f"{name}-one", QUIET)
        two, one = weights(tmp_path / f"{name}-two"), weights(tmp_path / f"{name}-one")
        for key in one:
            torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=3e-4)


def test_outputs_meet_by_name_and_every_teacher_reads_with_its_own_tokens(place, task):
    """What each says is what it says alone, whatever the order of its outputs and whichever tokens it reads."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    names = (str(place / "turned"), str(place / "other"))
    first = str(place / "first")
    several = MoreTeachers(names)
    assert several.check(first, task, 32) == []
    said = several.ask(first, task, [task.splits["train"]], 32, place / "kept")
    text = task.splits["train"].texts[3]
    for number, name in enumerate((first, *names)):
        model = AutoModelForSequenceClassification.from_pretrained(name).eval()
        tokenizer = AutoTokenizer.from_pretrained(name)
        with torch.no_grad():
            row = model(**tokenizer(*text, return_tensors="pt")).logits[0]
        expected = [float(row[model.config.label2id[label]]) for label in task.labels]
        np.testing.assert_allclose(said.logits[number, said.texts.index(text)], expected, rtol=1e-3, atol=1e-4)


def test_answers_are_kept_by_teacher_and_texts(place, task, tmp_path):
    """For a run that is resumed, and for other runs on the same texts; whatever the path a teacher is given by."""
    names = MoreTeachers((str(place / "turned"),))
    first, train = str(place / "first"), [task.splits["train"]]

    def kept() -> dict[str, int]:
        return {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("answers-*.safetensors")}

    said = names.ask(first, task, train, 32, tmp_path)
    told = kept()
    assert len(told) == 2
    again = MoreTeachers((f"{place}/./turned",)).ask(first, task, train, 32, tmp_path, "first")
    assert kept() == told
    np.testing.assert_array_equal(again.logits, said.logits)
    assert again.record()[0]["teacher"] == "first"
    assert again.seconds == said.seconds > 0
    for name in told:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])  # damaged: asked again
    np.testing.assert_array_equal(names.ask(first, task, train, 32, tmp_path).logits, said.logits)
    names.ask(first, task, [], 32, tmp_path)
    assert len(kept()) == 4, "other texts"


def test_rates_are_tried_with_all_teachers_which_are_asked_once(place, task, tmp_path, monkeypatch):
    """Answers about the slice and about everything: two files a teacher, however many rates are tried."""
    asked = []
    answers = teachers._answers
    monkeypatch.setattr(teachers, "_answers", lambda name, *rest: asked.append(name) or answers(name, *rest))
    more = [place / "turned"]
    found = distill(place / "first", task, short(), 2, tmp_path / "s", QUIET, learning_rate="auto", more_teachers=more)
    assert found.record.tuning is not None
    assert len(asked) == 4
    assert not list((tmp_path / "s").rglob("answers-*"))


@pytest.mark.parametrize("recipe", ["kd", "best"])
def test_a_run_by_the_command_line(recipe, place, call, tmp_path):
    line = (
        f"distill {place}/first --more-teachers {place}/turned,{place}/other --task classification --data {place}/data "
        f"--max-length 32 --student-layers 2 --precision fp32 --recipe {recipe} --epochs 2 --batch-size 8 "
        f"--unlabelled {place}/more.txt --output {tmp_path}/student"
    )
    (place / "more.txt").write_text("a great film the plot\nthe actor was not very good\n", "utf-8")
    status, _, err = call(line)
    assert status == 0, err
    result = json.loads((tmp_path / "student" / "result.json").read_text("utf-8"))
    assert [one["teacher"] for one in result["teachers"]] == [
        f"{place}/first",
        f"{place}/turned",
        f"{place}/other",
        "mean",
    ]
    assert sum(one["weight"] for one in result["teachers"][:3]) == pytest.approx(1, abs=1e-3)
    assert "2 more teachers" in (tmp_path / "student" / "README.md").read_text("utf-8")
    settings = json.loads((tmp_path / "student" / "run.json").read_text("utf-8"))
    assert settings["more_teachers"] == [f"{place}/turned", f"{place}/other"]
    status, out, err = call(line + " --json")  # finished: the same run
    assert (status, json.loads(out)["teachers"]) == (0, result["teachers"]), err


def test_other_teachers_make_another_student(place, task, tmp_path):
    recipe = short("kd", "stages.0.objectives.task.weight=0.01")
    distill(str(place / "first"), task, recipe, 2, tmp_path / "one", QUIET)
    distill(str(place / "first"), task, recipe, 2, tmp_path / "two", QUIET, more_teachers=[place / "turned"])
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_what_is_refused(place, task, tmp_path):
    first = str(place / "first")

    def refused(*names, recipe="kd", of=task, **more) -> str:
        with pytest.raises(UserError) as caught:
            plan(first, of, recipe, 2, QUIET, more_teachers=names, speed=False, **more)
        return str(caught.value)

    assert "would count twice" in refused(first)
    assert "would count twice" in refused(place / "turned", f"{place}/./turned")
    save_tiny(tmp_path / "four", labels=4, names=["bad", "fine", "good", "great"])
    assert "give teachers of the same labels" in refused(tmp_path / "four")
    save_tiny(tmp_path / "odd", names=["red", "green", "blue"])
    assert "red" in refused(tmp_path / "odd")
    save_other(tmp_path / "scores", head=Scores(), labels=1, problem_type="regression")
    assert "its head gives scores" in refused(tmp_path / "scores")
    assert "no such folder" in refused(tmp_path / "nothing")
    assert "compares no logits" in refused(place / "turned", recipe="finetune")
    assert "mixed inputs" in refused(place / "turned", recipe=Recipe.load("kd", ("stages.0.view=mixup",)))
    assert "a folder or a hub id" in refused(object())
    save_other(tmp_path / "short", max_position_embeddings=20, id2label={0: "bad", 1: "fine", 2: "good"})
    assert "allows 18 tokens" in refused(tmp_path / "short")
    on_dev = Recipe.load("kd", ("stages.0.evaluate=objectives",))
    assert "--set stages.0.evaluate=epoch" in refused(place / "turned", recipe=on_dev)
    assert Recipe.load("kd", ("stages.0.evaluate=epoch",)).stages[0].evaluate == "epoch"


def test_two_teachers_in_one_word_are_told_apart(place, call):
    line = f"plan {place}/first,{place}/turned --task classification --data {place}/data --student-layers 2"
    status, _, err = call(line)
    assert status == 2
    assert f"give {place}/first and --more-teachers {place}/turned" in err


def test_texts_of_every_stage_are_asked_about(place, task):
    """Answers are found by text, so splits of other texts must have been named."""
    split = Split([("a film the plot",)], [0])
    said = MoreTeachers((str(place / "turned"),)).ask(str(place / "first"), task, [split], 32, place / "kept2")
    assert said.of(split).shape == (1, 3)
    assert said.of(task.splits["dev"]).shape == (9, 3)


def test_a_plan_names_the_teachers_that_answer_before_training(place, call):
    words = f"--task classification --data {place}/data --student-layers 2 --recipe kd --max-length 16"
    status, out, _ = call(f"plan {place}/first --more-teachers {place}/turned {words}")
    assert status == 0
    said = " ".join(out.split())
    assert said.startswith("2 teachers, which answer every text once before training; student")
    assert "2 layers from teacher layers [" in said
    assert "no teacher runs in training" in said
    assert "without a teacher" not in said
