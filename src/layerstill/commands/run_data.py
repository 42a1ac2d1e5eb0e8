"""The data options of verbs that look at a model: what is not said, the run that made the model remembers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from layerstill.commands.common import names, read_task, renamed
from layerstill.commands.known import complete_task, known_task
from layerstill.commands.options import DATA, TASK_HELP, Data, DataOptions, Dev, LabelMap, TextColumns
from layerstill.errors import UserError

USUAL = "label"
GUESSED = (("text",), ("sentence1", "sentence2"), ("sentence",))
"""Text columns that are found without being named."""
MaxLengthOrRun = Annotated[
    Optional[int],
    typer.Option(
        min=4,
        help="Longest text in tokens; longer ones are cut. Without it as in training, else 128.",
        rich_help_panel=DATA,
    ),
]


@dataclass(frozen=True, kw_only=True)
class RunDataOptions:
    """Which data, where they are not those of the model's run."""

    task: Annotated[
        Optional[str],
        typer.Option(help=f"{TASK_HELP} Without it, the run's.", autocompletion=complete_task, callback=known_task),
    ] = None
    data: Data = None
    dev: Dev = None
    label_map: LabelMap = None
    text_columns: TextColumns = None
    label_column: Annotated[
        Optional[str],
        typer.Option(help="Label column of your own files. Without it, the run's, else `label`."),
    ] = None

    @property
    def given(self) -> bool:
        """Whether anything was said."""
        return self != RunDataOptions()

    def read(self, model: str | Path, split: str | None, train_examples: int | None = None) -> Any:
        """The task: the run's, or with what was said in its place, and a note about each that differs.

        A single file in `--data` is scored whole if `split` is dev. Without a split the caller finds out whether the
        run's data have changed.
        """
        from layerstill.acts.remembered import Remembered
        from layerstill.data.label_map import with_label_map
        from layerstill.training.stages import note

        run = Remembered.of(model)
        if not self.given and train_examples is None:
            return run.read() if split is None else run.task()
        note(self._differences(run.source, run.kind, split))
        task = self._read_over(run, split, train_examples)
        if self.label_map is not None:
            return renamed(task, self.label_map)
        there = run.source.label_map if run.source else {}
        known = {old: new for old, new in there.items() if old in task.labels}
        return with_label_map(task, known) if known else task

    def _read_over(self, run: Any, split: str | None, train_examples: int | None) -> Any:
        from layerstill.heads import HEADS, head_named

        kind = self.task or self._kind(run)
        source = run.source if run.source and run.source.kind == kind else None
        data, dev = self.data, self.dev
        if source is not None and data is None:
            data, dev = source.data and source.data.path, dev or (source.dev and source.dev.path)
            train_examples = train_examples or source.train_examples
        if self.data is not None and self.data.is_file() and dev is None and split == "dev":
            dev = self.data
        head = run.head if kind == run.kind else None
        if kind not in HEADS or data is None:
            return read_task(kind, data, dev, self.text_columns, self.label_column or USUAL, train_examples)
        from layerstill.data.tasks import Task

        columns = names(self.text_columns) or (tuple(source.text_columns) if source else ())
        label = self.label_column or (source.label_column if source else USUAL)
        try:
            task = Task.from_files(head or head_named(kind), data, dev, columns, label)
        except UserError as error:
            if "(from --label-column)" in str(error) and self.label_column is None:
                error = UserError(f"{error}; texts without labels are for layerstill predict")
            told = self.text_columns is not None and self.label_column is not None
            if told or source is None or "no column" not in str(error):
                raise error from None
            texts = f"--text-columns {','.join(source.text_columns)} and " if source.text_columns else ""
            raise UserError(
                f"{error}; run {run.folder} was trained with {texts}--label-column {source.label_column}, "
                "say what they are called here"
            ) from None
        return task.limited(train_examples)

    def _kind(self, run: Any) -> str:
        """The run's `--task` if it can be that of these data, else what the model is for."""
        from layerstill.data.tasks import GLUE
        from layerstill.heads import HEADS, head_of
        from layerstill.training.models import load_config

        folder = self.data is None or self.data.is_dir()
        if run.kind in HEADS or (run.kind in GLUE and folder) or (run.kind is not None and self.data is None):
            return str(run.kind)
        head = head_of(load_config(str(run.folder)))
        return "classification" if head is None else head.word

    def _differences(self, source: Any, kind: str | None, split: str | None) -> list[str]:
        """What was said and is not the run's."""
        found = []
        if self.task is not None and kind is not None and self.task != kind:
            found.append(f"--task {self.task}, trained with {kind}")
        if source is None:
            return found
        for option, here, there in (("data", self.data, source.data), ("dev", self.dev, source.dev)):
            if here is not None and there is not None and not there.is_at(here):
                found.append(f"--{option} {here}, trained with {there.given}")
        whole = self.data is not None and source.data is not None and source.data.is_at(self.data)
        if whole and self.data is not None and self.data.is_file() and self.dev is None and split == "dev":
            found.append(f"--data {self.data} is scored whole, the training examples too; leave it out to score dev")
        texts = names(self.text_columns)
        if texts and source.text_columns and list(texts) != source.text_columns:
            found.append(f"--text-columns {','.join(texts)}, trained with {','.join(source.text_columns)}")
        if self.label_column is not None and self.label_column != source.label_column:
            found.append(f"--label-column {self.label_column}, trained with {source.label_column}")
        return found

    def columns(self, task: Any) -> DataOptions:
        """The columns of own out-of-domain files: those that were said, else the task's unless they are usual ones."""
        from layerstill.heads import HEADS

        source = task.source
        own = None if source is None or tuple(source.text_columns) in GUESSED else ",".join(source.text_columns)
        if source is None or source.kind not in HEADS:
            return DataOptions(text_columns=self.text_columns, label_column=self.label_column or USUAL)
        return DataOptions(
            text_columns=self.text_columns or own or None, label_column=self.label_column or source.label_column
        )
