"""`--student`: students of other depths, widths, families and tokenizers, from the command line to the saved folder."""

import json
import signal

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertTokenizer

from layerstill import Options, Recipe, Task, UserError, distill
from layerstill.acts.start import as_student_reads
from layerstill.data.encode import Collator, encode
from layerstill.heads import Classes, Tokens
from layerstill.reporting.command import command_of
from layerstill.reporting.runs import read_runs
from layerstill.training.module import DistillationModule
from tests.command import status_of
from tests.other_tokenizer import SPECIAL, save_other
from tests.tiny import (
    TAGS,
    VOCABULARY,
    no_dropout,
    save_tiny,
    tiny_config,
    tiny_model,
    tiny_tokenizer,
    write_conll,
    write_csv,
)
from tests.training.forks import Forks, record

HIDDEN = {"signal": "hidden_states", "mapping": "last", "distance": "mse", "alignment": "linear"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    save_tiny(folder / "teacher")
    save_tiny(folder / "distilbert", "distilbert", layers=2, positions=40)
    save_other(folder / "roberta")
    save_other(folder / "other", layers=4)
    save_other(folder / "narrow", "bert", width=16, layers=2)
    for name, two in (("data", False), ("pairs", True)):
        (folder / name).mkdir()
        for seed, split in enumerate(("train", "dev")):
            write_csv(folder / name / f"{split}.csv", rows=(21, 6)[seed], seed=seed, two_texts=two)
    (folder / "mixed.yaml").write_text(json.dumps({"stages": [{"epochs": 1, "learning_rate": 1e-3, "objectives": {
        "soft": {"signal": "logits", "distance": "kl"}, "states": HIDDEN}}]}))  # fmt: skip
    (folder / "gold.yaml").write_text(json.dumps({"stages": [{"epochs": 1, "learning_rate": 1e-3, "objectives": {
        "task": {"signal": "labels"}, "states": HIDDEN}}]}))  # fmt: skip
    return folder


def words(place, student: str, more: str = "", verb: str = "distill", teacher: str = "teacher") -> str:
    line = f"{verb} {place}/{teacher} --task classification --data {place}/data --max-length 32 --precision fp32"
    return f"{line} --student {place}/{student} --batch-size 8 --epochs 2 -q {more}"


def scores(folder) -> dict:
    return json.loads((folder / "result.json").read_text("utf-8"))


def plain_decisions(folder, texts) -> list[str]:
    """What transformers alone makes of a folder."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = model(**tokenizer(*texts, padding=True, truncation=True, max_length=32, return_tensors="pt")).logits
    return [model.config.id2label[int(i)] for i in logits.argmax(-1)]


@pytest.mark.parametrize(
    ("student", "recipe"), [("distilbert", "tinybert"), ("roberta", "rail-kd-l"), ("narrow", "rkd")]
)
def test_the_student_is_a_folder_that_transformers_loads_and_scores_alike(student, recipe, place, tmp_path):
    assert status_of(*words(place, student, f"--recipe {recipe} --output {tmp_path}/s").split()) == 0
    task = Task.from_files("classification", place / "data")
    texts = [list(column) for column in zip(*task.splits["dev"].texts, strict=True)]
    gold = [task.labels[i] for i in task.splits["dev"].labels]
    said = plain_decisions(tmp_path / "s", texts)
    right = sum(a == b for a, b in zip(said, gold, strict=True)) / len(gold)
    result = scores(tmp_path / "s")
    assert result["metrics"]["accuracy"] == pytest.approx(right)
    start = json.loads((place / student / "config.json").read_text("utf-8"))
    made = json.loads((tmp_path / "s" / "config.json").read_text("utf-8"))
    sizes = ("model_type", "num_hidden_layers", "n_layers", "hidden_size", "dim", "vocab_size")
    assert {name: made.get(name) for name in sizes} == {name: start.get(name) for name in sizes}
    depth = made.get("num_hidden_layers") or made["n_layers"]
    assert result["student"]["init"] == {"layers": list(range(1, depth + 1)), "from": f"{place}/{student}"}
    assert f"of {student}" in (tmp_path / "s" / "README.md").read_text("utf-8")
    before, after = load_file(place / student / "model.safetensors"), load_file(tmp_path / "s" / "model.safetensors")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in after)


def test_segments_go_to_the_model_that_reads_them(place):
    teacher = tiny_model(**no_dropout("bert"))
    student = tiny_model("distilbert", layers=2, seed=1, **no_dropout("distilbert"))
    task = Task.from_files("classification", place / "pairs", text_columns=("text", "other"))
    rows = list(encode(task.splits["dev"], tiny_tokenizer(), 32, task.head).dataset)
    batch = Collator(tiny_tokenizer(), Classes())(rows)
    assert batch["token_type_ids"].any()
    recipe = Recipe.load("kd", ("stages.0.objectives.soft targets.distance=mse",))
    module = DistillationModule(student, teacher, recipe.stages[0], 0, Classes()).train()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        theirs = teacher(**inputs, token_type_ids=batch["token_type_ids"]).logits
        assert not torch.allclose(theirs, teacher(**inputs).logits)
        wanted = (student(**inputs).logits - theirs).square().mean()
    torch.testing.assert_close(module(**batch)["terms"]["soft targets"].value, wanted)


def test_the_tokenizer_that_is_saved_gives_the_student_what_it_reads_and_no_more(place, tmp_path):
    more = f"--recipe kd --max-steps 1 --output {tmp_path}/s"
    assert status_of(*words(place, "distilbert", more).split()) == 0
    saved = AutoTokenizer.from_pretrained(tmp_path / "s")
    assert saved.get_vocab() == tiny_tokenizer().get_vocab()
    assert (saved.model_input_names, saved.model_max_length) == (["input_ids", "attention_mask"], 40)
    assert status_of(*words(place, "roberta", f"--recipe kd --max-steps 1 --output {tmp_path}/o").split()) == 0
    assert set(SPECIAL) < set(AutoTokenizer.from_pretrained(tmp_path / "o").get_vocab())


def test_a_berts_tokenizer_is_saved_without_segments_for_a_student_that_reads_none(tmp_path):
    own = BertTokenizer(vocab={token: number for number, token in enumerate(VOCABULARY)})
    bert, distilbert = (tiny_config(family) for family in ("bert", "distilbert"))
    assert as_student_reads(own, bert, bert) is own
    as_student_reads(own, bert, distilbert).save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("good", "film").keys() == {"input_ids", "attention_mask"}
    assert "token_type_ids" in own("good", "film"), "the teacher goes on reading them"


def test_layers_are_cut_where_fewer_are_asked_for(place, tmp_path):
    more = f"--student-layers 2 --init last-k --recipe kd --max-steps 1 --learning-rate 1e-12 --output {tmp_path}/s"
    assert status_of(*words(place, "roberta", more).split()) == 0
    made, start = load_file(tmp_path / "s" / "model.safetensors"), load_file(place / "roberta" / "model.safetensors")
    name = "roberta.encoder.layer.{}.output.dense.weight"
    torch.testing.assert_close(made[name.format(0)], start[name.format(1)])
    assert scores(tmp_path / "s")["student"]["init"]["layers"] == [2, 3]


def test_a_student_without_a_head_that_fits_gets_a_new_one(place, tmp_path):
    save_other(tmp_path / "two", labels=2)
    more = f"--recipe kd --max-steps 1 --output {tmp_path}/s"
    line = words(place, "roberta", more).replace(f"{place}/roberta", f"{tmp_path}/two")
    assert status_of(*line.split()) == 0
    assert load_file(tmp_path / "s" / "model.safetensors")["classifier.out_proj.weight"].shape[0] == 3
    assert json.loads((tmp_path / "s" / "config.json").read_text("utf-8"))["id2label"]["2"] == "good"


def test_a_folder_without_weights_starts_a_random_student(place, tmp_path, call):
    blank = save_other(tmp_path / "blank", "bert", width=16, layers=2)
    (blank / "model.safetensors").unlink()
    drawn = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        more = f"--recipe kd --max-steps 1 --learning-rate 1e-12 --seed {seed} --output {tmp_path}/{name}"
        line = words(place, "", more).replace(f"--student {place}/", f"--student {blank}").replace(" -q", "")
        status, _, err = call(line)
        assert status == 0, err
        assert "it holds no weights, so the student starts from random ones" in err
        drawn[name] = load_file(tmp_path / name / "model.safetensors")["bert.encoder.layer.1.output.dense.weight"]
    assert torch.equal(drawn["a"], drawn["b"])
    assert not torch.equal(drawn["a"], drawn["c"])
    assert scores(tmp_path / "a")["student"]["init"]["layers"] == "random weights"
    (blank / "pytorch_model.bin").write_bytes(b"no")
    status, _, err = call(
        words(place, "", f"--output {tmp_path}/d").replace(f"--student {place}/", f"--student {blank}")
    )
    assert status == 2
    assert "is a pickle, which is never loaded" in err


def test_mpnet_teaches_a_bert_with_other_tokens(place, tmp_path):
    save_tiny(tmp_path / "mpnet", "mpnet")
    line = words(place, "narrow", f"--recipe pkd --max-steps 2 --output {tmp_path}/s")
    assert status_of(*line.replace(f"{place}/teacher", f"{tmp_path}/mpnet").split()) == 0
    assert json.loads((tmp_path / "s" / "run.json").read_text("utf-8"))["student"] == f"{place}/narrow"


def test_tags_are_learnt_from_a_teacher_with_other_tokens(tmp_path):
    for seed, split in enumerate(("train", "dev")):
        write_conll(tmp_path / f"{split}.conll", rows=12, seed=seed)
    save_tiny(tmp_path / "teacher", head=Tokens(), names=TAGS)
    save_other(tmp_path / "student", head=Tokens(), labels=5)
    line = f"distill {tmp_path}/teacher --task tokens --data {tmp_path} --student {tmp_path}/student --recipe rail-kd-l"
    line += f" --epochs 2 --batch-size 4 --max-length 9 --output {tmp_path}/s -q"
    assert status_of(*line.split()) == 0
    objectives = json.loads((tmp_path / "s" / "metrics.jsonl").read_text("utf-8").splitlines()[0])["objectives"]
    assert all(value > 0 for value in objectives.values())


def test_the_plan_says_what_is_left_out_and_the_run_and_its_card_too(place, tmp_path, call):
    more = f"--recipe {place}/mixed.yaml"
    status, out, _ = call(words(place, "roberta", more, "plan"))
    said = "stage 1: objective 'states' is left out, because it compares token by token"
    assert status == 0
    assert said in " ".join(out.split())
    assert "captured from the teacher: logits" in out
    status, out, _ = call(words(place, "roberta", f"{more} --json", "plan"))
    data = json.loads(out)
    assert [row["objective"] for row in data["stages"][0]["objectives"]] == ["soft"]
    assert len(data["left_out"]) == 1
    status, out, _ = call(words(place, "distilbert", f"{more} --json", "plan"))
    data = json.loads(out)
    assert ([row["objective"] for row in data["stages"][0]["objectives"]], data["left_out"]) == (["soft", "states"], [])
    status, _, err = call(words(place, "roberta", f"{more} --output {tmp_path}/s").replace(" -q", ""))
    assert status == 0
    assert said in err
    assert "states" not in (tmp_path / "s" / "recipe.yaml").read_text("utf-8")
    assert "objective 'states' is left out" in (tmp_path / "s" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("--student {p}/roberta --recipe {p}/gold.yaml", "nothing of the teacher would be left; use"),
        ("--student {p}/roberta --init-from {p}/distilbert --recipe kd", "both say what the student is made of"),
        ("--student {p}/roberta --student-layers 4", "--student-layers 4: the model of --student has 3 layers"),
        ("--student {p}/nowhere", "nowhere: no such folder"),
        ("--student {p}/distilbert --max-length 41", "--max-length 41: the model of --student allows 40 tokens"),
        ("--init-from {p}/roberta --student-layers 2", "or give it as --student, which brings its own"),
        ("", "--student-layers: say how many layers the student should have, 1 to 4"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(more, says, place, tmp_path, call):
    line = f"distill {place}/teacher --task classification --data {place}/data --max-length 32 --output {tmp_path}/s -q"
    status, _, err = call(f"{line} {more.format(p=place)}")
    assert (status, err.count("\n")) == (2, 1)
    assert says in err
    if "; use " in says:  # what it names works
        for recipe in err.split("; use ")[1].split(", or ")[0].split(", "):
            line = words(place, "roberta", f"--recipe {recipe}", "plan")
            assert call(line)[0] == 0, recipe
    assert not (tmp_path / "s").exists()


def test_one_cache_serves_students_of_all_tokenizers(place, tmp_path, call):
    found = []
    for student in ("distilbert", "roberta", "narrow"):
        line = words(place, student, f"--recipe rail-kd-l --cache {tmp_path}/cache --json", "cache")
        status, out, err = call(line)
        assert status == 0, err
        found += json.loads(out)
    assert [one["new"] for one in found] == [found[0]["examples"], 0, 0]
    assert len({one["folder"] for one in found}) == 1


def test_a_smaller_vocabulary_is_one_of_the_students_own(place, tmp_path):
    more = f"--recipe kd --max-steps 1 --set student.vocabulary=train --output {tmp_path}/s"
    assert status_of(*words(place, "roberta", more).split()) == 0
    own, whole = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "s", place / "roberta"))
    assert set(own.get_vocab()) < set(whole.get_vocab())
    assert own.convert_ids_to_tokens(own("good film")["input_ids"]) == whole.convert_ids_to_tokens(
        whole("good film")["input_ids"]
    )


def test_the_python_call_is_the_command_line(place, tmp_path):
    options = Options(max_length=32, max_steps=2, precision="fp32", progress=False)
    task = Task.from_files("classification", place / "data")
    recipe = Recipe.load("kd").limited(2, 8, None)
    result = distill(str(place / "teacher"), task, recipe, None, tmp_path / "a", options, student=place / "roberta")
    assert status_of(*words(place, "roberta", f"--recipe kd --max-steps 2 --output {tmp_path}/b").split()) == 0
    assert result.student.config.model_type == "roberta"
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert f"--student-layers 3 --student {place}/roberta " in command_of(read_runs(tmp_path / "a")[0]).line
    with pytest.raises(UserError, match="holds another run: student_fingerprint is"):
        distill(str(place / "teacher"), task, recipe, 3, tmp_path / "a", options, student=place / "other")


def test_a_run_that_is_killed_ends_as_if_nothing_had_happened(place, tmp_path):
    forks = Forks()
    try:
        line = words(place, "roberta", "--recipe rail-kd-c --output {o}")
        whole = forks(line.format(o=tmp_path / "whole").split(), folder=tmp_path / "whole")
        assert whole["status"] == 0, whole["err"]
        again = line.format(o=tmp_path / "again").split()
        assert forks(again, folder=tmp_path / "again", lines=4)["status"] == -signal.SIGKILL
        assert (tmp_path / "again" / "checkpoints").exists()
        done = forks(again, folder=tmp_path / "again")
        assert done["status"] == 0, done["err"]
    finally:
        forks.close()
    assert record(tmp_path / "again") == record(tmp_path / "whole")


def test_best_leaves_out_what_compares_tokens_also_with_texts_without_labels_and_rates_that_are_tried(
    place, call, tmp_path
):
    (tmp_path / "more.txt").write_text("good film indeed\nbad plot and film\n", "utf-8")
    more = f"--unlabelled {tmp_path}/more.txt --augment 1 --learning-rate auto --set student.vocabulary=train"
    line = words(place, "other", f"{more} --output {tmp_path}/s").replace(
        "--epochs 2 -q", "--epochs auto --max-steps 4"
    )
    status, _, err = call(line)
    assert status == 0, err
    assert err.count("is left out, because it compares token by token") == 2
    assert "learning rate" in err
    run = json.loads((tmp_path / "s" / "run.json").read_text("utf-8"))
    (stage,) = run["recipe"]["stages"]
    assert sorted(stage["objectives"]) == ["soft targets", "task"]
    assert stage["epochs"] == 30
    assert run["tuning"]["learning_rate"] in [c["learning_rate"] for c in run["tuning"]["rungs"][0]["candidates"]]
    assert len(scores(tmp_path / "s")["verdict"]) >= 2
    assert scores(tmp_path / "s")["unlabelled"]["examples"] == 2


def test_random_embeddings_are_trained_though_best_freezes_them(place, call, tmp_path):
    save_other(tmp_path / "blank", layers=2)
    (tmp_path / "blank" / "model.safetensors").unlink()
    line = words(place, "other", f"--max-steps 4 --learning-rate 1e-2 --output {tmp_path}").replace(" -q", "")
    moved = {}
    for student in (f"{place}/other", f"{tmp_path}/blank"):
        run = tmp_path / f"run-{len(moved)}"
        told = line.replace(f"--student {place}/other", f"--student {student}").replace(f"--output {tmp_path}", "")
        status, _, err = call(f"{told} --output {run}")
        assert status == 0, err
        assert ("its embeddings are random, so they are trained" in err) is student.endswith("blank")
        moved[student] = json.loads((run / "run.json").read_text("utf-8"))["recipe"]["student"]["embeddings"]
    assert list(moved.values()) == ["frozen", "copied"]
