"""Several teachers: the mean of what they say of the training texts, each weighted by its score on dev."""

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PretrainedConfig

from layerstill.atomic import write_tensors
from layerstill.data.encode import usable_length
from layerstill.data.label_agreement import agree_on_labels
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError
from layerstill.evaluation.predict import predict
from layerstill.progress import showing
from layerstill.training import processes
from layerstill.training.models import (
    adopt_padding,
    fingerprint,
    load_config,
    load_fine_tuned,
    load_tokenizer,
    require_head,
)

OPTION = "--more-teachers"
MEAN = "mean"
"""What the record calls the teachers together."""
Text = tuple[str, ...]


@dataclass(frozen=True)
class MoreTeachers:
    """Folders or hub ids of models with the task's head, which say of the training texts what they think besides the
    first teacher. They may be of any family and have any tokenizer: only outputs are averaged."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str | Path] | str | Path) -> "MoreTeachers | None":
        """None for no names; UserError for what is no name."""
        names = [names] if isinstance(names, str | Path) else names
        for name in names:
            if not isinstance(name, str | Path):
                raise UserError(
                    f"{OPTION}: a folder or a hub id is expected, got {type(name).__name__}; save the model with its "
                    "tokenizer first"
                )
        return cls(tuple(map(str, names))) if names else None

    def check(self, first: str, task: Task, max_length: int) -> list[str]:
        """Notices; UserError for a model that cannot answer for the task, or has other labels than the first teacher.

        `task` has its outputs in the first teacher's order.
        """
        task.head.refuse_mean(OPTION)
        notices, prints = [], {fingerprint(first, load_config(first))}
        for name in self.names:
            config = load_config(name, task.head)
            require_head(name, config, task.head)
            if (own := fingerprint(name, config)) in prints:
                raise UserError(
                    f"{OPTION} {name}: the same model is there already, and would count twice; leave it out"
                )
            prints.add(own)
            usable_length(max_length, load_tokenizer(name, config), config, f"teacher {name}")
            places, said = _places(task, config, name)
            if len(set(places)) != config.num_labels:
                raise UserError(
                    f"{OPTION} {name}: it knows {config.num_labels} labels, and teacher {first} knows {len(places)}; "
                    "their answers have no mean, so give teachers of the same labels"
                )
            notices += said
        return notices

    def settings(self) -> dict[str, Any]:
        """What `run.json` keeps of them."""
        return {
            "more_teachers": list(self.names),
            "more_teacher_fingerprints": [fingerprint(name, load_config(name)) for name in self.names],
        }

    def ask(
        self, first: str, task: Task, splits: Iterable[Split], max_length: int, kept: Path, called: str = ""
    ) -> "Said":
        """What the teacher at `first`, which is `called` so, and these say of the texts of `splits` and of dev.

        Every teacher's answers are kept in the folder `kept`, where the same run finds them when it is resumed, and
        other runs on the same texts do. Only the first of several processes asks.
        """
        asked = [*splits, task.splits["dev"]]
        texts = list(dict.fromkeys(text for split in asked for text in split.texts))
        logits, seconds = [], 0.0
        for name in (first, *self.names):
            file = kept / f"answers-{_key(name, task, texts, max_length)}.safetensors"
            if processes.is_first() and _read(file) is None:
                begun = time.perf_counter()
                answers = torch.tensor(_answers(name, task, texts, max_length))
                taken = torch.tensor(time.perf_counter() - begun, dtype=torch.float64)
                kept.mkdir(parents=True, exist_ok=True)
                write_tensors(file, {"logits": answers, "seconds": taken})
            processes.wait_for_all()
            found = _read(file)
            assert found is not None
            logits.append(found["logits"].numpy())
            seconds += float(found["seconds"])
        return Said((called or first, *self.names), task, texts, np.stack(logits), seconds)


@dataclass(frozen=True)
class Said:
    """What several teachers say of texts.

    Args:
        names: of the teachers.
        task: with its outputs in the first teacher's order.
        texts: all different, those of dev among them.
        logits: `(teachers, texts, C)`, in the task's order of outputs.
    """

    names: tuple[str, ...]
    task: Task
    texts: list[Text]
    logits: np.ndarray
    seconds: float = 0.0
    """That asking took."""

    @property
    def metrics(self) -> dict[str, float]:
        """The first teacher's scores on dev."""
        return self.task.score(self._on_dev(self.logits[0]))

    def of(self, split: Split) -> np.ndarray:
        """The logits of the teachers' mean for the examples of a split, `(n, C)`."""
        return self._mean[[self._places[text] for text in split.texts]]

    @cached_property
    def weights(self) -> list[float]:
        """What each teacher counts, 1 together: in proportion to its score on dev, the task's first metric."""
        scores = [max(self._score(of_one), 0.0) for of_one in self.logits]
        total = sum(scores)
        return [score / total for score in scores] if total > 0 else [1 / len(scores)] * len(scores)

    def record(self) -> list[dict[str, Any]]:
        """The `teachers` block of `result.json`: name, weight and score of each, and of their mean."""
        metric = self.task.metrics[0]
        each = [
            {"teacher": name, "weight": round(weight, 4), metric: self._score(of_one)}
            for name, weight, of_one in zip(self.names, self.weights, self.logits, strict=True)
        ]
        return [*each, {"teacher": MEAN, "weight": 1.0, metric: self._score(self._mean)}]

    @cached_property
    def _mean(self) -> np.ndarray:
        return self.task.head.mean(self.logits, self.weights)

    @cached_property
    def _places(self) -> dict[Text, int]:
        return {text: place for place, text in enumerate(self.texts)}

    def _on_dev(self, logits: np.ndarray) -> np.ndarray:
        return logits[[self._places[text] for text in self.task.splits["dev"].texts]]

    def _score(self, logits: np.ndarray) -> float:
        return float(self.task.score(self._on_dev(logits))[self.task.metrics[0]])


def _places(task: Task, config: PretrainedConfig, name: str) -> tuple[list[int], list[str]]:
    """Which of a model's outputs is each output of the task, and notices; UserError for other labels."""
    theirs, said = agree_on_labels(task, config, f"teacher {name}")
    names = theirs.labels if set(task.labels) <= set(theirs.labels) else [n.casefold() for n in theirs.labels]
    ours = task.labels if names is theirs.labels else [n.casefold() for n in task.labels]
    places = [names.index(label) for label in ours] or [0]
    # Another order matters to nobody: answers are put in the first teacher's.
    return places, [notice for notice in said if not notice.startswith("label order")]


@torch.no_grad()
def _answers(name: str, task: Task, texts: list[Text], max_length: int) -> np.ndarray:
    """The logits of a model for texts, `(texts, C)` in the task's order of outputs."""
    model = load_fine_tuned(name, task.head)
    tokenizer = load_tokenizer(name, model.config)
    adopt_padding(model, tokenizer)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    with showing(what=f"teacher {name}"):
        logits = predict(model, tokenizer, Split(texts, []), max_length, task.head)
    return np.asarray(logits, dtype=np.float32)[:, _places(task, model.config, name)[0]]


def _key(name: str, task: Task, texts: list[Text], max_length: int) -> str:
    told = [fingerprint(name, load_config(name)), task.labels, task.head.record(), max_length, texts]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _read(file: Path) -> dict[str, torch.Tensor] | None:
    """The answers in a file, `logits` `(texts, C)` and `seconds`, if they are there."""
    try:
        found: dict[str, torch.Tensor] = load_file(file)
    except (OSError, SafetensorError):
        return None
    return found if {"logits", "seconds"} <= set(found) else None
