"""What a run gave: `result.json`, written and read by the same classes, and the folder with the student beside it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import transformers
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedModel

from layerstill.atomic import write_json
from layerstill.errors import UserError

RESULT_FILE = "result.json"
SELECTED = "selected"
"""Stands among the metrics and is none: whether the score is the `last` or the `best of n`."""


class _Part(BaseModel):
    """Read generously, because older and newer versions write other fields; written only when complete."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)


class StudentPart(_Part):
    """The model that was trained."""

    layers: int
    hidden_size: int | None = None
    parameters: int
    init: Any = None
    """`layers` of the model `from` that it started with; older results have other forms."""


class TrainPart(_Part):
    """What the training took."""

    examples: int | None = None
    """Repetitions counted."""
    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    examples_per_second: float | None = None
    tokens_per_second: float | None = None
    padding_share: float | None = None
    teacher_share: float | None = None
    """Part of the seconds that the teacher took."""
    gflops_per_second: float | None = None
    matmul_peak_gflops_per_second: float | None = None
    share_of_peak: float | None = None
    peak_memory_mb: float | None = None
    precision: str | None = None


class Record(_Part):
    """The content of `result.json`."""

    recipe: str
    recipe_hash: str = ""
    teacher: str | None = None
    """None where a model was fine-tuned."""
    task: str
    seed: int
    student: StudentPart
    metrics: dict[str, float | str]
    """The student's scores on dev, the first of them the task's main one, and `selected`."""
    head: dict[str, Any] = {}
    """Its `kind`, and its settings if it has any: the threshold from which on a label is given."""
    by_label: dict[str, dict[str, int | float]] = {}
    """Precision, recall, f1 and support on dev by the name of a class, label or type; of several scores
    pearson, spearman, mse and support by target; empty for one score."""
    teacher_metrics: dict[str, float] = {}
    verdict: list[str] = []
    """What was kept of the teacher and the one change most likely to help, a sentence each.

    Before them stands a warning if the student says one thing of nearly everything. Empty without a teacher."""
    regime: dict[str, Any] = {}
    """What was done to the training data; empty for nothing."""
    ood: dict[str, dict[str, Any]] = {}
    """By the name of an out-of-domain set: metrics, in_domain, gap, examples, parts."""
    supplementary: dict[str, Any] | None = None
    tuning: dict[str, Any] | None = None
    """How the learning rate was found: the one chosen, and the candidates of every rung with their scores; None for one
    that was given."""
    unlabelled: dict[str, Any] | None = None
    """Of texts without labels that joined the training examples: `source`, `examples`, `fingerprint`, `left_out`."""
    augmented: dict[str, Any] | None = None
    """Of copies that did: `copies`, `methods`, `probability`, `model`, `examples`, `left_out`."""
    teacher_probabilities: dict[str, Any] | None = None
    """Where the teacher was no model: `source`, `columns` and `examples` of its probabilities."""
    teachers: list[dict[str, Any]] | None = None
    """Where several teachers gave the soft targets: the name, weight and dev score of each, and of their mean."""
    text: dict[str, Any] | None = None
    """Of running text: `documents`, `blocks`, `tokens`, `held_out_blocks`, `held_out_tokens`; None for tasks."""
    train: TrainPart = TrainPart()
    environment: dict[str, Any] = {}
    """Versions that the result depends on."""

    @classmethod
    def read(cls, folder: Path, way_out: str) -> "Record | None":
        """The record of the finished run in `folder`, None if there is none; UserError with `way_out` if damaged."""
        path = folder / RESULT_FILE
        if not path.is_file():
            return None
        try:
            return cls.model_validate(json.loads(path.read_text("utf-8")))
        except (ValueError, RecursionError):
            raise UserError(f"{path}: damaged; {way_out}") from None

    def write(self, folder: Path) -> None:
        """Write `result.json`, whole or not at all; ValueError if a field is missing or unknown."""
        for part in (self, self.student, self.train):
            if odd := set(type(part).model_fields) ^ part.model_fields_set:
                raise ValueError(f"{type(part).__name__}: missing or unknown: {', '.join(sorted(odd))}")
        write_json(folder / RESULT_FILE, self.to_data())

    def to_data(self) -> dict[str, Any]:
        """Plain data, as the file has them."""
        return self.model_dump(exclude_unset=True)

    @property
    def scores(self) -> dict[str, float]:
        """The metrics that are numbers."""
        return {name: float(value) for name, value in self.metrics.items() if isinstance(value, int | float)}

    @property
    def selected(self) -> str:
        """`last`, or `best of n`."""
        return str(self.metrics.get(SELECTED, "last"))


@dataclass(frozen=True)
class Result:
    """What a run gave: its record, and the folder that holds the model."""

    record: Record
    folder: Path

    @cached_property
    def data(self) -> dict[str, Any]:
        """The content of `result.json`."""
        return self.record.to_data()

    @property
    def metrics(self) -> dict[str, Any]:
        """The student's scores on the dev set, and whether they are `selected`."""
        return self.data["metrics"]

    @cached_property
    def student(self) -> PreTrainedModel:
        """The model in evaluation mode, loaded from the folder when it is first asked for.

        It is a plain Transformers model; UserError if its weights are no longer there.
        """
        try:
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
            model_class = getattr(transformers, (config.architectures or ["no class"])[0])
            model = model_class.from_pretrained(
                self.folder, config=config, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, AttributeError, SafetensorError) as error:
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"{self.folder}: its model cannot be loaded: {why}") from None
        return model.eval()
