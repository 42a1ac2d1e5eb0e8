"""A run remembers: its folder is all that evaluate, diagnose and export need, and what differs from it is said."""

import json
import os
import shutil

import pytest

from layerstill import Options, Task, UserError, diagnose, evaluate, export, finetune
from layerstill.acts.remembered import Remembered
from layerstill.data.source import TaskSource
from layerstill.heads import MultiLabel
from tests.tiny import save_tiny, write_conll, write_csv

QUICK = "--max-steps 1 --batch-size 8 --max-length 6 --quiet"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run that was made with relative paths from its folder, and the folder that these lead from."""
    folder = tmp_path_factory.mktemp("remembered")
    save_tiny(folder / "m", layers=1)
    (folder / "d").mkdir()
    for split, seed in (("train", 0), ("dev", 1)):
        file = write_csv(folder / "d" / f"{split}.csv", rows=30, seed=seed)
        file.write_text(file.read_text("utf-8").replace("text,label", "body,team"), "utf-8")
    write_csv(folder / "one.csv", rows=60)
    return folder


@pytest.fixture(scope="module")
def run(place):
    from tests.command import status_of

    before = os.getcwd()
    os.chdir(place)
    try:
        words = (
            f"finetune m --task classification --data d --text-columns body --label-column team {QUICK} --output run"
        )
        assert status_of(*words.split()) == 0
    finally:
        os.chdir(before)
    return place / "run"


def scored(call, words: str) -> tuple[dict, list[str]]:
    status, out, err = call(f"{words} --json")
    assert status == 0, err
    return json.loads(out), err.splitlines()


def metrics_of(run) -> dict:
    found = json.loads((run / "result.json").read_text("utf-8"))["metrics"]
    return {name: value for name, value in found.items() if name != "selected"}


@pytest.mark.parametrize("there", ["here", "elsewhere", "moved"])
def test_no_data_option_is_needed_from_any_folder(there, run, place, tmp_path, monkeypatch, call):
    if there == "moved":
        shutil.copytree(place / "d", tmp_path / "d")
        shutil.copytree(run, tmp_path / "run")
        settings = json.loads((run / "run.json").read_text("utf-8"))
        settings["source"]["data"]["absolute"] = "/no/such/place"
        (tmp_path / "run" / "run.json").write_text(json.dumps(settings), "utf-8")
        run = tmp_path / "run"
    monkeypatch.chdir(place if there == "here" else tmp_path)
    found, _ = scored(call, f"evaluate {run}")
    assert found["metrics"] == pytest.approx(metrics_of(run))
    assert found["examples"] == 30
    assert evaluate(run).metrics == pytest.approx(found["metrics"])
    assert "of 30 dev texts had to be cut to 6 tokens" in call(f"evaluate {run}")[2]


def test_diagnose_and_export_need_none_either(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    found = diagnose(tmp_path / "run", parts=("gap",))
    assert found["gap"]["accuracy"]["dev"] == pytest.approx(metrics_of(run)["accuracy"])
    made = export(tmp_path / "run")
    assert made.record["max_length"] == 6
    about = json.loads((made.folder / "config.json").read_text("utf-8"))["layerstill"]
    assert about["text_columns"] == ["body"]


def test_the_paths_are_in_no_record_but_the_runs_own(run, place):
    settings = json.loads((run / "run.json").read_text("utf-8"))
    assert settings["source"]["data"] == {"given": "d", "absolute": str(place / "d")}
    for name in ("result.json", "README.md", "recipe.yaml", "config.json"):
        assert str(place / "d") not in (run / name).read_text("utf-8")


def test_a_run_is_the_same_from_wherever_its_data_are_read(run, place, call):
    words = f"--task classification --text-columns body --label-column team {QUICK} --output {run}"
    status, _, err = call(f"finetune {place}/m --data {place}/d {words}".replace("--quiet", ""))
    assert status == 0
    assert "already holds this run, finished" in err


def test_what_differs_is_said_and_what_is_cut_is_counted(run, place, call, tmp_path):
    given = f"evaluate {run} --task classification --data {place}/d --text-columns body --label-column team"
    status, _, err = call(f"{given} --max-length 6")
    assert status == 0
    assert "trained with" not in err
    status, _, err = call(f"{given} --max-length 5")
    assert status == 0
    assert "note: --max-length 5 is used, but the model was trained with 6" in err
    assert " of 30 dev texts had to be cut to 5 tokens" in err
    shutil.copytree(place / "d", tmp_path / "d")
    status, _, err = call(f"evaluate {run} --data {tmp_path}/d")
    assert status == 0
    assert err.splitlines()[0] == f"note: --data {tmp_path}/d is used, but the model was trained with d"
    write_csv(tmp_path / "new.csv")
    status, _, err = call(f"evaluate {run} --data {tmp_path}/new.csv")
    assert status == 2
    assert "was trained with --text-columns body and --label-column team, say what they are called here" in err
    status, _, err = call(f"evaluate {run} --data {tmp_path}/new.csv --text-columns text --label-column label")
    assert status == 0
    assert "note: --text-columns text is used, but the model was trained with body" in err
    assert "note: --label-column label is used, but the model was trained with team" in err


def test_data_that_are_gone_or_have_changed_are_one_line_whose_way_out_works(run, place, tmp_path, call):
    shutil.copytree(place / "d", tmp_path / "d")
    shutil.copytree(run, tmp_path / "run")
    settings = json.loads((run / "run.json").read_text("utf-8"))
    settings["source"]["data"] = {"given": "nowhere", "absolute": str(tmp_path / "d")}
    (tmp_path / "run" / "run.json").write_text(json.dumps(settings), "utf-8")
    assert call(f"evaluate {tmp_path}/run")[0] == 0
    with (tmp_path / "d" / "dev.csv").open("a", encoding="utf-8") as file:
        file.write("good film,good\n")
    for verb in ("evaluate", "export"):
        status, _, err = call(f"{verb} {tmp_path}/run")
        assert status == 2
        assert f"its data have changed since it was trained, fingerprint {settings['data_fingerprint']} then" in err
    assert "add --task classification to use them as they are now" in err
    for way in ("--task classification", f"--data {tmp_path}/d"):
        assert scored(call, f"evaluate {tmp_path}/run {way}")[0]["examples"] == 31
    status, _, err = call(f"diagnose {tmp_path}/run")
    assert status == 2
    assert "the files have changed" in err
    shutil.rmtree(tmp_path / "d")
    for verb in ("evaluate", "export", "diagnose"):
        status, _, err = call(f"{verb} {tmp_path}/run")
        assert status == 2
        assert f"the data that it was trained on are gone, {tmp_path}/d; restore them, or give --data" in err
        assert err.count("\n") == 1


def test_a_run_from_before_says_what_it_lacks(run, place, tmp_path, call):
    shutil.copytree(run, tmp_path / "run")
    settings = json.loads((run / "run.json").read_text("utf-8"))
    del settings["source"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(settings), "utf-8")
    for verb in ("evaluate", "export", "diagnose"):
        status, _, err = call(f"{verb} {tmp_path}/run")
        assert status == 2
        assert f"give the data of model {tmp_path}/run (--data): its run.json does not say where they are" in err
    words = f"evaluate {tmp_path}/run --data {place}/d --text-columns body --label-column team"
    assert scored(call, words)[0]["metrics"] == pytest.approx(metrics_of(run))
    (tmp_path / "run" / "run.json").write_text(json.dumps(settings | {"source": {"kind": 5}}), "utf-8")
    status, _, err = call(f"evaluate {tmp_path}/run")
    assert status == 2
    assert "run.json, source: kind:" in err


def test_a_single_file_is_scored_on_what_was_held_out(place, tmp_path, call):
    words = f"finetune {place}/m --task classification --data {place}/one.csv {QUICK}"
    assert call(f"{words} --output {tmp_path}/run")[0] == 0
    assert scored(call, f"evaluate {tmp_path}/run")[0]["examples"] == 6
    assert scored(call, f"evaluate {tmp_path}/run")[0]["metrics"] == pytest.approx(metrics_of(tmp_path / "run"))
    status, out, err = call(f"evaluate {tmp_path}/run --data {place}/one.csv")
    assert (status, "60 examples" in out) == (0, True)
    assert "is scored whole, including the training examples; leave it out to score dev" in err


def test_samples_regimes_and_students_too(place, tmp_path, call):
    data = f"--task classification --data {place}/d --text-columns body --label-column team"
    drawn = "--train-examples 20 --few-samples 12 --label-noise 0.3"
    words = f"distill {place}/m {data} {drawn} --recipe kd --student-layers 1 {QUICK} --output {tmp_path}/run"
    assert call(words)[0] == 0
    settings = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert settings["source"]["train_examples"] == 20
    task = Remembered.of(tmp_path / "run").task()
    assert len(task.splits["train"]) == 12
    assert scored(call, f"evaluate {tmp_path}/run")[0]["metrics"] == pytest.approx(metrics_of(tmp_path / "run"))
    assert "gap" in diagnose(tmp_path / "run", parts=("gap",))


def test_a_student_that_reads_less_than_its_teacher_did_is_noted(run, place, tmp_path, call):
    data = f"--task classification --data {place}/d --text-columns body --label-column team"
    words = f"plan {run} {data} --recipe kd --student-layers 1 --max-length"
    status, out, err = call(f"{words} 5")
    assert status == 0
    assert "--max-length 5 is used, but the teacher was trained with 6" in out + err
    status, out, err = call(f"{words} 6")
    assert status == 0
    assert "trained with" not in out + err


def test_texts_without_labels_are_sent_to_predict(run, tmp_path, call):
    (tmp_path / "new.csv").write_text("body\ngood film\n", "utf-8")
    status, _, err = call(f"evaluate {run} --data {tmp_path}/new.csv")
    assert status == 2
    assert "no column 'team'" in err
    assert "texts without labels are for layerstill predict" in err
    assert call(f"predict {run} --data {tmp_path}/new.csv")[0] == 0


def test_tags_and_their_files(place, tmp_path, call):
    (tmp_path / "d").mkdir()
    for split, seed in (("train", 0), ("dev", 1)):
        write_conll(tmp_path / "d" / f"{split}.conll", seed=seed)
    words = f"finetune {place}/m --task tokens --data {tmp_path}/d {QUICK} --output {tmp_path}/run"
    assert call(words)[0] == 0
    assert scored(call, f"evaluate {tmp_path}/run")[0]["metrics"] == pytest.approx(metrics_of(tmp_path / "run"))
    status, out, err = call(f"predict {tmp_path}/run --data {tmp_path}/d/dev.conll")
    assert status == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert all(len(row["tokens"]) == len(row["tags"]) for row in rows)


def test_a_head_with_its_threshold_and_data_in_memory(place, tmp_path):
    rows = [("good film", "a|b"), ("bad plot", "b"), ("fine", "")] * 10
    file = tmp_path / "d.csv"
    file.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), "utf-8")
    options = Options(max_length=12, max_steps=1, progress=False)
    task = Task.from_files(MultiLabel(threshold=0.3), file)
    made = finetune(place / "m", task, tmp_path / "run", options=options)
    found = evaluate(made.folder)
    assert found.task.head.threshold == 0.3
    assert found.metrics == pytest.approx({k: v for k, v in made.metrics.items() if k != "selected"})
    made = finetune(place / "m", [("good film", "good"), ("bad", "bad")] * 10, tmp_path / "memory", options=options)
    assert Remembered.of(made.folder).source == TaskSource(kind="classification", text_columns=["text"])
    with pytest.raises(UserError, match="it was trained on data in memory"):
        evaluate(made.folder)


def test_the_demos_task_and_an_official_one(place, tmp_path, call):
    folder = tmp_path / "glue" / "RTE"
    folder.mkdir(parents=True)
    for split in ("train", "dev"):
        rows = [f"{i}\tgood film {i}\tbad\t{('entailment', 'not_entailment')[i % 2]}" for i in range(12)]
        (folder / f"{split}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + "\n".join(rows) + "\n", "utf-8")
    words = f"finetune {place}/m --task rte --data {tmp_path}/glue {QUICK} --output {tmp_path}/run"
    assert call(words)[0] == 0
    assert scored(call, f"evaluate {tmp_path}/run")[0]["metrics"] == pytest.approx(metrics_of(tmp_path / "run"))
    status, out, _ = call(f"predict {tmp_path}/run --data {folder}/dev.tsv")
    assert status == 0
    assert {json.loads(line)["predicted_label"] for line in out.splitlines()} <= {"entailment", "not_entailment"}


@pytest.fixture(scope="module")
def named_otherwise(place, tmp_path_factory):
    """A run whose columns, label names and length are none of the usual ones, and new data like its own."""
    from tests.command import status_of

    folder = tmp_path_factory.mktemp("otherwise")
    (folder / "d").mkdir()
    for name, seed in (("d/train", 0), ("d/dev", 1), ("new", 2)):
        file = write_csv(folder / f"{name}.csv", rows=30, seed=seed)
        file.write_text(file.read_text("utf-8").replace("text,label", "body,team"), "utf-8")
    words = f"finetune {place}/m --task classification --data {folder}/d --text-columns body --label-column team"
    assert status_of(*f"{words} --label-map good=FINE,bad=GOOD {QUICK} --output {folder}/run".split()) == 0
    return folder


def test_python_and_the_command_line_read_other_data_the_same_way(named_otherwise, call, caplog):
    """Columns, label names and the length are the run's, whether the data are a file or in memory."""
    run, file = named_otherwise / "run", named_otherwise / "new.csv"
    found, _ = scored(call, f"evaluate {run} --data {file}")
    caplog.set_level("INFO", "layerstill")
    rows = [line.rsplit(",", 1) for line in file.read_text("utf-8").splitlines()[1:]]
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"body": texts, "team": labels})
    for data, own in ((str(file), None), (table, None), ([tuple(row) for row in rows], None), (texts, labels)):
        ours = evaluate(run, data, labels=own)
        assert ours.metrics == pytest.approx(found["metrics"])
        assert ours.examples == 30
        assert "FINE" in ours.task.labels
    assert f"--data {file} is used, but the model was trained with" in caplog.text
    made = export(run, str(file), named_otherwise / "onnx", max_drop=100)
    assert made.record["max_length"] == 6
    assert set(json.loads((made.folder / "config.json").read_text("utf-8"))["id2label"].values()) >= {"FINE", "GOOD"}
    gap = diagnose(run, str(named_otherwise / "d"), parts=("gap",))["gap"]["accuracy"]["dev"]
    assert gap == pytest.approx(metrics_of(run)["accuracy"])


def test_other_columns_in_memory_are_told_what_they_were_called(named_otherwise):
    table = pytest.importorskip("datasets").Dataset.from_dict({"text": ["good", "bad"], "label": ["good", "bad"]})
    with pytest.raises(UserError, match=r"trained with --text-columns body and --label-column team.*Task.from_data"):
        evaluate(named_otherwise / "run", table)
    task = Task.from_data({"train": table, "dev": table})
    with pytest.raises(UserError, match="knows"):
        evaluate(named_otherwise / "run", task)


def test_a_threshold_is_remembered_for_other_data_too(place, tmp_path, call):
    rows = [("good film", "a|b"), ("bad plot", "b"), ("fine", "")] * 10
    file = tmp_path / "d.csv"
    file.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), "utf-8")
    options = Options(max_length=12, max_steps=1, progress=False)
    made = finetune(place / "m", Task.from_files(MultiLabel(threshold=0.3), file), tmp_path / "run", options=options)
    found, _ = scored(call, f"evaluate {made.folder} --data {file}")
    for data in (str(file), [(text, label.split("|") if label else []) for text, label in rows]):
        ours = evaluate(made.folder, data)
        assert ours.task.head.threshold == 0.3
        assert ours.metrics == pytest.approx(found["metrics"])


@pytest.mark.parametrize("damage", [{"task": ["classification"]}, {"task": {}}, {"task": 5}, {"max_length": True}])
def test_a_damaged_record_is_no_traceback(damage, run, tmp_path, call):
    shutil.copytree(run, tmp_path / "run")
    settings = json.loads((run / "run.json").read_text("utf-8")) | damage
    if "task" in damage:
        del settings["source"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(settings), "utf-8")
    status, _, err = call(f"evaluate {tmp_path}/run")
    assert (status, err.count("\n")) == (2, 1) if "task" in damage else status == 0
    if "task" in damage:
        with pytest.raises(UserError, match="does not say where they are"):
            evaluate(tmp_path / "run")
