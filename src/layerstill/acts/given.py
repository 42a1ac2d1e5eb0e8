"""Data that are said for a model that a run made: what is not said of them, the run remembers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerstill.acts.inputs import read_task, task_named
from layerstill.acts.remembered import Remembered
from layerstill.data.glue import GLUE
from layerstill.data.label_map import with_label_map
from layerstill.data.objects import has_columns
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.heads import HEADS, head_named, head_of
from layerstill.training.models import load_config
from layerstill.training.stages import note

USUAL = "label"


@dataclass(frozen=True, kw_only=True)
class Given:
    """What is said of data; the empty one stands for those of the run."""

    data: Any = None
    """A path, or data in memory as `Task.from_data` takes them."""
    dev: Path | None = None
    kind: str | None = None
    """The word of `--task`."""
    text_columns: tuple[str, ...] = ()
    label_column: str | None = None
    label_map: Mapping[str, str] | None = None
    labels: Any = None
    """Those of a list of texts."""
    train_examples: int | None = None
    whole: bool = False
    """Whether data without splits are train and dev at once, so that all of them are scored."""
    hold_out: bool = True
    """Whether data in memory without dev get one."""

    def read(self, run: Remembered, place: str | None = None) -> Task:
        """The task, with a note about each word that differs from the run's.

        `place` is where the model can be loaded from, if not in the run's folder. UserError for what cannot be read,
        with the names that the columns had in training.
        """
        note(self._differences(run))
        task = self._read(run, place or str(run.folder))
        if self.label_map is not None:
            return with_label_map(task, self.label_map)
        there = run.source.label_map if run.source else {}
        known = {old: new for old, new in there.items() if old in task.labels}
        return with_label_map(task, known) if known else task

    @property
    def _path(self) -> Path | None:
        return Path(self.data) if isinstance(self.data, str | Path) and self.labels is None else None

    def _read(self, run: Remembered, place: str) -> Task:
        kind = self.kind or self._kind(run, place)
        source = run.source if run.source and run.source.kind == kind else None
        limit, data, dev = self.train_examples, self._path, self.dev
        if source is not None and self.data is None:
            data = None if source.data is None else source.data.path
            dev = dev or (None if source.dev is None else source.dev.path)
            limit = limit or source.train_examples
        if self.data is not None and data is None:
            return self._in_memory(run, kind).limited(limit)
        if self.whole and data is not None and data.is_file() and self.data is not None:
            dev = dev or data
        if kind not in HEADS or data is None:
            return task_named(kind, data, dev, self.text_columns, self.label_column or USUAL, limit)
        columns = self.text_columns or (tuple(source.text_columns) if source else ())
        label = self.label_column or (source.label_column if source else USUAL)
        head = (run.head if kind == run.kind else None) or head_named(kind)
        try:
            task = Task.from_files(head, data, dev, columns, label)
        except UserError as error:
            raise self._explained(error, run, kind) from None
        return task.limited(limit)

    def _in_memory(self, run: Remembered, kind: str) -> Task:
        """Data in memory; columns without names of their own are no matter of the run's."""
        source = run.source if run.source and run.source.kind == kind else None
        head = (run.head if kind == run.kind else None) or head_named(kind)
        data, labels = self.data, self.labels
        if self.whole and not isinstance(data, Mapping):
            data, labels = {"train": data, "dev": data}, None if labels is None else {"train": labels, "dev": labels}
        named = source if source is not None and has_columns(data) else None
        columns = self.text_columns or (tuple(named.text_columns) if named else ())
        label = self.label_column or (named.label_column if named else USUAL)
        try:
            return Task.from_data(data, head, columns, label, labels, self.hold_out)
        except UserError as error:
            raise self._explained(error, run, kind) from None

    def _explained(self, error: UserError, run: Remembered, kind: str) -> UserError:
        """The error, for a column that is not there with what it was called in training."""
        source = run.source if run.source and run.source.kind == kind else None
        if "(from --label-column)" in str(error) and self.label_column is None:
            said = str(error).split("; texts without labels")[0]  # what is said to those who train
            error = UserError(f"{said}; texts without labels are for layerstill predict")
        told = self.text_columns and self.label_column is not None
        if told or source is None or "no column" not in str(error):
            return error
        texts = f"--text-columns {','.join(source.text_columns)} and " if source.text_columns else ""
        in_memory = self.data is not None and self._path is None
        way = " with Task.from_data(data, text_columns=..., label_column=...)" if in_memory else ""
        return UserError(
            f"{error}; run {run.folder} was trained with {texts}--label-column {source.label_column}, "
            f"say what they are called here{way}"
        )

    def _kind(self, run: Remembered, place: str) -> str:
        """The run's `--task` if it can be that of these data, else what the model is for."""
        layout = self.data is None or (self._path is not None and self._path.is_dir())
        if run.kind in HEADS or (run.kind in GLUE and layout) or (run.kind is not None and self.data is None):
            return str(run.kind)
        head = head_of(load_config(place))
        return "classification" if head is None else head.word

    def _differences(self, run: Remembered) -> list[str]:
        """What was said and is not the run's."""
        found, source, path = [], run.source, self._path
        if self.kind is not None and run.kind is not None and self.kind != run.kind:
            found.append(_used("task", self.kind, run.kind))
        if source is None:
            return found
        for option, here, there in (("data", path, source.data), ("dev", self.dev, source.dev)):
            if here is not None and there is not None and not there.is_at(here):
                found.append(_used(option, here, there.given))
        own = path is not None and source.data is not None and source.data.is_at(path)
        if own and path is not None and path.is_file() and self.whole and self.dev is None:
            found.append(f"--data {path} is scored whole, including the training examples; leave it out to score dev")
        if self.text_columns and source.text_columns and list(self.text_columns) != source.text_columns:
            found.append(_used("text-columns", ",".join(self.text_columns), ",".join(source.text_columns)))
        if self.label_column is not None and self.label_column != source.label_column:
            found.append(_used("label-column", self.label_column, source.label_column))
        return found


def _used(option: str, here: object, there: object) -> str:
    return f"--{option} {here} is used, but the model was trained with {there}"


def task_for(run: Remembered, place: str, data: Any, labels: Any = None, whole: bool = False) -> Task:
    """What a Python user gives an act that looks at a model: a task as it is, other data as the run read its own.

    Without data the task is the run's, whose data must not have changed since. The arguments are those of `Given`.
    """
    if isinstance(data, Task):
        return read_task(data, place, labels)
    if data is None:
        return run.task()
    return Given(data=data, labels=labels, whole=whole, hold_out=False).read(run, place)
