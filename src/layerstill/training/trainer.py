"""`DistillationTrainer`: transformers' Trainer around a distillation module.

Everything users know of the Trainer stays: callbacks, trackers, accelerate, resuming. What is added: losses divided
once, over accumulation and processes; the value of each objective in the log; checkpoints without pickle. Only public
methods of the Trainer are overridden, and a test sees to it.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerState

from layerstill.atomic import read_json, write_json
from layerstill.data.order import LengthBuckets
from layerstill.errors import ObjectiveError, UserError
from layerstill.knowledge.bound_objective import Term
from layerstill.progress import showing
from layerstill.randomness import generator, named_seed
from layerstill.training.batches import MicroBatches, MicroBatchLoader, Order, lengths_of
from layerstill.training.callbacks import Around, Shown
from layerstill.training.checkpoint import (
    MODULE_FILE,
    STATE_FILE,
    best_checkpoint,
    checkpoints_in,
    ended_training,
    is_complete,
    last_checkpoint,
    load_module,
    random_tensors,
    refuse_pickles,
    save_module,
    save_optimizer,
    save_random_state,
)
from layerstill.training.compiling import compiled_layers
from layerstill.training.loss_scale import LossScale, unfused
from layerstill.training.module import DistillationModule
from layerstill.training.objective_values import add_up_objectives, batches_by_length
from layerstill.training.rows import rows_of

log = logging.getLogger("layerstill")

COST_FILE = "cost.json"


class DistillationTrainer(Trainer):
    """A Trainer whose model is a `DistillationModule`.

    Args are those of `Trainer`, with the module as `model`; `compile_layers` runs the layers of both models through
    torch.compile while it trains; `what` is how progress calls it, which is shown unless `disable_tqdm`.
    `training_arguments` makes arguments that fit a stage; own ones need `label_names=["labels"]` and
    `remove_unused_columns=False`. Before training, what no objective reaches is frozen, and an objective that is zero
    or not finite stops the run.
    """

    def __init__(
        self,
        module: DistillationModule,
        args: TrainingArguments,
        compile_layers: bool = False,
        what: str = "training",
        **kwargs: Any,
    ) -> None:
        if args.torch_compile:
            raise UserError(
                "torch_compile=True compiles a whole DistillationModule, which is read from inside; leave it out and "
                "give DistillationTrainer compile_layers=True"
            )
        if args.gradient_accumulation_steps > 1:
            module.stage.refuse_split_batches()
        unfused(args)
        super().__init__(module, args, **kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise UserError("DistillationTrainer does not shard; shard a DistillationModule in a training loop")
        self.module = module
        self.compile_layers = compile_layers
        self.loss_is_scaled_for_ga = True
        self._tokens_seen = torch.zeros((), dtype=torch.float64)
        self._places_seen = 0
        self._cost_before = dict.fromkeys(("seconds", "tokens", "places", "flops", "teacher_seconds"), 0.0)
        self._started = time.perf_counter()
        self._term_sums: dict[tuple[str, ...], Tensor] = {}
        """What was added up since the last log, by the names of the values in a tensor."""
        self._sums_since = self._spreads_added = 0
        self._scale = LossScale(self.accelerator)
        self._around = Around(module, self._scale, args.save_total_limit)
        self.add_callback(self._around)
        args.save_total_limit = None  # the Trainer would remove older ones before the new one is on the disk
        args.save_only_model = True  # what else belongs to a checkpoint is written by `save_model`, without pickle
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)  # it prints every log on standard output
        self._progress = Shown(what)
        self.add_callback(self._progress)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Freeze what no objective reaches, then train as `Trainer.train` does.

        A checkpoint of a training that had come to its end is taken over as it is.
        """
        if resume_from_checkpoint is True and (last := last_checkpoint(Path(self.args.output_dir))):
            resume_from_checkpoint = str(last)
        if isinstance(resume_from_checkpoint, str):
            self._around.resumed = checkpoint = Path(resume_from_checkpoint)
            refuse_pickles(checkpoint)
            self._cost_before |= read_json(checkpoint / COST_FILE)
            if ended_training(checkpoint):
                return self._take_over(checkpoint)
        with torch.random.fork_rng(devices=[]):
            first = self._on_device(next(iter(self.get_train_dataloader())))
            if frozen := self.module.freeze_unreached(first):
                some = ", ".join(frozen[:3]) + (", ..." if len(frozen) > 3 else "")
                log.info("no objective reaches %d of the parameter tensors, frozen: %s", len(frozen), some)
        if self.args.process_index:  # or the dropout of all processes would be the same
            torch.manual_seed(named_seed(torch.initial_seed(), "process", self.args.process_index))
        self._started = time.perf_counter()
        models = [self.module.student, self.module.teacher] if self.compile_layers else []
        # Not before: a compiled layer has zeros for what no objective reaches, where a plain one has no gradient.
        with (
            self._incomplete_checkpoints_removed(),
            compiled_layers(*(m for m in models if m is not None)),
            showing(not self.args.disable_tqdm),
            closing(self._progress),
        ):
            return super().train(resume_from_checkpoint, **kwargs)

    def add_teacher_seconds(self, seconds: float) -> None:
        """Count what the teacher has cost before training began; a resume knows it from its checkpoint."""
        self._cost_before["seconds"] += seconds
        self._cost_before["teacher_seconds"] += seconds

    def _take_over(self, checkpoint: Path) -> None:
        self._started = time.perf_counter()
        self.state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
        best = best_checkpoint(checkpoint.parent, self.state.best_global_step)
        chosen = best if best is not None and self.args.load_best_model_at_end else checkpoint
        load_module(self.module, chosen / MODULE_FILE)

    @contextmanager
    def _incomplete_checkpoints_removed(self) -> Iterator[None]:
        """After an error, so that they give back what they take of a full disk."""
        try:
            yield
        except Exception:
            for folder in checkpoints_in(Path(self.args.output_dir)) if self.args.should_save else ():
                if not is_complete(folder):
                    shutil.rmtree(folder, ignore_errors=True)
            raise

    def cost(self) -> dict[str, float]:
        """Seconds, real tokens, places (padding too) and floating-point operations of all processes and the teacher's
        seconds so far, before a resume included.

        With several processes all of them must ask.
        """
        counts = self._tokens_seen, self._places_seen, self.module.flops
        totals = torch.stack([torch.as_tensor(c, dtype=torch.float64, device=self.args.device) for c in counts])
        tokens, places, flops = self.accelerator.reduce(totals, reduction="sum").tolist()
        now = {
            "seconds": time.perf_counter() - self._started,
            "tokens": tokens,
            "places": places,
            "flops": flops,
            "teacher_seconds": self.module.source.time.total(),
        }
        return {name: self._cost_before[name] + value for name, value in now.items()}

    def get_train_dataloader(self) -> MicroBatchLoader:
        """This process's share of every micro-batch; the whole ones do not depend on how many processes there are."""
        args = self.args
        micro = args.train_batch_size * args.world_size
        # Whole optimiser steps are bucketed, so that the order does not depend on accumulation or processes.
        step = micro * args.gradient_accumulation_steps
        return MicroBatchLoader(
            rows_of(self.train_dataset),
            MicroBatches(self.order(step), micro, args.world_size, args.process_index),
            self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
        )

    def order(self, step: int) -> Order:
        """The order of training examples, epoch by epoch; optimiser steps take so many."""
        return LengthBuckets(lengths_of(self.train_dataset), step, self.args.seed)

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        """The schedule of the learning rate, and the optimiser as torch made it wherever no loss is scaled.

        Accelerate's around it decides at every step whether to take it, which the Trainer has decided, and looks on the
        disk twice for the package of an optimiser that nobody has asked for: a fortieth of a small model's step.
        """
        prepared: Any = self.optimizer  # type: ignore[has-type]  # transformers leaves it untyped
        if not self._scale.used and isinstance(prepared, AcceleratedOptimizer):
            self.optimizer = prepared.optimizer
        return super().create_scheduler(num_training_steps, optimizer)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | None]:
        """The micro-batches of one optimiser step, and the units of each objective in all of them."""
        batches = list(islice(epoch_iterator, num_batches))
        if not batches:
            return batches, None
        self._tell_time()
        # Counted before they are on the device, for which so many small sums would be as many launches.
        for batch in batches:
            batch["own_units"] = self.module.count_units(batch)
            if not batch.get("idle"):
                self._tokens_seen += batch["attention_mask"].sum().cpu()  # a collator may put it elsewhere
            self._places_seen += batch["attention_mask"].numel()
        total = torch.stack([batch["own_units"] for batch in batches]).sum(0).to(self.args.device)
        if self.accelerator.num_processes > 1:
            # The gradients of processes are averaged, so each divides by the mean of their totals.
            total = self.accelerator.reduce(total, reduction="mean")
        return [self._on_device(batch) for batch in batches], total

    def _on_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        # Pinned memory is not waited for; the Trainer, which would, finds everything there.
        device = self.args.device
        return {n: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for n, v in batch.items()}

    def _tell_time(self) -> None:
        state, clock = self.state, self.module.clock
        clock.step, clock.steps = state.global_step - self._scale.left_out, state.max_steps
        clock.epoch, clock.epochs = int((state.epoch or 0) + 1e-6), state.num_train_epochs

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """The stage's loss on a micro-batch, as its share of the whole step."""
        self._tell_time()
        outputs = model(units=num_items_in_batch, **inputs)
        self._add_up(outputs["terms"], bool(inputs.get("idle")))
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def _add_up(self, terms: dict[str, Term], idle: bool) -> None:
        # Sums stay on the device; reading them here would wait for the GPU at every step. All names go in one tensor,
        # because one sum for each would be a dozen small operations a step.
        if not self._term_sums:
            self._sums_since, self._spreads_added = self.state.global_step, 0
        spreads = {name: term.spread.detach() for name, term in terms.items() if term.spread is not None}
        names = (*(f"objective/{name}" for name in terms), *(f"teacher spread/{name}" for name in spreads))
        values = torch.stack([*(term.value.detach() for term in terms.values()), *spreads.values()]).float()
        if idle:
            values[len(terms) :] = 0  # there is nothing whose spread it could be
        self._spreads_added += not idle
        self._term_sums[names] = self._term_sums[names] + values if names in self._term_sums else values

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; with the loss go the means of every objective since the last time."""
        logs = self._scale.told(logs)
        if "loss" in logs and self._term_sums:
            steps = max(self.state.global_step - self._sums_since, 1)
            added = next(iter(self._term_sums.values())).new_tensor([self._spreads_added])
            sums = torch.cat([*self._term_sums.values(), added])
            *values, spreads = self.accelerator.reduce(sums, reduction="mean").tolist()
            for name, value in zip(chain(*self._term_sums), values, strict=True):
                # An objective's micro-batches add up to its step; the spread of each is a figure of its own.
                logs[name] = value / (steps if name.startswith("objective/") else spreads)
            self._term_sums.clear()
            # Objectives come before their sum, so that the one at fault is named.
            for name, value in sorted(logs.items(), key=lambda entry: not entry[0].startswith("objective/")):
                if isinstance(value, float) and not abs(value) < float("inf"):
                    raise ObjectiveError(
                        f"{name} became {value} at step {self.state.global_step}; the last checkpoint is kept. "
                        "Lower the learning rate, or the objective's weight"
                        + ("; fp16 may be too narrow, bf16 and fp32 are not" if self._scale.used else "")
                    )
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate as `Trainer.evaluate` does, and leave the random state as it was, so that training does not notice.

        With `evaluate: objectives` the log gets `dev objective/NAME`, and `train objective/NAME` on as many training
        examples, which are the same every time.
        """
        with torch.random.fork_rng(devices=[self.args.device] if self.args.device.type == "cuda" else []):
            metrics = super().evaluate(*args, **kwargs)
            if self.module.stage.evaluate == "objectives":
                self.log(self._objective_values())
        return metrics

    def _objective_values(self) -> dict[str, float]:
        train, dev = self.train_dataset, self.eval_dataset
        rng = generator(self.args.seed, "evaluated training examples")
        some = rng.sample(range(len(train)), min(len(dev), len(train)))
        return self.objective_values("dev", dev, range(len(dev))) | self.objective_values("train", train, some)

    def objective_values(self, split: str, data: Any, rows: Sequence[int]) -> dict[str, float]:
        """`SPLIT objective/NAME`: the value of every objective on some rows of a data set, as evaluation mode has it.

        With several processes all of them must ask.
        """
        batches = self.shared_batches(data, rows, self.data_collator)
        with self.compute_loss_context_manager():
            sums = add_up_objectives(self.module, batches, self.args.device)
        amounts, units = self.accelerator.reduce(sums, reduction="sum")
        names = [f"{split} objective/{objective.name}" for objective in self.module.objectives]
        values = zip(names, (amounts / units).tolist(), units.tolist(), strict=True)
        return {name: value for name, value, count in values if count}  # of gold labels there may be none

    def shared_batches(
        self, data: Any, rows: Sequence[int], collate: Callable[[list], dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """This process's batches of some rows of a data set, all of about one length."""
        micro = self.args.train_batch_size * self.args.world_size
        batches = batches_by_length(lengths_of(data), rows, micro)
        for batch in batches[self.args.process_index :: self.args.world_size]:
            yield self._on_device(collate([data[i] for i in batch]))

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[None, Tensor, Tensor]:
        """The student's logits and the labels; evaluation needs no teacher."""
        inputs = self._on_device(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**inputs)["logits"]
        return None, logits.detach().float(), inputs["labels"]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the student and its tokenizer as a plain model folder.

        Called by the Trainer, write a checkpoint instead: the module, its optimiser, all random states, the cost. The
        Trainer adds its own state, which comes last and says that the checkpoint is complete.
        """
        folder = Path(output_dir or self.args.output_dir)
        if _internal_call:
            self._save_all(folder)
        elif self.args.should_save:
            self.module.student.save_pretrained(folder)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(folder)

    def _save_all(self, folder: Path) -> None:
        self._refuse_ruined()
        cost = self.cost()
        states = {k: self.accelerator.gather(v[None].to(self.args.device)).cpu() for k, v in random_tensors().items()}
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            save_module(self.module, folder / MODULE_FILE)
            write_json(folder / COST_FILE, cost)
            save_optimizer(self.optimizer, self.lr_scheduler, folder)
            save_random_state(folder, states)
            self._scale.save(folder)
        self.accelerator.wait_for_everyone()  # any of them may read it

    def _refuse_ruined(self) -> None:
        # The loss shows a ruined student one step later, when its checkpoint would have taken the good one's place.
        for name, weight in self.module.student.named_parameters():
            if not bool(weight.isfinite().all()):
                raise ObjectiveError(
                    f"the student's {name} is not finite at step {self.state.global_step}; the last checkpoint is "
                    "kept. Lower the learning rate"
                )
