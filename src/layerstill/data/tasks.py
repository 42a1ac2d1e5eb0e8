"""Tasks: texts with labels in splits, from GLUE folders, own files, the hub or the demo that comes along."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from layerstill.data import conll
from layerstill.data.columns import USUAL_LABEL, guess_texts, in_any_case, texts_of
from layerstill.data.files import Table, read_table, refuse_copies
from layerstill.data.folders import find_files
from layerstill.data.glue import GLUE, splits_from_folder, splits_from_hub
from layerstill.data.held_out import hold_a_tenth_out
from layerstill.data.labels import READERS, Written
from layerstill.data.objects import as_list, tables_of
from layerstill.data.source import Place, TaskSource
from layerstill.data.split import Split
from layerstill.data.weight_column import weights_of
from layerstill.errors import UserError
from layerstill.heads import Head, head_named
from layerstill.names import nearest_task


@dataclass(frozen=True)
class Task:
    """What a model should learn: splits `train`, `dev` and perhaps others, label names and metrics."""

    name: str
    head: Head
    """What its models are asked for; a word of `HEADS` stands for the head of that name."""
    splits: dict[str, Split]
    labels: tuple[str, ...] = ()
    """Names of the outputs in order; empty for one score."""
    metrics: tuple[str, ...] = ()
    """Names of metrics, by default the head's; the first one decides which of several evaluations is best."""
    positive: str | None = None
    """Name of the class that metric `f1` is about."""
    notices: tuple[str, ...] = field(default=(), compare=False)
    """What the user should know about how the data were read."""
    regime: dict[str, Any] = field(default_factory=dict)
    """What a `Regime` made of the training examples, for `result.json`; empty for all of them as they are."""
    clean_labels: list[int] | None = None
    """The training labels as they were before label noise; None without noise."""
    source: TaskSource | None = field(default=None, compare=False)
    """What it was read from; None for splits that were made in Python."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", head_named(self.head))
        object.__setattr__(self, "labels", tuple(self.labels))
        splits = {}
        for name, split in self.splits.items():
            labels = self.head.numbered(split.labels, self.labels, f"task {self.name}, split {name}")
            if self.head.per_token:
                _refuse_unequal(f"task {self.name}, split {name}", split)
            splits[name] = split if labels == split.labels else split.relabelled(labels)
        object.__setattr__(self, "splits", splits)
        object.__setattr__(self, "metrics", self.metrics or self.head.metrics_of(self.labels))

    @classmethod
    def glue(cls, name: str, path: str | Path | None = None) -> "Task":
        """One of the nine GLUE tasks from a folder in the official layout, or from the hub without a path."""
        if name not in GLUE:
            raise UserError(f"unknown task {name!r}: {nearest_task(name, GLUE)}")
        spec, place = GLUE[name], None if path is None else Place.of(path)
        splits = splits_from_hub(name) if path is None else splits_from_folder(name, Path(path))
        source = TaskSource(kind=name, data=place, text_columns=list(spec.texts))
        return cls(name, spec.head, splits, tuple(spec.labels.values()), spec.metrics, spec.positive, source=source)

    @classmethod
    def from_files(
        cls,
        head: str | Head,
        path: str | Path,
        dev: str | Path | None = None,
        text_columns: tuple[str, ...] = (),
        label_column: str = "label",
        weight_column: str | None = None,
    ) -> "Task":
        """Own files: a folder with `train.*` and `dev.*` (and perhaps `test.*`), or one file of training examples.

        `head` is a head or its word, `classification` say. Tags are read as `data.conll` says. `weight_column` says
        what each training example counts in the loss on labels, a number of 0 or more; only train needs it.
        Without a dev file, a tenth of the training examples is held out, the same tenth every time.
        """
        found = head_named(head)
        if not isinstance(path, str | Path):
            raise UserError(f"Task.from_files reads files, and this is a {type(path).__name__}: use Task.from_data")
        columns = Columns(text_columns, label_column, weight_column)
        task = _own_files(found, Path(path), None if dev is None else Path(dev), columns)
        places = {"data": Place.of(path), "dev": None if dev is None else Place.of(dev)}
        return replace(task, source=task.source and task.source.model_copy(update=places))

    @classmethod
    def from_data(
        cls,
        data: Any,
        head: str | Head = "classification",
        text_columns: tuple[str, ...] = (),
        label_column: str = "label",
        labels: Any = None,
        hold_out: bool = True,
        weight_column: str | None = None,
    ) -> "Task":
        """Data that are in memory already; they are read as own files are, and the same mistakes are found.

        Args:
            data: a Dataset, DatasetDict or DataFrame, a list of (text, label) or of (text, text, label), a list of
                dictionaries by column, a list of texts with `labels`, a dictionary of these by split, or a path.
            head: a head or its word.
            text_columns: one or two, where they have no usual name.
            label_column: where the labels are. Of a Dataset's ClassLabel the names are taken.
            labels: of a list of texts, in its order; by split where the texts are.
            hold_out: without a dev split, make one of a tenth of the training examples, the same every time.
            weight_column: as in `from_files`.

        UserError for what is no data, and for labels that the head cannot learn from, with the split and the row.
        """
        found = head_named(head)
        if isinstance(data, str | Path) and labels is None:
            return cls.from_files(found, data, None, text_columns, label_column, weight_column)
        columns = Columns(text_columns, label_column, weight_column)
        tables = tables_of(data, labels, label_column, words=found.per_token)
        if "train" not in tables and not hold_out:
            tables["train"] = next(iter(tables.values()))
        if "train" not in tables:
            raise UserError(f"data: split train is missing, there are {', '.join(tables)}")
        if found.per_token:
            return _tagged(found, tables, columns)
        return _from_tables(found, tables, columns, hold_out)

    @classmethod
    def from_dataset(cls, dataset: Any, head: str | Head = "classification", **settings: Any) -> "Task":
        """`from_data`, under the name that other libraries have for it."""
        return cls.from_data(dataset, head, **settings)

    @classmethod
    def demo(cls) -> "Task":
        """Support-ticket routing: about 1,000 short messages, ten intents, written for this project."""
        folder = resources.files("layerstill") / "data" / "tickets"
        with resources.as_file(folder) as path:
            task = cls.from_files("classification", path, text_columns=("text",), label_column="intent")
        source = TaskSource(kind="tickets", text_columns=["text"], label_column="intent")
        return replace(task, name="tickets", notices=(), source=source)

    @property
    def paired(self) -> bool:
        """Whether examples have two texts."""
        first = next((text for split in self.splits.values() for text in split.texts), ())
        return not self.head.per_token and len(first) == 2

    def with_label_order(self, names: tuple[str, ...]) -> "Task":
        """The same task with its outputs numbered as `names`, which has them all, has them."""
        places = [names.index(name) for name in self.labels]

        def moved(labels: list[Any]) -> list[Any]:
            return self.head.renumbered(labels, places, len(names))

        splits = {s: split.relabelled(moved(split.labels)) for s, split in self.splits.items()}
        clean = None if self.clean_labels is None else moved(self.clean_labels)
        head = self.head.in_order(places, len(names))
        return replace(self, head=head, splits=splits, labels=names, clean_labels=clean)

    def with_dev(self) -> "Task":
        """The same task, with a tenth of its training examples held out as `dev` if it has no such split."""
        if "train" not in self.splits:
            raise UserError(f"task {self.name}: split train is missing, there are {', '.join(self.splits) or 'none'}")
        if "dev" in self.splits:
            self.refuse_unscored("dev")
            return self
        if self.regime:
            raise UserError(f"task {self.name}: split dev is missing; give it one before its regime is applied")
        splits, notice = hold_a_tenth_out(self.splits, self.head)
        return replace(self, splits=splits, notices=(*self.notices, notice))

    def gold(self, split: str) -> Any:
        """The labels of a split as `score` takes them."""
        return self.head.gold(self.splits[split].labels)

    def score(self, logits: Any, gold: Any = None) -> dict[str, float]:
        """All metrics on logits as the head joins them, against gold labels as it has them; without, those of dev."""
        return self.score_decisions(self.head.decide(logits), self.gold("dev") if gold is None else gold)

    def score_decisions(self, decided: Any, gold: Any) -> dict[str, float]:
        """All metrics on what the head decided."""
        return self.head.score(self.metrics, self.labels, decided, gold, self.positive)

    def by_label(self, logits: Any, split: str) -> dict[str, dict[str, float]]:
        """Scores by name of each output of the head on a split, if it has any: see `Head.by_label`."""
        return self.head.by_label(self.labels, self.head.decide(logits), self.gold(split))

    def refuse_unscored(self, split: str) -> None:
        """UserError for a split without any example that has a label."""
        gold = self.gold(split) if len(self.splits[split]) else []
        known = (bool(self.head.labelled(torch.as_tensor(one)).any()) for one in gold)
        if not any(known):
            what = "none of its labels is known" if len(gold) else "it has no examples"
            raise UserError(f"task {self.name}: split {split} gives no score, {what}")

    def limited(self, train: int | None) -> "Task":
        """The same task with at most the first `train` training examples; UserError after a regime."""
        if train is None:
            return self
        if self.regime:
            raise UserError("the first training examples are taken before a regime is applied, not after")
        first = self.splits["train"]
        splits = {**self.splits, "train": first.take(range(min(train, len(first))))}
        source = self.source and self.source.model_copy(update={"train_examples": train})
        return replace(self, splits=splits, source=source)


def _refuse_unequal(where: str, split: Split) -> None:
    """UserError for a sentence that has not as many tags as words."""
    for i, (words, tags) in enumerate(zip(split.texts, split.labels, strict=False), 1):
        if len(words) != len(tags):
            raise UserError(f"{where}, sentence {i}: {len(words)} words and {len(tags)} tags; each word needs one")


@dataclass(frozen=True)
class Columns:
    """What the columns of own files are called."""

    texts: tuple[str, ...]
    """Empty for usual names."""
    label: str
    weight: str | None = None

    def source(self, head: Head) -> TaskSource:
        """What a run writes down of them."""
        return TaskSource(
            kind=head.word, text_columns=list(self.texts), label_column=self.label, weight_column=self.weight
        )


def _own_files(head: Head, path: Path, dev: Path | None, columns: Columns) -> Task:
    if head.per_token:
        return _tagged_files(head, path, dev, columns)
    files = find_files(path, dev)
    return _from_tables(head, {split: read_table(file) for split, file in files.items()}, columns)


def _from_tables(head: Head, tables: dict[str, Table], columns: Columns, hold_out: bool = True) -> Task:
    if head.word not in READERS:
        raise UserError(f"--task {head.word}: own files are read for {', '.join(READERS)}; make the Task in Python")
    columns, found = _found(tables["train"], columns)
    texts = {s: texts_of(t, columns.texts, "--text-columns") for s, t in tables.items()}
    if columns.label in columns.texts:
        raise UserError(f"column {columns.label!r} is both text and label; set --text-columns and --label-column")
    labels = READERS[head.word](Written(tables, texts, columns.texts, columns.label))
    notices = [*(notice for table in tables.values() for notice in table.notices), *found, *labels.notices]
    splits = {s: Split(texts[s], labels.splits[s]) for s in tables}
    weights = weights_of(tables["train"], columns.weight, (*columns.texts, *columns.label.split(",")))
    splits["train"] = replace(splits["train"], weights=weights)
    if (rows := len(splits.get("dev", splits["train"]))) < head.fewest:
        path = tables.get("dev", tables["train"]).path
        raise UserError(f"{path}: a correlation needs at least {head.fewest} rows, the dev split has {rows}")
    if "dev" not in splits and hold_out:
        refuse_copies(tables["train"])
        splits, notice = hold_a_tenth_out(splits, head)
        notices.append(notice)
    source = columns.source(head)
    return Task(head.word, head, splits, labels.names, head.metrics, notices=tuple(notices), source=source)


def _found(table: Table, columns: Columns) -> tuple[Columns, list[str]]:
    """The columns as the file calls them, and a notice about usual names in other letters, such as `Text`."""
    label = in_any_case(table, USUAL_LABEL) if columns.label == USUAL_LABEL else columns.label
    texts = columns.texts or guess_texts(table, label)
    guessed = [*(() if columns.texts else texts), label]
    others = [name for name in guessed if name != name.casefold() and name != columns.label]
    told = f"{table.path}: columns are found in any letter case: {', '.join(others)}"
    return replace(columns, texts=texts, label=label), [told] if others else []


def _tagged(head: Head, tables: dict[str, Table], columns: Columns) -> Task:
    """Sentences as lists of words, and their tags."""
    read = {}
    for split, table in tables.items():
        # Rows of lists may be arrays or tuples here, and a plain list of pairs is a table of text and label.
        there = {c: [_listed(value) for value in values] for c, values in table.columns.items()}
        words = columns.texts[0] if columns.texts else next((c for c in (*conll.WORDS, "text") if c in there), None)
        tags = columns.label if columns.label in there else None
        read[split] = conll.tagged_table(replace(table, columns=there), words, tags)
    return _of_tagged(head, conll.together(read, columns.weight), columns)


def _listed(value: Any) -> Any:
    return value if isinstance(value, str) or not isinstance(value, Iterable) else as_list(value)


def _tagged_files(head: Head, path: Path, dev: Path | None, columns: Columns) -> Task:
    files = find_files(path, dev, suffixes=conll.SUFFIXES)
    task = _of_tagged(head, conll.read_splits(files, columns.texts, columns.label, columns.weight), columns)
    return task if "dev" in task.splits else task.with_dev()


def _of_tagged(head: Head, read: conll.TaggedSplits, columns: Columns) -> Task:
    splits = {split: Split(words, read.tags[split]) for split, words in read.words.items()}
    splits["train"] = replace(splits["train"], weights=read.weights)
    metrics = head.metrics_of(read.names)
    return Task(head.word, head, splits, read.names, metrics, notices=tuple(read.notices), source=columns.source(head))
