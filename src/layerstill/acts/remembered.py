"""What the run that made a model remembers: its data, their columns, its head and how long texts may be."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from layerstill.atomic import read_json
from layerstill.data.encode import allowed_length, usable_length
from layerstill.data.glue import GLUE
from layerstill.data.label_agreement import agree_on_labels
from layerstill.data.label_map import with_label_map
from layerstill.data.regimes import Regime
from layerstill.data.source import TaskSource
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.heads import HEADS, Head, head_named, head_said
from layerstill.recipe import validated
from layerstill.studies.tasks import task_of_run
from layerstill.training.models import load_config
from layerstill.training.records import JOB_FILE, RUN_FILE, SOURCE, task_fingerprint

USUAL_LENGTH = 128
"""Tokens of the longest text where nobody says anything."""
TICKETS = "tickets"


@dataclass(frozen=True)
class Remembered:
    """`run.json` beside a model, read generously: older runs kept less, and other models have none."""

    folder: Path
    settings: dict[str, Any]
    """Empty for a model that no run made."""

    @classmethod
    def of(cls, model: str | Path) -> "Remembered":
        """That of a folder; of a hub id, nothing."""
        try:
            found = read_json(Path(model) / RUN_FILE)
        except (OSError, ValueError, RecursionError):
            found = None
        return cls(Path(model), found if isinstance(found, dict) else {})

    @cached_property
    def source(self) -> TaskSource | None:
        """What the run read its data from; None where that is not written down. UserError for a damaged record."""
        said = self.settings.get(SOURCE)
        return None if said is None else validated(TaskSource, said, f"{self.folder / RUN_FILE}, {SOURCE}")

    @property
    def kind(self) -> str | None:
        """The word of `--task`; None where a Task made in Python had a name of its own."""
        word = self.source.kind if self.source else self.settings.get("task")
        return word if isinstance(word, str) and word in {*HEADS, *GLUE, TICKETS} else None

    @property
    def head(self) -> Head | None:
        """The head with the settings that it had; None for that of the task, with its defaults.

        A head from outside layerstill counts as that of the task: reading a record never imports code.
        """
        said = self.settings.get("head")
        name = next(iter(said), "") if isinstance(said, dict) else said
        foreign = isinstance(name, str) and ":" in name
        return None if said is None or foreign else head_said(said, f"{self.folder / RUN_FILE}, head").as_scored()

    @property
    def max_length(self) -> int | None:
        """Tokens of the longest text in training."""
        length = self.settings.get("max_length")
        return length if type(length) is int and length > 0 else None

    def length(
        self, asked: int | None, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
    ) -> tuple[int, list[str]]:
        """How many tokens of a text are read, and a notice if that is not what the run did.

        What was asked for, else as in training, else 128 or what the model allows. UserError for more than that.
        """
        if asked is None:
            usual = min(USUAL_LENGTH, allowed_length(USUAL_LENGTH, tokenizer, config))
            return usable_length(self.max_length or usual, tokenizer, config), []
        return usable_length(asked, tokenizer, config), self.other_length(asked)

    def other_length(self, asked: int, who: str = "the model") -> list[str]:
        """A notice if a length is not that of the run that made the model, `who` the model is."""
        there = self.max_length
        return [] if there in (None, asked) else [f"--max-length {asked} is used, but {who} was trained with {there}"]

    def task(self) -> Task:
        """What the run was trained on, its regime and its dev split included.

        UserError where it does not say what that was, and where the data are gone or no longer the same.
        """
        task = self.read()
        there = self.settings.get("data_fingerprint")
        agreed, _ = agree_on_labels(task, load_config(str(self.folder), task.head), f"run {self.folder}", subset=True)
        here = task_fingerprint(agreed)
        if there is not None and here != there:
            place = self.source.data.path if self.source and self.source.data else None
            where, kind = "" if place is None else f" in {place}", self.kind or task.head.word
            raise UserError(
                f"run {self.folder}: its data have changed since it was trained, fingerprint {there} then and {here} "
                f"now{where}; add --task {kind} to use them as they are now, or give other data with --data"
            )
        return task

    def read(self) -> Task:
        """The same, whether or not the data have changed."""
        if (self.folder / JOB_FILE).is_file() and (own := task_of_run(self.folder)) is not None:
            return own
        task = self._from_source()
        if self.source is not None and self.source.label_map:
            task = with_label_map(task, self.source.label_map)
        task = task.with_dev()
        record = self.settings.get("regime")
        return Regime.from_record(record).apply(task, 0) if isinstance(record, dict) and record else task

    def _from_source(self) -> Task:
        source, kind = self.source, self.kind
        if kind == TICKETS:
            return Task.demo().limited(source.train_examples if source else None)
        if source is None or (source.data is None and kind not in GLUE):
            why = "nothing beside it says where they are"
            if source is not None:
                why = "it was trained on data in memory"
            elif self.settings:
                why = f"its {RUN_FILE} does not say where they are"
            raise UserError(f"give the data of model {self.folder} (--data): {why}")
        for place in (source.data, source.dev):
            if place is not None and not place.path.exists():
                raise UserError(
                    f"run {self.folder}: the data that it was trained on are gone, {place.absolute}; restore them, "
                    "or give --data"
                )
        data = None if source.data is None else source.data.path
        dev = None if source.dev is None else source.dev.path
        if kind in GLUE:
            return Task.glue(str(kind), data).limited(source.train_examples)
        assert data is not None
        head = self.head or head_named(source.kind)
        columns = tuple(source.text_columns), source.label_column, source.weight_column
        task = Task.from_files(head, data, dev, *columns)
        return task.limited(source.train_examples)
