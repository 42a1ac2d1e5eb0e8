"""A run on running text: its stages one after the other, with checkpoints on the way, and the record of them all."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerState, set_seed

from layerstill.atomic import read_json, write_json, write_tensors, write_text
from layerstill.data.text.blocks import Blocks
from layerstill.data.text.collator import TextCollator
from layerstill.families import depth_of
from layerstill.heads import Head
from layerstill.names import TEXT_TASK
from layerstill.recipe import Recipe, Stage
from layerstill.result import SELECTED, Record, Result, StudentPart, TrainPart
from layerstill.students.build import set_trainable
from layerstill.training import processes
from layerstill.training.accounting import Spent, matmul_peak
from layerstill.training.arguments import Options, arithmetic_of, dtype_of, training_arguments
from layerstill.training.checkpoint import last_checkpoint, load_module, save_module
from layerstill.training.clock import Clock
from layerstill.training.length import steps_of
from layerstill.training.module import DistillationModule
from layerstill.training.records import RunFolder, environment
from layerstill.training.stages import OBJECTIVES_FILE, note
from layerstill.training.text_trainer import TextTrainer
from layerstill.training.trackers import tracking_in

SAVES = 20
"""Checkpoints of a stage, at least."""
MOST_STEPS = 1000
"""Between two of them."""
PREFIX = "dev objective/"
OF_TEACHER = "teacher's "


@dataclass
class TextRun:
    """One run with everything it needs, ready to be trained."""

    folder: RunFolder
    student: PreTrainedModel
    teacher: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    """Of the student, with which both models read."""
    tokens: list[int] | None
    """The teacher's numbers of the student's tokens, if the student has fewer."""
    train_blocks: Blocks
    dev_blocks: Blocks
    recipe: Recipe
    head: Head
    """What both models are asked for, if anything."""
    options: Options
    origin: dict[str, Any]
    text: dict[str, Any]
    """What the record says of the blocks."""
    describe: Callable[[Result], None]
    """Is handed the result just before the run counts as finished, and writes about it in the folder."""
    spent: Spent = field(default_factory=Spent)

    def train(self) -> Result:
        """Train every stage that is not done yet, save the student, write the record."""
        if processes.is_first():
            write_text(self.folder.path / "recipe.yaml", self.recipe.to_yaml())
        values: dict[str, float] = {}
        for number, stage in enumerate(self.recipe.stages, 1):
            done = self.folder.checkpoints / f"stage-{number}-done"
            if (done / "spent.json").is_file():
                note([f"stage {number} of {len(self.recipe.stages)} was trained by an earlier call"])
                load_module(self.student, done / "student.safetensors")
                self.spent = Spent(**json.loads((done / "spent.json").read_text("utf-8")))
                values = read_json(done / "values.json")
                continue
            values = self._train_stage(number, stage)
            if processes.is_first():
                done.mkdir(parents=True, exist_ok=True)
                save_module(self.student, done / "student.safetensors")
                write_json(done / "values.json", values)
                write_json(done / "spent.json", asdict(self.spent))  # last: it says that the stage is done
        if processes.is_first():
            self._finish(values)
        processes.wait_for_all()
        result = self.folder.finished
        assert result is not None
        return result

    def _train_stage(self, number: int, stage: Stage) -> dict[str, float]:
        """Train a stage; the value of every objective on all held-out blocks, and the `loss` that they add up to."""
        checkpoints = self.folder.checkpoints / f"stage-{number}"
        resume = last_checkpoint(checkpoints)
        set_trainable(self.student, self.recipe.student)
        seed = self.options.seed + 1000 * (number - 1)
        set_seed(seed)
        module = DistillationModule(self.student, self.teacher, stage, self.options.seed, self.head, self.tokens)
        trainer = self._trainer(module, number, stage, checkpoints, resume)
        set_seed(seed)  # again, because a Trainer sets one of its own when it is made
        with tracking_in(self.folder.path):
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        self._add_up(trainer)
        _tell_end(module.clock, trainer.state)
        values = {name.removeprefix(PREFIX): value for name, value in trainer.on_held_out().items()}
        said = trainer.perplexity_of(self.student)
        said |= {OF_TEACHER + name: value for name, value in trainer.perplexity_of(self.teacher).items()}
        processes.wait_for_all()  # until none reads checkpoints any more
        if processes.is_first() and (owned := module.owned()):
            several = len(self.recipe.stages) > 1
            name = f"stage-{number}-{OBJECTIVES_FILE}" if several else OBJECTIVES_FILE
            write_tensors(self.folder.path / name, owned)
        clock = module.clock
        now = clock.epoch, clock.epochs, clock.step, clock.steps
        # A few held-out blocks can have no hidden word at all.
        there = [o for o in module.terms_of_stage if o.name in values]
        return {"loss": sum(o.spec.weight.at(*now) * values[o.name] for o in there)} | values | said

    def _trainer(
        self, module: DistillationModule, number: int, stage: Stage, checkpoints: Path, resume: Path | None
    ) -> TextTrainer:
        steps = steps_of(stage, len(self.train_blocks), self.options.max_steps)
        every = steps_between(steps)
        step = int(resume.name.split("-")[1]) if resume else 0
        of = f", stage {number} of {len(self.recipe.stages)}" if len(self.recipe.stages) > 1 else ""
        if resume is not None:
            note([f"{self.folder.path}: resumed at step {step:,} of {steps:,}{of}"])
        looking = stage.model_copy(update={"evaluate": "objectives"})
        return TextTrainer(
            module,
            training_arguments(looking, checkpoints, self.options, "loss", len(self.train_blocks), every),
            train_dataset=self.train_blocks,
            eval_dataset=self.dev_blocks,
            compile_layers=self.options.compile,
            what=f"training{of}",
            data_collator=TextCollator(self.tokenizer, self.head, stage.hiding, self.options.seed),
            asking=TextCollator.asking(self.tokenizer, self.head),
            processing_class=self.tokenizer,
            callbacks=[self.folder.metrics_log(number, step)],
        )

    def _add_up(self, trainer: TextTrainer) -> None:
        epochs = trainer.state.epoch or 0.0
        cost = trainer.cost()
        self.spent.seconds += cost["seconds"]
        self.spent.steps += trainer.state.global_step
        self.spent.epochs += round(epochs, 4)
        self.spent.examples += round(epochs * len(self.train_blocks))
        self.spent.tokens += int(cost["tokens"])
        self.spent.places += int(cost["places"])
        self.spent.flops += cost["flops"]
        self.spent.teacher_seconds += cost["teacher_seconds"]

    def _finish(self, values: dict[str, float]) -> None:
        record = self._record(values)
        self.student.requires_grad_(True)
        self.student.save_pretrained(self.folder.path)
        self.tokenizer.save_pretrained(self.folder.path)
        self.describe(Result(record, self.folder.path))
        self.folder.finish(record)

    def _record(self, values: dict[str, float]) -> Record:
        precision = arithmetic_of(self.options.precision)
        of_teacher = {n.removeprefix(OF_TEACHER): v for n, v in values.items() if n.startswith(OF_TEACHER)}
        own = {name: value for name, value in values.items() if not name.startswith(OF_TEACHER)}
        peak = matmul_peak(self.student.device, dtype_of(self.options.precision))
        return Record(
            recipe=self.recipe.name,
            recipe_hash=self.recipe.hash,
            teacher=self.folder.settings["teacher"],
            task=TEXT_TASK,
            seed=self.options.seed,
            student=StudentPart(
                layers=depth_of(self.student.config),
                hidden_size=self.student.config.hidden_size,
                parameters=self.student.num_parameters(),
                init=self.origin,
            ),
            metrics={**own, SELECTED: "last"},
            head=self.head.record(),
            by_label={},
            teacher_metrics=of_teacher,
            verdict=[],
            regime={},
            ood={},
            supplementary=None,
            tuning=None,
            unlabelled=None,
            augmented=None,
            teacher_probabilities=None,
            teachers=None,
            text=self.text,
            train=TrainPart(**self.spent.record(precision, processes.count() * peak)),
            environment=environment(),
        )


def steps_between(steps: int) -> int:
    """Steps from one checkpoint, and one look at held-out text, to the next, in a stage of so many."""
    return min(max(steps // SAVES, 1), MOST_STEPS)


def _tell_end(clock: Clock, state: TrainerState) -> None:
    """The time after the last step, also where an earlier call has made it and died before the stage was done."""
    clock.step, clock.steps = state.global_step, state.max_steps
    clock.epochs = state.num_train_epochs
    clock.epoch = max(math.ceil((state.epoch or 0) - 1e-6) - 1, 0)
