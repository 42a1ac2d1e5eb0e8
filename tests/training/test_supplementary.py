"""Stages on supplementary texts: what is read, what is refused, and what such a run is equal to."""

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, TrainerCallback

from layerstill.acts import distill, finetune
from layerstill.data.supplementary import Supplementary, read_supplementary
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError
from layerstill.recipe import Recipe
from layerstill.training import stages
from layerstill.training.arguments import Options
from layerstill.training.cache_choice import CacheOptions
from tests.tiny import save_tiny, write_csv

QUIET = Options(progress=False, max_length=32, precision="fp32")
PAIRS = [("good film", "a scene"), ("they was", "not very awful"), ("the plot, was", "poor")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("supplementary")
    save_tiny(folder / "teacher")
    (folder / "data").mkdir()
    write_csv(folder / "data" / "train.csv", rows=16)
    write_csv(folder / "data" / "dev.csv", rows=6, seed=1)
    write_csv(folder / "extra.csv", rows=24, seed=2, two_texts=True)
    return folder


@pytest.fixture(scope="module")
def task(place):
    return Task.from_files("classification", place / "data")


def short(*overrides: str, recipe: str = "l-ild-supplementary") -> Recipe:
    stages = range(len(Recipe.load(recipe).stages))
    every = [f"stages.{i}.{s}" for i in stages for s in ("epochs=2", "batch_size=8")]
    return Recipe.load(recipe, (*every, *overrides))


def words(place, output, more: str = "", verb: str = "distill") -> str:
    line = f"{verb} {place}/teacher --task classification --data {place}/data --max-length 32 --student-layers 2 --json"
    line += " --recipe l-ild-supplementary --epochs 2 --batch-size 8 --precision fp32"
    return f"{line} --output {output} {more}"


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_texts_are_read_from_every_kind_of_file_and_labels_are_dropped(tmp_path):
    rows = [{"sentence1": a, "sentence2": b, "label": "x"} for a, b in PAIRS]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    lines = ["\t".join(rows[0]), *("\t".join(r.values()) for r in rows)]
    (tmp_path / "t.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    for suffix in ("csv", "tsv", "jsonl", "parquet"):
        assert read_supplementary(f"{tmp_path}/t.{suffix}").texts == PAIRS, suffix
        one = read_supplementary(f"{tmp_path}/t.{suffix}", ("sentence2",))
        assert one.texts == [(b,) for _, b in PAIRS]
        assert one.split == Split(one.texts, [])
    (tmp_path / "t.txt").write_text("\ufeffgood film\r\n\r\n  \nthe plot, was\n", "utf-8")
    assert read_supplementary(f"{tmp_path}/t.txt").texts == [("good film",), ("the plot, was",)]
    glue = tmp_path / "glue" / "RTE"
    glue.mkdir(parents=True)
    for split, some in (("train", PAIRS), ("dev", PAIRS[:1])):
        table = [["index", "sentence1", "sentence2", "label"], *(["0", *p, "entailment"] for p in some)]
        (glue / f"{split}.tsv").write_text("\n".join("\t".join(r) for r in table) + "\n", "utf-8")
    assert read_supplementary(f"rte={tmp_path}/glue").texts == PAIRS
    (tmp_path / "a=b.txt").write_text("good\n", "utf-8")
    assert read_supplementary(f"{tmp_path}/a=b.txt").texts == [("good",)]


MISTAKES = [
    ("{p}/none.txt", (), "none.txt: no such file"),
    ("{p}/data", (), r"--supplementary .*data: a folder; give a file .* or NAME=.*data .* cola, sst2"),
    ("mlni={p}/data", (), "no such file, and no GLUE task 'mlni': did you mean 'mnli'"),
    ("mnli={p}/none", (), r"--supplementary mnli=.*: no such folder"),
    ("mnli=", (), "write mnli=FOLDER"),
    ("mnli={p}/data", ("a",), "--supplementary-columns: the texts of a GLUE task are known"),
    ("{p}/extra.txt", ("a",), "--supplementary-columns: a .txt file has no columns"),
    ("{p}/extra.csv", ("story",), r"no column 'story' \(from --supplementary-columns\)"),
    ("{p}/empty.txt", (), "empty.txt: no text in it"),
    ("{p}/two.tsv", (), "which columns are text\\? Say --supplementary-columns NAME"),
    ("{p}/letter.doc", (), "unknown kind of file '.doc'"),
]


@pytest.mark.parametrize(("source", "columns", "message"), MISTAKES)
def test_what_cannot_be_read_is_said_in_one_line(source, columns, message, place):
    (place / "extra.txt").write_text("good\n", "utf-8")
    (place / "empty.txt").write_text("\n \n", "utf-8")
    (place / "letter.doc").write_text("dear", "utf-8")
    (place / "two.tsv").write_text("question\tanswer\nwhy\tso\n", "utf-8")
    with pytest.raises(UserError, match=message) as caught:
        read_supplementary(source.format(p=place), columns)
    assert "\n" not in str(caught.value)


REFUSED = [
    (("stages.1.data=supplementary", "stages.1.objectives.gold.signal=labels"), "'gold' compares with gold labels"),
    (("stages.0.select=best",), "stages.0: select: best scores the task while data: supplementary is trained on"),
    (("stages.0.evaluate=epoch",), "stages.0: evaluate: epoch scores the task"),
    (("stages.0.data=text",), "stages.0.data: Input should be 'task' or 'supplementary', got 'text'"),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED)
def test_a_recipe_that_needs_labels_or_scores_of_supplementary_texts_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        Recipe.load("l-ild-supplementary", overrides)


def test_recipe_and_option_must_agree_before_anything_is_read(place, call, tmp_path):
    for verb in ("distill", "plan"):
        status, out, err = call(words(place, tmp_path / "s", verb=verb))
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "recipe l-ild-supplementary: stage 1 trains on supplementary texts; give --supplementary FILE" in err
        status, _, err = call(words(place, tmp_path / "s", "--recipe kd --supplementary nowhere.txt", verb))
        assert status == 2
        assert "--supplementary: no stage of recipe kd trains on such texts" in err
        status, _, err = call(words(place, tmp_path / "s", "--recipe kd --supplementary-columns text", verb))
        assert status == 2
        assert "--supplementary-columns: give --supplementary too" in err
    assert not (tmp_path / "s").exists()


def test_from_python_too(place, task, tmp_path):
    teacher, extra = str(place / "teacher"), Supplementary("mine", PAIRS)
    with pytest.raises(UserError, match="stage 1 trains on supplementary texts"):
        distill(teacher, task, short(), 2, tmp_path / "s", QUIET)
    with pytest.raises(UserError, match="no stage of recipe kd trains on such texts"):
        distill(teacher, task, short(recipe="kd"), 2, tmp_path / "s", QUIET, supplementary=extra)
    words = {"signal": "hidden_states", "target": {"moving_average": {}}, "mapping": "last", "distance": "mse"}
    alone = {"epochs": 1, "learning_rate": 1e-3, "data": "supplementary", "objectives": {"self": words}}
    with pytest.raises(UserError, match="finetune trains on the task alone"):
        finetune(teacher, task, tmp_path / "s", Recipe.from_data({"stages": [alone]}), QUIET)
    assert not (tmp_path / "s").exists()


def test_a_run_records_its_supplementary_texts_and_plan_counts_their_steps(place, call, tmp_path):
    option = f"--supplementary {place}/extra.csv --supplementary-columns text,other"
    status, out, err = call(words(place, tmp_path / "s", option, "plan"))
    assert status == 0, err
    planned = json.loads(out)["stages"]
    assert [(s["data"], s["steps"]) for s in planned] == [("supplementary", 6), ("task", 4)]
    status, out, err = call(words(place, tmp_path / "s", option))
    assert status == 0, err
    result = json.loads(out)
    extra = read_supplementary(f"{place}/extra.csv", ("text", "other"))
    assert result["supplementary"] == {
        "source": f"{place}/extra.csv",
        "examples": 24,
        "fingerprint": extra.fingerprint,
    }
    assert result["train"]["steps"] == 10
    assert result["train"]["examples"] == 2 * 24 + 2 * 16
    stages = [json.loads(line)["stage"] for line in (tmp_path / "s" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert stages == [1] * 6 + [2] * 4
    status, out, _ = call(words(place, tmp_path / "s", option, "plan").replace("--json", ""))
    assert "stage 1: 6 steps on supplementary texts" in out
    assert "stage 2: 4 steps" in out
    assert "stage 2: 4 steps on" not in out


def test_other_supplementary_texts_are_another_run(place, call, tmp_path):
    (tmp_path / "a.txt").write_text("good film\nbad film\n", "utf-8")
    (tmp_path / "same.txt").write_text("good film\n\nbad film\n", "utf-8")
    (tmp_path / "b.txt").write_text("good film\nbad plot\n", "utf-8")
    status, first, err = call(words(place, tmp_path / "s", f"--supplementary {tmp_path}/a.txt"))
    assert status == 0, err
    status, again, err = call(words(place, tmp_path / "s", f"--supplementary {tmp_path}/same.txt"))
    assert status == 0, err
    assert again == first
    status, _, err = call(words(place, tmp_path / "s", f"--supplementary {tmp_path}/b.txt"))
    assert status == 2
    assert "holds another run: supplementary" in err


@pytest.mark.parametrize("recipe", ["l-ild", "cr-ild"])
def test_the_tasks_own_texts_as_supplementary_give_what_the_plain_recipe_gives(recipe, place, task, tmp_path):
    """Stage 1 uses no labels, so it makes no difference where its texts come from."""
    moved = short() if recipe == "l-ild" else short("stages.0.data=supplementary", recipe=recipe)
    own = Supplementary("own", task.splits["train"].texts)
    teacher = str(place / "teacher")
    extra = Supplementary("other", PAIRS * 4)
    results = [
        distill(teacher, task, moved, 2, tmp_path / "own", QUIET, supplementary=own),
        distill(teacher, task, short(recipe=recipe), 2, tmp_path / "plain", QUIET),
        distill(teacher, task, moved, 2, tmp_path / "other", QUIET, supplementary=extra),
    ]
    assert same(weights(tmp_path / "own"), weights(tmp_path / "plain"))
    assert not same(weights(tmp_path / "own"), weights(tmp_path / "other"))
    assert results[0].metrics == results[1].metrics
    assert results[1].data["supplementary"] is None


def test_labels_of_the_task_cannot_reach_a_run_on_supplementary_texts_alone(place, task, tmp_path):
    upset = {name: Split(s.texts, [(int(y) + 1) % 3 for y in s.labels]) for name, s in task.splits.items()}
    recipe = short("stages.1.data=supplementary")
    assert recipe.supplementary_stages == [1, 2]
    extra = Supplementary("other", PAIRS * 4)
    for name, labels in (("a", task), ("b", Task("classification", "classification", upset, task.labels))):
        distill(str(place / "teacher"), labels, recipe, 2, tmp_path / name, QUIET, supplementary=extra)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


@pytest.mark.parametrize("cache", ["auto", "shared"])
def test_with_or_without_a_teacher_cache_the_losses_are_the_same(cache, place, task, tmp_path):
    extra = Supplementary("other", PAIRS * 4)
    losses = []
    for name, where in (("reference", "off"), ("cached", str(tmp_path / "cache") if cache == "shared" else cache)):
        options = Options(progress=False, max_length=32, precision="fp32", cache=CacheOptions(where))
        distill(str(place / "teacher"), task, short(), 2, tmp_path / name, options, supplementary=extra)
        text = (tmp_path / name / "metrics.jsonl").read_text("utf-8")
        losses.append([json.loads(line)["loss"] for line in text.splitlines()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    if cache == "shared":
        assert len(list((tmp_path / "cache").glob("teacher-*"))) == 2, "one for each stage's tensors"


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop_at", [3, 6])
def test_a_stopped_run_goes_on_in_either_stage(stop_at, place, task, tmp_path, monkeypatch):
    """Two steps an epoch and two epochs a stage: stops in the second epoch of stage 1, and in stage 2."""
    extra = Supplementary("other", PAIRS * 5)
    arguments = (str(place / "teacher"), task, short(), 2)
    whole = distill(*arguments, tmp_path / "whole", QUIET, supplementary=extra)
    steps = []

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            steps.append(state.global_step)
            if len(steps) == stop_at:
                raise Stopped

    original = stages.DistillationTrainer.__init__

    def with_stop(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.add_callback(Stop())

    with monkeypatch.context() as patch:
        patch.setattr(stages.DistillationTrainer, "__init__", with_stop)
        with pytest.raises(Stopped):
            distill(*arguments, tmp_path / "stopped", QUIET, supplementary=extra)
    resumed = distill(*arguments, tmp_path / "stopped", QUIET, supplementary=extra)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))
    assert resumed.data["train"]["steps"] == whole.data["train"]["steps"] == 8
    assert resumed.data["supplementary"] == whole.data["supplementary"]


def test_a_trimmed_vocabulary_keeps_what_supplementary_texts_use(place, tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n" + "good film,good\nbad film,bad\nfine plot,fine\n" * 4, "utf-8")
    (tmp_path / "dev.csv").write_text("text,label\ngood film,good\nbad film,bad\nfine plot,fine\n", "utf-8")
    task = Task.from_files("classification", tmp_path)
    recipe = short("student.vocabulary=train")
    distill(
        str(place / "teacher"), task, recipe, 2, tmp_path / "s", QUIET, supplementary=Supplementary("x", [("actor",)])
    )
    known = AutoTokenizer.from_pretrained(tmp_path / "s").get_vocab()
    assert {"film", "actor"} <= set(known)
    assert "scene" not in known


def test_too_long_texts_and_those_of_the_dev_set_are_counted(place, task, call, tmp_path):
    dev = " ".join(task.splits["dev"].texts[2][0].upper().split())
    (tmp_path / "long.txt").write_text("good " * 50 + f"\n{dev}\n", "utf-8")
    line = words(place, tmp_path / "s", f"--supplementary {tmp_path}/long.txt").replace("--json", "")
    status, _, err = call(line)
    assert status == 0, err
    assert "1 of 2 supplementary texts had to be cut to 32 tokens" in err
    for verb in ("distill", "plan"):
        _, _, err = call(
            words(place, tmp_path / verb, f"--supplementary {tmp_path}/long.txt", verb).replace("--json", "")
        )
        assert "1 of 6 dev texts are among the supplementary texts\n" in err
