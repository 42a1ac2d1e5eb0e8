"""`DistillationTrainer`: the training loop around a distillation module.

What it adds to the loop: losses divided once, over accumulation and processes; the value of each objective in the log;
what a run costs; checkpoints that hold the student as a plain model folder.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import reduce
from torch import Tensor, nn
from transformers import TrainingArguments, set_seed

from layerstill.randomness import generator
from layerstill.training.batches import lengths_of
from layerstill.training.checkpoint import load_module, save_module
from layerstill.training.compiling import compiled_layers, refuse_compiling
from layerstill.training.loop import Loop
from layerstill.training.module import DistillationModule
from layerstill.training.objective_values import add_up_objectives, batches_by_length

log = logging.getLogger("layerstill")

ALIGNERS_FILE = "aligners.safetensors"
AVERAGE_FILE = "average.safetensors"


class DistillationTrainer(Loop):
    """Trains a `DistillationModule`; `args`, data and callbacks are those of transformers' Trainer, as `Loop` says.

    `compile_layers` (or `args.torch_compile`) runs the layers of both models through torch.compile while it trains.
    `training_arguments` makes arguments that fit a stage. Before training, what no objective reaches is frozen, and an
    objective that is zero or not finite stops the run.
    """

    module: DistillationModule

    def __init__(
        self, module: DistillationModule, args: TrainingArguments, compile_layers: bool = False, **kwargs: Any
    ) -> None:
        set_seed(args.seed)
        if args.torch_compile:
            refuse_compiling(module.student.config)
        if args.gradient_checkpointing:
            module.student.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)
        super().__init__(module, args, **kwargs)
        self.compile_layers = compile_layers or args.torch_compile
        self._tokens_seen: Tensor | float = 0
        self._places_seen = 0
        self._cost_before = dict.fromkeys(("seconds", "tokens", "places", "flops", "teacher_seconds"), 0.0)

    def add_teacher_seconds(self, seconds: float) -> None:
        """Count what the teacher has cost before training began; a resume knows it from its checkpoint."""
        self._cost_before["seconds"] += seconds
        self._cost_before["teacher_seconds"] += seconds

    def cost(self) -> dict[str, float]:
        """Seconds, real tokens, places (padding too) and floating-point operations of all processes and the teacher's
        seconds so far, before a resume included.

        With several processes all of them must ask.
        """
        counts = self._tokens_seen, self._places_seen, self.module.flops
        totals = torch.stack([torch.as_tensor(c, dtype=torch.float64, device=self.args.device) for c in counts])
        now = dict(zip(("tokens", "places", "flops"), reduce(totals, reduction="sum").tolist(), strict=True))
        now["teacher_seconds"] = self.module.teacher_time.total()
        return super().cost() | {name: self._cost_before[name] + value for name, value in now.items()}

    @contextmanager
    def training(self, first: dict[str, Any]) -> Iterator[None]:
        """Freeze what no objective reaches, then compile the layers."""
        first.pop("idle", None)
        with torch.random.fork_rng(devices=[]):
            if frozen := self.module.freeze_unreached(first):
                some = ", ".join(frozen[:3]) + (", ..." if len(frozen) > 3 else "")
                log.info("no objective reaches %d of the parameter tensors, frozen: %s", len(frozen), some)
        models = [self.module.student, self.module.teacher] if self.compile_layers else []
        # Not before: a compiled layer has zeros for what no objective reaches, where a plain one has no gradient.
        with compiled_layers(*(model for model in models if model is not None)):
            yield

    def begin_step(self, epoch: int, batches: list[dict[str, Any]]) -> Tensor:
        """Set the clock; the units of each objective in all micro-batches of the step."""
        clock, state = self.module.clock, self.state
        clock.step, clock.steps = state.global_step, state.max_steps
        clock.epoch, clock.epochs = epoch, state.num_train_epochs
        counts = [self.module.count_units(batch["attention_mask"]) * (not batch.get("idle")) for batch in batches]
        # The gradients of processes are averaged, so each divides by the mean of their totals.
        return reduce(torch.stack(counts).sum(0), reduction="mean")

    def loss(self, model: nn.Module, batch: dict[str, Any], step: Tensor) -> Tensor:
        """The stage's loss on a micro-batch, as its share of the whole step."""
        idle = batch.pop("idle", False)  # a row of another process: its share of the step is nothing
        outputs = model(units=torch.full_like(step, float("inf")) if idle else step, **batch)
        for name, term in outputs["terms"].items():
            self.meter.add(f"objective/{name}", term.value)
            if term.spread is not None:
                self.meter.add(f"teacher spread/{name}", term.spread, not idle)
        self._tokens_seen = self._tokens_seen + batch["attention_mask"].sum() * (not idle)
        self._places_seen += batch["attention_mask"].numel()
        return outputs["loss"]

    def end_step(self) -> None:
        """Move the module on."""
        self.module.finish_step()

    def logits(self, batch: dict[str, Any]) -> Tensor:
        """The student's; evaluation needs no teacher."""
        return self.module(**batch)["logits"]

    def after_evaluation(self) -> None:
        """With `evaluate: objectives` the log gets `dev objective/NAME`, and `train objective/NAME` on as many training
        examples, which are the same every time.
        """
        if self.module.stage.evaluate != "objectives":
            return
        train, dev = self.train_dataset, self.eval_dataset
        rng = generator(self.args.seed, "evaluated training examples")
        rows = rng.sample(range(len(train)), min(len(dev), len(train)))
        self.log(self._objectives_on("dev", dev, range(len(dev))) | self._objectives_on("train", train, rows))

    def _objectives_on(self, split: str, data: Any, rows: Any) -> dict[str, float]:
        args = self.args
        batches = batches_by_length(lengths_of(data), rows, args.per_device_train_batch_size * args.world_size)
        own = batches[args.process_index :: args.world_size]
        loaded = (self.on_device(self.data_collator([data[i] for i in batch])) for batch in own)
        with self.autocast():
            sums = add_up_objectives(self.module, loaded, args.device)
        amounts, units = reduce(sums, reduction="sum")
        names = [f"{split} objective/{objective.name}" for objective in self.module.objectives]
        return dict(zip(names, (amounts / units).tolist(), strict=True))

    def save(self, folder: Path) -> None:
        """The student and its tokenizer as a plain model folder; beside it what else the module holds."""
        self.module.student.save_pretrained(folder)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)
        if any(True for _ in self.module.aligners.parameters()):
            save_module(self.module.aligners, folder / ALIGNERS_FILE)
        if self.module.average is not None:
            save_module(self.module.average, folder / AVERAGE_FILE)

    def load(self, folder: Path) -> None:
        """The inverse of `save`."""
        load_module(self.module.student, folder / "model.safetensors")
        if (folder / ALIGNERS_FILE).is_file():
            load_module(self.module.aligners, folder / ALIGNERS_FILE)
        if self.module.average is not None:
            load_module(self.module.average, folder / AVERAGE_FILE)
