"""Runs: the acts from end to end on tiny models, what they write, and how they go on after a stop."""

import dataclasses
import json
import logging
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from layerstill.acts import distill, finetune
from layerstill.data.tasks import Task
from layerstill.errors import ObjectiveError, UserError
from layerstill.recipe import Recipe
from layerstill.training import stages
from layerstill.training.arguments import Options
from tests.tiny import save_tiny, write_csv

QUIET = Options(progress=False, max_length=32, precision="fp32")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("teacher")))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_csv(folder / "train.csv", rows=32)
    write_csv(folder / "dev.csv", rows=12, seed=1)
    return Task.from_files("classification", folder)


def short(name: str, *overrides: str) -> Recipe:
    recipe = Recipe.load(name)
    every = [f"stages.{i}.{s}" for i in range(len(recipe.stages)) for s in ("epochs=2", "batch_size=8")]
    return Recipe.load(name, (*every, *overrides))


def test_a_distilled_student_is_a_plain_model_folder_with_its_record(teacher, task, tmp_path):
    result = distill(teacher, task, short("rail-kd-l"), 2, tmp_path / "s", QUIET)
    student, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "s", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert student.config.num_hidden_layers == 2
    assert student.config.id2label == {0: "bad", 1: "fine", 2: "good"}
    assert AutoTokenizer.from_pretrained(tmp_path / "s")("good film")["input_ids"]
    assert not (tmp_path / "s" / "checkpoints").exists()
    assert set(load_file(tmp_path / "s" / "objectives.safetensors")) == {
        f"random layers.aligner.{side}.{part}" for side in ("student", "teacher") for part in ("weight", "bias")
    }
    assert not list((tmp_path / "s").rglob("*.bin"))
    assert not list((tmp_path / "s").rglob("*.pt*"))
    assert json.loads((tmp_path / "s" / "result.json").read_text("utf-8")) == result.data
    assert Recipe.load(tmp_path / "s" / "recipe.yaml") == short("rail-kd-l")


def test_the_record_has_what_the_design_asks_for(teacher, task, tmp_path):
    data = distill(teacher, task, short("kd"), 2, tmp_path / "s", QUIET).data
    top = "recipe recipe_hash teacher task seed student metrics head by_label teacher_metrics regime ood supplementary"
    top += " unlabelled augmented teacher_probabilities teachers text tuning verdict train environment"
    assert set(data) == set(top.split())
    assert data["regime"] == data["ood"] == {}
    assert set(data["student"]) == {"layers", "hidden_size", "parameters", "init"}
    train = "examples steps epochs seconds examples_per_second tokens_per_second teacher_share peak_memory_mb precision"
    train += " padding_share gflops_per_second matmul_peak_gflops_per_second share_of_peak"
    assert set(data["train"]) == set(train.split())
    assert data["train"]["examples"] == 64
    assert data["train"]["steps"] == 8
    assert data["train"]["epochs"] == 2
    assert 0 < data["train"]["teacher_share"] < 1
    assert data["metrics"]["selected"] == "last"
    assert set(data["metrics"]) - {"selected"} == set(data["teacher_metrics"]) == set(task.metrics)
    lines = [json.loads(line) for line in (tmp_path / "s" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    for line in lines:
        assert set(line["objectives"]) == {"task", "soft targets"}
        assert line["loss"] == pytest.approx(sum(line["objectives"].values()) / 2, rel=1e-4)


def test_the_same_run_twice_gives_the_same_student_and_another_seed_another(teacher, task, tmp_path):
    weights = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        distill(teacher, task, short("cr-ild"), 2, tmp_path / name, Options(seed=seed, max_length=32, progress=False))
        weights[name] = load_file(tmp_path / name / "model.safetensors")
    assert all(torch.equal(weights["a"][n], weights["b"][n]) for n in weights["a"])
    assert not all(torch.equal(weights["a"][n], weights["c"][n]) for n in weights["a"])


def test_accumulation_does_not_change_what_is_learnt(teacher, tmp_path):
    write_csv(tmp_path / "train.csv", rows=24)
    write_csv(tmp_path / "dev.csv", rows=6)
    task = Task.from_files("classification", tmp_path)
    quiet = save_tiny(tmp_path / "t", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    losses, students = [], []
    for accumulation in (1, 4):
        recipe = short("tinybert", f"stages.0.accumulation={accumulation}", f"stages.1.accumulation={accumulation}")
        folder = tmp_path / str(accumulation)
        distill(str(quiet), task, recipe, 2, folder, QUIET)
        lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
        students.append(load_file(folder / "model.safetensors"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name, weight in students[0].items():
        torch.testing.assert_close(weight, students[1][name], rtol=1e-3, atol=1e-4)


class Killed(Exception):
    pass


@pytest.mark.parametrize(("recipe", "stop_at"), [("rail-kd-c", 5), ("cr-ild", 3), ("cr-ild", 11), ("patient kd", 10)])
def test_a_stopped_run_goes_on_and_ends_with_the_same_student(recipe, stop_at, teacher, task, tmp_path, monkeypatch):
    if recipe == "patient kd":
        patient = ("select=best", "patience=3", "learning_rate=1e-12", "epochs=6")
        settings = short("kd", *(f"stages.0.{setting}" for setting in patient))
    else:
        settings = short(recipe)
    if recipe == "cr-ild":
        average = "target={moving_average: {decay: 0.5}}"
        settings = short(
            recipe, *(f"stages.0.objectives.consistent {o}.{average}" for o in ("attention", "hidden states"))
        )
    whole = distill(teacher, task, settings, 2, tmp_path / "whole", QUIET)

    steps = []

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            steps.append(state.global_step)
            if len(steps) == stop_at:
                raise Killed

    original = stages.DistillationTrainer.__init__

    def with_stop(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.add_callback(Stop())

    monkeypatch.setattr(stages.DistillationTrainer, "__init__", with_stop)
    with pytest.raises(Killed):
        distill(teacher, task, settings, 2, tmp_path / "stopped", QUIET)
    monkeypatch.setattr(stages.DistillationTrainer, "__init__", original)
    resumed = distill(teacher, task, settings, 2, tmp_path / "stopped", QUIET)
    a, b = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "stopped"))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert whole.metrics == resumed.metrics
    assert resumed.data["train"]["steps"] == whole.data["train"]["steps"]
    logs = [(tmp_path / n / "metrics.jsonl").read_text("utf-8").splitlines() for n in ("whole", "stopped")]
    strip = [[json.loads(line).get("objectives") for line in log] for log in logs]
    assert strip[0] == strip[1]


def test_stages_differ_in_their_dropout(teacher, task, tmp_path, monkeypatch):
    seeds = []
    original = stages.DistillationTrainer.train

    def train(self, *args, **kwargs):
        seeds.append(torch.initial_seed())
        return original(self, *args, **kwargs)

    monkeypatch.setattr(stages.DistillationTrainer, "train", train)
    distill(teacher, task, short("tinybert"), 2, tmp_path / "s", QUIET)
    assert seeds == [0, 1000]


def test_a_finished_run_is_not_done_again_and_another_run_is_refused(teacher, task, tmp_path):
    first = distill(teacher, task, short("kd"), 2, tmp_path / "s", QUIET)
    before = (tmp_path / "s" / "model.safetensors").stat().st_mtime_ns
    assert distill(teacher, task, short("kd"), 2, tmp_path / "s", QUIET).data == first.data
    assert (tmp_path / "s" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="holds another run: student_layers is 2 there and 1 here"):
        distill(teacher, task, short("kd"), 1, tmp_path / "s", QUIET)
    with pytest.raises(UserError, match=r"holds another run: recipe\.stages\.0"):
        distill(teacher, task, short("pkd"), 2, tmp_path / "s", QUIET)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear", "utf-8")
    with pytest.raises(UserError, match="not empty and not a run of layerstill"):
        distill(teacher, task, short("kd"), 2, tmp_path / "mine", QUIET)
    assert (tmp_path / "mine" / "letter.txt").read_text("utf-8") == "dear"


def test_max_steps_shortens_and_never_lengthens_a_stage(teacher, task, tmp_path):
    for limit, steps in ((3, 3), (100, 8)):
        options = Options(progress=False, max_length=32, max_steps=limit)
        data = distill(teacher, task, short("kd"), 2, tmp_path / str(limit), options).data
        assert data["train"]["steps"] == steps


def test_f1_is_about_the_same_class_whatever_the_models_order(tmp_path):
    rows = "".join(f"{i % 3 == 0:d}\t1\t2\tgood film\t{'bad' if i % 2 else 'great'} plot\n" for i in range(12))
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text(f"Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n{rows}", "utf-8")
    task = Task.glue("mrpc", tmp_path)
    swapped = task.with_label_order(("equivalent", "not_equivalent"))
    logits, gold = np.random.default_rng(0).normal(size=(12, 2)), np.array(task.splits["dev"].labels)
    assert task.score(logits, gold) == swapped.score(logits[:, ::-1], swapped.gold("dev"))


def test_labels_that_differ_in_case_only_are_taken_for_the_same(teacher, task, tmp_path, caplog):
    caplog.set_level(logging.INFO, "layerstill")
    shouting = dataclasses.replace(task, labels=tuple(name.upper() for name in task.labels))
    metrics = distill(teacher, shouting, short("kd"), 2, tmp_path / "a", QUIET).metrics
    assert "taking the data's BAD, FINE, GOOD as the same" in caplog.text
    assert metrics == distill(teacher, task, short("kd"), 2, tmp_path / "b", QUIET).metrics


def test_a_teacher_whose_head_would_be_random_is_refused(teacher, task, tmp_path):
    shutil.copytree(teacher, tmp_path / "t")
    config = json.loads((tmp_path / "t" / "config.json").read_text("utf-8"))
    weights = load_file(tmp_path / "t" / "model.safetensors")
    save_file(
        {n: w for n, w in weights.items() if n != "classifier.bias"},
        tmp_path / "t" / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(UserError, match=r"1 weights are missing .* for example classifier.bias"):
        distill(str(tmp_path / "t"), task, short("kd"), 2, tmp_path / "s", QUIET)
    save_file(weights, tmp_path / "t" / "model.safetensors", {"format": "pt"})
    config["intermediate_size"] = 40
    (tmp_path / "t" / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(UserError, match="of another size than its config.json says"):
        distill(str(tmp_path / "t"), task, short("kd"), 2, tmp_path / "s2", QUIET)


def test_a_parent_without_a_head_starts_the_student_the_same_every_time(teacher, task, tmp_path):
    from transformers import BertModel

    from tests.tiny import tiny_config, tiny_tokenizer

    torch.manual_seed(3)
    BertModel(tiny_config("bert")).save_pretrained(tmp_path / "parent")
    tiny_tokenizer().save_pretrained(tmp_path / "parent")
    heads = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(int(torch.randint(1, 9, (1,))))
        options = Options(seed=seed, progress=False, max_length=32, max_steps=1)
        distill(teacher, task, short("kd"), 2, tmp_path / name, options, init_from=str(tmp_path / "parent"))
        heads.append(load_file(tmp_path / name / "model.safetensors")["classifier.weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_best_of_several_evaluations_is_kept_and_said_to_be_that(teacher, task, tmp_path):
    recipe = short("kd", "stages.0.select=best", "stages.0.patience=1", "stages.0.epochs=5")
    result = distill(teacher, task, recipe, 2, tmp_path / "s", QUIET)
    lines = [json.loads(line) for line in (tmp_path / "s" / "metrics.jsonl").read_text("utf-8").splitlines()]
    scores = [line["dev"]["accuracy"] for line in lines if "dev" in line]
    assert result.metrics["selected"] == f"best of {len(scores)}"
    assert result.metrics["accuracy"] == pytest.approx(max(scores))


def test_what_was_frozen_for_a_stage_is_free_again_in_the_next(teacher, task, tmp_path):
    distill(teacher, task, short("l-ild", "stages.1.learning_rate=1e-2"), 2, tmp_path / "s", QUIET)
    head = load_file(tmp_path / "s" / "model.safetensors")["classifier.weight"]
    start = AutoModelForSequenceClassification.from_pretrained(teacher).classifier.weight
    assert not torch.equal(head, start), "stage 1 freezes the head, stage 2 must train it"


def test_frozen_embeddings_stay_as_they_are(teacher, task, tmp_path):
    distill(teacher, task, short("kd", "student.embeddings=frozen"), 2, tmp_path / "s", QUIET)
    student, start = load_file(tmp_path / "s" / "model.safetensors"), load_file(f"{teacher}/model.safetensors")
    same = {name: torch.equal(weight, start[name]) for name, weight in student.items()}
    assert all(unchanged == ("embeddings" in name) for name, unchanged in same.items())


def test_finetuning_learns(task, tmp_path):
    base = save_tiny(tmp_path / "base", sharp=1.0)
    recipe = Recipe.load("finetune", ("stages.0.epochs=30", "stages.0.batch_size=8", "stages.0.learning_rate=3e-3"))
    result = finetune(str(base), task, tmp_path / "teacher", recipe, QUIET)
    assert result.metrics["accuracy"] > 0.8
    assert result.data["teacher"] is None
    assert result.data["train"]["teacher_share"] == 0


def test_regression_works_with_every_core_recipe(tmp_path):
    rows = "".join(f"{'good ' * (i % 5 + 1)}film,{(i % 5) / 2}\n" for i in range(20))
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text("text,label\n" + rows, "utf-8")
    task = Task.from_files("regression", tmp_path)
    teacher = str(save_tiny(tmp_path / "teacher", labels=1))
    for name in ("kd", "tinybert", "rail-kd-l", "cr-ild"):
        metrics = distill(teacher, task, short(name), 2, tmp_path / name, QUIET).metrics
        assert set(metrics) == {"pearson", "spearman", "selected"}


def test_labels_in_another_order_are_mended_and_other_labels_refused(teacher, tmp_path, caplog):
    for name, labels in (("permuted", ["good", "bad", "fine"]), ("different", ["yes", "no", "maybe"])):
        folder = tmp_path / name
        folder.mkdir()
        text = "text,label\n" + "".join(f"film {labels[i % 3]},{labels[i % 3]}\n" for i in range(12))
        for split in ("train", "dev"):
            (folder / f"{split}.csv").write_text(text, "utf-8")
    caplog.set_level(logging.INFO, "layerstill")
    permuted = Task.from_files("classification", tmp_path / "permuted")
    permuted = permuted.with_label_order(("good", "fine", "bad"))
    result = distill(teacher, permuted, short("kd"), 2, tmp_path / "s", QUIET)
    assert "label order of teacher" in caplog.text
    assert AutoModelForSequenceClassification.from_pretrained(result.folder).config.id2label[0] == "bad"
    different = Task.from_files("classification", tmp_path / "different")
    with pytest.raises(UserError, match="knows the labels bad, fine, good, and the data have maybe, no, yes"):
        distill(teacher, different, short("kd"), 2, tmp_path / "t", QUIET)
    assert not (tmp_path / "t").exists()


def test_models_that_cannot_be_used_are_refused(teacher, task, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        distill(str(tmp_path / "none"), task, short("kd"), 2, tmp_path / "s", QUIET)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config.json in it"):
        distill(str(tmp_path / "empty"), task, short("kd"), 2, tmp_path / "s", QUIET)
    from transformers import BertForQuestionAnswering, BertModel

    from tests.tiny import tiny_config

    BertModel(tiny_config("bert")).save_pretrained(tmp_path / "headless")
    with pytest.raises(UserError, match=r"has no task head \(BertModel\); fine-tune it first"):
        distill(str(tmp_path / "headless"), task, short("kd"), 2, tmp_path / "s", QUIET)
    BertForQuestionAnswering(tiny_config("bert")).save_pretrained(tmp_path / "answers")
    with pytest.raises(
        UserError, match=r"BertForQuestionAnswering: it marks the answer in a text, which is not one of"
    ):
        distill(str(tmp_path / "answers"), task, short("kd"), 2, tmp_path / "s", QUIET)
    with pytest.raises(UserError, match="--student-layers 9: the teacher has 4 layers; choose 1 to 4"):
        distill(teacher, task, short("kd"), 9, tmp_path / "s", QUIET)
    with pytest.raises(UserError, match="random mapping without the final layer leaves no layer in a student of 1"):
        distill(teacher, task, short("rail-kd-l"), 1, tmp_path / "s", QUIET)
    with pytest.raises(UserError, match="a uniform mapping needs .*: 3 does not divide 4"):
        distill(teacher, task, short("att-kl", "student.initialisation=first-k"), 3, tmp_path / "s", QUIET)
    with pytest.raises(UserError, match="the model allows 64 tokens"):
        distill(teacher, task, short("kd"), 2, tmp_path / "long", Options(max_length=65, progress=False))


def test_a_ruined_student_does_not_take_the_place_of_a_good_checkpoint(teacher, task, tmp_path, monkeypatch):
    ends = []

    class Ruin(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 8:  # the last step of the second epoch
                next(model.parameters()).data.fill_(float("nan"))
                ends.append(state.global_step)

    original = stages.DistillationTrainer.__init__

    def with_ruin(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.add_callback(Ruin())

    monkeypatch.setattr(stages.DistillationTrainer, "__init__", with_ruin)
    with pytest.raises(ObjectiveError, match="the student's .* is not finite at step 8; the last checkpoint is kept"):
        distill(teacher, task, short("kd"), 2, tmp_path / "s", QUIET)
    assert ends == [8]
    kept = load_file(tmp_path / "s" / "checkpoints" / "stage-1" / "checkpoint-4" / "model.safetensors")
    assert all(weight.isfinite().all() for weight in kept.values())


def test_a_loss_that_blows_up_names_the_objective_and_keeps_the_checkpoint(teacher, task, tmp_path):
    recipe = short(
        "tinybert", "stages.0.learning_rate=1e38", "stages.0.optimiser.clip=0", "stages.0.optimiser.warmup=0.5"
    )
    with pytest.raises(ObjectiveError, match=r"became (nan|inf) at step"):
        distill(teacher, task, recipe, 2, tmp_path / "s", QUIET)


@pytest.mark.parametrize("family", ["distilbert", "modernbert", "albert", "mpnet", "deberta-v2", "llama", "gpt2"])
def test_other_families_go_from_teacher_to_a_student_that_loads(family, task, tmp_path):
    teacher = str(save_tiny(tmp_path / family, family))
    options = Options(max_length=32, progress=False, max_steps=2)
    result = distill(teacher, task, short("rail-kd-l"), 2, tmp_path / "s", options)
    student, report = AutoModelForSequenceClassification.from_pretrained(result.folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert student.config.num_hidden_layers == 2


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_decoder_that_names_no_padding_can_be_fine_tuned_and_distilled(family, task, tmp_path):
    base = save_tiny(tmp_path / "base", family, pad_token_id=None)
    options = Options(max_length=32, progress=False, max_steps=1)
    finetune(str(base), task, tmp_path / "t", None, options)
    folder = distill(str(tmp_path / "t"), task, short("kd"), 2, tmp_path / "s", options).folder
    assert json.loads((folder / "config.json").read_text("utf-8"))["pad_token_id"] == 0


def test_a_model_without_segments_gets_none_from_its_tokenizer(tmp_path):
    for split in ("train", "dev"):
        write_csv(tmp_path / f"{split}.csv", rows=12, two_texts=True)
    task = Task.from_files("classification", tmp_path, text_columns=("text", "other"))
    teacher = save_tiny(tmp_path / "teacher", "bert", type_vocab_size=1)
    options = Options(max_length=32, progress=False, max_steps=1)
    assert distill(str(teacher), task, short("kd"), 2, tmp_path / "s", options).metrics


def test_a_teacher_that_reads_or_computes_otherwise_is_another_teacher(teacher, task, tmp_path):
    distill(teacher, task, short("kd"), 2, tmp_path / "s", QUIET)
    config = tmp_path / "t" / "config.json"
    shutil.copytree(teacher, tmp_path / "t")
    config.write_text(config.read_text("utf-8").replace('"gelu"', '"relu"'), "utf-8")
    with pytest.raises(UserError, match="holds another run: teacher_fingerprint is"):
        distill(str(tmp_path / "t"), task, short("kd"), 2, tmp_path / "s", QUIET)


def test_what_is_not_an_unfinished_run_is_not_overwritten(teacher, task, tmp_path):
    theirs = tmp_path / "theirs"
    shutil.copytree(teacher, theirs)
    (theirs / "run.json").write_text('{"tool": "mine"}', "utf-8")
    with pytest.raises(UserError, match="not empty and not a run of layerstill"):
        distill(teacher, task, short("kd"), 2, theirs, QUIET)
    finished = distill(teacher, task, short("kd"), 2, tmp_path / "s", QUIET).folder
    student = (finished / "model.safetensors").read_bytes()
    (finished / "result.json").unlink()
    with pytest.raises(UserError, match="holds another run: seed is 0 there and 7 here"):
        distill(teacher, task, short("kd"), 2, finished, Options(seed=7, max_length=32, progress=False))
    assert (finished / "model.safetensors").read_bytes() == student
    (finished / "result.json").write_text("x", "utf-8")
    with pytest.raises(UserError, match=r"result.json: damaged; move it away and run the same command again"):
        distill(teacher, task, short("kd"), 2, finished, QUIET)


def test_buffers_of_layers_that_are_there_are_no_further_layers(teacher, task, tmp_path):
    base = save_tiny(tmp_path / "base", "gpt2")
    weights = load_file(base / "model.safetensors")
    weights["transformer.h.1.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    options = Options(max_length=32, progress=False, max_steps=1)
    assert distill(str(base), task, short("kd"), 2, tmp_path / "s", options).metrics
