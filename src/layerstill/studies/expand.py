"""From a study file to its runs: every combination of the axes that the conditions leave."""

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerstill.errors import UserError
from layerstill.recipe import Recipe, validated
from layerstill.students.initialisation import parse_initialisation
from layerstill.studies.file import MOST_RUNS, RECIPE_PATHS, Arm, Settings, Study, Teacher, label


@dataclass(frozen=True)
class Planned:
    """One run: where it is in the grid, and what it is."""

    coordinates: dict[str, Any]
    """Axis: the word or number that stands for its value."""
    settings: Settings
    teacher: Teacher
    recipe: Recipe
    """The student's recipe with everything but the number of steps."""

    def group(self, axes: list[str]) -> tuple[Any, ...]:
        """Its coordinates on these axes."""
        return tuple(self.coordinates[axis] for axis in axes)


def expand(study: Study, folder: Path) -> list[Planned]:
    """The runs in the file's order, the last axis moving fastest. `folder` is where the study file lies."""
    count = math.prod(len(values) for values in study.axes.values())
    if count > MOST_RUNS:
        raise UserError(f"study {study.name}: {count:,} combinations; a study has at most {MOST_RUNS:,}")
    planned = []
    for values in itertools.product(*study.axes.values()):
        chosen = dict(zip(study.axes, values, strict=True))
        coordinates = {axis: label(axis, value) for axis, value in chosen.items()}
        if _kept(study, coordinates):
            planned.append(make(study, folder, coordinates, chosen))
    if not planned:
        raise UserError(f"study {study.name}: exclude and only leave none of {count} runs")
    return planned


def make(study: Study, folder: Path, coordinates: dict[str, Any], chosen: dict[str, Any]) -> Planned:
    """One run from the values chosen on each axis; UserError if they do not make one."""
    data: dict[str, Any] = dict(study.base)
    teacher = study.teacher.model_dump(exclude_defaults=True)
    paths = {}
    for axis, value in chosen.items():
        if axis.startswith("teacher."):
            teacher[axis.removeprefix("teacher.")] = value
        elif axis.startswith(RECIPE_PATHS):
            paths[axis] = value
        else:
            data[axis] = value
    where = f"study {study.name}, run " + (", ".join(f"{k} {v}" for k, v in coordinates.items()))
    settings = validated(Settings, data, where)
    return Planned(coordinates, settings, validated(Teacher, teacher, where), _recipe(settings, paths, folder, where))


def tuned(study: Study, folder: Path, run: Planned, values: dict[str, Any]) -> Planned:
    """The same run with the values that tuning chose; its coordinates stay."""
    labels = {axis: label(axis, value) for axis, value in values.items()}
    chosen = {axis: _value(study, axis, run.coordinates[axis]) for axis in study.axes}
    made = make(study, folder, run.coordinates | labels, chosen | values)
    return Planned(run.coordinates, made.settings, made.teacher, made.recipe)


def _value(study: Study, axis: str, coordinate: Any) -> Any:
    return next(value for value in study.axes[axis] if label(axis, value) == coordinate)


def _kept(study: Study, coordinates: dict[str, Any]) -> bool:
    def meets(condition: dict[str, Any]) -> bool:
        for axis, wanted in condition.items():
            values = wanted if isinstance(wanted, list) else [wanted]
            if coordinates[axis] not in [label(axis, value) for value in values]:
                return False
        return True

    if any(meets(condition) for condition in study.exclude):
        return False
    return not study.only or any(meets(condition) for condition in study.only)


def find_recipe(name: str, sets: dict[str, Any], folder: Path, where: str) -> Recipe:
    """A shipped recipe, or a file relative to `folder`, with overrides; `stages.*` is every stage."""
    source = str(folder / name) if name.endswith((".yaml", ".yml")) else name
    try:
        stages = range(len(Recipe.load(source).stages)) if any(path.startswith("stages.*.") for path in sets) else ()
        overrides = []
        for path, value in sets.items():
            text = json.dumps(value)
            every = path.startswith("stages.*.")
            places = [f"stages.{i}.{path.removeprefix('stages.*.')}" for i in stages] if every else [path]
            overrides += [f"{place}={text}" for place in places]
        return Recipe.load(source, tuple(overrides))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _recipe(settings: Settings, paths: dict[str, Any], folder: Path, where: str) -> Recipe:
    arm = settings.recipe if isinstance(settings.recipe, Arm) else Arm(name=settings.recipe, recipe=settings.recipe)
    start = {}
    if settings.initialisation is not None:
        start["student.initialisation"] = parse_initialisation(settings.initialisation)
    recipe = find_recipe(arm.recipe, {**settings.set, **start, **arm.set, **paths}, folder, where)
    if isinstance(settings.recipe, Arm):
        recipe = validated(Recipe, recipe.to_data() | {"name": arm.name}, where)
    return recipe.limited(settings.epochs, settings.batch_size, settings.learning_rate)
