"""The data options of verbs that look at a model: what is not said, the run that made the model remembers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from layerstill.commands.common import names
from layerstill.commands.known import complete_task, known_task
from layerstill.commands.options import DATA, TASK_HELP, Data, DataOptions, Dev, LabelMap, TextColumns

MaxLengthOrRun = Annotated[
    Optional[int],
    typer.Option(
        min=4,
        help="Longest text in tokens; longer ones are cut. Without it, as in training, else 128.",
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
        from layerstill.acts.given import Given
        from layerstill.acts.remembered import Remembered
        from layerstill.data.label_map import read_label_map

        run = Remembered.of(model)
        if not self.given and train_examples is None:
            return run.read() if split is None else run.task()
        return Given(
            data=self.data,
            dev=self.dev,
            kind=self.task,
            text_columns=names(self.text_columns),
            label_column=self.label_column,
            label_map=None if self.label_map is None else read_label_map(self.label_map),
            train_examples=train_examples,
            whole=split == "dev",
        ).read(run)

    def columns(self, task: Any) -> DataOptions:
        """The columns of own out-of-domain files: those that were said, else the task's unless they are usual ones."""
        from layerstill.data.columns import USUAL
        from layerstill.heads import HEADS

        source = task.source
        own = None if source is None or tuple(source.text_columns) in USUAL else ",".join(source.text_columns)
        if source is None or source.kind not in HEADS:
            return DataOptions(text_columns=self.text_columns, label_column=self.label_column or "label")
        return DataOptions(
            text_columns=self.text_columns or own or None, label_column=self.label_column or source.label_column
        )
