"""What a teacher says of a dev split, asked once for all the students that are compared with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from layerstill.data.tasks import Task
from layerstill.evaluation.nearness import distance_to, kept_predictions
from layerstill.evaluation.predict import evaluate_split
from layerstill.training.models import adopt_padding, load_fine_tuned, load_tokenizer


@dataclass(frozen=True)
class TeacherSays:
    """A teacher's logits on dev, as the head joins them, and their scores."""

    task: Task
    logits: Any
    metrics: dict[str, float]

    @classmethod
    def of(cls, place: str, task: Task, max_length: int) -> "TeacherSays":
        """Ask the model at `place`; the task has its outputs in the model's order."""
        model = load_fine_tuned(place, task.head)
        tokenizer = load_tokenizer(place, model.config)
        adopt_padding(model, tokenizer)
        return cls.asked(model, tokenizer, task, max_length)

    @classmethod
    def asked(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, max_length: int
    ) -> "TeacherSays":
        """Ask a loaded model."""
        metrics, logits = evaluate_split(model, tokenizer, task, "dev", max_length)
        return cls(task, logits, metrics)

    def distance(self, folder: Path) -> float:
        """How far the student in a finished run's folder is from the teacher on dev; lower is better."""
        return distance_to(kept_predictions(folder), self.logits, self.task.splits["dev"], self.task.head)
