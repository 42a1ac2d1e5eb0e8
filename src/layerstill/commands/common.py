"""What several verbs do with their arguments before and after the work."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from layerstill.commands.options import Precision
from layerstill.errors import UserError

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


def say(notices: list[str]) -> None:
    """Notes for the user, a line each."""
    for notice in notices:
        logging.getLogger("layerstill").warning("note: %s", notice)


def read_task(name: str, data: Path | None, dev: Path | None, texts: str | None, label: str, limit: int | None) -> Any:
    """The task of `--task` and the options that go with it."""
    from layerstill.data.tasks import GLUE, Task
    from layerstill.heads import HEADS, nearest_task

    if name not in {*HEADS, *GLUE, "tickets"}:
        raise UserError(f"unknown task {name!r}: {nearest_task(name, [*GLUE, 'tickets'])}")
    own = {"--dev": dev, "--text-columns": texts, "--label-column": None if label == "label" else label}
    unused = [option for option, value in own.items() if value is not None]
    if name not in HEADS and (unused or (name == "tickets" and data is not None)):
        raise UserError(f"--task {name} takes no {(unused or ['--data'])[0]}; that is for --task {', '.join(HEADS)}")
    if name == "tickets":
        task = Task.demo()
    elif name in HEADS:
        if data is None:
            raise UserError(f"--task {name} needs --data: a folder with train and dev files, or one file")
        task = Task.from_files(name, data, dev, names(texts), label)
    else:
        task = Task.glue(name, data)
    return task.limited(limit)


def names(listed: str | None) -> tuple[str, ...]:
    """The column names of an option: `a,b`."""
    return tuple(name.strip() for name in listed.split(",")) if listed is not None else ()


def read_supplementary(recipe: Any, source: str | None, columns: str | None) -> Any:
    """The texts of `--supplementary`, or None; UserError if the recipe has another opinion."""
    from layerstill.data.supplementary import read_supplementary

    recipe.agree_on_supplementary(source is not None)
    if source is None:
        if columns is not None:
            raise UserError("--supplementary-columns: give --supplementary too, or leave it out")
        return None
    return read_supplementary(source, names(columns))


def in_regime(task: Any, few_samples: int | None, label_noise: float | None, words: list[str] | None, seed: int) -> Any:
    """The task in the regime of `--few-samples`, `--label-noise` and `--regime`."""
    given = {"few_samples": few_samples, "label_noise": label_noise}
    given = {name: value for name, value in given.items() if value is not None}
    if not given and not words:
        return task
    from layerstill.data.regimes import Regime
    from layerstill.yaml_files import read_settings

    data = read_settings(list(words or ()), "--regime", "regime")
    for name, value in given.items():
        if data.setdefault(name, value) != value:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} {value}: --regime says {name} {data[name]}; give one of them")
    return Regime.from_data(data).apply(task, seed)


def read_ood_sets(
    task: Any, specs: list[str] | None, words: list[str] | None, texts: str | None, label: str
) -> tuple[Any, ...]:
    """The sets of `--ood` with the labels of `--ood-labels`; own files have the columns of the task's."""
    from layerstill.data.ood import label_maps, layout_of, read_ood, split_spec

    maps = label_maps(list(words or ()))
    names = [split_spec(spec)[0] for spec in specs or ()]
    if maps and "" in maps and all(map(layout_of, names)):
        raise UserError("--ood-labels: it is about own files, and --ood names none; write NAME:LABEL=CLASS,...")
    if unknown := [name for name in maps if name and name not in names]:
        raise UserError(f"--ood-labels {unknown[0]}: no --ood is called so{': ' if names else ''}{', '.join(names)}")
    columns = tuple(c.strip() for c in texts.split(",")) if texts is not None else ()
    sets = []
    for spec, name in zip(specs or (), names, strict=True):
        gold = maps.get(name) or (maps.get("") if layout_of(name) is None else None)
        sets.append(read_ood(spec, task, gold, columns, label))
    return tuple(sets)


def read_recipe(
    name: str, overrides: list[str] | None, init: str | None, epochs: Any, batch_size: Any, learning_rate: Any
) -> Any:
    """The recipe of `--recipe` with what the command line overrides."""
    from layerstill.recipe import Recipe
    from layerstill.students.initialisation import parse_initialisation

    sets = list(overrides or ())
    if init is not None:
        sets.append(f"student.initialisation={json.dumps(parse_initialisation(init))}")
    return Recipe.load(name, tuple(sets)).limited(epochs, batch_size, learning_rate)


def read_options(
    seed: int, max_length: int, max_steps: int | None, precision: Precision, quiet: bool, trackers: list[str] | None
) -> Any:
    """How to run, from the options that all training verbs share."""
    from transformers.integrations import get_available_reporting_integrations

    from layerstill.errors import nearest
    from layerstill.training.arguments import Options

    for tracker in trackers or ():
        if tracker not in (there := get_available_reporting_integrations()):
            hint = nearest(tracker, there) if there else "none is installed"
            raise UserError(f"--report-to {tracker}: no such tracker is installed: {hint}")

    progress = not quiet and sys.stderr.isatty()
    return Options(seed, max_length, max_steps, precision.value, progress, tuple(trackers or ()))


def show(result: Any, as_json: bool) -> None:
    """Print the result of a run: as JSON, or in five lines."""
    if PROCESS:
        return
    if as_json:
        print(json.dumps(result.data, indent=2))
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


def scores(metrics: dict[str, float]) -> str:
    """Metrics in one line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
