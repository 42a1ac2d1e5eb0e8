"""The documents say what is there: paths that exist, sizes of studies that are counted."""

import json
import re
from pathlib import Path

import pytest
from benchmarks.speed import compare

from layerstill.studies.expand import expand
from layerstill.studies.file import load_study
from layerstill.studies.tuning import jobs_in

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_is_there(document):
    text = document.read_text("utf-8")
    named = re.findall(r"(?<![\w/.-])(?:\.\./)?((?:studies|docs|benchmarks|examples)/(?!s\b)[\w./-]*\w)", text)
    linked = [document.parent / to for to in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)]
    gone = [str(path) for path in [*(ROOT / name for name in named), *linked] if not path.exists()]
    assert not gone
    assert named or linked or document.name not in {"README.md", "studies.md", "scale.md"}


def counted(file: Path, quick: bool) -> tuple[int, int]:
    """Runs and tuning runs of a study file."""
    study = load_study(file, quick)
    runs, tune = expand(study, file.parent), study.tune
    if tune is None:
        return len(runs), 0
    groups = {run.group(tune.per) for run in runs}
    return len(runs), len(groups) * jobs_in(len(tune.candidates()), len(tune.rungs), tune.seeds)


def test_the_table_of_studies_is_what_they_expand_to():
    expected = {}
    for file in (ROOT / "studies").glob("*.yaml"):
        study = load_study(file)
        claims = study.claim if isinstance(study.claim, list) else [study.claim]
        (runs, tuning), (few, tuned) = counted(file, False), counted(file, True)
        share = f"1/{round(1 / study.tune.rungs[-1])}" if study.tune else ""
        quick = f"{few} + {tuned}" if tuned else str(few)
        updates = f"{study.base['total_steps']} x {study.base['batch_size']}"
        expected[f"`{file.name}`"] = [" ".join(claims), str(runs), str(tuning or ""), quick, updates, share]
    text = (ROOT / "docs" / "studies.md").read_text("utf-8")
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\| `.*yaml`.*$", text, re.M)]
    assert {name: cells for name, *cells in rows} == expected


def test_the_speed_tables_are_those_of_the_records(capsys):
    """To the letter: every table of `python benchmarks/speed/compare.py --show`."""
    records = json.loads((ROOT / "benchmarks" / "results" / "speed.json").read_text("utf-8"))
    compare.report(records)
    printed = capsys.readouterr().out
    evidence = (ROOT / "docs" / "evidence.md").read_text("utf-8")
    tables = [part for part in printed.split("\n\n") if part.strip().startswith("|")]
    assert len(tables) == len(records)
    for made in tables:
        assert made.strip() in evidence
