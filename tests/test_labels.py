"""Labels on the command line: other names for them, weights of classes, and classes that the data lack."""

import json
import re

import pytest

from tests.tiny import save_tiny, write_csv

HOW = ["--max-length", "32", "--student-layers", "2", "--max-steps", "3"]


def write_two(path, names: dict[str, str], seed: int = 0) -> None:
    """Rows of two classes under these names, twice as many of the second."""
    write_csv(path, rows=72, seed=seed)
    header, *rows = path.read_text().splitlines()
    kept = [row.rsplit(",", 1) for row in rows]
    kept = [
        (text, names[label]) for i, (text, label) in enumerate(kept) if label in names and (label != "bad" or i % 2)
    ]
    path.write_text("\n".join([header, *(f"{text},{label}" for text, label in kept)]) + "\n")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A teacher that calls its labels NEGATIVE and POSITIVE, and data that call them 0 and 1."""
    folder = tmp_path_factory.mktemp("labels")
    save_tiny(folder / "teacher", names=("NEGATIVE", "POSITIVE"), layers=3)
    (folder / "data").mkdir()
    for split, seed in (("train", 0), ("dev", 1)):
        write_two(folder / "data" / f"{split}.csv", {"bad": "0", "good": "1"}, seed)
    return folder


def words(home, output: str, *more: str) -> list[str]:
    start = f"distill {home}/teacher --task classification --data {home}/data --recipe kd"
    return [*start.split(), *HOW, "--output", str(home / output), *more]


def test_the_refusal_names_a_map_that_works_and_the_run_remembers_it(home, call):
    status, _, err = call(words(home, "mapped"))
    assert status == 2
    option = re.search(r"for example --label-map (\S+?)\)", err).group(1)
    assert option == "0=NEGATIVE,1=POSITIVE"
    status, _, err = call(words(home, "mapped", "--label-map", option))
    assert status == 0, err
    result = json.loads((home / "mapped" / "result.json").read_text())
    status, out, err = call(["evaluate", str(home / "mapped"), "--json"])
    assert status == 0, err
    assert json.loads(out)["metrics"]["accuracy"] == result["metrics"]["accuracy"]
    status, out, err = call(["evaluate", str(home / "mapped"), "--data", str(home / "data"), "--json"])
    assert status == 0, err
    assert json.loads(out)["metrics"]["accuracy"] == result["metrics"]["accuracy"]


def test_class_weights_change_what_is_learnt_and_are_part_of_the_run(home, call):
    names = ["--label-map", "0=NEGATIVE,1=POSITIVE"]
    status, _, err = call(words(home, "weighted", *names, "--class-weights", "balanced"))
    assert status == 0, err
    losses = [
        json.loads((home / run / "metrics.jsonl").read_text().splitlines()[0])["objectives"]["task"]
        for run in ("mapped", "weighted")
    ]
    assert losses[0] != losses[1]
    status, _, err = call(words(home, "weighted", *names))
    assert status == 2, "another loss is another run"
    status, _, err = call(["evaluate", str(home / "weighted")])
    assert status == 0, err
    (home / "weights.json").write_text('{"NEGATIVE": 1}')
    status, _, err = call(words(home, "other", *names, "--class-weights", str(home / "weights.json")))
    assert status == 2
    assert "no weight for class 'POSITIVE'" in err


def test_data_with_some_of_the_teachers_classes_are_taken_and_it_is_said(tmp_path, call):
    save_tiny(tmp_path / "teacher", names=("a", "b", "c"), layers=3)
    write_two(tmp_path / "train.csv", {"bad": "a", "good": "c"})
    run = f"distill {tmp_path}/teacher --task classification --data {tmp_path}/train.csv --output {tmp_path}/out"
    status, _, err = call([*run.split(), *HOW, "--recipe", "kd"])
    assert status == 0, err
    assert "train has no example of 1 of 3 classes: b" in err
    student = json.loads((tmp_path / "out" / "config.json").read_text())
    assert student["id2label"] == {"0": "a", "1": "b", "2": "c"}


def test_another_map_is_another_run(home, call):
    """In fine-tuning nothing but the names differs: classes keep the places that the data give them."""
    run = f"finetune {home}/teacher --task classification --data {home}/data --output {home}/named --max-length 32"
    first = [*run.split(), "--max-steps", "2", "--label-map"]
    assert call([*first, "0=low,1=high"])[0] == 0
    assert call([*first, "0=low,1=high"])[0] == 0
    status, _, err = call([*first, "0=high,1=low"])
    assert status == 2, err


def test_a_remembered_map_holds_where_new_data_lack_a_label(tmp_path, call):
    save_tiny(tmp_path / "base", names=("a", "b", "c"), layers=2)
    write_csv(tmp_path / "train.csv", rows=60)
    names = "bad=c,fine=b,good=a"
    run = f"finetune {tmp_path}/base --task classification --data {tmp_path}/train.csv --output {tmp_path}/ft"
    status, _, err = call([*run.split(), "--max-length", "32", "--max-steps", "2", "--label-map", names])
    assert status == 0, err
    write_two(tmp_path / "two.csv", {"bad": "bad", "good": "good"})
    asked = ["evaluate", str(tmp_path / "ft"), "--data", str(tmp_path / "two.csv"), "--json"]
    remembered, said = (call([*asked, *more]) for more in ([], ["--label-map", "bad=c,good=a"]))
    assert remembered[0] == said[0] == 0, remembered[2]
    assert json.loads(remembered[1])["metrics"] == json.loads(said[1])["metrics"]
