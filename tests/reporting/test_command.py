"""Commands of the report are pasted into a shell: they are run here, and give the same run again."""

import itertools
import json
import shlex
import subprocess

import pytest

from layerstill.acts import distill, finetune
from layerstill.data.tasks import Task
from layerstill.recipe import Recipe
from layerstill.reporting.command import command_of
from layerstill.reporting.runs import read_runs
from layerstill.training.arguments import Options
from tests.command import status_of
from tests.reporting.example import result, write_run
from tests.tiny import save_tiny, write_csv

OPTIONS = Options(seed=3, max_length=32, max_steps=2, progress=False, precision="fp32")
EVIL = 'it\'s $(touch hacked) `x` "y"\n; rm -rf z'


@pytest.fixture
def home(tmp_path):
    """A teacher and data whose places have to be quoted."""
    place = tmp_path / "my $HOME's runs; rm -rf x"
    place.mkdir()
    save_tiny(place / "teacher")
    (place / "the data").mkdir()
    write_csv(place / "the data" / "train.csv", rows=24)
    write_csv(place / "the data" / "dev.csv", rows=15, seed=1)
    return place


def pasted(line, folder):
    """The words that a shell makes of a line, which it runs in `folder`."""
    script = f"layerstill() {{ printf '%s\\0' \"$@\"; }}\n{line}"
    done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


def test_a_pasted_command_makes_the_same_run_again(home, monkeypatch):
    monkeypatch.chdir(home.parent)
    task = Task.from_files("classification", home / "the data")
    recipe = Recipe.load("kd", ("stages.0.learning_rate=0.004",))
    first = distill(str(home / "teacher"), task, recipe, 2, home / "kd", OPTIONS)
    command = command_of(read_runs(home / "kd")[0])
    assert (command.blanks, command.remarks) == ((), ())
    words = pasted(command.line, home.parent)
    assert words == shlex.split(command.line)[1:]
    assert status_of(*words, "--quiet") == 0
    again = json.loads((home / "kd-again" / "result.json").read_text("utf-8"))
    assert again["metrics"] == first.record.metrics
    assert (again["recipe_hash"], again["seed"]) == (first.record.recipe_hash, 3)
    made = [(home / name / "model.safetensors").read_bytes() for name in ("kd", "kd-again")]
    assert made[0] == made[1]
    assert "kd-again-2" in command_of(read_runs(home / "kd")[0]).line  # the folder is there by now


def test_a_pasted_fine_tuning_has_its_settings(home):
    task = Task.from_files("classification", home / "the data")
    recipe = Recipe.load("finetune", ("stages.0.learning_rate=0.004", "stages.0.batch_size=4"))
    first = finetune(str(home / "teacher"), task, home / "plain", recipe, OPTIONS)
    command = command_of(read_runs(home / "plain")[0])
    assert command.blanks == ()
    assert status_of(*pasted(command.line, home), "--quiet") == 0
    again = json.loads((home / "plain-again" / "result.json").read_text("utf-8"))
    assert again["metrics"] == first.record.metrics


def told(place, **settings):
    folder = write_run(place, result("kd", "mrpc", 0, 0.7), curves=False)
    known = json.loads((folder / "run.json").read_text("utf-8"))
    (folder / "run.json").write_text(json.dumps(known | settings), "utf-8")
    return command_of(read_runs(folder)[0])


def test_everything_that_a_source_says_is_there(tmp_path):
    where = {"given": "x/data.csv", "absolute": "/nowhere/x/data.csv"}
    source = {"kind": "classification", "data": where, "dev": where, "text_columns": ["one text", "two"]}
    source |= {"label_column": "the label", "label_map": {"0": "no", "1": "yes"}, "train_examples": 50}
    words = shlex.split(told(tmp_path / "a", source=source).line)
    pairs = dict(itertools.pairwise(words))
    assert pairs["--task"] == "classification"
    assert (pairs["--data"], pairs["--dev"]) == ("/nowhere/x/data.csv",) * 2
    assert (pairs["--text-columns"], pairs["--label-column"]) == ("one text,two", "the label")
    assert (pairs["--label-map"], pairs["--train-examples"]) == ("0=no,1=yes", "50")


def test_what_no_option_can_say_is_said_beside_the_command(tmp_path):
    source = {"kind": "classification", "text_columns": ["a,b"], "label_map": {"x=y": "no"}}
    command = told(tmp_path / "a", source=source, head={"classification": {"class_weights": [1.0, 5.0]}})
    assert command.blanks == ("DATA", "FILE")
    assert command.remarks == (
        "the data were in memory",
        'only in Python: text columns ["a,b"]',
        'only in Python: label map {"x=y": "no"}',
        "FILE after --class-weights holds a number for each class, in the model's order [1.0, 5.0]",
    )
    assert "#" not in command.line


def test_a_folder_called_data_is_no_blank(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DATA").mkdir()
    where = {"given": "DATA", "absolute": str(tmp_path / "DATA")}
    command = told(tmp_path / "a", source={"kind": "mrpc", "data": where})
    assert " --data DATA --recipe " in command.line
    assert command.blanks == ()


def test_names_from_files_are_words_of_the_shell_and_no_commands(tmp_path):
    objectives = {"a": {"signal": {f"mod:{EVIL}": {}}}}
    settings = {"teacher": EVIL, "init_from": EVIL, "student": EVIL, "student_layers": None, "ood": {EVIL: "1"}}
    settings |= {"recipe": {"stages": [{"objectives": objectives}]}, "regime": {EVIL: EVIL}}
    command = told(tmp_path / "a", **settings)
    words = pasted(command.line, tmp_path)
    assert not (tmp_path / "hacked").exists()
    assert words[:2] == ["distill", EVIL]
    assert words.count(EVIL) == 3
    assert f"{EVIL}=FILE" in words
    assert "--student-layers" not in words
    assert not any("\n" in remark for remark in command.remarks)
