"""Models, data and recipes as a Python user has them, as what the acts work with."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from layerstill.data.probabilities import OPTION, Probabilities
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.heads import HEADS, Head, head_of
from layerstill.names import TEXT_TASK, default_recipe, refuse_unknown_task
from layerstill.recipe import Recipe
from layerstill.training.models import load_config, load_tokenizer

Model: TypeAlias = str | Path | PreTrainedModel
"""A folder, a hub id, or a loaded model."""


@contextmanager
def model_at(model: Model, tokenizer: PreTrainedTokenizerBase | None = None) -> Iterator[tuple[str, str]]:
    """Where a model can be loaded from while the context lasts, and what records call it.

    A loaded model is written into a temporary folder, so that it passes the checks that every model passes and stays
    as it is. `tokenizer` belongs to such a model; without it the one is taken where the model was loaded from.
    UserError for anything else, and for a loaded model whose tokenizer is not known.
    """
    if isinstance(model, PreTrainedModel):
        name = model.name_or_path or type(model).__name__
        with tempfile.TemporaryDirectory(prefix="layerstill-") as folder:
            place = Path(folder) / (Path(name).name or "model")
            own = tokenizer if tokenizer is not None else _tokenizer_of(model)
            model.save_pretrained(place)
            own.save_pretrained(place)
            yield str(place), name
        return
    if not isinstance(model, str | Path):
        raise UserError(
            f"model: a folder, a hub id or a loaded transformers model is expected, got {type(model).__name__}"
        )
    if tokenizer is not None:
        raise UserError(
            f"tokenizer: model {model} has its own beside it, and tokenizer= is for loaded models; leave it out"
        )
    yield str(model), str(model)


def _tokenizer_of(model: PreTrainedModel) -> PreTrainedTokenizerBase:
    if not model.name_or_path:
        raise UserError(f"the loaded {type(model).__name__} does not say where its tokenizer is; give tokenizer=...")
    try:
        return load_tokenizer(model.name_or_path, model.config)
    except UserError as error:
        raise UserError(f"{error}; give the loaded model's with tokenizer=...") from None


def start_of(teacher: Model | None, start: str | None, probabilities: Probabilities | None) -> Model:
    """The teacher, or with probabilities in its place the model that the student is made of.

    UserError unless there is exactly one of the two, and such a model.
    """
    if probabilities is None:
        if teacher is None:
            raise UserError(
                f"TEACHER: give the model that teaches; or its soft labels with {OPTION}, and the student's start with "
                "--init-from"
            )
        first, *others = str(teacher).split(",") if isinstance(teacher, str) else [""]
        if others and not Path(str(teacher)).exists():
            raise UserError(
                f"TEACHER {teacher}: one model is the teacher, and others join it by an option; give {first.strip()} "
                f"and --more-teachers {','.join(name.strip() for name in others)}"
            )
        return teacher
    if teacher is not None:
        raise UserError(
            f"{OPTION}: they replace a teacher, and {teacher!s:.60} is given too; leave it out, and name the "
            "model that the student is cut from with --init-from"
        )
    if start is None:
        raise UserError(
            f"{OPTION}: without a teacher, name the model that the student is cut from with --init-from, or the "
            "student itself with --student"
        )
    return start


def task_named(
    name: str,
    data: Path | None,
    dev: Path | None,
    text_columns: tuple[str, ...],
    label_column: str,
    limit: int | None,
    weight_column: str | None = None,
) -> Task:
    """The task of a word of `--task` and the options that go with it; `limit` is the number of training examples.

    UserError for an unknown word, and for options that the task does not take.
    """
    refuse_unknown_task(name)
    if name == TEXT_TASK:
        raise UserError(
            f"--task {TEXT_TASK}: running text has no labels, so it is for `layerstill distill` and `plan` only; its "
            "student is fine-tuned on a task like any other model"
        )
    own = {
        "--dev": dev,
        "--text-columns": text_columns or None,
        "--label-column": None if label_column == "label" else label_column,
        "--weight-column": weight_column,
    }
    unused = [option for option, value in own.items() if value is not None]
    if name not in HEADS and (unused or (name == "tickets" and data is not None)):
        raise UserError(f"--task {name} takes no {(unused or ['--data'])[0]}; that is for --task {', '.join(HEADS)}")
    if name == "tickets":
        task = Task.demo()
    elif name in HEADS:
        if data is None:
            raise UserError(f"--task {name} needs --data: a folder with train and dev files, or one file")
        task = Task.from_files(name, data, dev, text_columns, label_column, weight_column)
    else:
        task = Task.glue(name, data)
    return task.limited(limit)


def read_task(data: Any, model: str, labels: Any = None, head: Head | None = None, hold_out: bool = True) -> Task:
    """`data` as a task: for `head`, or without one for what the head of `model` is for."""
    if isinstance(data, Task):
        if labels is not None:
            raise UserError("labels: the task has its own; leave them out, or give the texts instead of the task")
        return data
    found = head or head_of(load_config(model))
    if found is None:
        raise UserError(f"model {model} has no task head; fine-tune it first: layerstill.finetune")
    return Task.from_data(data, found, labels=labels, hold_out=hold_out)


def read_recipe(recipe: str | Path | Recipe) -> Recipe:
    """A recipe, or that of a name or file; UserError for anything else."""
    if isinstance(recipe, Recipe):
        return recipe
    if not isinstance(recipe, str | Path):
        raise UserError(f"recipe: a name, a file or a Recipe is expected, got {type(recipe).__name__}")
    return Recipe.load(recipe)


def recipe_for(recipe: Recipe | None, task: Task) -> Recipe:
    """The recipe, or without one that which suits the examples of a task."""
    return Recipe.load(default_recipe(task.paired)) if recipe is None else recipe


def has_no_splits(data: Any) -> bool:
    """Whether data are one set of examples: a file is, a folder is not."""
    if isinstance(data, str | Path):
        return Path(data).is_file()
    return not isinstance(data, Task | dict)
