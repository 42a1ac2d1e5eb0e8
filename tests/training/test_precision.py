"""Training in bf16 against its slow twin in fp32. Stated tolerance: 0.5% of a loss, 2% of a gradient's norm."""

import pytest
import torch
from safetensors.torch import load_file

from layerstill.data.tasks import Task
from layerstill.recipe import Recipe, shipped_recipes
from layerstill.students.build import build_student
from layerstill.training.arguments import Options
from layerstill.training.module import DistillationModule
from layerstill.training.run import distill
from tests.tiny import batch, no_dropout, save_tiny, tiny_model, write_csv

STAGES = [(name, i) for name in shipped_recipes() for i in range(len(Recipe.load(name).stages))]
FIRST_TOKENS = {("pkd", 0), ("hid-cls", 0)}
"""Refused in causal models."""


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize(("recipe", "stage"), STAGES)
def test_losses_and_gradients_in_bf16_are_those_in_fp32(recipe, stage, family):
    family = "roberta" if family == "llama" and (recipe, stage) in FIRST_TOKENS else family
    loaded = Recipe.load(recipe)
    teacher = tiny_model(family, **no_dropout(family))
    torch.manual_seed(1)
    student = build_student(teacher, 2, loaded.student, seed=0)
    module = DistillationModule(student, teacher, loaded.stages[stage], 0, regression=False).train()
    module.clock.epoch, module.clock.epochs = 1, 2
    values, gradients = [], []
    for enabled in (False, True):
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = module(**batch())
        out["loss"].backward()
        assert all(term.value.dtype == torch.float32 for term in out["terms"].values())
        values.append({name: term.value.item() for name, term in out["terms"].items()})
        gradients.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
    exact, rough = gradients
    assert values[1] == pytest.approx(values[0], rel=5e-3)
    assert 0 < (rough - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("recipe", ["kd", "rail-kd-l", "cr-ild", "tinybert"])
def test_a_run_in_bf16_ends_near_one_in_fp32(recipe, tmp_path):
    """Weights, which stay in fp32, moved the same way: the two ends are apart by less than a tenth of the way. It is not
    less, since AdamW's steps are as long for a gradient that is all rounding as for any other."""
    for split, rows in (("train", 32), ("dev", 6)):
        write_csv(tmp_path / f"{split}.csv", rows=rows)
    task = Task.from_files("classification", tmp_path)
    teacher = tiny_model("bert", **no_dropout("bert"))
    folder = str(save_tiny(tmp_path / "teacher", "bert", **no_dropout("bert")))
    short = Recipe.load(recipe).limited(4, 8, 1e-3)
    ends = {}
    for precision in ("fp32", "bf16"):
        options = Options(max_length=32, progress=False, precision=precision)
        student = distill(folder, task, short, 2, tmp_path / precision, options).folder
        ends[precision] = load_file(student / "model.safetensors")
        assert all(w.dtype == torch.float32 for w in ends[precision].values())
    start = build_student(teacher, 2, short.student, seed=0).state_dict()
    way, apart = ({n: w[n] - v for n, v in ends["fp32"].items()} for w in (start, ends["bf16"]))
    way, apart = (torch.cat([d.flatten() for d in differences.values()]).norm() for differences in (way, apart))
    assert 0 < apart < 0.1 * way
