"""The model card: what it says, that it stays text, and that nobody else's README is touched."""

import logging

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from layerstill import distill, finetune
from layerstill.data.tasks import Task
from layerstill.evaluation.predictions import load_predictions
from layerstill.heads import Classes
from layerstill.names import shipped_recipes
from layerstill.recipe import Recipe
from layerstill.reporting.model_card import CARD_MARK, is_hub_id, model_card, plain
from layerstill.result import Record
from layerstill.training.arguments import Options
from tests.reporting.example import noisy_regime
from tests.tiny import save_tiny, write_csv

QUIET = Options(progress=False, max_length=32, precision="fp32", max_steps=2)
EVIL = "<script>alert(1)</script> [x](http://e.invalid) **b** | `c` _d_ # e"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("teacher") / "my-teacher"))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_csv(folder / "train.csv", rows=16)
    write_csv(folder / "dev.csv", rows=9, seed=1)
    return Task.from_files("classification", folder)


@pytest.fixture(scope="module")
def student(teacher, task, tmp_path_factory):
    recipe = Recipe.load("rail-kd-l")
    return distill(teacher, task, recipe, 2, tmp_path_factory.mktemp("run") / "s", QUIET)


def parts(text: str) -> tuple[dict, str]:
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def rendered(markdown: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)


def result_data(**more):
    data = {
        "recipe": "kd",
        "recipe_hash": "abc",
        "teacher": "org/teacher",
        "task": "mrpc",
        "seed": 3,
        "student": {
            "layers": 3,
            "hidden_size": 384,
            "parameters": 1234,
            "init": {"layers": [1, 2, 3], "from": "teacher"},
        },
        "metrics": {"accuracy": 0.7, "selected": "last"},
        "teacher_metrics": {"accuracy": 0.8},
        "ood": {},
        "train": {"steps": 7, "examples": 224, "precision": "fp32"},
        "environment": {"torch": "2.13.0+cpu"},
    }
    return Record.model_validate(data | more)


def card(**more):
    return model_card(result_data(**more), Recipe.load("kd"), {"max_length": 64, "data_fingerprint": "f"}, Classes())


def test_a_student_comes_with_its_card(student):
    front, body = parts((student.folder / "README.md").read_text("utf-8"))
    assert front["pipeline_tag"] == "text-classification"
    assert "knowledge-distillation" in front["tags"]
    assert "base_model" not in front  # the teacher is a folder
    assert "license" not in front
    html = rendered(body)
    assert "distilled from the teacher my-teacher with the recipe rail-kd-l" in html
    assert f"<td>{student.metrics['accuracy']:.4f}</td>" in html
    assert f"<td>{student.data['teacher_metrics']['accuracy']:.4f}</td>" in html
    assert "One run with one seed (0)" in html
    assert f"{student.data['student']['parameters']:,} parameters. Started from: layers 1, 2 of the teacher" in html
    assert "<strong>random layers</strong>: hidden states (pool mean), layers mapped: random" in html
    assert str(student.folder) not in body
    recipe = body.split("```yaml\n")[1].split("```")[0]
    assert Recipe.from_data(yaml.safe_load(recipe)) == Recipe.load("rail-kd-l")


def test_predictions_are_kept_and_give_the_score(student):
    found = load_predictions(student.folder)
    assert found.logits.shape == (9, 3)
    assert found.contributions("accuracy").mean() == pytest.approx(student.metrics["accuracy"])
    assert found.contributions("f1_macro").mean() == pytest.approx(student.metrics["f1_macro"])


def test_the_three_lines_load_the_model(student):
    body = (student.folder / "README.md").read_text("utf-8")
    lines = body.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(student.folder))
    names = {}
    exec(lines, names)
    assert isinstance(names["model"], type(AutoModelForSequenceClassification.from_pretrained(student.folder)))
    assert names["tokenizer"]("good film") == AutoTokenizer.from_pretrained(student.folder)("good film")


def test_a_fine_tuned_model_has_a_card_without_a_teacher(teacher, task, tmp_path):
    done = finetune(teacher, task, tmp_path / "t", options=QUIET)
    front, body = parts((done.folder / "README.md").read_text("utf-8"))
    assert "knowledge-distillation" not in front["tags"]
    assert "The model my-teacher, fine-tuned with the recipe finetune" in rendered(body)
    assert "teacher |" not in body


def test_a_student_without_a_teacher_is_not_called_distilled(teacher, task, tmp_path):
    done = distill(teacher, task, Recipe.load("finetune"), 2, tmp_path / "s", QUIET)
    front, body = parts((done.folder / "README.md").read_text("utf-8"))
    assert "knowledge-distillation" not in front["tags"]
    assert "A 2-layer model, cut from my-teacher and trained without a teacher" in rendered(body)


def test_a_hub_id_is_the_base_model(tmp_path, monkeypatch):
    assert parts(card())[0]["base_model"] == "org/teacher"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "teacher").mkdir(parents=True)
    assert "base_model" not in parts(card())[0]
    for no_id in ("../x", "/abs/path", "a/b/c", "./x", "a--b", "x y", "", "a/../b"):
        assert not is_hub_id(no_id), no_id


def test_the_hub_reads_the_scores():
    ood = {"far": {"metrics": {"accuracy": 0.5}, "gap": {"accuracy": 0.2}}}
    text = card(metrics={"accuracy": 0.7, "f1": 0.6, "selected": "last"}, ood=ood)
    found = ModelCard(text).data.eval_results
    assert [(r.dataset_name, r.dataset_split, r.metric_type, r.metric_value) for r in found] == [
        ("mrpc", "dev", "accuracy", 0.7),
        ("mrpc", "dev", "f1", 0.6),
        ("far", None, "accuracy", 0.5),
    ]
    assert {r.task_type for r in found} == {"text-classification"}
    assert ModelCard(text).data.model_name == "kd on mrpc"


def test_names_from_outside_stay_text():
    text = card(recipe=EVIL, task=EVIL + "\n# heading", ood={EVIL: {"metrics": {EVIL: 0.5}, "gap": {EVIL: 0.1}}})
    front, body = parts(text)
    html = rendered(body)
    for markup in ("<script", "<a ", "<strong>b", "<em>d", "<code>c", "<h1>heading"):
        assert markup not in html, markup
    assert html.count("<h1>") == 1
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt; [x](http://e.invalid) **b** | `c` _d_ # e") >= 4
    assert set(front) == {"library_name", "base_model", "pipeline_tag", "tags", "model-index"}
    assert plain("a\x1b[31m\nb") == "a \\[31m b"


def test_the_recipe_cannot_leave_its_fence():
    data = Recipe.load("kd").to_data() | {"name": "```<b>"}
    recipe = Recipe.from_data(data)
    text = model_card(result_data(), recipe, {"max_length": 64, "data_fingerprint": "f"}, Classes())
    assert "<b>" not in rendered(text.split("---\n", 2)[2])
    assert "````yaml" in text


def test_the_best_of_several_is_said_to_be_that():
    assert "the best of 4 evaluations on this same dev set" in card(metrics={"accuracy": 0.7, "selected": "best of 4"})
    assert "best of" not in card()


def test_a_regime_is_part_of_the_card():
    regime = noisy_regime(0.3, 5)
    text = card(regime=regime)
    assert "- label\\_noise: 0.3\n- noise: symmetric\n" in text
    assert f"- flipped\\_labels: {regime['flipped_labels']}\n" in text
    assert f"- student.wrong labels: {regime['flipped_labels']}\n" in text


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_has_words(name):
    text = model_card(result_data(), Recipe.load(name), {"max_length": 64, "data_fingerprint": "f"}, Classes())
    objectives = [n for s in Recipe.load(name).stages for n in s.objectives]
    assert all(f"- **{plain(n)}**: " in text for n in objectives)
    assert "{" not in text.split("```yaml")[0].split("## Training")[1]


def test_someone_elses_readme_stays(teacher, task, tmp_path, caplog):
    run = finetune(teacher, task, tmp_path / "t", options=QUIET)
    (run.folder / "result.json").unlink()  # as if it had been killed just before
    (run.folder / "README.md").write_text("mine", "utf-8")
    with caplog.at_level(logging.WARNING, "layerstill"):
        finetune(teacher, task, tmp_path / "t", options=QUIET)
    assert (run.folder / "README.md").read_text("utf-8") == "mine"
    assert "was not written by this run and stays as it is" in caplog.text
    (run.folder / "result.json").unlink()
    (run.folder / "README.md").write_text(f"{CARD_MARK} half", "utf-8")
    finetune(teacher, task, tmp_path / "t", options=QUIET)
    assert "## Scores" in (run.folder / "README.md").read_text("utf-8")
