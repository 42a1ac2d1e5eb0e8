"""A training loop: epochs, steps, callbacks of transformers' protocol, logs, evaluations, checkpoints, resuming.

`Loop` knows nothing of distillation. What is trained, and how a step becomes losses, says a subclass in the methods
below "what a subclass says". Nothing is read from the device between two logs, so a GPU is never waited for.
"""

import gc
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather, gather_object, reduce
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import (
    DefaultFlowCallback,
    EvalPrediction,
    ProgressCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_callback import ExportableState

from layerstill.data.order import LengthBuckets
from layerstill.errors import ObjectiveError, UserError
from layerstill.randomness import named_seed
from layerstill.training import processes
from layerstill.training.batches import MicroBatches, MicroBatchLoader, lengths_of
from layerstill.training.checkpoint import (
    STATE_FILE,
    ended_training,
    is_complete,
    last_checkpoint,
    load_random_state,
    make_durable,
    random_tensors,
    read_json,
    remove_old,
    save_random_state,
    write_json,
)
from layerstill.training.optimiser import load_optimizer, optimizer_of, save_optimizer, schedule_of

RESETS = {
    "on_train_begin": ("should_training_stop",),
    "on_epoch_begin": ("should_epoch_stop",),
    "on_step_begin": ("should_log", "should_evaluate", "should_save"),
    "on_log": ("should_log",),
    "on_evaluate": ("should_evaluate",),
    "on_save": ("should_save",),
}
"""What each event takes back of what a callback had asked for."""


class ProgressBar(ProgressCallback):
    """Transformers' progress bar with the loss beside it, and no log lines on standard output."""

    def on_log(self, args: TrainingArguments, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.training_bar is not None and "loss" in (logs or {}):
            self.training_bar.set_postfix(loss=f"{logs['loss']:.4g}")


class Meter:
    """Weighted sums since the last log, kept on the device: reading them at every step would wait for the GPU."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor, weight: float = 1) -> None:
        """Add a number; `weight` is what it counts for in a mean, 0 for nothing."""
        pair = torch.stack([value.detach().float() * weight, torch.full_like(value, weight).float()])
        self.sums[name] = self.sums[name] + pair if name in self.sums else pair

    def read(self) -> dict[str, tuple[float, float]]:
        """Every sum and the weights behind it, both averaged over processes; afterwards the meter is empty."""
        if not self.sums:
            return {}
        pairs = reduce(torch.stack(list(self.sums.values())), reduction="mean").tolist()
        found = {name: (value, weight) for name, (value, weight) in zip(self.sums, pairs, strict=True)}
        self.sums.clear()
        return found


class Loop:
    """Trains `module` as transformers' `args` say.

    `train_dataset` needs `input_ids` or `length`, by which it is batched. After an evaluation `compute_metrics` gets an
    `EvalPrediction`; rows of several lengths are padded with -100. `callbacks` are transformers', and trackers are those
    of `args.report_to`. Not used of `args`: what shards, DataParallel, fp16, the hub, and search of hyperparameters.
    """

    def __init__(
        self,
        module: nn.Module,
        args: TrainingArguments,
        train_dataset: Any,
        data_collator: Callable[[list], dict[str, Any]],
        eval_dataset: Any = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        processing_class: Any = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        if args.fp16 or args.fsdp or args.deepspeed:
            raise UserError(f"{type(self).__name__} trains whole models in fp32 or bf16: no fp16, fsdp, deepspeed")
        self.args = args
        self.module = module.to(args.device)
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        self.data_collator, self.processing_class = data_collator, processing_class
        self.compute_metrics = compute_metrics
        self.optimizer: torch.optim.Optimizer | None = None
        self.lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
        self.state, self.control, self.meter = self._new_state(), TrainerControl(), Meter()
        self._logged_at = 0
        self._started = time.perf_counter()
        self._cost_before: dict[str, float] = {}
        self.callbacks: list[Any] = []
        reports = get_reporting_integration_callbacks(args.report_to)
        bar = [] if args.disable_tqdm else [ProgressBar]
        for callback in (DefaultFlowCallback, *reports, *callbacks, *bar):
            self.add_callback(callback)
        self._tell("on_init_end")

    def add_callback(self, callback: Any) -> None:
        """Add a `TrainerCallback`, or a class of them."""
        self.callbacks.append(callback() if isinstance(callback, type) else callback)

    def train(self, resume_from_checkpoint: str | bool | None = None) -> None:
        """Train to the end; `resume_from_checkpoint` is a checkpoint, or True for the last one in `args.output_dir`.

        A checkpoint of a training that had come to its end is taken over as it is.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(last_checkpoint(Path(self.args.output_dir)) or "")
        checkpoint = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        self._started = time.perf_counter()
        if checkpoint is not None and ended_training(checkpoint):
            self._load(checkpoint)
        else:
            self._train(checkpoint)
        best = self._best()
        if self.args.load_best_model_at_end and best is not None:
            processes.wait_for_all()  # until the first process has written it
            self.load(best)

    def evaluate(self, eval_dataset: Any = None) -> dict[str, float]:
        """Metrics on `eval_dataset`, else on that of the loop, as `eval_NAME`; logged, and the callbacks hear of them.

        The random state is left as it was, so that training does not notice.
        """
        with torch.random.fork_rng(devices=[self.args.device] if self.args.device.type == "cuda" else []):
            begun = time.perf_counter()
            found = self._predictions(self.eval_dataset if eval_dataset is None else eval_dataset)
            metrics = self.compute_metrics(found) if self.compute_metrics is not None else {}
            metrics = {f"eval_{name}": float(value) for name, value in metrics.items()}
            metrics["eval_runtime"] = round(time.perf_counter() - begun, 4)
            self.log(metrics)
            self._tell("on_evaluate", metrics=metrics)
            self.after_evaluation()
        return metrics

    def log(self, logs: dict[str, float]) -> None:
        """Tell callbacks, and keep in `state.log_history`."""
        if self.state.epoch is not None:
            logs["epoch"] = self.state.epoch
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self._tell("on_log", logs=logs)

    def autocast(self) -> AbstractContextManager:
        """The precision of training."""
        return torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16)

    def on_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch with its tensors on the device; pinned ones are not waited for."""
        device = self.args.device
        return {n: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for n, v in batch.items()}

    # What a subclass says

    def training(self, first: dict[str, Any]) -> AbstractContextManager:
        """A context around all steps; it may freeze parameters, of which it is shown the `first` batch."""
        return nullcontext()

    def begin_step(self, epoch: int, batches: list[dict[str, Any]]) -> Any:
        """To be done before a step's micro-batches; what it returns comes back with each of them."""

    def loss(self, model: nn.Module, batch: dict[str, Any], step: Any) -> Tensor:
        """A micro-batch's share of the step's loss; the gradients of processes are averaged."""
        raise NotImplementedError

    def end_step(self) -> None:
        """To be done after the optimiser's step."""

    def logits(self, batch: dict[str, Any]) -> Tensor:
        """Outputs for an evaluation."""
        raise NotImplementedError

    def after_evaluation(self) -> None:
        """To be done after every evaluation, which was logged."""

    def cost(self) -> dict[str, float]:
        """What training has cost so far, before a resume included; all processes must ask."""
        return {"seconds": self._cost_before.get("seconds", 0.0) + time.perf_counter() - self._started}

    def save(self, folder: Path) -> None:
        """Write the module."""
        raise NotImplementedError

    def load(self, folder: Path) -> None:
        """The inverse of `save`."""
        raise NotImplementedError

    # Steps

    def _train(self, checkpoint: Path | None) -> None:
        args, loader = self.args, self._loader()
        with torch.random.fork_rng(devices=[]):
            first = self.on_device(next(iter(loader)))
        with self.training(first):
            if args.process_index:  # or the dropout of all processes would be the same
                torch.manual_seed(named_seed(torch.initial_seed(), "process", args.process_index))
            if checkpoint is not None:
                self._load(checkpoint)
            state, steps = self.state, math.ceil(len(loader) / args.gradient_accumulation_steps)
            state.max_steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps)
            state.num_train_epochs = math.ceil(state.max_steps / steps)
            state.compute_steps(args, state.max_steps)
            self.optimizer = optimizer_of(self.module, args)
            self.lr_scheduler = schedule_of(self.optimizer, args, state.max_steps)
            if checkpoint is not None:
                load_optimizer(self.optimizer, self.lr_scheduler, checkpoint)
            self._tell("on_train_begin")
            with self._distributed() as model:
                self._epochs(model, loader, steps, checkpoint)
            self._tell("on_train_end")

    def _epochs(self, model: nn.Module, loader: MicroBatchLoader, steps: int, checkpoint: Path | None) -> None:
        parts, batches_an_epoch = self.args.gradient_accumulation_steps, len(loader)
        begun, done = divmod(self.state.global_step, steps)
        for epoch in range(begun, self.state.num_train_epochs):
            self._tell("on_epoch_begin")
            loader.set_epoch(epoch, skip=done * parts)
            if checkpoint is not None and epoch == begun:
                load_random_state(checkpoint, self.args.process_index)
            batches = iter(loader)
            for step in range(done + 1, steps + 1):
                self._step(model, epoch, list(islice(batches, parts)))
                self.state.epoch = epoch + min(step * parts, batches_an_epoch) / batches_an_epoch
                self._tell("on_step_end")
                self._log_evaluate_save()
                if self.control.should_epoch_stop or self.control.should_training_stop:
                    break
            done = 0
            self._tell("on_epoch_end")
            self._log_evaluate_save()
            if self.control.should_training_stop:
                break

    def _step(self, model: nn.Module, epoch: int, batches: list[dict[str, Any]]) -> None:
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        self._tell("on_step_begin")
        self.module.train()
        batches = [self.on_device(batch) for batch in batches]
        step = self.begin_step(epoch, batches)
        for i, batch in enumerate(batches, 1):
            last = i == len(batches)
            apart = isinstance(model, DistributedDataParallel) and not last
            with model.no_sync() if apart else nullcontext():
                with self.autocast():
                    loss = self.loss(model, batch, step)
                loss.backward()
            self.meter.add("loss", loss)
            if not last:
                self._tell("on_substep_end")
        self._grad_norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.args.max_grad_norm or math.inf)
        self._tell("on_pre_optimizer_step")
        self.optimizer.step()
        self._tell("on_optimizer_step")
        self._learning_rate = self.lr_scheduler.get_last_lr()[0]
        self.lr_scheduler.step()
        self.optimizer.zero_grad()
        self.state.global_step += 1
        self.end_step()

    def _loader(self) -> MicroBatchLoader:
        """This process's share of every micro-batch; the whole ones do not depend on how many processes there are."""
        args = self.args
        micro = args.per_device_train_batch_size * args.world_size
        # Whole optimiser steps are bucketed, so that the order does not depend on accumulation or processes.
        order = LengthBuckets(lengths_of(self.train_dataset), micro * args.gradient_accumulation_steps, args.seed)
        return MicroBatchLoader(
            self.train_dataset,
            MicroBatches(order, micro, args.world_size, args.process_index),
            self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
        )

    @contextmanager
    def _distributed(self) -> Iterator[nn.Module]:
        """The module, of several processes one that averages their gradients."""
        if self.args.world_size == 1:
            yield self.module
            return
        devices = [self.args.device] if self.args.device.type == "cuda" else None
        unused = bool(self.args.ddp_find_unused_parameters)
        yield DistributedDataParallel(self.module, devices, find_unused_parameters=unused)
        gc.collect()  # it hangs on to the parameters, which the next stage trains, too

    # Callbacks and logs

    def _tell(self, event: str, **more: Any) -> None:
        for name in RESETS.get(event, ()):
            setattr(self.control, name, False)
        known = {"model": self.module, "processing_class": self.processing_class, "optimizer": self.optimizer}
        known |= {"lr_scheduler": self.lr_scheduler} | more
        for callback in self.callbacks:
            self.control = getattr(callback, event)(self.args, self.state, self.control, **known) or self.control

    def _log_evaluate_save(self) -> None:
        control = self.control
        # A checkpoint comes with a log, as what was added up since the last one is not saved.
        if control.should_log or control.should_evaluate or control.should_save:
            self._log_step()
        if control.should_evaluate:
            best = self._is_best(self.evaluate())
            self.control.should_save |= best and self.args.save_strategy == "best"
        if self.control.should_save:
            self._save_checkpoint()
            self._tell("on_save")

    def _log_step(self) -> None:
        steps = self.state.global_step - self._logged_at
        if not steps:
            return
        self._logged_at = self.state.global_step
        # An objective's micro-batches add up to its step; a spread is a figure of each.
        sums = self.meter.read()
        means = {n: value / (weight if n.startswith("teacher spread/") else steps) for n, (value, weight) in sums.items()}
        logs = {"loss": means.pop("loss"), "grad_norm": self._grad_norm.item(), "learning_rate": self._learning_rate}
        # Objectives come before their sum, so that the one at fault is named.
        for name, value in (means | logs).items():
            if not math.isfinite(value):
                raise ObjectiveError(
                    f"{name} became {value} at step {self.state.global_step}; the last checkpoint is kept. "
                    "Lower the learning rate, or the objective's weight"
                )
        self.log(logs | means)

    # Evaluations

    def _predictions(self, data: Any) -> EvalPrediction:
        size = self.args.per_device_eval_batch_size
        batches = [range(start, min(start + size, len(data))) for start in range(0, len(data), size)]
        found = []
        self.module.eval()
        for rows in batches[self.args.process_index :: self.args.world_size]:
            batch = self.on_device(self.data_collator([data[i] for i in rows]))
            with torch.no_grad(), self.autocast():
                logits = self.logits(batch)
            found.append((rows.start, logits.float().cpu().numpy(), batch["labels"].cpu().numpy()))
            self._tell("on_prediction_step", eval_dataloader=batches)
        found = sorted(gather_object(found), key=lambda part: part[0])
        return EvalPrediction(*(_rows([part[k] for part in found]) for k in (1, 2)))

    def _is_best(self, metrics: dict[str, float]) -> bool:
        """Whether these metrics are better than all before, which the state remembers."""
        if self.args.metric_for_best_model is None:
            return False
        value = metrics[f"eval_{self.args.metric_for_best_model.removeprefix('eval_')}"]
        sign = 1 if self.args.greater_is_better else -1
        if self.state.best_metric is None:
            self.state.best_metric = -sign * math.inf
        better = sign * value > sign * self.state.best_metric
        if better:
            self.state.best_metric, self.state.best_global_step = value, self.state.global_step
        return better

    # Checkpoints

    def _new_state(self) -> TrainerState:
        args = self.args
        return TrainerState(is_world_process_zero=not args.process_index, is_local_process_zero=not args.local_process_index)

    def _folder(self, step: int) -> Path:
        return Path(self.args.output_dir) / f"checkpoint-{step}"

    def _best(self) -> Path | None:
        # By its step, because the run may have been moved since.
        folder = self._folder(self.state.best_global_step) if self.state.best_global_step else None
        return folder if folder is not None and folder.is_dir() else None

    def _stateful(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for callback in (*self.callbacks, self.control):
            if isinstance(callback, ExportableState):
                name = type(callback).__name__
                found[f"{name} {len(found)}" if name in found else name] = callback
        return found

    def _save_checkpoint(self) -> None:
        self._refuse_ruined()
        cost = self.cost()
        random = {k: gather(v[None].to(self.args.device)).cpu() for k, v in random_tensors().items()}
        if self.args.process_index:
            return
        folder = self._folder(self.state.global_step)
        try:
            self._write(folder, cost, random)
        except Exception:
            if not is_complete(folder):  # give back what it takes of a full disk
                shutil.rmtree(folder, ignore_errors=True)
            raise
        # Older ones go when the new one is safe, and not before.
        make_durable(folder)
        remove_old(folder.parent, self.args.save_total_limit, self._best())

    def _write(self, folder: Path, cost: dict[str, float], random: dict[str, Tensor]) -> None:
        assert self.optimizer is not None
        folder.mkdir(parents=True, exist_ok=True)
        self.save(folder)
        write_json(folder / "cost.json", cost)
        save_optimizer(self.optimizer, self.lr_scheduler, folder)
        save_random_state(folder, random)
        best = self._best()
        self.state.best_model_checkpoint = str(best) if best else None
        self.state.stateful_callbacks = {name: callback.state() for name, callback in self._stateful().items()}
        write_json(folder / STATE_FILE, vars(self.state))  # last: it says that the checkpoint is complete

    def _load(self, checkpoint: Path) -> None:
        """Everything but the states of the optimiser and of randomness."""
        here = self._new_state()
        self.state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
        self.state.is_world_process_zero = here.is_world_process_zero
        self.state.is_local_process_zero = here.is_local_process_zero
        self._logged_at = self.state.global_step
        self._cost_before |= read_json(checkpoint / "cost.json")
        self.load(checkpoint)
        for name, callback in self._stateful().items():
            saved = self.state.stateful_callbacks.get(name, {"attributes": {}})
            for attribute, value in saved["attributes"].items():
                setattr(callback, attribute, value)

    def _refuse_ruined(self) -> None:
        # The loss shows a ruined student one step later, when its checkpoint would have taken the good one's place.
        weights = dict(self.module.named_parameters())
        whole = torch.stack([weight.isfinite().all() for weight in weights.values()]).tolist()
        for name in (name for name, finite in zip(weights, whole, strict=True) if not finite):
            raise ObjectiveError(
                f"{name} is not finite at step {self.state.global_step}; the last checkpoint is kept. "
                "Lower the learning rate"
            )


def _rows(parts: list[np.ndarray]) -> np.ndarray:
    """Parts of a batch each as one array; their second dimension is made as long as the longest with -100."""
    if parts[0].ndim > 1:
        longest = max(part.shape[1] for part in parts)
        wide = ((0, 0),) * (parts[0].ndim - 2)
        parts = [np.pad(p, ((0, 0), (0, longest - p.shape[1]), *wide), constant_values=-100) for p in parts]
    return np.concatenate(parts)
