"""What several verbs do with their arguments before and after the work."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from layerstill.names import refuse_unknown_task

PROCESS = int(os.environ.get("RANK", "0"))
"""Under torchrun or accelerate this process's number; all work, the first one speaks."""


def setup(quiet: bool) -> None:
    """Quiet libraries, and notes of layerstill on standard error; `quiet` leaves only errors."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    log = logging.getLogger("layerstill")
    log.setLevel(logging.ERROR if quiet or PROCESS else logging.INFO)
    handler = logging.StreamHandler()  # of this call's standard error, should there have been another before
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]


def read_task(
    name: str,
    data: Path | None,
    dev: Path | None,
    texts: str | None,
    label: str,
    limit: int | None,
    weights: str | None = None,
) -> Any:
    """The task of `--task` and the options that go with it."""
    refuse_unknown_task(name)
    from layerstill.acts.inputs import task_named

    return task_named(name, data, dev, names(texts), label, limit, weights)


def renamed(task: Any, label_map: str | None) -> Any:
    """The task with the label names of `--label-map`."""
    if label_map is None:
        return task
    from layerstill.data.label_map import read_label_map, with_label_map

    return with_label_map(task, read_label_map(label_map))


def names(listed: str | None) -> tuple[str, ...]:
    """The column names of an option: `a,b`."""
    return tuple(name.strip() for name in listed.split(",")) if listed is not None else ()


def show(result: Any, as_json: bool) -> None:
    """Print the result of a run: as JSON, or in five lines and the verdict."""
    if PROCESS:
        return
    if as_json:
        print(json.dumps(result.data, indent=2))
        for line in result.record.verdict[:-2]:  # what would be read past among so many numbers
            print(line, file=sys.stderr)
        return
    record = result.record
    student, train = record.student, record.train
    print(f"{result.folder}: {student.layers} layers, {student.parameters:,} parameters")
    print(f"dev of {record.task} ({record.selected} evaluation): {scores(record.scores)}")
    if record.teacher_metrics:
        print(f"teacher:{' ' * 12}{scores(record.teacher_metrics)}")
    if record.ood:
        from layerstill.reporting.ood import print_ood

        print_ood(record.ood)
    if train.seconds is not None and train.examples_per_second is not None:  # results of other versions may lack them
        print(f"trained {train.steps} steps in {train.seconds:.0f} s, {train.examples_per_second:.1f} examples/s")
    for line in record.verdict:
        print(line)


def scores(metrics: dict[str, float]) -> str:
    """Metrics in one line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
