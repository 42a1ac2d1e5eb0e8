"""Names by what differs, and never by a hash."""

import json
import re

import pytest

from layerstill.acts import report
from layerstill.reporting.arms import cells
from layerstill.reporting.looks import PATHS, Key, Looks
from layerstill.reporting.naming import looks_like_a_hash, tails, telling
from layerstill.reporting.overview import run_names, run_table
from layerstill.reporting.runs import read_runs
from tests.reporting.example import EXAMPLES, write_grid, write_student, write_teacher
from tests.reporting.test_card import RIGHT, but

HASH = re.compile(r"\b[0-9a-f]{6,}\b")


def test_a_name_says_no_more_than_what_tells_apart():
    def parts(*rows):
        return [dict(zip(("recipe", "size", "data"), row, strict=True)) for row in rows]

    assert telling(parts(("kd", "3", ""), ("kd", "4", ""))) == ["3", "4"]
    assert telling(parts(("kd", "3", ""), ("pkd", "4", ""), ("pkd", "3", ""))) == ["kd", "pkd, 4", "pkd, 3"]
    assert telling(parts(("kd", "3", ""), ("kd", "3", "noise"))) == ["kd", "noise"]
    assert telling(parts(("kd", "3", ""))) == ["kd"]
    assert telling([]) == []


def test_ends_of_paths_are_as_long_as_it_takes():
    assert tails(["a/x", "b/x", "b/y"]) == ["a/x", "b/x", "b/y"]
    assert tails(["runs/one", "runs/two"]) == ["one", "two"]
    assert tails(["t", "t"]) == ["t", "t"]


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("3a5f9ba6766b", True), ("kd-1a2b3c4d", True), ("decade", False), ("kd-3-1800", False), ("teacher", False)],
)
def test_what_is_taken_for_a_hash(name, is_one):
    assert looks_like_a_hash(name) == is_one


@pytest.mark.parametrize(
    ("sets", "name"),
    [
        ((("stages.0.learning_rate=2e-4",), ()), ["learning rate 0.0002", "learning rate 2e-05"]),
        ((("student.initialisation=last-k",), ()), ["initialisation last-k", "initialisation first-k"]),
        ((("stages.0.objectives.task.weight=3",), ()), ["task weight 3", "task weight 0.5"]),
    ],
)
def test_recipes_of_one_name_are_called_by_their_settings(sets, name, tmp_path):
    teacher = write_teacher(tmp_path / "teacher", RIGHT)
    for number, own in enumerate(sets):
        write_student(tmp_path / f"kd-{number}-0a1b2c3d", teacher, but(3 + number), sets=own)
    found = [cell for cell in cells(read_runs(tmp_path)) if not cell.is_teacher]
    looks = Looks(found)
    assert sorted(looks.name(cell) for cell in found) == sorted(name)


def test_places_stand_for_fingerprints(tmp_path):
    teacher = write_teacher(tmp_path / "teacher", RIGHT)
    other = write_teacher(tmp_path / "larger", RIGHT)
    data = {"kind": "classification", "data": {"given": "mails.csv", "absolute": "/mails.csv"}}
    files = {"given": "old/mails.csv", "absolute": "/old/mails.csv"}
    write_student(tmp_path / "a", teacher, but(3), teacher_fingerprint="aaa111", data_fingerprint="1", source=data)
    write_student(tmp_path / "b", other, but(4), teacher_fingerprint="bbb222", data_fingerprint="1", source=data)
    older = data | {"data": files}
    write_student(tmp_path / "c", teacher, but(5), teacher_fingerprint="aaa111", data_fingerprint="2", source=older)
    found = [cell for cell in cells(read_runs(tmp_path)) if not cell.is_teacher]
    assert [cell.arm for cell in found] == [
        "kd, teacher larger, data mails.csv",
        "kd, teacher teacher, data mails.csv",
        "kd, teacher teacher, data old/mails.csv",
    ]


def test_sixty_runs_have_sixty_names_without_a_hash(tmp_path, call):
    folder = write_grid(tmp_path / "grid", EXAMPLES)
    runs = read_runs(folder)
    found = cells(runs)
    looks = Looks(found)
    names = [str(name) for name in run_names(runs, found, looks)]
    assert len(set(names)) == len(names) == 61
    assert "epochs 16, learning rate 0.0001, 4 layers" in names
    assert "teacher" in names
    assert not any(HASH.search(name) for name in names)
    table = run_table(runs, found, looks, {})
    assert table.header[:2] == ["run", "score"]
    assert table.header[-1] == "folder"
    status, out, err = call(f"report {folder}")
    assert status == 0, err
    assert not HASH.search(out.split("\n")[0])


def test_runs_of_a_study_are_called_by_their_coordinates(tmp_path):
    lines = []
    for seed in range(2):
        for recipe, score in (("kd", 0.7), ("pkd", 0.6)):
            data = json.loads((write_teacher(tmp_path / "x" / f"{recipe}{seed}", RIGHT) / "result.json").read_text())
            data |= {"seed": seed, "metrics": {"accuracy": score}, "teacher": "t"}
            place = {"task": "mrpc", "recipe": recipe, "seed": seed}
            key = f"{len(lines)}a1b2c3d"
            lines.append({"hash": key, "status": "finished", "coordinates": place, "result": data})
    place = {"task": "mrpc", "recipe": "late", "seed": 7}
    lines.append({"hash": "ffff0000", "status": "failed", "coordinates": place, "seed": 7, "error": "no memory"})
    study = tmp_path / "study"
    study.mkdir()
    (study / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    runs = read_runs(study)
    found = cells(runs)
    names = [str(name) for name in run_names(runs, found, Looks(found))]
    assert names == ["kd, seed 0", "pkd, seed 0", "kd, seed 1", "pkd, seed 1", "late"]
    assert all(card.path == "" for card in report(study).cards)


def test_64_looks_differ():
    keys = [Key("", look, "point") for look in range(64)]
    assert len({(key.colour, key.shape) for key in keys}) == 64
    assert len({key.drawn for key in keys}) == len(PATHS)
    assert len({(Key("", look).colour, Key("", look).dash) for look in range(32)}) == 32
