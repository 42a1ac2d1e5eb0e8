"""Options on what is trained and how: the recipe, its stages, the student."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Optional

import typer

from layerstill.commands.known import complete_recipe, known_recipe
from layerstill.commands.options import RUN
from layerstill.errors import UserError

RECIPE = "Recipe"
RecipeName = Annotated[
    Optional[str],
    typer.Option(
        "--recipe",
        help="A recipe by name (`layerstill recipes list`) or a YAML file; without it `best`, or `best-pairs` "
        "where an example has two texts.",
        autocompletion=complete_recipe,
        callback=known_recipe,
    ),
]
Set = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set", help="Override anything in the recipe: `--set stages.0.epochs=3`. Repeatable.", rich_help_panel=RECIPE
    ),
]
StudentLayers = Annotated[
    Optional[int], typer.Option(help="Number of layers of the student; without it, all of --student's.")
]
Init = Annotated[
    Optional[str],
    typer.Option(
        help="Which layers start the student: first-k, last-k, every-k, spread, random-k, random (fresh), or 1,3,6.",
        rich_help_panel=RECIPE,
    ),
]
InitFrom = Annotated[
    Optional[str], typer.Option(help="Cut the student from this model instead of the teacher.", rich_help_panel=RECIPE)
]
Student = Annotated[
    Optional[str],
    typer.Option(
        help="Train this model as the student, with its own family, sizes and tokenizer.", rich_help_panel=RECIPE
    ),
]
Epochs = Annotated[
    Optional[str],
    typer.Option(
        metavar="NUMBER|auto",
        help="Epochs of every stage; auto: as many as suit the number of examples.",
    ),
]
BatchSize = Annotated[
    Optional[int], typer.Option(help="Examples in an optimiser step of every stage.", rich_help_panel=RUN)
]
LearningRate = Annotated[
    Optional[str],
    typer.Option(
        metavar="NUMBER|auto",
        help="Peak learning rate of every stage; auto: found by short runs on a slice of the training examples.",
        rich_help_panel=RUN,
    ),
]


def number_or_auto(text: str | None, option: str) -> Any:
    """An option's value as a number, the word `auto`, or None if it was not given; UserError for anything else."""
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{option} {text!r}: give a number, or auto") from None


@dataclass(frozen=True)
class StageOptions:
    """What is overridden in a recipe."""

    epochs: Epochs = None
    batch_size: BatchSize = None
    learning_rate: LearningRate = None
    set_: Set = None

    def read(self, recipe: str, more: tuple[str, ...] = ()) -> Any:
        """The recipe of a name or file with this overridden."""
        from layerstill.recipe import Recipe

        sets = (*(self.set_ or ()), *more)
        rate = None if self.rate == "auto" else self.rate
        return Recipe.load(recipe, sets).limited(number_or_auto(self.epochs, "--epochs"), self.batch_size, rate)

    @property
    def rate(self) -> Any:
        """The learning rate: a number, `auto`, or None for the recipe's."""
        return number_or_auto(self.learning_rate, "--learning-rate")


@dataclass(frozen=True)
class RecipeOptions:
    """How a student is made of a teacher."""

    student_layers: StudentLayers = None
    recipe: RecipeName = None
    init: Init = None
    init_from: InitFrom = None
    student: Student = None

    def read(self, stages: StageOptions, default: str) -> Any:
        """The recipe, `default` if none is named, with what the command line overrides."""
        name = self.recipe or default
        if self.init is None:
            return stages.read(name)
        from layerstill.students.initialisation import parse_initialisation

        return stages.read(name, (f"student.initialisation={json.dumps(parse_initialisation(self.init))}",))
