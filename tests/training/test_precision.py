"""Training in bf16, with a teacher whose weights are bf16, against its slow twin in fp32.

Stated tolerance: 2.5% of a loss, and 2% of the gradient's length between the two gradients.
"""

import pytest
import torch
from safetensors.torch import load_file

from layerstill.acts import distill
from layerstill.data.tasks import Task
from layerstill.families import recorder_of
from layerstill.heads import Classes
from layerstill.knowledge.capture import AttentionRecord, Captured, CapturePlan
from layerstill.knowledge.counting import Places
from layerstill.knowledge.signals import Attention, HiddenStates, Relation
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training.arguments import Options
from layerstill.training.models import with_weights_in
from layerstill.training.module import DistillationModule
from tests.tiny import EXAMPLES, FAMILIES, batch, no_dropout, save_tiny, task_recipes, tiny_model, write_csv

STAGES = [(name, i) for name in task_recipes() for i in range(len(Recipe.load(name).stages))]


def bf16_against_fp32(recipe: str, stage: int, family: str) -> tuple[list[dict[str, float]], list[torch.Tensor]]:
    """The values of all terms and the gradient of the loss, first in fp32."""
    loaded = Recipe.load(recipe)
    values, gradients = [], []
    for dtype in (torch.float32, torch.bfloat16):
        teacher = tiny_model(family, **no_dropout(family))
        torch.manual_seed(1)
        student = build_student(teacher, 2, loaded.student, seed=0)
        module = DistillationModule(
            student, with_weights_in(teacher, dtype), loaded.stages[stage], 0, head=Classes(), examples=EXAMPLES
        ).train()
        module.clock.epoch, module.clock.epochs = 1, 2
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            out = module(**batch())
        out["loss"].backward()
        assert all(term.value.dtype == torch.float32 for term in out["terms"].values())
        values.append({name: term.value.item() for name, term in out["terms"].items()})
        gradients.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
    return values, gradients


@pytest.mark.parametrize(("recipe", "stage"), STAGES)
def test_losses_and_gradients_in_bf16_are_those_in_fp32(recipe, stage):
    values, (exact, rough) = bf16_against_fp32(recipe, stage, "bert")
    assert values[1] == pytest.approx(values[0], rel=0.025)
    assert 0 < (rough - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("recipe", ["rail-kd-l", "tinybert", "att-kl"])
@pytest.mark.parametrize("family", FAMILIES)
def test_so_they_are_in_every_family(family, recipe):
    """Within 10% of the gradient: a tiny student is nearly its teacher, so that little but rounding is left of it."""
    values, (exact, rough) = bf16_against_fp32(recipe, 0, family)
    assert values[1] == pytest.approx(values[0], rel=0.025)
    assert 0 < (rough - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "modernbert"])
def test_positions_of_a_teacher_in_bf16_are_those_in_fp32(family):
    """Rotary frequencies rounded to bf16 would turn the last of many tokens the wrong way."""
    tokens = 500
    teacher = tiny_model(family, max_position_embeddings=512).eval()
    ids, mask = torch.full((1, tokens), 7), torch.ones(1, tokens, dtype=torch.bool)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        with_weights_in(teacher, dtype)
        with torch.no_grad():
            plan = CapturePlan(attention=frozenset([1]))
            found.append(
                recorder_of(teacher).run(plan, {"input_ids": ids}, mask).attention[1].query.float()[:, :, -50:]
            )
    exact, rough = found
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


READ = {
    "scores": Attention(),
    "probabilities": Attention(form="probabilities"),
    "relation": Relation(of="Q-K", heads=2),
    "tokens": HiddenStates(),
    "mean": HiddenStates(pool="mean"),
}


@pytest.mark.parametrize("name", READ)
def test_signals_of_bf16_tensors_are_worked_out_in_float32(name):
    rng = torch.Generator().manual_seed(0)
    mask = batch()["attention_mask"].bool()
    values = []
    vectors = [torch.randn(4, 4, 9, 12, generator=rng).bfloat16() for _ in "qkv"]
    states = torch.randn(4, 9, 48, generator=rng).bfloat16()
    for kind in (torch.bfloat16, torch.float32):
        record = AttentionRecord(*(x.to(kind) for x in vectors), 0.3, None, False)
        captured = Captured(mask, hidden={1: states.to(kind)}, attention={1: record})
        values.append(READ[name].read(captured, 1, Places(mask, mask.any(1)), "excluded", "values")[0])
    assert torch.equal(*values)
