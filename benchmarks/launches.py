"""What a training step asks of the machine besides arithmetic: operations, reads by the host, and time of a tiny model.

    python benchmarks/launches.py [--record FILE]

**Operations** are those that torch dispatches and that would start work on a GPU (views, which start none, are left
out), of one step of BERT-base, 12 to 6 layers with random weights, live, `tinybert`'s first stage with soft targets and
labels beside it: of the module alone, of the optimiser, and of the whole Trainer. **Reads** are numbers that Python
waits for. A count is the difference between a long training and a short one, so that nothing of the start is in it.

**Time** is the CPU time of a step of the Trainer and of a plain loop, on one thread: BERT of 4 and 2 layers, width 32,
batches of 16. They take turns every few steps, so that other work on the machine slows all of them down alike. The
plain loop runs both models and nothing else: forward, losses as the recipe has them, backward, clipping, AdamW, on
batches that were made before; the Trainer makes its own.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback, set_seed

from layerstill.heads import head_named
from layerstill.recipe import Recipe
from layerstill.training.arguments import Options, training_arguments
from layerstill.training.module import DistillationModule
from layerstill.training.trainer import DistillationTrainer

VIEWS = {
    *("view", "t", "transpose", "expand", "slice", "select", "as_strided", "detach", "unsqueeze", "permute", "alias"),
    *("squeeze", "split", "split_with_sizes", "unbind", "_unsafe_view", "lift_fresh", "_reshape_alias", "unflatten"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "narrow", "diagonal"),
}
"""Operations that start no work: another look at memory, or memory without content."""
FEWEST = 24
READ = "_local_scalar_dense"
TURN = 4
"""Steps that one loop takes before it is another's turn."""
RECIPE: dict[str, Any] = {
    "name": "launches",
    "student": {"initialisation": "random"},
    "stages": [
        {
            "epochs": 1,
            "learning_rate": 1e-4,
            "batch_size": 16,
            "objectives": {
                "task": {"signal": "labels"},
                "soft targets": {"signal": "logits", "distance": {"kl": {"temperature": 2}}},
                "attention": {"signal": "attention", "mapping": "uniform", "distance": "mse"},
                "hidden": {"signal": "hidden_states", "mapping": "uniform", "distance": "mse"},
            },
        }
    ],
}


class Counted(TorchDispatchMode):
    """Counts what torch dispatches below it."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name == READ:
            self.reads += 1
        elif name not in VIEWS:
            self.operations[name] += 1
        return func(*args, **(kwargs or {}))


def models(layers: tuple[int, int], width: int, heads: int) -> list[BertForSequenceClassification]:
    """Teacher and student with random weights."""
    set_seed(0)
    made = []
    for depth in layers:
        config = BertConfig(
            vocab_size=1000,
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            num_labels=2,
        )
        made.append(BertForSequenceClassification(config))
    return made


def rows(count: int, tokens: int) -> datasets.Dataset:
    """Random examples of equal length."""
    ids = torch.randint(5, 1000, (count, tokens)).tolist()
    return datasets.Dataset.from_list(
        [{"input_ids": one, "labels": i % 2, "length": tokens} for i, one in enumerate(ids)]
    )


def collate(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """A batch of texts of equal length."""
    ids = torch.tensor([example["input_ids"] for example in examples])
    labels = torch.tensor([example["labels"] for example in examples])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def module_of(teacher: BertForSequenceClassification, student: BertForSequenceClassification) -> DistillationModule:
    """The student under `RECIPE`'s only stage."""
    stage = Recipe.from_data(RECIPE).stages[0]
    return DistillationModule(student, teacher, stage, 0, head_named("classification")).train()


def trained(
    module: DistillationModule, data: datasets.Dataset, steps: int, folder: Path, *callbacks: TrainerCallback
) -> None:
    """Train so many steps with the Trainer."""
    options = Options(max_steps=steps, progress=False, precision="fp32")
    args = training_arguments(module.stage, folder / str(time.monotonic_ns()), options, "accuracy", len(data), 10**6)
    DistillationTrainer(module, args, train_dataset=data, data_collator=collate, callbacks=list(callbacks)).train()


def counted(run: Callable[[int], Any], short: int = 3, long: int = 6) -> tuple[Counter[str], float]:
    """Operations and reads of a step: the difference between two trainings, divided."""
    found = []
    for steps in (short, long):
        with Counted() as counter:
            run(steps)
        found.append(counter)
    operations = Counter({n: c / (long - short) for n, c in (found[1].operations - found[0].operations).items()})
    return operations, (found[1].reads - found[0].reads) / (long - short)


def step_of(module: DistillationModule) -> Callable[[dict[str, Tensor]], None]:
    """A step without the Trainer."""
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4, fused=True)

    def step(batch: dict[str, Tensor]) -> None:
        module(**batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        module.finish_step()

    return step


def plain_step(
    teacher: BertForSequenceClassification, student: BertForSequenceClassification
) -> Callable[[dict[str, Tensor]], None]:
    """What somebody writes by hand for the same recipe: outputs as transformers gives them, means over everything."""
    for model in (teacher, student):
        model.set_attn_implementation("eager")
    wanted = {"output_hidden_states": True, "output_attentions": True}
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=True)
    every = teacher.config.num_hidden_layers // student.config.num_hidden_layers

    def step(batch: dict[str, Tensor]) -> None:
        labels = batch["labels"]
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        with torch.no_grad():
            theirs = teacher(**inputs, **wanted)
        ours = student(**inputs, **wanted)
        loss = functional.cross_entropy(ours.logits, labels)
        kind, both = "batchmean", (ours.logits / 2, theirs.logits / 2)
        loss = loss + 4 * functional.kl_div(both[0].log_softmax(-1), both[1].softmax(-1), reduction=kind)
        for mine, other in zip(ours.attentions, theirs.attentions[every - 1 :: every], strict=True):
            loss = loss + functional.mse_loss(mine, other)
        for mine, other in zip(ours.hidden_states[1:], theirs.hidden_states[every::every], strict=True):
            loss = loss + functional.mse_loss(mine, other)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


def count_all(folder: Path) -> dict[str, Any]:
    """Operations and reads of BERT-base, 12 to 6 layers, by what is counted."""
    data = rows(16 * 8, 16)
    batches = [collate([data[i] for i in range(k, k + 4)]) for k in range(0, 24, 4)]
    by_name: dict[str, Any] = {}

    def alone(step: Callable[[dict[str, Tensor]], None]) -> Callable[[int], None]:
        for batch in batches[:2]:
            step(batch)  # the first ones are checked
        return lambda steps: [step(batch) for batch in batches[:steps]] and None

    teacher, student = models((12, 6), 768, 12)
    found = {
        "plain loop": counted(alone(plain_step(*models((12, 6), 768, 12)))),
        "module, optimiser": counted(alone(step_of(module_of(teacher, student)))),
        "Trainer": counted(lambda steps: trained(module_of(*models((12, 6), 768, 12)), data, steps, folder)),
    }
    for name, (operations, reads) in found.items():
        by_name[name] = {
            "operations": round(sum(operations.values())),
            "reads": reads,
            "most": {one: round(count) for one, count in operations.most_common(12)},
        }
    return by_name


class Turns(TrainerCallback):
    """After every few steps of the Trainer the other loops take as many; CPU seconds of a step of each."""

    def __init__(self, loops: dict[str, Callable[[dict[str, Tensor]], None]], batches: list[dict[str, Tensor]]) -> None:
        self.loops = loops
        self.batches = batches
        self.seconds: dict[str, list[float]] = {name: [] for name in (*loops, "Trainer")}
        self._begun: float | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take turns."""
        if state.global_step % TURN:
            return
        if self._begun is not None:
            self.seconds["Trainer"].append((time.process_time() - self._begun) / TURN)
        for name, step in self.loops.items():
            begun = time.process_time()
            for number in range(TURN):
                step(self.batches[(state.global_step + number) % len(self.batches)])
            self.seconds[name].append((time.process_time() - begun) / TURN)
        self._begun = time.process_time()


def time_all(folder: Path, steps: int) -> dict[str, float]:
    """Milliseconds of CPU time of a step of a tiny model: medians over turns, the first of which are left out."""
    data = rows(16 * (steps + 1), 32)
    batches = [collate([data[i] for i in range(k, k + 16)]) for k in range(0, 16 * min(steps, 64), 16)]
    alone = step_of(module_of(*models((4, 2), 32, 2)))
    turns = Turns({"plain loop": plain_step(*models((4, 2), 32, 2)), "module, optimiser": alone}, batches)
    trained(module_of(*models((4, 2), 32, 2)), data, steps, folder, turns)
    found = {name: round(1000 * median(values[2:]), 2) for name, values in turns.seconds.items()}
    plain = found["plain loop"]
    return found | {f"{name} / plain loop": round(value / plain, 3) for name, value in found.items() if value != plain}


def main() -> None:
    """Count, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="of each loop that is timed")
    parser.add_argument("--only", choices=["count", "time"])
    parser.add_argument("--record", type=Path)
    args = parser.parse_args()
    if args.steps < FEWEST:
        parser.error(f"--steps {args.steps}: the first turns are left out, so at least {FEWEST}")
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        if args.only != "time":
            found["BERT-base, 12 to 6"] = count_all(Path(name))
        if args.only != "count":
            found["milliseconds of CPU time, 4 to 2 layers of width 32"] = time_all(Path(name), args.steps)
    print(json.dumps(found, indent=1))
    if args.record:
        args.record.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
