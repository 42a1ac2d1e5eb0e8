"""The documents say what is there: paths that exist, sizes of studies that are counted."""

import json
import re
from pathlib import Path

import pytest
from benchmarks import plan_times, scale
from benchmarks.bars import __main__ as bars
from benchmarks.best import __main__ as best
from benchmarks.claims.records import Records
from benchmarks.claims.tables import against
from benchmarks.more_texts import __main__ as more
from benchmarks.speed import compare

from layerstill.evaluation.comparison import as_family
from layerstill.evaluation.rules import words
from layerstill.studies.expand import expand
from layerstill.studies.file import load_study
from layerstill.studies.job import divided
from layerstill.studies.tuning import jobs_in
from tests.documents import DOCUMENTS, ROOT
from tests.tiny import save_tiny, write_csv


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_is_there(document):
    text = document.read_text("utf-8")
    named = re.findall(r"(?<![\w/.-])(?:\.\./)?((?:studies|docs|benchmarks|examples)/(?!s\b)[\w./-]*\w)", text)
    assert not [name for name in named if not (ROOT / name).exists()]
    assert named or document.name not in {"README.md", "studies.md", "scale.md"}


def test_the_sentence_that_the_guide_shows_is_one_that_report_says():
    """Of the mappings study, every arm against kd as its file asks, one family."""
    records = Records.read("mappings")
    assert records.study["compare"]["against"] == "kd"
    arms = [arm for arm in records.values("recipe") if arm != "kd"]
    family = as_family([against(records, {"recipe": arm}, {"recipe": "kd"}, (arm, "kd")) for arm in arms])
    shown = re.findall(r"(?:^> .*\n)+", (ROOT / "docs" / "guide.md").read_text("utf-8"), re.M)
    (sentence,) = (part.replace("\n> ", " ").removeprefix("> ").strip() for part in shown)
    assert sentence in [words(c) for c in family]


def test_stages_share_the_updates_as_the_evidence_says():
    text = " ".join((ROOT / "docs" / "evidence.md").read_text("utf-8").split())
    shares = {}
    for name in ("objectives", "regimes", "mappings"):
        file = ROOT / "studies" / f"{name}.yaml"
        study = load_study(file)
        for run in expand(study, file.parent):
            stages = divided(study.base["total_steps"], [stage.epochs for stage in run.recipe.stages])
            shares.setdefault(" + ".join(map(str, stages)), set()).add((name, run.coordinates["recipe"]))
    assert set(shares) == {"200 + 40", "120 + 120", "240", "300"}
    assert {arm for _, arm in shares["200 + 40"]} == {"u-ild", "l-ild", "cr-ild"}
    assert {arm for _, arm in shares["120 + 120"]} == {"hid-seq", "att-kl", "att-mse"}
    assert {arm for _, arm in shares["240"]} == {"kd", "finetune"}
    assert {name for name, _ in shares["300"]} == {"mappings"}
    assert "`u-ild`, `l-ild` and `cr-ild` get 200 + 40 updates" in text
    assert "`hid-seq`, `att-kl` and `att-mse` get 120 + 120" in text


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


def test_the_tables_of_the_default_recipe_and_of_compress_are_those_of_their_records():
    text = (ROOT / "docs" / "evidence.md").read_text("utf-8")
    tables = {"best": best, "bars": bars, "bars_mpnet": bars, "more_texts": more}
    for name, script in tables.items():
        records = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))
        assert "\n".join(script.lines_of(records)) in text


def test_the_memory_of_a_corpus_is_that_of_its_record():
    rows = json.loads((ROOT / "benchmarks" / "results" / "text_memory.json").read_text("utf-8"))
    told = (ROOT / "docs" / "scale.md").read_text("utf-8")
    for row in rows:
        assert f"| {row['corpus']:g} | {row['blocks']} | {row['peak']} |" in told


def test_what_plan_foresees_is_that_of_its_record():
    rows = json.loads((ROOT / "benchmarks" / "results" / "plan_times.json").read_text("utf-8"))["rows"]
    assert "\n".join(plan_times.lines_of(rows)) in (ROOT / "docs" / "evidence.md").read_text("utf-8")
    for row in rows:
        assert 0.5 <= row["taken"] / row["foreseen"] <= 2, row["job"]


@pytest.mark.slow
def test_a_job_is_planned_and_run(tmp_path, capsys, monkeypatch):
    save_tiny(tmp_path / "m", layers=2)
    (tmp_path / "d").mkdir()
    for split in ("train", "dev"):
        write_csv(tmp_path / "d" / f"{split}.csv", rows=12)
    words = "--task classification --data d --student-layers 1 --recipe kd --max-steps 2 --max-length 32"
    (tmp_path / "jobs").write_text(f"# two steps\n\ntiny: m {words}\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["plan_times", "jobs", "--record", "record.json"])
    plan_times.main()
    (row,) = json.loads((tmp_path / "record.json").read_text("utf-8"))["rows"]
    assert (row["job"], row["steps"]) == ("tiny", 2)
    assert row["taken"] > row["training taken"] > 0
    assert row["foreseen"] > row["training foreseen"] > 0
    table = capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["plan_times", "--show", "record.json"])
    plan_times.main()
    assert capsys.readouterr().out == table


def test_the_time_of_running_text_is_what_the_script_computes(capsys):
    scale.main()
    table = capsys.readouterr().out.strip().split("\n\n")[-1]
    assert table.startswith("| GPUs |")
    assert table in (ROOT / "docs" / "scale.md").read_text("utf-8")


def test_the_readmes_first_table_is_a_row_of_the_record():
    records = json.loads((ROOT / "benchmarks" / "results" / "bars.json").read_text("utf-8"))
    rows = [row for record in records.values() for row in record["rows"]]
    text = (ROOT / "README.md").read_text("utf-8")
    lines = [line.split("|")[1:-1] for line in text.splitlines() if re.match(r"\| (teacher|\d layers), ", line)]
    assert len(lines) >= 6
    for cells in lines:
        name, score, kept, ms, mb = (cell.strip() for cell in cells)
        model, form = name.rsplit(", ", 1)
        assert any(
            (row["model"], row["form"]) == (model, form)
            and f"{100 * row['score']:.1f}" == score
            and f"{row['kept']:.1f} %" == kept
            and f"{row['p50_ms']:.1f} ms" == ms
            and f"{row['disk_mb']:.1f} MB" == mb
            for row in rows
        ), name


def test_the_numbers_of_choosing_are_in_the_evidence():
    """Every number with a decimal point or a percent sign, and every count of updates."""
    evidence = " ".join((ROOT / "docs" / "evidence.md").read_text("utf-8").split())
    text = (ROOT / "docs" / "choosing.md").read_text("utf-8")
    numbers = set(re.findall(r"(?<![\w.,])\d+(?:,\d{3})*(?:\.\d+)?(?= %|x| points| times)|(?<![\w.,])\d+\.\d+", text))
    assert len(numbers) > 20
    known = set(re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", evidence))
    assert numbers <= known | {"1.0"}, numbers - known


def test_the_architecture_names_files_that_exist():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)/` \| (.*) \|$", text, re.M)
    source = ROOT / "src" / "layerstill"
    folders = {path.name for path in source.iterdir() if (path / "__init__.py").exists()}
    assert {folder for folder, _ in rows} == folders
    for folder, files in rows:
        for name in re.findall(r"`(\w+\.py)`", files):
            assert (source / folder / name).is_file(), f"{folder}/{name}"
    (beside,) = re.findall(r"^Beside the folders: (.*?)\n\n", text, re.M | re.S)
    for name in re.findall(r"`(\w+\.py)`", beside):
        assert (source / name).is_file(), name
