"""The command line as a user meets it: real processes, exit statuses, what is printed where."""

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

from layerstill.names import shipped_recipes
from layerstill.recipe import Recipe
from tests.tiny import save_tiny, task_recipes, write_csv

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    save_tiny(folder / "teacher", width=96)
    shutil.copytree(folder / "teacher", folder / "untokenized", ignore=shutil.ignore_patterns("token*"))
    shutil.copytree(folder / "teacher", folder / "other")
    vocabulary = (folder / "other" / "tokenizer.json").read_text("utf-8")
    (folder / "other" / "tokenizer.json").write_text(vocabulary.replace('"good"', '"decent"'), "utf-8")
    (folder / "data").mkdir()
    write_csv(folder / "data" / "train.csv", rows=16)
    write_csv(folder / "data" / "dev.csv", rows=6)
    (folder / "extra.txt").write_text("a great film\n\nthey was not very good but we was\nthe plot\n", "utf-8")
    return folder


def arguments(place, extra: str = "") -> str:
    return f"{place}/teacher --task classification --data {place}/data --max-length 32 {extra}"


@pytest.mark.parametrize("recipe", task_recipes())
def test_every_recipe_runs_through_the_command_line(recipe, place, call, tmp_path):
    words = arguments(place, f"--recipe {recipe} --student-layers 2 --epochs 2 --batch-size 8 --output {tmp_path}/s")
    words += f" --supplementary {place}/extra.txt" if Recipe.load(recipe).supplementary_stages else ""
    status, out, err = call(f"distill {words} --json")
    assert status == 0, err
    result = json.loads(out)
    assert result["student"]["layers"] == 2
    assert Path(tmp_path / "s" / "result.json").is_file()
    _, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "s", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_in_a_process_of_its_own_only_json_is_on_standard_output(place, tmp_path):
    words = arguments(place, f"--recipe kd --student-layers 2 --max-steps 2 --output {tmp_path}/s --json")
    done = subprocess.run(
        [sys.executable, "-m", "layerstill", "distill", *shlex.split(words)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["train"]["steps"] == 2
    assert done.stderr == ""


def test_finetune_then_evaluate(place, call, tmp_path):
    status, out, err = call(
        f"finetune {arguments(place)} --epochs 1 --batch-size 8 --learning-rate 1e-3 --seed 3 --output {tmp_path}/t"
    )
    assert status == 0, err
    assert "dev of classification (last evaluation): accuracy" in out
    scores = {}
    for model in (f"{place}/teacher", f"{tmp_path}/t"):
        status, out, _ = call(f"evaluate {model} --task classification --data {place}/data --max-length 32 --json")
        assert status == 0
        scores[model] = json.loads(out)["metrics"]["accuracy"]
    assert scores[f"{tmp_path}/t"] == json.loads((tmp_path / "t" / "result.json").read_text())["metrics"]["accuracy"]
    status, out, _ = call(
        f"evaluate {tmp_path}/t --task classification --data {place}/data --split train --max-length 32"
    )
    assert re.match(r"train of classification, 16 examples: accuracy 0\.\d{4}", out)


def test_a_single_file_is_evaluated_whole_even_if_it_lacks_a_class(place, call, tmp_path):
    (tmp_path / "new.csv").write_text("text,label\ngood film,good\nbad film,bad\nbad plot,bad\n", "utf-8")
    status, out, err = call(f"evaluate {place}/teacher --task classification --data {tmp_path}/new.csv --max-length 32")
    assert status == 0, err
    assert "3 examples" in out


def test_a_corrected_command_may_use_the_folder_of_one_that_failed(place, call, tmp_path):
    words = arguments(place, f"--student-layers 2 --max-steps 1 --output {tmp_path}/s")
    bad = "--set stages.0.objectives.task.weight=0 --set 'stages.0.objectives.soft targets.distance={huber: {delta: 1e-60}}'"
    status, _, err = call(f"distill {words} {bad}")
    assert status == 2
    assert "'soft targets' is" in err
    status, _, err = call(f"distill {words}")
    assert status == 0, err


def test_set_and_init_reach_the_run(place, call, tmp_path):
    words = arguments(
        place, "--recipe kd --student-layers 2 --init 1,4 --max-steps 1 --set stages.0.learning_rate=3e-4"
    )
    status, out, err = call(f"distill {words} --output {tmp_path}/s --json")
    assert status == 0, err
    result = json.loads(out)
    assert result["student"]["init"]["layers"] == [1, 4]
    assert result["recipe"] == "kd"
    assert Recipe.load(tmp_path / "s" / "recipe.yaml").stages[0].learning_rate == 3e-4
    assert result["train"]["steps"] == 1


def test_plan_prints_pairs_captures_depth_parameters_and_memory(place, call, tmp_path):
    status, out, err = call(f"plan {arguments(place, '--recipe tinybert --student-layers 2')}")
    assert status == 0, err
    text = " ".join(out.split())
    for words in ("layer 1 <- layer 2", "layer 2 <- layer 4", "embeddings <- embeddings", "parameters", "MB of memory"):
        assert words in text, words
    assert (
        "captured from the teacher: hidden states of embeddings, layer 2, layer 4, q, k, v of layer 2, layer 4" in text
    )
    assert "teacher runs 4 of 4 layers" in text
    status, out, _ = call(f"plan {arguments(place, '--recipe rail-kd-l --student-layers 3 --json')}")
    plan = json.loads(out)
    assert plan["stages"][0]["objectives"][2]["pairs"][0] == "layer 1 <- drawn from layer 1, layer 2, layer 3, sorted"
    mapping = "stages.0.objectives.attention.mapping={explicit: {pairs: {layer 1: layer 2}}}"
    one = f"--recipe att-mse --student-layers 2 --json --set '{mapping}'"
    status, out, err = call(f"plan {arguments(place, one)}")
    assert status == 0, err
    assert json.loads(out)["stages"][0]["teacher_depth"] == 2
    assert not list(tmp_path.iterdir())


def test_plan_agrees_with_the_run(place, call, tmp_path):
    words = arguments(place, "--recipe kd --student-layers 2 --epochs 3 --batch-size 8 --json")
    _, out, _ = call(f"plan {words}")
    plan = json.loads(out)
    _, out, _ = call(f"distill {words} --output {tmp_path}/s")
    result = json.loads(out)
    assert plan["stages"][0]["steps"] == result["train"]["steps"]
    assert plan["student_parameters"] == result["student"]["parameters"]


def test_recipes(call, tmp_path):
    status, out, _ = call("recipes list")
    assert [line.split()[0] for line in out.strip().split("\n")] == shipped_recipes()
    status, shown, _ = call("recipes show rail-kd-l")
    (tmp_path / "mine.yaml").write_text(shown.replace("width: 128", "width: 64"), "utf-8")
    status, out, _ = call(f"recipes check {tmp_path}/mine.yaml")
    assert status == 0
    assert "a valid recipe" in out
    assert "width: 64" in out
    status, out, _ = call("recipes schema")
    assert json.loads(out)["title"] == "Recipe"


@pytest.mark.parametrize(
    "verb",
    [
        "",
        *"finetune distill evaluate export plan cache augment diagnose study report demo recipes".split(),
        "recipes check",
    ],
)
def test_help_teaches(verb, call):
    status, out, _ = call(f"{verb} --help")
    assert status == 0
    assert "Usage: layerstill" in out


MISTAKES = [
    ("distill {p}/none --task classification --data {p}/data --student-layers 2 --output {o}", "none: no such folder"),
    (
        "distill {p}/teacher --task mprc --data {p}/data --student-layers 2 --output {o}",
        "unknown task 'mprc': did you mean 'mrpc'",
    ),
    ("distill {p}/teacher --task classification --student-layers 2 --output {o}", "--task classification needs --data"),
    (
        "distill {p}/teacher --task classification --data {p}/nope --student-layers 2 --output {o}",
        "no such file or folder",
    ),
    (
        "distill {p}/teacher --task mrpc --data {p}/data --student-layers 2 --output {o}",
        "split train is missing, looked for",
    ),
    (
        "distill {p}/teacher --task classification --data {p}/data --label-column topic --student-layers 2 --output {o}",
        "no column 'topic'",
    ),
    (
        "distill {p}/teacher --task classification --data {p}/data --recipe rial-kd --student-layers 2 --output {o}",
        "did you mean 'rail-kd-l'",
    ),
    (
        "distill {p}/teacher --task classification --data {p}/data --student-layers 7 --output {o}",
        "the teacher has 4 layers; choose 1 to 4",
    ),
    (
        "distill {p}/teacher --task classification --data {p}/data --student-layers 3 --init every-k --output {o}",
        "use 1, 2, 4 layers",
    ),
    (
        "distill {p}/teacher --task classification --data {p}/data --student-layers 2 --init sideways --output {o}",
        "unknown initialisation 'sideways'",
    ),
    (
        "distill {p}/teacher --task classification --data {p}/data --student-layers 2 --set stages.0.epoch=1 --output {o}",
        "did you mean 'epochs'",
    ),
    (
        "distill {p}/teacher --task classification --data {p}/data --student-layers 2 --epochs -1 --output {o}",
        "greater than 0, got -1",
    ),
    (
        "distill {p}/teacher --task classification --data {p}/data --student-layers 2 --max-length 4000 --output {o}",
        "the model allows 64 tokens",
    ),
    (
        "distill {p}/teacher --task classification --data {p}/data --student-layers 2 --output {p}/data",
        "not empty and not a run of layerstill",
    ),
    (
        "distill {p}/teacher --task tickets --student-layers 2 --output {o}",
        "knows 3 labels (bad, fine, good), and the data have 10",
    ),
    (
        "plan {p}/teacher --task classification --data {p}/data --student-layers 7",
        "the teacher has 4 layers; choose 1 to 4",
    ),
    ("plan {p}/teacher --task classification --data {p}/data --student-layers 3 --recipe u-ild", "3 does not divide 4"),
    ("evaluate {p}/teacher --task classification --data {p}/data --split tset", "--split tset: known: train, dev"),
    ("recipes check {p}/none.yaml", "No such file"),
    ("recipes show kdd", "did you mean 'kd'"),
    ("distill {p}/teacher --task classification --data {p}/data --student-layers 2 --seed -1 --output {o}", "--seed"),
    ("distill {p}/teacher --task classification --data {p}/data --student-layers two --output {o}", "--student-layers"),
    ("distill {p}/teacher --task classification --data {p}/data --student-layers 2", "--output"),
    (
        "distill {p}/teacher --task classification --data {p}/data --student-layers 2 --report-to smoke --output {o}",
        "--report-to smoke",
    ),
    (
        "distill {p}/teacher --task tickets --data {p}/data --student-layers 2 --output {o}",
        "--task tickets takes no --data",
    ),
    (
        "distill {p}/teacher --task mrpc --data {p}/data --dev {p}/data/dev.csv --student-layers 2 --output {o}",
        "takes no --dev",
    ),
    (
        "distill {p}/teacher --task mrpc --data {p}/data/dev.csv --student-layers 2 --output {o}",
        "a GLUE task is read from a folder",
    ),
    (
        "distill {p}/untokenized --task classification --data {p}/data --student-layers 2 --output {o}",
        "no tokenizer in it",
    ),
    (
        "distill {p}/teacher --task classification --data {p}/data --recipe minilmv2 --init-from {p}/other --student-layers 2 --max-length 32 --output {o}",
        "tokens have another number there",
    ),
    (
        "plan {p}/teacher --task classification --data {p}/data --student-layers 2 --max-length 4000",
        "the model allows 64 tokens",
    ),
    ("evaluate", "Missing argument"),
    ("distill", "Missing option"),
    ("sing", "No such command 'sing'"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[m for _, m in MISTAKES])
def test_a_mistake_is_one_clear_line_and_status_2(words, message, place, call, tmp_path):
    output = tmp_path / "out"
    if re.match("(distill|plan) ", words) and "--max-length" not in words:
        words += " --max-length 32"  # the tiny models have 64 positions
    status, out, err = call(words.format(p=place, o=output))
    assert status == 2
    assert out == ""
    lines = [line for line in err.strip().split("\n") if not line.startswith(("note:", "teacher on dev"))]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not output.exists() or not any(output.glob("*.safetensors"))


GOES_ON, NOTHING = "the same command resumes from the last checkpoint", "nothing was written"


@pytest.mark.parametrize(
    ("words", "after"),
    [
        ("augment d.csv --output o.csv --method delete", NOTHING),
        ("evaluate model --task tickets", NOTHING),
        ("export model --task tickets", NOTHING),
        ("plan teacher --task tickets --recipe kd --student-layers 2", NOTHING),
        ("report runs", NOTHING),
        ("finetune model --task tickets --output o", GOES_ON),
        ("distill teacher --task tickets --recipe kd --student-layers 2 --output o", GOES_ON),
        ("cache teacher --task tickets --student-layers 2 --cache c", GOES_ON),
        ("diagnose run", GOES_ON),
        ("study file.yaml --output o", GOES_ON),
        ("demo --output o", GOES_ON),
    ],
)
def test_whoever_interrupts_is_told_what_becomes_of_the_work(words, after, call, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    verb = words.split()[0]
    if verb == "report":
        monkeypatch.setattr(importlib.import_module("layerstill.acts.report"), "read_runs", interrupt)
    for module in (f"layerstill.commands.{verb}", "layerstill.commands.options"):
        monkeypatch.setattr(importlib.import_module(module), "setup", interrupt, raising=False)
    assert call(words) == (130, "", f"interrupted; {after}\n")
