"""The study file: typed, strict, and checked before anything is trained. docs/studies.md explains it to its users."""

import copy
import itertools
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from layerstill.errors import UserError, nearest
from layerstill.recipe import validated
from layerstill.schema import Number, Positive, Spec
from layerstill.studies.widening import is_grid
from layerstill.yaml_files import read_yaml_file

Task = Annotated[str, Field(min_length=1)]
MOST_RUNS = 100_000


class Arm(Spec):
    """A recipe under a name of its own, with overrides."""

    name: str = Field(min_length=1)
    """What it is called in records and tables."""
    recipe: str
    """A shipped recipe, or a file relative to the study file."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted path in the recipe: value."""
    supplementary: str | None = None
    """Texts of stages with `data: supplementary`: a GLUE task, or a file beside the study file or below `--data`."""
    supplementary_columns: list[str] = Field(default_factory=list)
    """The text columns of that file."""


class Settings(Spec):
    """Everything that one run depends on; `base` and the axes fill it."""

    model: str = "demo"
    """What teachers are fine-tuned from: a folder, a hub id, or `demo`."""
    task: Task
    """A GLUE task, `tickets`, or a name under `tasks`."""
    recipe: str | Arm
    """The student's recipe."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted path in the recipe: value; `stages.*` for every stage."""
    student_layers: PositiveInt
    """Depth of the student."""
    initialisation: str | None = None
    """As `--init`; without it, the recipe's."""
    init_from: str = "teacher"
    """Whose layers start the student: `teacher`, `model` (the base model), or a folder."""
    regime: dict[str, Any] = Field(default_factory=dict)
    """Settings of a data regime; empty for the data as they are."""
    learning_rate: Positive | None = None
    """Peak learning rate of every stage."""
    batch_size: PositiveInt | None = None
    """Examples in an optimiser step, every stage."""
    epochs: Positive | None = None
    """Epochs of every stage."""
    max_steps: PositiveInt | None = None
    """Stop every stage after so many optimiser steps."""
    total_steps: PositiveInt | None = None
    """Optimiser steps of all stages together, shared in proportion to their epochs."""
    max_length: Annotated[int, Field(ge=4)] = 128
    """Longest text in tokens."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the training step."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random."""

    @model_validator(mode="after")
    def _one_length(self) -> "Settings":
        if self.total_steps and (self.epochs or self.max_steps):
            raise ValueError("total_steps says how long a run is; leave epochs and max_steps out")
        return self


class Teacher(Spec):
    """How teachers are fine-tuned, one for each task and regime."""

    recipe: str = "finetune"
    set: dict[str, Any] = Field(default_factory=dict)
    learning_rate: Positive | None = None
    batch_size: PositiveInt | None = None
    epochs: Positive | None = None
    max_steps: PositiveInt | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    regime: Literal["same", "full"] = "same"
    """Whether the teacher sees the student's regime or all data as they are."""


class TaskSource(Spec):
    """Where a task's data are, if its name does not say it all."""

    kind: str | None = None
    """`tickets`, a GLUE task, or for own files the word of a head (`classification`); without it, the task's name."""
    data: str | None = None
    dev: str | None = None
    text_columns: list[str] = Field(default_factory=list)
    label_column: str = "label"
    weight_column: str | None = None
    train_examples: PositiveInt | None = None
    """Size of a sample of train, the same in every run."""
    dev_examples: PositiveInt | None = None
    """Size of a sample of dev, the same in every run."""
    ood: list[str] = Field(default_factory=list)
    """Out-of-domain sets, as `--ood`; paths relative to `--ood-data`."""
    ood_examples: PositiveInt | None = None
    """Size of a sample of each of them, the same in every run."""
    teacher: str | None = None
    """A fine-tuned model, instead of one made here."""


class Tune(Spec):
    """Successive halving on a held-out slice of train."""

    fields: dict[str, list[Any]] = Field(min_length=1)
    """Axis: candidate values. In the file these keys stand directly under `tune`."""
    per: list[str] = Field(default_factory=list)
    """Axes whose every combination is tuned by itself."""
    seeds: PositiveInt = 1
    """Every score is a mean over the first so many seeds of the study."""
    held_out: Annotated[Number, Field(gt=0, le=0.5)] = 0.1
    """Share of train that scores the candidates."""
    rungs: list[Annotated[Number, Field(gt=0, le=1)]] = Field(default=["1/3", 1.0], min_length=1, validate_default=True)
    """Shares of a run's updates; after each the better half goes on."""
    widen: Annotated[int, Field(ge=0, le=10)] = 0
    """How many values beyond the grid may be tried where the best one is at its edge."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "fields" in data:
            return data
        own = {key: value for key, value in data.items() if key in cls.model_fields}
        return own | {"fields": {key: value for key, value in data.items() if key not in cls.model_fields}}

    @field_validator("rungs")
    @classmethod
    def _rising(cls, value: list[float]) -> list[float]:
        if sorted(set(value)) != value:
            raise ValueError("shares must rise from rung to rung")
        return value

    @model_validator(mode="after")
    def _goes_on(self) -> "Tune":
        if self.widen and not (len(self.fields) == 1 and is_grid(*self.fields.values())):
            raise ValueError(
                "widen goes on with the ratio of the last two values: it takes one tuned axis, of two or more positive "
                "numbers from the smallest to the largest"
            )
        return self

    def candidates(self) -> list[dict[str, Any]]:
        """Every combination of the values, in the file's order."""
        return [dict(zip(self.fields, values, strict=True)) for values in itertools.product(*self.fields.values())]


class Compare(Spec):
    """What the tables compare."""

    metric: str | None = None
    """Name of a metric; without it, each task's first."""
    by: str = "recipe"
    """The axis whose values are compared."""
    against: str | None = None
    """The value that the others are compared with."""
    margin: Annotated[Number, Field(gt=0, le=100)] | None = None
    """Points of the metric: arms that surely differ by less count as equal; without it, half a point."""


class Study(Spec):
    """A study file."""

    name: str = Field(min_length=1, max_length=100)
    claim: str | list[str] = ""
    question: str = ""
    base: dict[str, Any] = Field(default_factory=dict)
    teacher: Teacher = Teacher()
    tasks: dict[str, TaskSource] = Field(default_factory=dict)
    axes: dict[str, list[Any]] = Field(min_length=1)
    exclude: list[dict[str, Any]] = Field(default_factory=list)
    only: list[dict[str, Any]] = Field(default_factory=list)
    tune: Tune | None = None
    compare: Compare | None = None
    keep: Literal["models", "results"] = "models"
    quick: dict[str, Any] = Field(default_factory=dict)

    @field_validator("axes")
    @classmethod
    def _values(cls, axes: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for axis, values in axes.items():
            _refuse_unknown(axis)
            labels = [label(axis, value) for value in values]
            if not labels:
                raise ValueError(f"axis {axis} has no values")
            if twice := next((one for one in labels if labels.count(one) > 1), None):
                raise ValueError(f"axis {axis} has the value {twice!r} twice; give values names of their own")
        return axes

    @model_validator(mode="after")
    def _axes_that_are_there(self) -> "Study":
        used = [(f"{where}.{i}", name) for where in ("exclude", "only") for i, c in enumerate(getattr(self, where))
                for name in c]  # fmt: skip
        used += [("tune.per", name) for name in (self.tune.per if self.tune else ())]
        used += [("compare.by", self.compare.by)] if self.compare else []
        for where, name in used:
            if name not in self.axes:
                raise ValueError(f"{where} names axis {name!r}: {nearest(name, self.axes)}")
        for name in self.tune.fields if self.tune else ():
            _refuse_unknown(name)
            if name in self.axes:
                raise ValueError(f"{name} is both tuned and an axis")
        if "seed" in (self.tune.per if self.tune else ()):
            raise ValueError("tune.per: a choice for each seed would not be one; leave seed out")
        if self.compare and self.compare.by in ("seed", "task"):
            raise ValueError(f"compare.by {self.compare.by}: runs are paired over seeds and tasks; name another axis")
        if self.compare and self.compare.against is not None:
            values = [str(label(self.compare.by, value)) for value in self.axes[self.compare.by]]
            if self.compare.against not in values:
                raise ValueError(f"compare.against {self.compare.against!r}: {nearest(self.compare.against, values)}")
        return self


RECIPE_PATHS = ("stages.", "student.")


def _refuse_unknown(axis: str) -> None:
    own = [*Settings.model_fields, *(f"teacher.{name}" for name in Teacher.model_fields)]
    if axis not in own and not axis.startswith(RECIPE_PATHS):
        raise ValueError(
            f"unknown axis {axis!r}: {nearest(axis, own)}, or a path in the recipe such as stages.0.epochs"
        )


def label(axis: str, value: Any) -> Any:
    """The coordinate that stands for a value of an axis: a word or a number."""
    if isinstance(value, dict):
        if axis == "recipe" and isinstance(value.get("name"), str):
            return value["name"]
        return ", ".join(f"{key} {_word(v)}" for key, v in value.items()) or ("full" if axis == "regime" else "none")
    return _word(value) if isinstance(value, list) else value


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_word(v)}" for key, v in value.items()) + ")"
    return " ".join(map(_word, value)) if isinstance(value, list) else str(value)


def load_study(path: Path, quick: bool = False) -> Study:
    """Read and check a study file; with `quick`, what its section `quick` says is put in place first."""
    data = read_yaml_file(path, "study")
    if not isinstance(data, dict):
        raise UserError(f"{path}: a study is a mapping with the keys name, base and axes, got {type(data).__name__}")
    study = validated(Study, data, str(path))
    if not quick:
        return study
    if not study.quick:
        raise UserError(f"{path}: --quick, but the file has no section quick")
    data = copy.deepcopy(data)
    for place, value in study.quick.items():
        _put(data, place, value, path)
    return validated(Study, data, f"{path} with --quick")


def _put(data: dict[str, Any], place: str, value: Any, path: Path) -> None:
    """`base.max_steps`, `axes.stages.0.epochs`, `tasks.sst2.train_examples`: a section, then a key of it."""
    section, dot, key = place.partition(".")
    if section not in Study.model_fields or section in {"quick", "name"}:
        raise UserError(f"{path}: quick.{place}: {nearest(section, [n for n in Study.model_fields if n != 'quick'])}")
    here: Any = data
    if section == "tasks" and re.fullmatch(r"[^.]+\.[^.]+", key):
        name, _, key = key.partition(".")
        here = data.setdefault("tasks", {}).setdefault(name, {})
    elif dot:
        here = data.setdefault(section, {})
    else:
        key = section
    if not isinstance(here, dict):
        raise UserError(f"{path}: quick.{place}: {section} has no keys of its own; write quick.{section}")
    here[key] = value
