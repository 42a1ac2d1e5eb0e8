"""From a run that has just been trained, the facts that its verdict is made of. Nothing in them was timed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from layerstill.data.checks import guessing
from layerstill.data.encode import mean_tokens
from layerstill.data.readers import Readers
from layerstill.data.tasks import Task
from layerstill.families import depth_of
from layerstill.recipe import Recipe
from layerstill.reporting.verdict import Facts, verdict
from layerstill.result import Record
from layerstill.training.arguments import Options
from layerstill.training.length import stopped_early
from layerstill.training.plan import forward_tflop
from layerstill.training.reach import reach_of_all


def judge_of(
    recipe: Recipe,
    task: Task,
    teacher: PreTrainedModel,
    student: PretrainedConfig,
    readers: Readers,
    options: Options,
    sizes: Mapping[str, int],
    folder: Path,
) -> Callable[[Record, Any], list[str]]:
    """What gives the verdict on a record and the student's logits on dev, as the task's head joins them.

    `sizes` is how many examples a stage trains on, by its `data`. `folder` is the run's, with its `metrics.jsonl`.
    The verdict is a function of these and of nothing measured by the clock, so the same run gives the same words. It is
    empty where the teacher was not scored.
    """
    parameters, layers = teacher.num_parameters(), depth_of(teacher.config)
    train, head = task.splits["train"], task.head
    theirs, ours = (mean_tokens(train, own, options.max_length, head) for own in (readers.teacher, readers.student))
    fast = forward_tflop(teacher.config, head, layers, theirs)
    fast /= forward_tflop(student, head, depth_of(student), ours)

    def judge(record: Record, logits: Any) -> list[str]:
        metric = task.metrics[0]
        if metric not in record.teacher_metrics:
            return []
        losses, objectives = read_losses(folder / "metrics.jsonl")
        return verdict(
            Facts(
                metric=metric,
                student=record.scores[metric],
                teacher=record.teacher_metrics[metric],
                examples=len(task.splits["dev"]),
                layers=record.student.layers,
                teacher_layers=layers,
                parameters=record.student.parameters,
                teacher_parameters=parameters,
                times_as_fast=fast,
                steps=record.train.steps or 0,
                examples_seen=record.train.examples or 0,
                train_examples=len(task.splits["train"]),
                learning_rate=recipe.stages[-1].learning_rate,
                reach=reach_of_all(recipe, sizes, options.max_steps),
                losses=losses,
                objectives=objectives,
                teacher_guesses=guessing(task).matches(record.teacher_metrics[metric]),
                stopped_early=stopped_early(recipe, sizes, options.max_steps),
                one_answer=task.head.one_answer(task.labels, task.head.decide(logits), task.gold("dev")),
            )
        )

    return judge


def read_losses(path: Path) -> tuple[list[float], dict[str, list[float]]]:
    """The losses of the last stage in a `metrics.jsonl`, and each of its objectives' values, in the order of training.

    Lines that cannot be read are passed over, and so are values that are no numbers.
    """
    entries = []
    for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("loss"), int | float):
            entries.append(entry)
    last = [entry for entry in entries if entry.get("stage") == entries[-1].get("stage")]
    objectives: dict[str, list[float]] = {}
    for entry in last:
        for name, value in (entry.get("objectives") or {}).items():
            if isinstance(value, int | float):
                objectives.setdefault(name, []).append(float(value))
    return [float(entry["loss"]) for entry in last], objectives
