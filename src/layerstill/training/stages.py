"""A run's stages, one after the other: trained, kept when they are done, and the record of them all."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import EarlyStoppingCallback, PreTrainedModel, set_seed

from layerstill.atomic import write_json, write_tensors, write_text
from layerstill.data.encode import Encoded
from layerstill.data.extra import ExtraTexts
from layerstill.data.label_agreement import FittedSet
from layerstill.data.probabilities import Probabilities
from layerstill.data.readers import Readers
from layerstill.data.supplementary import Supplementary
from layerstill.data.tasks import Split, Task
from layerstill.evaluation.noise import recall_of_noise
from layerstill.evaluation.ood import score_ood
from layerstill.evaluation.predict import evaluate_split
from layerstill.evaluation.predictions import PREDICTIONS_FILE, TEACHER_FILE, kept_tensors
from layerstill.families import depth_of
from layerstill.recipe import Recipe, Stage
from layerstill.result import SELECTED, Record, Result, StudentPart, TrainPart
from layerstill.students.build import set_trainable
from layerstill.training import processes
from layerstill.training.accounting import Spent, matmul_peak
from layerstill.training.arguments import Options, arithmetic_of, dtype_of, training_arguments
from layerstill.training.cache_choice import cache_key, choose_cache
from layerstill.training.checkpoint import last_checkpoint, load_module, save_module
from layerstill.training.length import steps_of
from layerstill.training.memories import examples_of, memory_notices
from layerstill.training.module import DistillationModule
from layerstill.training.ready_logits import ReadyLogits
from layerstill.training.records import RunFolder, environment
from layerstill.training.teacher_cache import TeacherCache
from layerstill.training.teachers import Said
from layerstill.training.trackers import tracking_in
from layerstill.training.trainer import DistillationTrainer

log = logging.getLogger("layerstill")

OBJECTIVES_FILE = "objectives.safetensors"
"""What the objectives own: maps of alignments, and what mappings remember."""


@dataclass
class StagedRun:
    """One run with everything it needs, ready to be trained."""

    folder: RunFolder
    student: PreTrainedModel
    teacher: PreTrainedModel | None
    readers: Readers
    task: Task
    recipe: Recipe
    options: Options
    teacher_metrics: dict[str, float]
    origin: dict[str, Any]
    teacher_logits: Any = None
    """What the teacher says of dev, as the head joins it, if it was asked for this run."""
    teacher_tokens: list[int] | None = None
    ood: tuple[FittedSet, ...] = ()
    supplementary: Supplementary | None = None
    extra: ExtraTexts | None = None
    """Texts that join the training examples of the stages that can learn from them."""
    probabilities: Probabilities | None = None
    """What a teacher that is not here said of the training examples."""
    said: Said | None = None
    """What several teachers say of the texts of all stages, whose mean takes the place of the teacher's logits."""
    describe: Callable[[Result], None] | None = None
    """Is handed the result just before the run counts as finished, and may write about it in the folder."""
    judge: Callable[[Record, Any], list[str]] | None = None
    """Is handed the record and the student's logits on dev, and gives the record's verdict."""
    spent: Spent = field(default_factory=Spent)

    def train(self) -> Result:
        """Train every stage that is not done yet, save the student, write the record."""
        if processes.is_first():
            write_text(self.folder.path / "recipe.yaml", self.recipe.to_yaml())
        splits = {self._data_of(stage): self._split_of(stage) for stage in self.recipe.stages}
        splits["dev"] = self.task.splits["dev"]
        limit = self.options.max_length
        encoded = {name: self.readers.encode(split, limit, self.task.head) for name, split in splits.items()}
        note([notice for name, split in encoded.items() for notice in split.notices(name, limit)])
        for number, stage in enumerate(self.recipe.stages, 1):
            done = self.folder.checkpoints / f"stage-{number}-done"
            if (done / "spent.json").is_file():
                note([f"stage {number} of {len(self.recipe.stages)} was trained by an earlier call"])
                load_module(self.student, done / "student.safetensors")
                self.spent = Spent(**json.loads((done / "spent.json").read_text("utf-8")))
                continue
            self._train_stage(number, stage, encoded[self._data_of(stage)], encoded["dev"])
            if processes.is_first():
                done.mkdir(parents=True, exist_ok=True)
                save_module(self.student, done / "student.safetensors")
                write_json(done / "spent.json", asdict(self.spent))  # last: it says that the stage is done
        if processes.is_first():
            self._finish()
        processes.wait_for_all()
        result = self.folder.finished
        assert result is not None
        return result

    def _data_of(self, stage: Stage) -> str:
        """What the texts are called that a stage trains on."""
        if stage.data == "supplementary":
            return "supplementary"
        return "train and joined" if self.extra is not None and stage.takes_unlabelled else "train"

    def _split_of(self, stage: Stage) -> Split:
        if stage.data == "supplementary":
            assert self.supplementary is not None
            return self.supplementary.split
        if self.extra is not None and stage.takes_unlabelled:
            return self.extra.joined(self.task)
        return self.task.splits["train"]

    def _finish(self) -> None:
        record = self._record()  # refuses a student whose outputs are not finite, before it is saved
        self.student.requires_grad_(True)
        self.student.save_pretrained(self.folder.path)
        self.readers.student.save_pretrained(self.folder.path)
        if self.describe is not None:
            self.describe(Result(record, self.folder.path))
        self.folder.finish(record)

    def _train_stage(self, number: int, stage: Stage, train: Encoded, dev: Encoded) -> None:
        checkpoints = self.folder.checkpoints / f"stage-{number}"
        resume = last_checkpoint(checkpoints)
        step = int(resume.name.split("-")[1]) if resume else 0
        set_trainable(self.student, self.recipe.student)
        # Stages differ in their dropout. The order of examples and the lambdas of mixup start over in each.
        seed = self.options.seed + 1000 * (number - 1)
        set_seed(seed)
        ready = self._ready_logits(stage, train)
        # Where several teachers have answered already, none has to run for its logits alone.
        teacher = self.teacher if ready is None or stage.beyond_logits else None
        head, labels = self.task.head, self._split_of(stage).labels
        examples = examples_of(labels, len(train.dataset), head)
        note(memory_notices(stage, examples))
        module = DistillationModule(
            self.student, teacher, stage, self.options.seed, head, self.teacher_tokens, ready, examples
        )
        filling = 0.0
        if teacher is not None:
            module.source.cache, filling = self._filled_cache(module, stage, train, teacher)
        of = f", stage {number} of {len(self.recipe.stages)}" if len(self.recipe.stages) > 1 else ""
        if resume is not None:
            steps = steps_of(stage, len(train.dataset), self.options.max_steps)
            note([f"{self.folder.path}: resumed at step {step:,} of {steps:,}{of}"])
        with tracking_in(self.folder.path):
            trainer = DistillationTrainer(
                module,
                training_arguments(stage, checkpoints, self.options, self.task.metrics[0], len(train.dataset)),
                train_dataset=train.dataset,
                eval_dataset=dev.dataset.select(np.argsort(dev.dataset["length"])[::-1]),
                compile_layers=self.options.compile,
                what=f"training{of}",
                data_collator=self.readers.collator(self.task.head),
                processing_class=self.readers.student,
                compute_metrics=self._metrics,
                callbacks=[
                    self.folder.metrics_log(number, step),
                    *([EarlyStoppingCallback(stage.patience)] if stage.patience else []),
                ],
            )
            set_seed(seed)  # again, because a Trainer sets one of its own when it is made
            trainer.add_teacher_seconds(filling)
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        self._add_up(trainer, len(train.dataset), stage)
        processes.wait_for_all()  # until none reads checkpoints any more
        if processes.is_first() and (owned := module.owned()):
            several = len(self.recipe.stages) > 1
            name = f"stage-{number}-{OBJECTIVES_FILE}" if several else OBJECTIVES_FILE
            write_tensors(self.folder.path / name, owned)

    def _ready_logits(self, stage: Stage, train: Encoded) -> ReadyLogits | None:
        if self.said is not None and stage.taught():
            logits = self.said.of(self._split_of(stage))
        elif self.probabilities is not None and stage.data == "task":
            logits = self.probabilities.logits(self.task.splits["train"], self.task)
        else:
            return None
        return ReadyLogits(train.dataset["content"], logits, self.task.head)

    def _filled_cache(
        self, module: DistillationModule, stage: Stage, train: Encoded, teacher: PreTrainedModel
    ) -> tuple[TeacherCache | None, float]:
        """The cache that the stage reads, if any, and how many seconds filling it took."""
        examples, train = len(train.dataset), train.for_teacher
        steps = steps_of(stage, examples, self.options.max_steps)
        cache = choose_cache(
            module.terms_of_stage,
            teacher.config,
            cache_key(self.folder.settings["teacher_fingerprint"], self.teacher_tokens),
            train,
            steps * stage.batch_size / examples,
            self.options.cache,
            self.folder.teacher_cache,
            arithmetic_of(self.options.precision),
        )
        begun = time.perf_counter()
        if cache is not None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            if processes.is_first():
                cache.fill(
                    train.dataset,
                    module.to(device).source.ask,
                    self.readers.teacher_collator(self.task.head),
                    torch.device(device),
                )
            processes.wait_for_all()
            cache.refresh()
        return cache, time.perf_counter() - begun

    def _add_up(self, trainer: DistillationTrainer, examples: int, stage: Stage) -> None:
        epochs = trainer.state.epoch or 0.0
        cost = trainer.cost()
        self.spent.seconds += cost["seconds"]
        self.spent.steps += trainer.state.global_step
        self.spent.epochs += round(epochs, 4)
        self.spent.examples += round(epochs * examples)
        self.spent.tokens += int(cost["tokens"])
        self.spent.places += int(cost["places"])
        self.spent.flops += cost["flops"]
        self.spent.teacher_seconds += cost["teacher_seconds"]
        evaluations = sum("eval_runtime" in entry for entry in trainer.state.log_history)
        self.spent.selected.append(f"best of {evaluations}" if stage.select == "best" else "last")

    def _metrics(self, predictions: Any) -> dict[str, float]:
        logits, labels = np.asarray(predictions.predictions), np.asarray(predictions.label_ids)
        return self.task.score(*self.task.head.gathered(logits, labels))

    def _regime(self) -> dict[str, Any]:
        """The record of the regime, and under label noise what the student made of the wrong labels."""
        if not self.task.clean_labels:
            return self.task.regime
        student = recall_of_noise(self.student, self.readers.student, self.task, self.options.max_length)
        return self.task.regime | {"student": student}

    def _record(self) -> Record:
        limit, gold = self.options.max_length, self.task.gold("dev")
        tokenizer = self.readers.student
        metrics, logits = evaluate_split(self.student, tokenizer, self.task, "dev", limit)
        write_tensors(self.folder.path / PREDICTIONS_FILE, kept_tensors(logits, self.task))
        if self.teacher_logits is not None:
            write_tensors(self.folder.path / TEACHER_FILE, kept_tensors(self.teacher_logits, self.task))
        by_label = self.task.by_label(logits, "dev")
        precision = arithmetic_of(self.options.precision)
        peak = matmul_peak(self.student.device, dtype_of(self.options.precision))
        record = Record(
            recipe=self.recipe.name,
            recipe_hash=self.recipe.hash,
            teacher=self.folder.settings.get("teacher"),
            task=self.task.name,
            seed=self.options.seed,
            student=StudentPart(
                layers=depth_of(self.student.config),
                hidden_size=self.student.config.hidden_size,
                parameters=self.student.num_parameters(),
                init=self.origin,
            ),
            metrics=metrics | {SELECTED: self.spent.selected[-1]},
            head=self.task.head.record(),
            by_label=by_label,
            teacher_metrics=self.teacher_metrics,
            verdict=[],
            regime=self._regime(),
            ood=score_ood(self.student, tokenizer, self.task, self.ood, limit, logits, gold),
            supplementary=self.supplementary.record() if self.supplementary else None,
            tuning=self.folder.kept("tuning"),
            unlabelled=self.extra.unlabelled if self.extra else None,
            augmented=self.extra.augmented if self.extra else None,
            teacher_probabilities=self.probabilities.record() if self.probabilities else None,
            teachers=self.said.record() if self.said else None,
            text=None,
            train=TrainPart(**self.spent.record(precision, processes.count() * peak)),
            environment=environment(),
        )
        if self.judge is None:
            return record
        return record.model_copy(update={"verdict": self.judge(record, logits)})


def note(notices: list[str]) -> None:
    """Notes for the user, said once however many processes there are."""
    for notice in notices if processes.is_first() else ():
        log.warning("note: %s", notice)
