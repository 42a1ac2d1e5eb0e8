"""What each process of a pair does: command lines, one after the other, with the gradients of their steps written down.

Started by torchrun with a file of orders: `words` of a command line, a file for `gradients`, a step to `stop_at` or to
`kill_at`.
Then they train sharded, in a loop of their own. In the last order the second process dies.
"""

import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import TrainerCallback

from layerstill.cli import main
from layerstill.heads import Classes
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training import stages
from layerstill.training.batches import share
from layerstill.training.module import DistillationModule
from tests.tiny import batch, tiny_model

DistillationTrainer = stages.DistillationTrainer


class Notebook(TrainerCallback):
    """Writes the gradients of the first two steps to `gradients`-STAGE-STEP; stops the run after step `stop_at`."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        rank = int(os.environ.get("RANK", "0"))
        if "gradients" in self.order and state.global_step < 2:
            found = {
                n.removeprefix("module."): p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
            }
            stage = Path(args.output_dir).name
            save_file(found, f"{self.order['gradients']}-{stage}-{state.global_step}-{rank}")

    def on_step_end(self, args, state, control, **kwargs):
        if self.order.get("lose_at") == state.global_step and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.order.get("kill_at") == state.global_step:
            os.kill(os.getpid(), signal.SIGKILL)
        if state.global_step == self.order.get("stop_at"):
            raise KeyboardInterrupt


def follow(orders: list[dict[str, Any]]) -> list[int]:
    """Do all orders in this process; their exit statuses."""
    statuses = []
    gc.freeze()  # the Trainer collects garbage, which would visit every module that is imported
    for order in orders:

        class Noting(DistillationTrainer):
            def __init__(self, *args, noted=order, **kwargs):
                super().__init__(*args, **kwargs)
                self.add_callback(Notebook(noted))

        stages.DistillationTrainer = Noting
        sys.argv = ["layerstill", *order["words"]]
        try:
            main()
        except SystemExit as stop:
            statuses.append(stop.code if isinstance(stop.code, int) else 0)
    stages.DistillationTrainer = DistillationTrainer
    gc.unfreeze()
    return statuses


def own_loop(folder: Path, processes: int, process: int) -> None:
    """Two steps of TinyBERT's first stage in a plain loop, sharded by FSDP over several processes; saves the student."""
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    teacher = tiny_model(**quiet)
    recipe = Recipe.load("tinybert")
    module = DistillationModule(build_student(teacher, 2, recipe.student, 0), teacher, recipe.stages[0], 0, Classes())
    data = batch(8, lengths=[9, 4, 6, 9, 3, 5, 8, 7])
    module.freeze_unreached(data)
    units = module.count_units(data) / processes
    own = {name: values[share(8, processes, process)] for name, values in data.items()}
    if processes > 1:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (processes,))
        torch.distributed.fsdp.fully_shard(module, mesh=mesh)
    optimiser = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        module(units=units, **own)["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        module.finish_step()
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    whole = get_model_state_dict(module, options=options)
    if process == 0:
        student = build_student(teacher, 2, recipe.student, 0)
        state = {n.removeprefix("student."): w for n, w in whole.items() if n.startswith("student.")}
        student.save_pretrained(folder, state_dict=state)
        if processes > 1:
            rows = {type(p).__name__: p.to_local().shape[0] for p in module.student.classifier.parameters()}
            (folder / "shards.json").write_text(json.dumps(rows), "utf-8")


if __name__ == "__main__":
    file = Path(sys.argv[1])
    torch.set_num_threads(1)
    *orders, last = json.loads(file.read_text("utf-8"))
    statuses = follow(orders)
    own_loop(file.with_name("sharded"), 2, int(os.environ["RANK"]))
    file.with_name(f"statuses-{os.environ['RANK']}.json").write_text(json.dumps(statuses), "utf-8")
    sys.exit(follow([last])[0])
