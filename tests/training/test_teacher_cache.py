"""The teacher cache: what is read is what a live teacher gives; what is missing, foreign or damaged is refused."""

import json
import logging
import re

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from layerstill.acts import distill
from layerstill.data.encode import Collator, encode
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.heads import Classes
from layerstill.knowledge import meeting
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training import cache_choice, teacher_cache
from layerstill.training.arguments import Options
from layerstill.training.cache_choice import CacheOptions
from layerstill.training.models import with_weights_in
from layerstill.training.module import DistillationModule
from layerstill.training.teacher_cache import Contents, TeacherCache
from layerstill.training.teacher_source import TeacherSource
from tests.command import status_of
from tests.tiny import EXAMPLES, no_dropout, save_tiny, task_recipes, tiny_model, tiny_tokenizer, write_csv

CPU = torch.device("cpu")


@pytest.fixture
def task(tmp_path):
    for split, rows in (("train", 30), ("dev", 9)):
        write_csv(tmp_path / f"{split}.csv", rows=rows)
    return Task.from_files("classification", tmp_path)


@pytest.fixture
def data(task):
    return encode(task.splits["train"], tiny_tokenizer(), 32, task.head).dataset


def module_for(recipe: str, stage: int, family: str = "bert") -> DistillationModule:
    loaded = Recipe.load(recipe)
    teacher = tiny_model(family, **no_dropout(family))
    torch.manual_seed(1)
    student = build_student(teacher, 2, loaded.student, seed=0)
    return DistillationModule(student, teacher, loaded.stages[stage], 0, Classes(), examples=EXAMPLES).train()


def cacheable():
    for name in task_recipes():
        loaded = Recipe.load(name)
        for i, stage in enumerate(loaded.stages):
            words = stage.objectives.values()
            if loaded.needs_teacher and not any(o.batch_coupled or o.padding == "included" for o in words):
                yield name, i


@pytest.mark.parametrize(("recipe", "stage"), list(cacheable()))
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_cached_teacher_teaches_what_a_live_one_does(recipe, stage, family, data, tmp_path):
    if family == "llama" and recipe in {"pkd", "hid-cls", "hid-cls-contrast", "text-hid-cls"}:
        family = "roberta"  # the first token of a causal model says nothing
    module = module_for(recipe, stage, family)
    contents = Contents.of(module.objectives)
    cache = TeacherCache(tmp_path / "cache", "teacher", contents)
    assert cache.fill(data, module.source.ask, Collator(tiny_tokenizer(), Classes()), CPU) == len(set(data["content"]))
    reopened = TeacherCache(tmp_path / "cache", "teacher", contents)
    batch = Collator(tiny_tokenizer(), Classes())([data[i] for i in (3, 0, 11, 7)])
    results = []
    for used in (None, cache, reopened):
        module.source.cache = used
        module.zero_grad()
        out = module(**batch)
        out["loss"].backward()
        gradients = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        results.append(({n: t.value.detach() for n, t in out["terms"].items()}, gradients))
    for terms, gradients in results[1:]:
        for name, value in terms.items():
            torch.testing.assert_close(value, results[0][0][name], rtol=2e-5, atol=1e-6)
        assert gradients.keys() == results[0][1].keys()
        for name, value in gradients.items():
            torch.testing.assert_close(value, results[0][1][name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("family", ["roberta", "llama", "opt"])
def test_what_was_cached_is_found_in_a_batch_that_is_padded_on_the_left(family, data, tmp_path):
    module = module_for("att-kl+hid-seq", 0, family)
    collate = Collator(tiny_tokenizer(), Classes())
    cache = TeacherCache(tmp_path, "t", Contents.of(module.objectives))
    cache.fill(data, module.source.ask, collate, CPU)
    batch = collate([data[i] for i in (3, 0, 11, 7)])
    lengths = batch["attention_mask"].sum(1).tolist()
    assert len(set(lengths)) > 1
    for name, value in batch.items():
        if isinstance(value, torch.Tensor) and value.ndim == 2:
            moved = [row.roll(len(row) - n) for row, n in zip(value, lengths, strict=True)]
            batch[name] = F.pad(torch.stack(moved), (2, 0))
    live = module(**batch)["terms"]
    module.source.cache = cache
    cached = module(**batch)["terms"]
    for name, term in live.items():
        torch.testing.assert_close(cached[name].value, term.value, rtol=2e-5, atol=1e-6)


def test_a_teacher_cached_in_bf16_is_the_live_one_of_a_training_in_bf16(data, tmp_path):
    """To the last digit, if its batches are the same; 32 bits would not be."""
    module = module_for("tinybert", 0)
    assert module.teacher is not None
    contents = Contents.of(module.objectives)
    exact, cache = TeacherCache(tmp_path, "t", contents), TeacherCache(tmp_path, "t", contents, "bf16")
    assert cache.folder != exact.folder
    few = data.select([3, 0, 11, 7])
    exact.fill(few, module.source.ask, Collator(tiny_tokenizer(), Classes()), CPU)
    with_weights_in(module.teacher, torch.bfloat16)
    cache.fill(few, module.source.ask, Collator(tiny_tokenizer(), Classes()), CPU)
    batch = Collator(tiny_tokenizer(), Classes())(
        [few[i] for i in sorted(range(4), key=lambda i: -len(few[i]["input_ids"]))]
    )
    terms = {}
    for name, used in (("live", None), ("bf16", cache), ("fp32", exact)):
        module.source.cache = used
        with torch.autocast("cpu", torch.bfloat16):
            terms[name] = {n: t.value.item() for n, t in module(**batch)["terms"].items()}
    assert terms["bf16"] == terms["live"]
    assert terms["fp32"] != terms["live"]


@pytest.mark.parametrize("distance", ["mse", "kl"])
@pytest.mark.parametrize("of", ["V-V", "Q-Q"])
def test_relations_in_parts_need_only_the_vectors_that_a_cache_holds(of, distance, data, tmp_path, monkeypatch):
    objective = {"signal": {"relation": {"of": of, "heads": 6}}, "mapping": "last", "distance": distance}
    recipe = Recipe.from_data({"stages": [{"epochs": 1, "learning_rate": 1, "objectives": {"relations": objective}}]})
    monkeypatch.setattr(Recipe, "load", lambda name: recipe)
    module = module_for("relations", 0)
    module.source.cache = TeacherCache(tmp_path, "t", Contents.of(module.objectives))
    module.source.cache.fill(data, module.source.ask, Collator(tiny_tokenizer(), Classes()), CPU)
    batch = Collator(tiny_tokenizer(), Classes())([data[i] for i in (3, 0, 11, 7)])
    whole = module(**batch)["loss"]
    monkeypatch.setattr(meeting, "MAP_ELEMENTS", 0)
    monkeypatch.setattr(meeting, "PART_ELEMENTS", 2 * batch["input_ids"].shape[1] ** 2)
    torch.testing.assert_close(module(**batch)["loss"], whole)


def test_of_attention_only_what_is_read_is_stored(data, tmp_path):
    for recipe, names in (("att-kl", {"query", "key"}), ("att-kl+val-kl", {"query", "key", "value"})):
        module = module_for(recipe, 0)
        cache = TeacherCache(tmp_path, recipe, Contents.of(module.objectives))
        cache.fill(data, module.source.ask, Collator(tiny_tokenizer(), Classes()), CPU)
        stored = load_file(next(cache.folder.glob("shard-*.safetensors")))
        assert {n.split(".")[0] for n in stored} - {"lengths", "content", "checksum", "logits"} == names


def test_padding_is_not_stored_and_pooled_states_are_small(data, tmp_path):
    module = module_for("rail-kd-l", 0)
    cache = TeacherCache(tmp_path, "t", Contents.of(module.objectives))
    cache.fill(data, module.source.ask, Collator(tiny_tokenizer(), Classes()), CPU)
    stored = load_file(next(cache.folder.glob("shard-*.safetensors")))
    assert {n.split(".")[0] for n in stored} == {"pooled", "logits", "lengths", "content", "checksum"}
    module = module_for("hid-seq", 0)
    cache = TeacherCache(tmp_path, "t", Contents.of(module.objectives))
    cache.fill(data, module.source.ask, Collator(tiny_tokenizer(), Classes()), CPU)
    stored = load_file(next(cache.folder.glob("shard-*.safetensors")))
    assert stored["hidden.2"].shape == (int(stored["lengths"].sum()), 48)


def test_a_filling_that_was_stopped_goes_on_and_runs_share_what_is_there(data, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_cache, "SHARD_EXAMPLES", 4)
    module = module_for("kd", 0)
    asked = []

    def teacher(plan, inputs, mask):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(len(mask))
        return module.source.ask(plan, inputs, mask)

    contents, collator = Contents.of(module.objectives), Collator(tiny_tokenizer(), Classes())
    with pytest.raises(KeyboardInterrupt):
        TeacherCache(tmp_path, "t", contents).fill(data, teacher, collator, CPU)
    cache = TeacherCache(tmp_path, "t", contents)
    assert len(cache.places) == 12
    assert cache.fill(data, module.source.ask, collator, CPU) == len(set(data["content"])) - 12
    assert TeacherCache(tmp_path, "t", contents).fill(data, teacher, collator, CPU) == 0
    assert TeacherCache(tmp_path, "another", contents).missing(data["content"])


def test_what_is_missing_foreign_or_damaged_is_refused(data, tmp_path):
    module = module_for("kd", 0)
    contents, collator = Contents.of(module.objectives), Collator(tiny_tokenizer(), Classes())
    cache = TeacherCache(tmp_path, "t", contents)
    cache.fill(data.select(range(3)), module.source.ask, collator, CPU)
    batch = collator([data[i] for i in (0, 9)])
    with pytest.raises(UserError, match="an example of this batch is not in the teacher cache"):
        cache.read(batch["content"], batch["attention_mask"].bool())
    shard = next(cache.folder.glob("shard-*"))
    whole = shard.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 4
    for damaged in (whole[:-9], bytes(flipped)):
        shard.write_bytes(damaged)
        with pytest.raises(
            UserError, match=r"shard-00000.safetensors: damaged .*; delete the file and its examples are made"
        ):
            TeacherCache(tmp_path, "t", contents)
    shard.write_bytes(whole)
    (cache.folder / "shard-copy.safetensors").write_bytes(whole[:9])  # nobody's
    assert len(TeacherCache(tmp_path, "t", contents).places) == 3
    settings = json.loads((cache.folder / "cache.json").read_text("utf-8"))
    for damaged in ("[]", "5", "null", '{"attention": 3}', "{"):
        (cache.folder / "cache.json").write_text(damaged, "utf-8")
        with pytest.raises(UserError, match=r"cache.json: damaged; delete .* and it is made again"):
            TeacherCache(tmp_path, "t", contents)
    (cache.folder / "cache.json").write_text(json.dumps(settings | {"teacher": "u"}), "utf-8")
    with pytest.raises(UserError, match="another cache: teacher is 'u' there and 't' here"):
        TeacherCache(tmp_path, "t", contents)


@pytest.mark.parametrize(
    ("recipe", "epochs", "options", "line"),
    [
        (
            "rail-kd-l",
            2,
            CacheOptions(),
            "on, logits, mean of layer 1, mean of layer 2, mean of layer 3 of 30 examples",
        ),
        ("kd", 2, CacheOptions("off"), ""),
        ("kd", 1, CacheOptions(), "off, because the stage sees its examples 1.* times"),
        ("cr-ild", 2, CacheOptions(), "off, because .* feeds the teacher mixed inputs, which are never the same twice"),
        (
            "hid-seq",
            2,
            CacheOptions(budget_gb=1e-6),
            "off, because .* take .* kB more, and --cache-budget leaves 1 kB",
        ),
    ],
)
def test_auto_says_what_it_decided_and_why(recipe, epochs, options, line, task, tmp_path, caplog):
    caplog.set_level(logging.INFO, "layerstill")
    teacher = str(save_tiny(tmp_path / "teacher"))
    short = Recipe.load(recipe).limited(epochs, 8, 1e-3)
    folder = distill(
        teacher, task, short, 2, tmp_path / "s", Options(max_length=32, progress=False, cache=options)
    ).folder
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("teacher cache: ")]
    assert bool(said) == bool(line)
    assert not said or re.match(f"teacher cache: {line}", said[0])
    assert not (folder / "teacher-cache").exists()


def test_a_cached_run_learns_what_a_live_one_does(task, tmp_path):
    teacher = str(save_tiny(tmp_path / "teacher", **no_dropout("bert")))
    recipe = Recipe.load("rail-kd-l").limited(2, 8, 1e-3)
    students, losses = [], []
    for where in ("off", "auto", str(tmp_path / "shared"), str(tmp_path / "shared")):
        options = Options(max_length=32, progress=False, cache=CacheOptions(where))
        folder = distill(teacher, task, recipe, 2, tmp_path / f"s{len(students)}", options).folder
        students.append(load_file(folder / "model.safetensors"))
        losses.append([json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()])
    for cached in losses[1:]:
        assert cached == pytest.approx(losses[0], rel=1e-3)
    assert len(list((tmp_path / "shared").glob("teacher-*"))) == 1
    assert all(torch.equal(students[2][n], students[3][n]) for n in students[2])


@pytest.mark.parametrize(
    ("recipe", "more", "stages"),
    [
        ("rail-kd-l", "", 1),
        ("rail-kd-l", "--few-samples 12 --regime seed=run --seed 3", 1),
        ("kd", "--few-samples 12 --label-noise 0.3 --init-from {teacher} --init last-k", 1),
        ("l-ild-supplementary", "--few-samples 20 --supplementary {texts}", 2),
    ],
)
def test_a_cache_filled_ahead_is_what_a_run_then_reads(recipe, more, stages, task, tmp_path, capsys, monkeypatch):
    """Also with a smaller vocabulary, which depends on the examples, and of every stage that can."""
    teacher = str(save_tiny(tmp_path / "teacher"))
    (tmp_path / "texts.txt").write_text("some film\nor the other plot\n", "utf-8")
    line = f"{teacher} --task classification --data {tmp_path} --student-layers 2 --recipe {recipe} --max-length 32"
    line += f" --set student.vocabulary=train --cache {tmp_path / 'shared'} -q "
    line += more.format(teacher=teacher, texts=tmp_path / "texts.txt")
    filled = []
    for _ in range(2):
        assert status_of("cache", *line.split(), "--json") == 0
        found = json.loads(capsys.readouterr().out)
        filled.append([(stage["examples"], stage["new"]) for stage in found])
    assert len(filled[0]) == stages
    assert filled == [[(examples, examples) for examples, _ in filled[0]], [(examples, 0) for examples, _ in filled[0]]]

    def never(self, *args):
        raise AssertionError("the teacher ran")

    monkeypatch.setattr(TeacherSource, "ask", never)
    assert status_of("distill", *line.split(), "--epochs", "1", "--output", str(tmp_path / "s")) == 0


@pytest.mark.parametrize(("runs", "filled"), [(1, False), (4, True), (None, True)])
def test_a_shared_cache_must_be_read_as_often_as_it_is_filled(runs, filled, task, tmp_path):
    """Half of the examples in each run: four runs see all of them twice."""
    teacher = str(save_tiny(tmp_path / "teacher"))
    options = Options(max_length=32, progress=False, cache=CacheOptions(str(tmp_path / "shared"), runs=runs))
    recipe = Recipe.load("kd").limited(0.5, 4, 1e-3)
    distill(teacher, task, recipe, 2, tmp_path / "s", options)
    assert (tmp_path / "shared").exists() is filled


def test_a_cache_filled_ahead_leaves_stages_on_other_texts_out(task, tmp_path, capsys):
    teacher = str(save_tiny(tmp_path / "teacher"))
    line = f"{teacher} --task classification --data {tmp_path} --student-layers 2 --recipe l-ild-supplementary"
    line += f" --max-length 32 --cache {tmp_path / 'shared'} --json -q"
    assert status_of("cache", *line.split()) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["stage"], found["contents"]) == (2, "logits")


@pytest.mark.parametrize(
    ("recipe", "where", "line"),
    [
        (
            "finetune",
            "shared",
            "recipe 'finetune': none of its stages can read its teacher from a cache; nothing was written",
        ),
        ("kd", "auto", "--cache auto: name a directory, such as ./auto, which runs then share"),
    ],
)
def test_what_cannot_be_cached_ahead_is_refused(recipe, where, line, task, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    teacher = str(save_tiny(tmp_path / "teacher"))
    words = f"{teacher} --task classification --data {tmp_path} --student-layers 2 --recipe {recipe} --cache {where} -q"
    words += " --max-length 32"
    assert status_of("cache", *words.split()) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == f"error: {line}"
    assert not (tmp_path / where).exists()


def test_what_fp16_would_not_hold_is_kept(data, tmp_path):
    """Decoders have such states."""
    module = module_for("tinybert", 0)
    assert module.teacher is not None
    with torch.no_grad():
        module.teacher.bert.encoder.layer[1].output.LayerNorm.weight[0] = 9e4
    cache = TeacherCache(tmp_path, "t", Contents.of(module.objectives), "bf16")
    cache.fill(data, module.source.ask, Collator(tiny_tokenizer(), Classes()), CPU)
    batch = Collator(tiny_tokenizer(), Classes())([data[0], data[1]])
    read = cache.read(batch["content"], batch["attention_mask"].bool())
    assert 65504 < read.hidden[2].abs().max() < float("inf")


def test_a_teacher_that_is_not_finite_is_not_kept(data, tmp_path):
    module = module_for("tinybert", 0)
    assert module.teacher is not None
    with torch.no_grad():
        module.teacher.bert.encoder.layer[1].output.LayerNorm.weight[0] = float("nan")
    cache = TeacherCache(tmp_path, "t", Contents.of(module.objectives))
    with pytest.raises(UserError, match="the teacher's hidden.2 is not finite on some of the examples"):
        cache.fill(data, module.source.ask, Collator(tiny_tokenizer(), Classes()), CPU)
    assert not list(cache.folder.glob("shard-*"))


def test_a_cache_that_holds_all_is_used_and_counts_against_the_budget_of_others(task, tmp_path, caplog):
    """RAIL-KD takes 30 examples x 2.3 kB, KD 30 x 12 bytes, which do not fit beside it."""
    caplog.set_level(logging.INFO, "layerstill")
    teacher = str(save_tiny(tmp_path / "teacher"))
    for number, (recipe, budget) in enumerate([("rail-kd-l", 4.0), ("rail-kd-l", 1e-5), ("kd", 1e-5), ("kd", 4.0)]):
        kept = CacheOptions(str(tmp_path / "shared"), budget)
        options = Options(max_length=32, progress=False, precision="fp32", cache=kept)
        distill(teacher, task, Recipe.load(recipe).limited(1, 8, 1e-3), 2, tmp_path / f"s{number}", options)
    said = [r.getMessage().split(",")[0] for r in caplog.records if r.getMessage().startswith("teacher cache: ")]
    assert said == [f"teacher cache: {word}" for word in ("on", "on", "off", "on")]
    assert "of 30 examples are already there" in caplog.text
    assert len(list((tmp_path / "shared").glob("teacher-*"))) == 2


@pytest.mark.parametrize("there", [False, True])
def test_half_of_the_free_disk_is_left_free(there, task, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "layerstill")
    if there:
        (tmp_path / "shared").mkdir()
    monkeypatch.setattr(cache_choice, "_free_gigabytes", lambda place: 1e-9)
    options = Options(max_length=32, progress=False, cache=CacheOptions(str(tmp_path / "shared")))
    teacher = str(save_tiny(tmp_path / "teacher"))
    distill(teacher, task, Recipe.load("kd").limited(1, 8, 1e-3), 2, tmp_path / "s", options)
    assert "more, and half of the free disk leaves less than 1 kB" in caplog.text
    assert not list(tmp_path.glob("shared/*"))
