"""`layerstill distill --task text`: the options of running text, and those that it has no use for."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from layerstill.commands.common import names
from layerstill.commands.options import RUN, TaskOptions
from layerstill.commands.recipe_options import RecipeOptions, StageOptions
from layerstill.errors import UserError
from layerstill.names import DEFAULT_TEXT_RECIPE, TEXT_TASK

MaxTokens = Annotated[
    Optional[float],
    typer.Option(
        metavar="NUMBER",
        help="With --task text: train on so many tokens, repetitions counted: 5e8. No more of the corpus are read.",
        rich_help_panel=RUN,
    ),
]
MaxHours = Annotated[
    Optional[float],
    typer.Option(help="With --task text: train for about so many hours on this machine.", rich_help_panel=RUN),
]


@dataclass(frozen=True)
class RunningTextOptions:
    """How long a student is distilled on running text."""

    max_tokens: MaxTokens = None
    max_hours: MaxHours = None

    def refuse(self) -> None:
        """UserError if they are given for another kind of task."""
        for option, value in (("--max-tokens", self.max_tokens), ("--max-hours", self.max_hours)):
            if value is not None:
                raise UserError(f"{option}: it is for --task {TEXT_TASK}; for others use --epochs or --max-steps")

    def distill(
        self,
        teacher: str | None,
        data: TaskOptions,
        recipe: RecipeOptions,
        stages: StageOptions,
        output: Path,
        options: Any,
        bundles: tuple[Any, ...],
    ) -> Any:
        """Run `acts.distill_text`; `bundles` are the options that a task has and running text does not."""
        given = self._read(teacher, data, recipe, stages, bundles)
        from layerstill.acts.distill_text import distill_text

        return distill_text(output=output, options=options, **given)

    def plan(
        self,
        teacher: str | None,
        data: TaskOptions,
        recipe: RecipeOptions,
        stages: StageOptions,
        options: Any,
        bundles: tuple[Any, ...],
    ) -> Any:
        """Run `acts.plan_text`, with the same arguments but the output."""
        given = self._read(teacher, data, recipe, stages, bundles)
        from layerstill.acts.plan_text import plan_text

        return plan_text(options=options, **given)

    def _read(
        self,
        teacher: str | None,
        data: TaskOptions,
        recipe: RecipeOptions,
        stages: StageOptions,
        bundles: tuple[Any, ...],
    ) -> dict[str, Any]:
        """The arguments of both acts; UserError for an option that running text has no use for."""
        _refuse_given(bundles)
        _refuse_unused(data, recipe, stages)
        if data.data is None:
            kinds = ".txt .jsonl .parquet .csv .tsv"
            raise UserError(f"--task {TEXT_TASK} needs --data: a file or a folder of texts ({kinds}), hub:NAME or -")
        if teacher is None:
            raise UserError("TEACHER: give the model that teaches")
        columns = names(data.text_columns)
        if len(columns) > 1:
            raise UserError(f"--text-columns {data.text_columns}: running text is in one column")
        from layerstill.acts.text_length import Length
        from layerstill.data.text.streams import corpus_at

        return {
            "teacher": teacher,
            "data": corpus_at(data.data, columns[0] if columns else None),
            "recipe": recipe.read(stages, DEFAULT_TEXT_RECIPE),
            "student_layers": recipe.student_layers,
            "init_from": recipe.init_from,
            "length": Length(self.max_tokens, self.max_hours),
        }


def _refuse_unused(data: TaskOptions, recipe: RecipeOptions, stages: StageOptions) -> None:
    unused = {
        "--dev": data.dev,
        "--label-map": data.label_map,
        "--weight-column": data.weight_column,
        "--student": recipe.student,
    }
    for option, value in unused.items():
        if value is not None:
            raise UserError(f"{option}: --task {TEXT_TASK} has no use for it; leave it out")
    if data.label_column != "label":
        raise UserError(f"--label-column: --task {TEXT_TASK} has no labels; leave it out")
    if stages.rate == "auto":
        raise UserError("--learning-rate auto: it needs scores, and running text has none; give a number")
    if stages.epochs == "auto":
        raise UserError("--epochs auto: it is for labelled examples; leave it out for one pass, or give a number")


def _refuse_given(bundles: tuple[Any, ...]) -> None:
    for bundle in bundles:
        for field in fields(bundle):
            if getattr(bundle, field.name) != field.default:
                option = f"--{field.name.strip('_').replace('_', '-')}"
                raise UserError(f"{option}: it is about labelled examples, which --task {TEXT_TASK} does not have")
