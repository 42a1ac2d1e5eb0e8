"""What a run says it cost."""

import json
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from layerstill.acts import distill
from layerstill.data.encode import encode
from layerstill.data.tasks import Task
from layerstill.families import recorder_of, shape_of
from layerstill.knowledge.capture import CapturePlan
from layerstill.recipe import Recipe
from layerstill.training import stages
from layerstill.training.accounting import Spent, forward_flops, matmul_peak
from layerstill.training.arguments import Options
from layerstill.training.cache_choice import CacheOptions
from tests.command import status_of
from tests.tiny import batch, save_tiny, tiny_model, tiny_tokenizer, write_csv
from tests.training.test_module import HIDDEN, make, recipe_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert", "gpt2", "llama", "electra"])
@pytest.mark.parametrize("depth", [1, 4])
def test_operations_are_those_that_torch_counts(family, depth):
    model = tiny_model(family, attn_implementation="eager").eval()
    recorder = recorder_of(model)
    data = batch(rows=3, tokens=11)
    with FlopCounterMode(display=False) as counter:
        recorder.run(
            CapturePlan(hidden=frozenset({depth})), {"input_ids": data["input_ids"]}, data["attention_mask"].bool()
        )
    layers = recorder.layers[:depth]
    assert forward_flops(layers, shape_of(model.config).inner, 3, 11) == pytest.approx(
        counter.get_total_flops(), rel=0.04
    )


def test_a_step_counts_the_student_three_times_and_the_teacher_as_deep_as_it_runs():
    module = make(recipe_of({"h": HIDDEN | {"mapping": {"explicit": {"pairs": {"layer 2": "layer 3"}}}}})).train()
    module.freeze_unreached(batch())
    assert module.flops == 0
    module(**batch())
    places = batch()["attention_mask"].shape
    inner = shape_of(module.student.config).inner
    student, teacher = (recorder_of(m).layers for m in (module.student, module.teacher))
    wanted = 3 * forward_flops(student, inner, *places) + forward_flops(teacher[:3], inner, *places)
    assert module.flops == wanted


def test_the_record_counts_real_tokens_padding_and_operations(tmp_path):
    write_csv(tmp_path / "train.csv", rows=24)
    write_csv(tmp_path / "dev.csv", rows=6)
    task = Task.from_files("classification", tmp_path)
    teacher = str(save_tiny(tmp_path / "teacher"))
    recipe = Recipe.load("kd").limited(2, 8, 1e-3)
    tokens = 2 * sum(encode(task.splits["train"], tiny_tokenizer(), 32, task.head).dataset["length"])
    for where in ("off", str(tmp_path / "cache")):
        options = Options(max_length=32, progress=False, precision="fp32", cache=CacheOptions(where))
        train = distill(teacher, task, recipe, 2, tmp_path / f"s-{len(where)}", options).data["train"]
        assert train["tokens_per_second"] * train["seconds"] == pytest.approx(tokens, rel=0.02)
        assert 0 < train["padding_share"] < 0.5
        ratio = train["gflops_per_second"] / train["matmul_peak_gflops_per_second"]
        assert train["share_of_peak"] == pytest.approx(ratio, rel=0.1, abs=2e-3)


def test_shares_are_of_what_was_spent():
    spent = Spent(examples=10, steps=2, seconds=4.0, tokens=80, places=100, flops=8e9, teacher_seconds=1.0)
    found = spent.record("fp32", 4e9)
    assert (found["padding_share"], found["teacher_share"], found["share_of_peak"]) == (0.2, 0.25, 0.5)
    assert (found["gflops_per_second"], found["matmul_peak_gflops_per_second"]) == (2.0, 4.0)


def test_no_product_is_faster_than_the_peak():
    peak = matmul_peak(CPU, torch.float32, size=512)
    slow = matmul_peak(CPU, torch.float32, size=16)
    assert peak > slow > 0


def test_a_plan_knows_the_operations_that_a_run_then_counts(tmp_path, capsys):
    """Within what batches by length and the padding of short texts move."""
    write_csv(tmp_path / "train.csv", rows=24)
    write_csv(tmp_path / "dev.csv", rows=6)
    teacher = str(save_tiny(tmp_path / "teacher"))
    line = f"{teacher} --task classification --data {tmp_path} --student-layers 2 --recipe att-kl --max-length 32 -q"
    line += " --precision fp32 --epochs 2 --batch-size 8 --json"
    found = {}
    for verb, more in (("plan", []), ("distill", ["--cache", "off", "--output", str(tmp_path / "s")])):
        assert status_of(verb, *line.split(), *more) == 0
        found[verb] = json.loads(capsys.readouterr().out)
    planned = sum(s["student_tflop"] + s["teacher_tflop"] for s in found["plan"]["stages"])
    train = found["distill"]["train"]
    assert planned * 1e3 == pytest.approx(
        train["gflops_per_second"] * train["seconds"] * (1 - train["padding_share"]), rel=0.3
    )
    first = found["plan"]["stages"][0]
    assert first["teacher_tflop_cached"] == pytest.approx(first["teacher_tflop"] / 2)  # two epochs


def test_a_plan_says_what_a_cache_takes_in_the_precision_of_training(tmp_path, capsys):
    write_csv(tmp_path / "train.csv", rows=24)
    write_csv(tmp_path / "dev.csv", rows=6)
    teacher = str(save_tiny(tmp_path / "teacher"))
    line = f"{teacher} --task classification --data {tmp_path} --student-layers 2 --recipe hid-seq --max-length 32 --epochs 2"
    sizes = {}
    for precision in ("fp32", "bf16"):
        assert status_of("plan", *line.split(), "--precision", precision, "--json", "-q") == 0
        states, logits = json.loads(capsys.readouterr().out)["stages"]
        sizes[precision] = states["cache_gb"]
        assert logits["cache_gb"] == pytest.approx(24 * 3 * 4 / 1e9)
    assert sizes["fp32"] == pytest.approx(2 * sizes["bf16"])


def test_a_cache_that_was_filled_before_a_kill_is_not_forgotten(tmp_path, monkeypatch):
    write_csv(tmp_path / "train.csv", rows=16)
    write_csv(tmp_path / "dev.csv", rows=6)
    task = Task.from_files("classification", tmp_path)
    teacher, recipe = str(save_tiny(tmp_path / "teacher")), Recipe.load("kd").limited(2, 8, 1e-3)
    options = Options(max_length=32, progress=False, precision="fp32")
    fill = stages.TeacherCache.fill
    monkeypatch.setattr(stages.TeacherCache, "fill", lambda *a: (time.sleep(2), fill(*a))[1])
    saved = stages.DistillationTrainer._save_checkpoint

    def stop(self, *arguments):
        saved(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages.DistillationTrainer, "_save_checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            distill(teacher, task, recipe, 2, tmp_path / "s", options)
    monkeypatch.setattr(stages.TeacherCache, "fill", fill)
    train = distill(teacher, task, recipe, 2, tmp_path / "s", options).data["train"]
    assert train["seconds"] > 2
    assert train["teacher_share"] * train["seconds"] > 1.9
