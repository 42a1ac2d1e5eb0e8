"""The walks in `examples/`: what a person runs first, from their data to a file that answers, on a tiny model."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from layerstill import Options
from tests.tiny import save_tiny

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
STEPS = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "model", layers=2, positions=160)


def run(script: Path, *words: str) -> str:
    """What a script prints; the test fails with all of it if the script does."""
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, str(script), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **paths},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_walk_from_a_csv_of_reviews_ends_with_labels_from_an_onnx_file(model, tmp_path):
    home = tmp_path / "walk"
    said = run(EXAMPLES / "reviews_csv.py", str(model), "--output", str(home), "--max-steps", str(STEPS))
    assert said.count("$ layerstill ") == 3
    rows = list(csv.DictReader((home / "answers.csv").read_text("utf-8").splitlines()))
    assert [row["title"] for row in rows] == ["sad", "happy"]
    assert {row["label"] for row in rows} <= {"positive", "negative", "mixed"}
    assert all(0 < float(row["probability"]) <= 1 for row in rows)
    # The last lines name a folder and a command, and the command runs without layerstill.
    folder = Path(said.split("Ship the folder ")[1].split(". Try it:")[0])
    named = said.rsplit("run.py ", 1)[1].split()[0]
    assert (folder / named).is_file()
    label, text = run(folder / "run.py", named, "sad\tMy lamp broke on day two.").split("\t", 1)
    assert label.split()[0] in {"positive", "negative", "mixed"}
    assert "lamp" in text


@pytest.mark.slow
def test_the_walk_from_conll_ends_with_a_tag_for_every_word(model, tmp_path):
    home = tmp_path / "walk"
    said = run(EXAMPLES / "ner_conll.py", str(model), "--output", str(home), "--max-steps", str(STEPS))
    assert said.count("$ layerstill ") == 4
    texts = [(home / "data" / f"{split}.conll").read_text("utf-8").strip().split("\n\n") for split in ("train", "dev")]
    assert [len(set(part)) for part in texts] == [200, 40]
    assert not set(texts[0]) & set(texts[1])
    rows = [json.loads(line) for line in (home / "answers.jsonl").read_text("utf-8").splitlines()]
    known = {"O", *(f"{place}-{kind}" for place in "BI" for kind in ("PER", "LOC", "ORG"))}
    for row in rows:
        assert len(row["tags"]) == len(row["text"].split())
        assert set(row["tags"]) <= known


def test_the_notebooks_cells_run_one_after_the_other(model, tmp_path, monkeypatch, capsys):
    """With what a person may change in the first cell, the model and the options, changed."""
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "dataframe.ipynb").read_text("utf-8"))
    assert notebook["nbformat"] == 4
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    variables: dict = {}
    for number, cell in enumerate(code):
        exec(compile(cell, f"cell {number}", "exec"), variables)
        if number == 0:
            how = Options(max_length=64, max_steps=STEPS, progress=False)
            variables |= {"MODEL": str(model), "OPTIONS": how}
    assert len(variables["data"]["dev"]) == 24
    assert set(variables["dev"].said) <= {"room", "bill", "booking"}
    assert variables["student"].record.student.layers == 1
    assert (tmp_path / "runs" / "dataframe" / "student" / "onnx" / "model.int8.onnx").is_file()
    assert variables["student"].record.verdict[-1] in capsys.readouterr().out
