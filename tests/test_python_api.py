"""What a notebook user tries first: models, data and recipes in the form they have them."""

import logging
from pathlib import Path

import datasets
import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from layerstill import (
    Options,
    Recipe,
    Split,
    Task,
    UserError,
    cache,
    distill,
    evaluate,
    finetune,
    plan,
)
from layerstill.training.cache_choice import CacheOptions
from tests.tiny import WORDS, save_tiny, tiny_tokenizer

NAMES = ["bad", "fine", "good"]
QUICK = Options(max_length=16, max_steps=2, precision="fp32", progress=False)


def rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    labels = [NAMES[i % 3] for i in range(count)]
    return [(" ".join([label, *rng.choice(WORDS[6:], 3)]), label) for label in labels]


TRAIN, DEV = rows(60), rows(21, 1)
NUMBERS = {"train": [NAMES.index(y) for _, y in TRAIN], "dev": [NAMES.index(y) for _, y in DEV]}
TEXTS = {"train": [text for text, _ in TRAIN], "dev": [text for text, _ in DEV]}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "teacher", layers=3)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def task_of(texts=TEXTS, labels=NUMBERS, names=tuple(NAMES)) -> Task:
    return Task("mine", "classification", {s: Split(texts[s], labels[s]) for s in texts}, names)


@pytest.fixture(scope="module")
def expected(teacher, tmp_path_factory):
    """The metrics of a run with the data as records keep them."""
    splits = {s: Split([(text,) for text in TEXTS[s]], NUMBERS[s]) for s in TEXTS}
    task = Task("mine", "classification", splits, tuple(NAMES))
    return distill(str(teacher), task, Recipe.load("kd"), 2, tmp_path_factory.mktemp("out") / "s", QUICK).metrics


def split_frames(kind):
    frames = {s: {"text": TEXTS[s], "label": [NAMES[i] for i in NUMBERS[s]]} for s in TEXTS}
    if kind == "pandas":
        pandas = pytest.importorskip("pandas")
        return {s: pandas.DataFrame(frame) for s, frame in frames.items()}
    return datasets.DatasetDict({s: datasets.Dataset.from_dict(frame) for s, frame in frames.items()})


def class_labels():
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=NAMES)})
    made = {s: datasets.Dataset.from_dict({"text": TEXTS[s], "label": NUMBERS[s]}, features) for s in TEXTS}
    return datasets.DatasetDict({"train": made["train"], "validation": made["dev"]})


FORMS = {
    "plain strings": task_of,
    "plain strings of equal length": lambda: task_of({s: [t[:12].ljust(12) for t in x] for s, x in TEXTS.items()}),
    "names of labels": lambda: task_of(labels={s: [NAMES[i] for i in y] for s, y in NUMBERS.items()}),
    "numpy labels": lambda: task_of(labels={s: np.array(y) for s, y in NUMBERS.items()}),
    "numpy numbers": lambda: task_of(labels={s: list(np.array(y)) for s, y in NUMBERS.items()}),
    "a list of names": lambda: task_of(names=NAMES),
    "(text, label)": lambda: {"train": TRAIN, "dev": DEV},
    "DataFrames": lambda: split_frames("pandas"),
    "a DatasetDict": lambda: split_frames("datasets"),
    "ClassLabel and validation": class_labels,
    "Task.from_dataset": lambda: Task.from_dataset(class_labels()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_data_is_the_same_task(form, teacher):
    wanted = task_of() if "equal length" not in form else FORMS[form]()
    made = FORMS[form]()
    task = made if isinstance(made, Task) else Task.from_data(made)
    assert task.labels == tuple(NAMES)
    for name in ("train", "dev"):
        assert task.splits[name] == wanted.splits[name]
        assert all(type(label) is int for label in task.splits[name].labels)
        assert all(type(text) is tuple and len(text) == 1 for text in task.splits[name].texts)


@pytest.mark.parametrize("form", ["plain strings", "(text, label)", "DataFrames", "ClassLabel and validation"])
def test_distill_takes_data_as_users_have_them(form, teacher, expected):
    result = distill(teacher, FORMS[form](), "kd", 2, "out", options=QUICK)
    assert result.metrics == expected
    assert result.folder == Path("out")
    assert result.student.config.num_hidden_layers == 2


def test_lists_of_texts_with_labels_and_no_dev_split(teacher, caplog):
    with caplog.at_level(logging.WARNING, "layerstill"):
        result = distill(teacher, TEXTS["train"], "kd", 2, options=QUICK, labels=[y for _, y in TRAIN])
    assert "no dev split given: held out 6 of 60 training rows" in caplog.text
    assert result.metrics["accuracy"] >= 0
    only = Task("mine", "classification", {"train": Split(TEXTS["train"], NUMBERS["train"])}, tuple(NAMES))
    with caplog.at_level(logging.WARNING, "layerstill"):
        assert distill(teacher, only, "kd", 2, "own", QUICK).metrics == result.metrics


def test_without_an_output_the_same_call_finds_its_run_again(teacher):
    first = distill(teacher, task_of(), "kd", 2, options=QUICK)
    assert first.folder.parent == Path("runs")
    assert first.folder.name.startswith("kd-")
    written = (first.folder / "model.safetensors").stat().st_mtime_ns
    again = distill(str(teacher), task_of(), Recipe.load("kd"), 2, options=QUICK)
    assert again.folder == first.folder
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == written
    other = distill(teacher, task_of(), "kd", 1, options=QUICK)
    assert other.folder != first.folder
    assert finetune(teacher, task_of(), options=QUICK).folder.name.startswith("finetune-")


def test_a_loaded_teacher_stays_as_it_is_and_teaches_as_its_folder_does(teacher, expected):
    loaded = AutoModelForSequenceClassification.from_pretrained(teacher)
    loaded.train()
    result = distill(loaded, task_of(), "kd", 2, "out", options=QUICK)
    assert result.metrics == expected
    assert result.record.teacher == str(teacher)
    assert loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert evaluate(loaded, task_of(), max_length=16).metrics == evaluate(teacher, task_of(), max_length=16).metrics


def test_a_loaded_model_from_nowhere_needs_its_tokenizer(teacher):
    config = AutoModelForSequenceClassification.from_pretrained(teacher).config
    config._name_or_path = ""
    made = BertForSequenceClassification(config)
    with pytest.raises(UserError, match="does not say where its tokenizer is; give tokenizer="):
        distill(made, task_of(), "kd", 2, "out", options=QUICK)
    assert distill(made, task_of(), "kd", 2, "out", options=QUICK, tokenizer=tiny_tokenizer()).metrics


def test_evaluate_gives_metrics_and_predictions(teacher):
    found = evaluate(str(teacher), task_of(), max_length=16)
    assert found.examples == len(found.predictions) == len(DEV)
    assert found.metrics["accuracy"] == np.mean(found.predictions == np.array(NUMBERS["dev"]))
    assert found.ood == {}
    # Data without splits are scored whole; so is a file.
    for data in (DEV, datasets.Dataset.from_dict({"text": TEXTS["dev"], "label": [y for _, y in DEV]})):
        assert evaluate(teacher, data, max_length=16).metrics == found.metrics
    Path("dev.csv").write_text("text,label\n" + "".join(f"{t},{y}\n" for t, y in DEV), "utf-8")
    assert evaluate(teacher, "dev.csv", max_length=16).metrics == found.metrics
    assert evaluate(teacher, {"test": DEV}, "test", max_length=16).metrics == found.metrics


def test_plan_and_cache_take_what_distill_takes(teacher):
    made = plan(teacher, {"train": TRAIN, "dev": DEV}, "kd", 2, QUICK)
    assert made.student_layers == 2
    options = Options(max_length=16, max_steps=2, progress=False, cache=CacheOptions("kept"))
    (filled,) = cache(teacher, {"train": TRAIN, "dev": DEV}, "kd", 2, options)
    assert filled.new == filled.examples == len(set(TEXTS["train"]))


LISTS = {"train": TRAIN, "dev": DEV}
MISTAKES = [
    (
        lambda: task_of(labels={s: [n + 1 for n in y] for s, y in NUMBERS.items()}),
        "label 3 is not one of bad, fine, good",
    ),
    (lambda: task_of(labels={s: ["odd"] * len(y) for s, y in NUMBERS.items()}), "example 1: label 'odd' is not one of"),
    (lambda: Split(["a", "b"], [1]), "a split has 2 examples and 1 labels"),
    (lambda: Task.from_data(3), "train: int is not data; give a Task, a Dataset"),
    (lambda: Task.from_data(TEXTS["train"]), "give labels=, as long as the list"),
    (lambda: Task.from_data(TEXTS["train"], labels=["good"]), "train: 60 of text, 1 of label"),
    (lambda: Task.from_data({"text": ["a"], "label": ["b"]}), "a dictionary has the splits train, dev"),
    (lambda: Task.from_data({"dev": DEV}), "split train is missing, there are dev"),
    (lambda: Task.from_data([]), "train: no rows in it"),
    (lambda: Task.from_data(datasets.Dataset.from_dict({"a": ["x"], "label": ["y"]})), "which columns are text"),
    (lambda: Task.from_data([("a", "good"), (None, "bad")]), "train line 2: column 'text' holds None"),
    (lambda: Task("mine", "classification", {"dev": Split(["a"], [0])}, ("x", "y")).with_dev(), "train is missing"),
]


@pytest.mark.parametrize(("attempt", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_what_is_no_data_is_one_line(attempt, words):
    with pytest.raises(UserError) as refusal:
        attempt()
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_no_model_recipe_or_depth_is_one_line(teacher):
    for arguments, words in (
        ((3, LISTS, "kd", 2), "got int"),
        ((teacher, LISTS, 3, 2), "recipe: a name, a file or a Recipe is expected, got int"),
        ((teacher, LISTS, "kdd", 2), "did you mean"),
        ((teacher, LISTS, "kd"), "--student-layers: say how many layers the student should have, 1 to 3"),
        ((teacher, LISTS, "kd", 4), "the teacher has 3 layers; choose 1 to 3"),
        ((Path("none"), LISTS, "kd", 2), "none: no such folder"),
    ):
        with pytest.raises(UserError, match=words):
            distill(*arguments, output="out", options=QUICK)
        assert not Path("out").exists()


def test_tags_as_users_have_them():
    words, tags = [["good", "film"], ["bad", "plot", "was"]] * 6, [["O", "B-X"], ["O", "B-X", "O"]] * 6
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-X"])),
        }
    )
    numbered = [[["O", "B-X"].index(tag) for tag in row] for row in tags]
    made = datasets.Dataset.from_dict({"tokens": words, "ner_tags": numbered}, features)
    task = Task.from_data({"train": made, "dev": made}, "tokens")
    assert task.labels == ("O", "B-X")
    assert task.splits["train"].texts[0] == ("good", "film")
    assert task.splits["train"].labels[:2] == [[0, 1], [0, 1, 0]]
    assert Task.from_data({"train": list(zip(words, tags, strict=True)), "dev": made}, "tokens") == task
    pair = Task("mine", "tokens", {"train": Split(words, tags), "dev": Split(words, numbered)}, ("O", "B-X"))
    assert pair.splits == task.splits
