"""Training in fp16 with a scaled loss: steps that overflow are left out, and a resumed run knows its scale."""

import json
import signal

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from layerstill.errors import ObjectiveError
from layerstill.heads import Classes
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training.arguments import arithmetic_of, dtype_of
from layerstill.training.loss_scale import SCALE_FILE
from layerstill.training.models import with_weights_in
from layerstill.training.module import DistillationModule
from tests.tiny import EXAMPLES, FAMILIES, batch, no_dropout, save_tiny, tiny_model, write_csv
from tests.training.forks import Forks, record, tear
from tests.training.test_precision import STAGES
from tests.training.test_trainer import Stop, Stopped, trainer

SCALE = 256.0


def fp16_against_fp32(recipe: str, stage: int, family: str) -> tuple[list[dict[str, float]], list[torch.Tensor]]:
    """The values of all terms and the gradient of the loss, first in fp32, then in fp16 with a scaled loss."""
    loaded = Recipe.load(recipe)
    values, gradients = [], []
    for dtype in (torch.float32, torch.float16):
        teacher = tiny_model(family, **no_dropout(family))
        torch.manual_seed(1)
        student = build_student(teacher, 2, loaded.student, seed=0)
        taught = with_weights_in(teacher, dtype)
        module = DistillationModule(student, taught, loaded.stages[stage], 0, Classes(), examples=EXAMPLES).train()
        module.clock.epoch, module.clock.epochs = 1, 2
        scale = SCALE if dtype is torch.float16 else 1.0
        with torch.autocast("cpu", torch.float16, enabled=dtype is torch.float16):
            out = module(**batch())
        (scale * out["loss"]).backward()
        assert all(term.value.dtype == torch.float32 for term in out["terms"].values())
        values.append({name: term.value.item() for name, term in out["terms"].items()})
        gradients.append(torch.cat([p.grad.flatten() / scale for p in module.parameters() if p.grad is not None]))
    return values, gradients


@pytest.mark.parametrize(("recipe", "stage"), STAGES)
def test_losses_and_gradients_in_fp16_are_those_in_fp32(recipe, stage):
    values, (exact, rough) = fp16_against_fp32(recipe, stage, "bert")
    assert values[1] == pytest.approx(values[0], rel=0.005)
    assert 0 < (rough - exact).norm() < 0.005 * exact.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_so_they_are_in_every_family(family):
    values, (exact, rough) = fp16_against_fp32("tinybert", 0, family)
    assert values[1] == pytest.approx(values[0], rel=0.01)
    assert 0 < (rough - exact).norm() < 0.02 * exact.norm()


class Watch(TrainerCallback):
    """Makes the gradients of some steps overflow, and writes down what each step did."""

    def __init__(self, *overflowing: int) -> None:
        self.overflowing = overflowing
        self.steps: list[dict] = []
        self.step = 0

    def on_train_begin(self, args, state, control, model=None, optimizer=None, lr_scheduler=None, **kwargs):
        self.model, self.optimizer, self.schedule = model, optimizer, lr_scheduler
        self.weight = next(p for p in model.student.parameters() if p.requires_grad)
        self.before = self.weight.detach().clone()
        self.weight.register_hook(lambda g: g * float("inf") if self.step in self.overflowing else g)

    def on_step_begin(self, args, state, control, **kwargs):
        self.step = state.global_step

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append(
            {
                "moved": not torch.equal(self.weight, self.before),
                "rate": self.schedule.get_last_lr()[0],
                "clock": self.model.clock.step,
                "scale": self.optimizer.scaler.get_scale(),
            }
        )
        self.before = self.weight.detach().clone()


def test_a_step_that_overflows_moves_neither_weights_nor_schedule_nor_clock(tmp_path):
    watch = Watch(3, 4)
    made = trainer(tmp_path, watch, fp16=True, max_grad_norm=1.0, logging_steps=1)
    made.accelerator.scaler.load_state_dict(made.accelerator.scaler.state_dict() | {"scale": 256.0})
    made.train()
    assert len(watch.steps) == 10
    for step, found in enumerate(watch.steps):
        taken = step not in (3, 4)
        before = watch.steps[step - 1] if step else {"rate": 1e-3, "scale": 256.0}
        assert found["moved"] == taken, step
        assert (found["rate"] < before["rate"]) == taken, step
        assert found["clock"] == sum(i not in (3, 4) for i in range(step)), "steps that were taken before"
        assert found["scale"] == before["scale"] / (1 if taken else 2), step
    logged = [entry for entry in made.state.log_history if "loss" in entry]
    assert [entry["steps_left_out"] for entry in logged] == [0, 0, 0, 1, 2, 2, 2, 2, 2, 2]
    assert [i for i, entry in enumerate(logged) if "grad_norm" not in entry] == [3, 4]


def test_gradients_are_unscaled_before_they_are_cut(tmp_path):
    """With plain descent a step is the cut gradient: it may not depend on the scale, nor on cutting at another time."""
    steps, lengths = [], []
    for name, precise in (("exact", {"fp16": False}), ("small", {"fp16": True}), ("large", {"fp16": True})):
        made = trainer(tmp_path / name, max_steps=1, max_grad_norm=0.01, logging_steps=1, optim="sgd", **precise)
        if name != "exact":
            scale = {"small": 8.0, "large": 2.0**15}[name]
            made.accelerator.scaler.load_state_dict(made.accelerator.scaler.state_dict() | {"scale": scale})
        before = torch.cat([p.detach().flatten().clone() for p in made.module.parameters() if p.requires_grad])
        made.train()
        after = torch.cat([p.detach().flatten() for p in made.module.parameters() if p.requires_grad])
        steps.append((after - before).norm().item())
        lengths.append(next(entry["grad_norm"] for entry in made.state.log_history if "loss" in entry))
    assert lengths[0] > 0.1, "so that there is something to cut"
    assert lengths[1:] == pytest.approx([lengths[0]] * 2, rel=0.02)
    assert steps == pytest.approx([0.01 * 1e-3] * 3, rel=0.05)


def test_a_scale_that_collapses_stops_the_run_in_words(tmp_path):
    made = trainer(tmp_path, Watch(*range(100)), fp16=True, num_train_epochs=10)
    with pytest.raises(ObjectiveError, match="gradients do not fit into fp16 at step 17: .* Use --precision bf16 or"):
        made.train()


def test_a_resumed_training_has_the_scale_and_the_steps_left_out(tmp_path):
    whole = trainer(tmp_path / "whole", Watch(1, 6), fp16=True, save_steps=3, save_strategy="steps")
    whole.train()
    with pytest.raises(Stopped):
        trainer(tmp_path / "cut", Watch(1, 6), Stop(5), fp16=True, save_steps=3, save_strategy="steps").train()
    saved = json.loads((tmp_path / "cut" / "checkpoint-3" / SCALE_FILE).read_text())
    assert saved["left_out"] >= 1
    again = trainer(tmp_path / "cut", Watch(1, 6), fp16=True, save_steps=3, save_strategy="steps")
    again.train(resume_from_checkpoint=True)
    assert again.accelerator.scaler.state_dict() == whole.accelerator.scaler.state_dict()
    for (name, ours), theirs in zip(whole.module.state_dict().items(), again.module.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.slow
def test_a_run_in_fp16_that_is_killed_ends_as_if_nothing_had_happened(tmp_path):
    save_tiny(tmp_path / "teacher")
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "train.csv", rows=21)
    write_csv(tmp_path / "data" / "dev.csv", rows=6, seed=1)
    words = (
        f"distill {tmp_path}/teacher --task classification --data {tmp_path}/data --max-length 32 --student-layers 2"
    )
    words += " -q --recipe rail-kd-l --epochs 2 --batch-size 4 --learning-rate 1e-3 --precision fp16 --output"
    forks = Forks()
    try:
        assert forks([*words.split(), tmp_path / "whole"])["status"] == 0
        killed = forks([*words.split(), tmp_path / "cut"], folder=tmp_path / "cut", lines=8)
        assert killed["status"] == -signal.SIGKILL, killed["err"]
        tear(tmp_path / "cut")
        assert forks([*words.split(), tmp_path / "cut"])["status"] == 0
    finally:
        forks.close()
    whole, cut = record(tmp_path / "whole"), record(tmp_path / "cut")
    assert whole == cut
    assert whole["result.json"]["train"]["precision"] == "fp16"
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert all("loss_scale" in line for line in lines if "loss" in line)
    assert all(w.dtype == torch.float32 for w in load_file(tmp_path / "whole" / "model.safetensors").values())


def test_fp16_is_what_is_asked_for_and_nothing_that_auto_chooses():
    assert (arithmetic_of("fp16"), dtype_of("fp16")) == ("fp16", torch.float16)
    assert arithmetic_of("auto") in {"fp32", "bf16"}
