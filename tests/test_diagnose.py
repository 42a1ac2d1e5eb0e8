"""`layerstill diagnose` from end to end: what it writes, what it leaves alone, what it refuses."""

import json
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from layerstill import diagnose
from layerstill.acts import finetune
from layerstill.acts.diagnose import PARTS
from layerstill.data.regimes import Regime
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError
from layerstill.evaluation.predict import predict
from layerstill.heads import Classes, Scores
from layerstill.training.arguments import Options
from layerstill.training.lock import FolderLock
from layerstill.training.records import task_fingerprint
from tests.command import status_of
from tests.tiny import save_tiny, write_csv

TEXTS_OF_OTHERS = Split([("good film",), ("awful plot and actor",), ("fine",)], [0, 1, 2])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A teacher, data, and a finished run with all its diagnostics."""
    folder = tmp_path_factory.mktemp("diagnose")
    save_tiny(folder / "teacher")
    (folder / "data").mkdir()
    write_csv(folder / "data" / "train.csv", rows=40)
    write_csv(folder / "data" / "dev.csv", rows=20, seed=1)
    words = "--recipe rail-kd-l --student-layers 2 --epochs 1 --batch-size 8 --max-length 32 --quiet"
    assert run_cli(f"distill {folder}/teacher {data(folder)} {words} --output {folder}/run") == 0
    shutil.copytree(folder / "run", folder / "plain")
    assert run_cli(f"diagnose {folder}/run {data(folder)} --examples 30 --seed 5 --quiet") == 0
    return folder


@pytest.fixture
def fresh(place, tmp_path):
    """A finished run without diagnostics."""
    return shutil.copytree(place / "plain", tmp_path / "run")


def data(place) -> str:
    return f"--task classification --data {place}/data"


def run_cli(words: str) -> int:
    return status_of(*shlex.split(words))


def written(run) -> dict:
    return json.loads((run / "diagnostics.json").read_text("utf-8"))


def loaded(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def test_everything_is_there_in_its_shape(place):
    found = written(place / "run")
    parts = "gap agreement weight_noise slice_1d slice_2d hessian cka made_with"
    assert set(found) == set(parts.split())
    assert found["weight_noise"]["sigmas"] == [0.0, 0.01, 0.02, 0.05, 0.1]
    assert (found["weight_noise"]["draws"], found["weight_noise"]["metric"]) == (10, "accuracy")
    for split in ("train", "dev"):
        assert len(found["weight_noise"][split]["mean"]) == len(found["weight_noise"][split]["sd"]) == 5
        assert len(found["slice_1d"][split]) == len(found["slice_1d"]["alpha"]) == 21
    assert np.shape(found["slice_2d"]["loss"]) == (11, 11)
    assert len(found["slice_2d"]["alpha"]) == len(found["slice_2d"]["beta"]) == 11
    hessian = found["hessian"]
    assert set(hessian) == {"top_eigenvalue", "trace", "trace_standard_error", "examples"}
    assert hessian["examples"] == found["slice_2d"]["examples"] == 30
    assert hessian["top_eigenvalue"] > 0
    assert np.shape(found["cka"]["values"]) == (3, 5)
    assert (found["cka"]["examples"], found["cka"]["student_layers"][0]) == (20, "embeddings")
    assert found["agreement"]["train"]["examples"] == 30
    assert found["agreement"]["dev"]["examples"] == 20


def test_the_parts_agree_with_the_run_and_with_each_other(place):
    found = written(place / "run")
    result = json.loads((place / "run" / "result.json").read_text("utf-8"))
    for metric, values in found["gap"].items():
        assert values["dev"] == pytest.approx(result["metrics"][metric])
    for split in ("train", "dev"):
        assert found["weight_noise"][split]["mean"][0] == pytest.approx(found["gap"]["accuracy"][split])
        assert found["weight_noise"][split]["sd"][0] == 0
    (student, tokenizer), (teacher, _) = loaded(place / "run"), loaded(place / "teacher")
    dev = Task.from_files("classification", place / "data").splits["dev"]
    logits = predict(student, tokenizer, dev, 32, Classes())
    share = (logits.argmax(-1) == predict(teacher, tokenizer, dev, 32, Classes()).argmax(-1)).mean()
    assert found["agreement"]["dev"]["teacher"] == pytest.approx(share)
    likelihood = torch.from_numpy(logits).log_softmax(-1)[range(20), dev.labels]
    assert found["slice_1d"]["dev"][10] == pytest.approx(-likelihood.mean().item(), rel=1e-5)
    # With no more than FEW training examples the surface is cut from the examples of the line.
    assert found["slice_2d"]["loss"][5][5] == pytest.approx(found["slice_1d"]["train"][10], rel=1e-5)
    assert [row[5] for row in found["slice_2d"]["loss"]] == pytest.approx(found["slice_1d"]["train"][::2], rel=1e-4)


def test_every_key_that_is_written_is_documented(place):
    text = (Path(__file__).parents[1] / "docs" / "files.md").read_text("utf-8")
    result = json.loads((place / "run" / "result.json").read_text("utf-8"))
    keys = [*result, *result["train"], *result["student"], *written(place / "run")]
    assert [key for key in keys if f"`{key}`" not in text] == []
    files = {path.name for path in (place / "run").iterdir()} - {"tokenizer.json", "tokenizer_config.json"}
    assert [name for name in sorted(files) if f"`{name}`" not in text] == []


def test_the_model_is_left_as_it_was_and_nothing_else_is_written(place):
    files = {p.relative_to(place / "run"): p.read_bytes() for p in (place / "run").rglob("*") if p.is_file()}
    plain = {p.relative_to(place / "plain"): p.read_bytes() for p in (place / "plain").rglob("*") if p.is_file()}
    assert {str(name) for name in files.keys() - plain.keys()} == {"diagnostics.json"}
    assert all(files[name] == content for name, content in plain.items())


def test_a_second_call_adds_what_is_missing_and_redoes_what_was_asked_otherwise(fresh, place, capsys):
    words = f"diagnose {fresh} {data(place)} --examples 10"
    assert run_cli(f"{words} --parts gap,hessian") == 0
    first = written(fresh)
    assert set(first) == {"gap", "hessian", "made_with"}
    (fresh / "diagnostics.json").write_text(json.dumps({**first, "gap": {"accuracy": {"train": 9, "dev": 9}}}), "utf-8")
    capsys.readouterr()
    assert run_cli(f"{words} --parts gap,agreement") == 0
    assert "already holds gap\n" in capsys.readouterr().err
    second = written(fresh)
    assert second["gap"]["accuracy"]["train"] == 9
    assert second["hessian"] == first["hessian"]
    assert second["agreement"]["train"]["examples"] == 10
    assert run_cli(f"{words} --parts gap --seed 1") == 0
    third = written(fresh)
    assert third["gap"]["accuracy"]["dev"] != 9
    assert third["made_with"]["gap"]["seed"] == 1
    assert (third["agreement"], third["hessian"]) == (second["agreement"], second["hessian"])
    assert third["made_with"]["agreement"] == second["made_with"]["agreement"]


def test_the_same_settings_find_the_same_again(fresh, place):
    assert run_cli(f"diagnose {fresh} {data(place)} --examples 30 --seed 5 --parts hessian,cka,agreement --quiet") == 0
    again, before = written(fresh), written(place / "run")
    assert all(again[part] == before[part] for part in ("hessian", "cka", "agreement"))


def test_an_interrupted_call_keeps_the_parts_that_were_done(fresh, place, monkeypatch):
    def interrupt(subject, watch):
        raise KeyboardInterrupt

    monkeypatch.setitem(PARTS, "agreement", interrupt)
    assert run_cli(f"diagnose {fresh} {data(place)}") == 130
    assert set(written(fresh)) == {"gap", "made_with"}
    assert not (fresh / "run.lock").exists()


def test_a_diagnosed_run_is_still_the_finished_run(fresh, place, capsys):
    assert run_cli(f"diagnose {fresh} {data(place)} --parts gap") == 0
    words = "--recipe rail-kd-l --student-layers 2 --epochs 1 --batch-size 8 --max-length 32"
    assert run_cli(f"distill {place}/teacher {data(place)} {words} --output {fresh}") == 0
    assert "already holds this run, finished" in capsys.readouterr().err
    assert set(written(fresh)) == {"gap", "made_with"}


def test_only_json_is_on_standard_output_and_the_tables_name_every_part(place, capsys):
    assert run_cli(f"diagnose {place}/run {data(place)} --examples 30 --seed 5 --json") == 0
    out = capsys.readouterr()
    assert json.loads(out.out) == written(place / "run")
    assert out.err == ""
    assert run_cli(f"diagnose {place}/run --data {place}/data --examples 30 --seed 5") == 0
    shown = capsys.readouterr().out
    for part in PARTS:
        assert f"{part}: " in shown


def test_without_a_teacher_the_rest_is_found(place, tmp_path, capsys):
    words = "--max-steps 1 --batch-size 8 --max-length 32 --quiet"
    assert run_cli(f"finetune {place}/teacher {data(place)} {words} --output {tmp_path}/run") == 0
    capsys.readouterr()
    for part in ("agreement", "cka"):
        assert run_cli(f"diagnose {tmp_path}/run {data(place)} --parts {part}") == 2
        assert f"--parts {part}: the run had no teacher; name one with --teacher" in capsys.readouterr().err
    assert run_cli(f"diagnose {tmp_path}/run {data(place)} --parts agreement,cka --teacher {place}/teacher") == 0
    assert set(written(tmp_path / "run")) == {"agreement", "cka", "made_with"}
    (tmp_path / "run" / "diagnostics.json").unlink()
    quick = {name: lambda subject, watch, name=name: {name: {}} for name in PARTS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["layerstill.acts.diagnose"], "PARTS", quick)
        assert set(diagnose(tmp_path / "run", Task.from_files("classification", place / "data"))) == {
            *("gap", "noise", "slices", "hessian", "made_with")
        }


def test_scores_have_no_share_of_equal_ones_but_everything_else(tmp_path):
    save_tiny(tmp_path / "model", labels=1)
    train = Split([(f"{a} {b}",) for a in ("good", "bad", "fine") for b in ("film", "plot", "actor")], [0.5, 1, 2] * 3)
    task = Task("scores", "regression", {"train": train, "dev": train}, metrics=("pearson", "spearman"))
    finetune(
        str(tmp_path / "model"), task, tmp_path / "run", options=Options(max_steps=1, max_length=16, progress=False)
    )
    with pytest.raises(UserError, match="--parts agreement: scores are never quite equal"):
        diagnose(tmp_path / "run", task, str(tmp_path / "model"), ("agreement",))
    found = diagnose(tmp_path / "run", task, str(tmp_path / "model"))
    assert set(found) == {"gap", "weight_noise", "slice_1d", "slice_2d", "hessian", "cka", "made_with"}
    assert set(found["gap"]) == {"pearson", "spearman"}
    assert found["weight_noise"]["metric"] == "pearson"
    model, tokenizer = loaded(tmp_path / "run")
    errors = (predict(model, tokenizer, train, 16, Scores())[:, 0] - np.array(train.labels)) ** 2
    assert found["slice_1d"]["dev"][10] == pytest.approx(errors.mean(), rel=1e-5)


def test_a_student_of_other_widths_and_tokens_is_compared(place, tmp_path):
    (tmp_path / "data").mkdir()
    for name, rows in (("train", 12), ("dev", 8)):
        lines = [
            f"{('good', 'bad', 'fine')[i % 3]} film{' the' * (i % 4)},{('good', 'bad', 'fine')[i % 3]}"
            for i in range(rows)
        ]
        (tmp_path / "data" / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n", "utf-8")
    narrow = "--set student.hidden_size=24 --set student.attention_heads=2 --set student.vocabulary=train"
    words = f"--recipe kd --student-layers 2 --max-steps 1 --batch-size 4 --max-length 16 --quiet {narrow}"
    assert run_cli(f"distill {place}/teacher {data(tmp_path)} {words} --output {tmp_path}/run") == 0
    assert run_cli(f"diagnose {tmp_path}/run {data(tmp_path)} --parts agreement,cka --quiet") == 0
    assert loaded(tmp_path / "run")[0].config.vocab_size < loaded(place / "teacher")[0].config.vocab_size
    found = written(tmp_path / "run")
    assert np.shape(found["cka"]["values"]) == (3, 5)
    assert np.isfinite(found["cka"]["values"]).all()
    assert 0 <= found["agreement"]["dev"]["teacher"] <= 1


def test_other_sets_are_asked_for_agreement_with_a_split_each(fresh, place):
    task = Task.from_files("classification", place / "data")
    found = diagnose(fresh, task, parts=("agreement",), others={"elsewhere": TEXTS_OF_OTHERS})
    assert set(found["agreement"]) == {"train", "dev", "elsewhere"}
    assert found["agreement"]["elsewhere"]["examples"] == 3
    asked = []

    def watch(part, steps):
        asked.append((part, steps))
        return lambda: None

    again = diagnose(fresh, task, parts=("agreement",), others={"far": TEXTS_OF_OTHERS}, watch=watch)
    assert set(again["agreement"]) == {"train", "dev", "elsewhere", "far"}
    assert {**again["agreement"], "far": None} == {**found["agreement"], "far": None}
    assert asked == [("agreement", 1)]
    assert diagnose(fresh, task, parts=("agreement",), watch=watch) == again
    assert len(asked) == 1
    other_sample = diagnose(fresh, task, parts=("agreement",), examples=4)
    assert set(other_sample["agreement"]) == {"train", "dev"}


def test_agreement_out_of_domain(fresh, place, tmp_path, capsys):
    """Also in a study's run, by its job.json; another file of the same name is another set."""
    write_csv(tmp_path / "far.csv", rows=9, seed=4)
    words = f"diagnose {fresh} {data(place)} --parts agreement --quiet"
    for rows in (9, 7):
        write_csv(tmp_path / "far.csv", rows=rows, seed=4)
        assert run_cli(f"{words} --ood {tmp_path}/far.csv") == 0
        assert written(fresh)["agreement"]["far"]["examples"] == rows
    settings = dict.fromkeys(("dev", "train_examples", "dev_examples"))
    source = {"name": "classification", "kind": "classification", "data": str(place / "data"), "text_columns": []}
    job = {"source": settings | source | {"label_column": "label"}, "regime": {}, "regime_seed": 0, "held_out": None}
    job |= {"ood": ["near=far.csv"], "ood_data": str(tmp_path), "ood_examples": 5}
    (fresh / "job.json").write_text(json.dumps(job), "utf-8")
    assert run_cli(f"diagnose {fresh} --parts agreement --quiet") == 0
    assert written(fresh)["agreement"]["near"]["examples"] == 5
    (tmp_path / "far.csv").unlink()
    capsys.readouterr()
    assert run_cli(f"diagnose {fresh} --parts agreement,gap") == 0
    assert "note: agreement without the study's out-of-domain sets:" in capsys.readouterr().err
    assert set(written(fresh)["agreement"]) == {"train", "dev", "far", "near"}


def test_a_set_may_not_stand_in_for_a_split(fresh, place, tmp_path, capsys):
    write_csv(tmp_path / "far.csv", rows=9)
    message = refused(f"diagnose {fresh} {data(place)} --parts agreement --quiet --ood dev={tmp_path}/far.csv", capsys)
    assert "--ood dev: the task has a split of that name" in message
    assert not (fresh / "diagnostics.json").exists()


def test_other_data_are_refused_and_another_teacher_is_said(fresh, place, tmp_path, capsys):
    shutil.copytree(place / "data", tmp_path / "data")
    write_csv(tmp_path / "data" / "train.csv", rows=40, seed=9)
    save_tiny(tmp_path / "teacher", seed=3)
    assert run_cli(f"diagnose {fresh} {data(place)} --parts gap,agreement") == 0
    assert "these are not" not in (quiet := capsys.readouterr().err)
    assert "this is not" not in quiet
    before = written(fresh)
    message = refused(f"diagnose {fresh} {data(tmp_path)} --parts hessian", capsys)
    assert f"error: these are not the data of run {fresh} (fingerprint " in message
    assert "leave the data options out, since its run.json has them" in message
    assert written(fresh) == before
    assert run_cli(f"diagnose {fresh} {data(place)} --parts agreement --teacher {tmp_path}/teacher") == 0
    said = capsys.readouterr().err
    assert f"note: this is not the teacher of run {fresh} (fingerprint " in said
    assert "already holds" not in said


def test_the_first_training_examples_are_the_runs_data_if_it_was_trained_on_these(place, tmp_path, capsys):
    words = "--recipe kd --student-layers 1 --max-steps 1 --batch-size 4 --max-length 16 --train-examples 12"
    assert run_cli(f"distill {place}/teacher {data(place)} {words} --output {tmp_path}/run") == 0
    capsys.readouterr()
    assert run_cli(f"diagnose {tmp_path}/run {data(place)} --train-examples 12 --parts gap,agreement") == 0
    assert written(tmp_path / "run")["agreement"]["train"]["examples"] == 12
    capsys.readouterr()
    assert "these are not the data" in refused(f"diagnose {tmp_path}/run {data(place)} --parts gap", capsys)


@pytest.mark.parametrize("verb", ["finetune", "distill"])
def test_a_run_under_a_regime_is_looked_at_with_the_examples_it_was_trained_on(verb, place, tmp_path, capsys):
    words = "--max-steps 1 --batch-size 4 --max-length 16 --seed 3 --quiet --output"
    words = f"--few-samples 15 --label-noise 0.3 --regime seed=run --regime stratified=true {words} {tmp_path}/run"
    words = f"--recipe kd --student-layers 1 {words}" if verb == "distill" else words
    assert run_cli(f"{verb} {place}/teacher {data(place)} {words}") == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))
    assert result["regime"]["flipped_labels"] > 0
    assert run_cli(f"diagnose {tmp_path}/run --parts gap --quiet") == 0
    task = Regime.from_record(result["regime"]).apply(Task.from_files("classification", place / "data"), 0)
    assert written(tmp_path / "run")["made_with"]["gap"]["data"] == task_fingerprint(task)
    model, tokenizer = loaded(tmp_path / "run")
    said = predict(model, tokenizer, task.splits["train"], 16, task.head).argmax(-1)
    right = (said == np.array(task.splits["train"].labels)).mean()
    assert written(tmp_path / "run")["gap"]["accuracy"]["train"] == pytest.approx(right)


def test_too_few_dev_examples_leave_similarity_out(fresh, place, tmp_path, capsys):
    shutil.copytree(place / "data", tmp_path / "data")
    (tmp_path / "data" / "dev.csv").write_text("text,label\ngood film,good\nbad film,bad\nfine,fine\n", "utf-8")
    message = refused(f"diagnose {fresh} {data(tmp_path)} --parts gap,cka", capsys)
    assert "--parts cka: it needs at least 4 dev examples, there are 3" in message
    assert not (fresh / "diagnostics.json").exists()


def refused(words: str, capsys) -> str:
    assert run_cli(words) == 2
    out = capsys.readouterr()
    assert out.out == ""
    lines = [line for line in out.err.strip().split("\n") if not line.startswith("note:")]
    assert len(lines) == 1, out.err
    return lines[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("diagnose {p}/teacher {d}", "no result.json in it; give the output folder of a finished distill or finetune"),
        ("diagnose {p}/none {d}", "no result.json in it"),
        ("diagnose {r} {d} --parts gap,cak", "--parts cak: did you mean 'cka'"),
        ("diagnose {r} --task mprc", "unknown task 'mprc': did you mean 'mrpc'"),
        ("diagnose {r} --task mrpc --data {r}", "looked for"),
        ("diagnose {r} --task tickets", "the data have 10"),
        (
            "diagnose {r} {d} --teacher {p}/nobody",
            "teacher of run {r}: model {p}/nobody: no such folder; give its place",
        ),
        ("diagnose {r} {d} --examples 3", "--examples"),
        ("diagnose {r} {d} --train-examples 20", "these are not the data of run {r}"),
    ],
)
def test_a_mistake_is_one_clear_line_and_writes_nothing(words, message, fresh, place, capsys):
    paths = {"p": place, "r": fresh, "d": data(place)}
    assert message.format(**paths) in refused(words.format(**paths), capsys)
    assert not (fresh / "diagnostics.json").exists()


def test_what_is_damaged_or_held_by_another_is_refused(fresh, place, capsys):
    words = f"diagnose {fresh} {data(place)} --parts gap"
    lock = FolderLock(fresh)
    lock.take()
    assert "is working in this folder" in refused(words, capsys)
    lock.release()
    for damaged in ("{", "[]", '{"made_with": 1}'):
        (fresh / "diagnostics.json").write_text(damaged, "utf-8")
        assert "diagnostics.json: damaged; move it away" in refused(words, capsys)
        assert (fresh / "diagnostics.json").read_text("utf-8") == damaged
    (fresh / "diagnostics.json").unlink()
    for name in ("diagnostics.json", ".diagnostics.json.part"):
        (fresh / name).symlink_to(place / "target")
        assert f"{name}: a symbolic link" in refused(words, capsys)
        (fresh / name).unlink()
    assert not (place / "target").exists()
    for damaged in (
        "",
        "[]",
        '{"max_length": "8", "task": "x"}',
        '{"max_length": 8}',
        '{"max_length": 8, "task": "x", "regime": []}',
    ):
        (fresh / "run.json").write_text(damaged, "utf-8")
        assert "run.json is missing or damaged" in refused(words, capsys)


def test_a_teacher_of_other_classes_is_refused_before_anything_is_computed(fresh, place, tmp_path, capsys):
    save_tiny(tmp_path / "five", labels=5)
    message = refused(f"diagnose {fresh} {data(place)} --teacher {tmp_path}/five", capsys)
    assert "the student knows the labels bad, fine, good, the teacher class 0, class 1" in message
    assert not (fresh / "diagnostics.json").exists()
    assert run_cli(f"diagnose {fresh} {data(place)} --teacher {tmp_path}/five --parts cka --quiet") == 0


def test_help_teaches(capsys):
    assert run_cli("diagnose --help") == 0
    assert "Usage: layerstill diagnose" in capsys.readouterr().out
