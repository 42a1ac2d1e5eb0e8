"""What happens between the Trainer's steps: progress is shown, the module moves on, checkpoints are looked after."""

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments

from layerstill.progress import Task
from layerstill.training.checkpoint import best_checkpoint, load_optimizer, load_random_state, make_durable, remove_old
from layerstill.training.loss_scale import LossScale
from layerstill.training.module import DistillationModule


class Shown(TrainerCallback):
    """Tells `progress` how far the steps are, and the epoch, the loss and the dev score as they become known."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._exits = ExitStack()
        self._task: Task | None = None

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self._task = self._exits.enter_context(Task(self._what, state.max_steps, state.global_step))

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if self._task is not None:
            epochs = max(math.ceil(state.num_train_epochs), 1)
            self._task.say(epoch=f"{min(int(state.epoch or 0) + 1, epochs)} of {epochs}")
            self._task.advance()

    def on_log(self, args: TrainingArguments, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self._task is not None and "loss" in (logs or {}):
            self._task.say(loss=f"{logs['loss']:.4g}")

    def on_prediction_step(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if self._task is not None:
            self._task.say(now="scoring dev")

    def on_evaluate(self, args: TrainingArguments, state: Any, control: Any, metrics: Any = None, **kw: Any) -> None:
        if self._task is None:
            return
        # The task's own come first, the main one before the others.
        name, score = next(iter((metrics or {}).items()), ("", None))
        shown = {} if score is None else {f"dev {name.removeprefix('eval_')}": f"{score:.4f}"}
        self._task.say(now=None, **shown)

    def close(self) -> None:
        """No more of it, however it ended."""
        self._exits.close()


class Around(TrainerCallback):
    """What happens around the Trainer's steps: the module moves on, checkpoints are completed, read and thinned out."""

    def __init__(self, module: DistillationModule, scale: LossScale, keep: int | None) -> None:
        self.module = module
        self.scale = scale
        self.keep = keep
        self.resumed: Path | None = None

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        # By its step, because another working folder, or a moved run, makes the path in the state wrong.
        if best := best_checkpoint(Path(args.output_dir), state.best_global_step):
            state.best_model_checkpoint = str(best)
        if self.resumed is not None:
            load_optimizer(kwargs["optimizer"], kwargs["lr_scheduler"], self.resumed)
            self.scale.load(self.resumed)

    def on_epoch_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if self.resumed is not None:
            load_random_state(self.resumed, args.process_index)
            self.resumed = None

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if self.scale.finish_step(state.global_step):
            self.module.finish_step()
        self.on_epoch_end(args, state, control)

    def on_epoch_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        # A log comes before every checkpoint: what was added up since the last one is not saved.
        control.should_log = control.should_log or control.should_save or control.should_evaluate

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if args.should_save:  # older ones go when the new one is safe, and not before
            folder = Path(args.output_dir)
            make_durable(folder / f"checkpoint-{state.global_step}")
            remove_old(folder, self.keep, state.best_model_checkpoint)
