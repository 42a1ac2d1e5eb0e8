"""Options that give a run more to learn from: unlabelled and supplementary texts, copies, ready soft labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from layerstill.commands.common import names
from layerstill.commands.options import DATA, TaskOptions
from layerstill.errors import UserError

Teacher = Annotated[
    Optional[str],
    typer.Argument(help="A fine-tuned model: a folder or a hub id. Not needed with --teacher-probabilities."),
]
UnlabelledFile = Annotated[
    Optional[str],
    typer.Option(
        "--unlabelled",
        help="More texts, without labels, that join the training examples: the teacher labels them, and terms on "
        "gold labels skip them. A file (.txt with one text per line, .csv .tsv .jsonl .json .parquet .xlsx, for tokens "
        ".conll), or `mnli=FOLDER`. Texts of train, dev and test are left out.",
        rich_help_panel=DATA,
    ),
]
UnlabelledColumns = Annotated[
    Optional[str],
    typer.Option(help="One or two text columns of --unlabelled, if not those of the data.", rich_help_panel=DATA),
]
Copies = Annotated[
    Optional[int],
    typer.Option(
        "--augment",
        min=1,
        help="Add this many copies of every training example, with some words changed and without a label.",
        rich_help_panel=DATA,
    ),
]
AugmentModel = Annotated[
    Optional[str],
    typer.Option(
        help="Masked language model that proposes words for --augment. Without it, words of the training texts "
        "are exchanged, left out or doubled.",
        rich_help_panel=DATA,
    ),
]
Supplementary = Annotated[
    Optional[str],
    typer.Option(
        help="Texts for stages with `data: supplementary`: a file (.csv .tsv .jsonl .json .parquet .xlsx, or .txt with "
        "one text per line), or `mnli=FOLDER` for the training texts of a GLUE task. Labels are dropped.",
        rich_help_panel=DATA,
    ),
]
SupplementaryColumns = Annotated[
    Optional[str],
    typer.Option(help="One or two text columns of --supplementary: NAME or NAME,NAME.", rich_help_panel=DATA),
]
ProbabilityColumns = Annotated[
    Optional[str],
    typer.Option(
        help="Ready soft labels in place of TEACHER, for recipes that compare only logits: a column of the "
        "train file for each label, named after the labels or in their order, or one column as "
        "`predict --probabilities` writes it. The student is cut from --init-from, or is the model of --student.",
        rich_help_panel=DATA,
    ),
]


@dataclass(frozen=True)
class ExtraOptions:
    """Texts that join the training examples."""

    unlabelled: UnlabelledFile = None
    unlabelled_columns: UnlabelledColumns = None
    augment: Copies = None
    augment_model: AugmentModel = None

    def read(self, data: TaskOptions) -> dict[str, Any]:
        """Those arguments of the acts that say so."""
        return {"unlabelled": self._texts(data), "augment": self._copies()}

    def _texts(self, data: TaskOptions) -> Any:
        if self.unlabelled is None:
            _refuse_columns("unlabelled", self.unlabelled_columns)
            return None
        from layerstill.data.extra import read_unlabelled
        from layerstill.data.files import is_table_file

        columns = names(self.unlabelled_columns)
        if not columns and is_table_file(Path(self.unlabelled)):
            columns = names(data.text_columns)
        return read_unlabelled(self.unlabelled, columns)

    def _copies(self) -> Any:
        if self.augment is None:
            if self.augment_model is not None:
                raise UserError(
                    "--augment-model: say with --augment how many copies of an example to make, or leave it out"
                )
            return None
        from layerstill.data.copies import Augment

        return Augment(self.augment, self.augment_model)


MoreTeachers = Annotated[
    Optional[str],
    typer.Option(
        help="More fine-tuned models with the same labels, of any family: MODEL or MODEL,MODEL. Soft targets are the "
        "mean of what all teachers say, each weighted by its score on dev. The rest is learnt from TEACHER alone.",
        rich_help_panel=DATA,
    ),
]


@dataclass(frozen=True)
class ProbabilityOptions:
    """Soft labels in place of a teacher, or beside it."""

    teacher_probabilities: ProbabilityColumns = None
    more_teachers: MoreTeachers = None

    def read(self, data: TaskOptions, task: Any) -> Any:
        """The soft labels of the training file, or None."""
        if self.teacher_probabilities is None:
            return None
        from layerstill.data.probabilities import probabilities_file, read_probabilities

        path = probabilities_file(task, data.data, data.dev)
        columns = names(self.teacher_probabilities)
        return read_probabilities(path, columns, task, names(data.text_columns), data.label_column)


@dataclass(frozen=True)
class SupplementaryOptions:
    """Texts that some stages train on."""

    supplementary: Supplementary = None
    supplementary_columns: SupplementaryColumns = None

    def read(self, recipe: Any, needed: bool = True) -> Any:
        """The texts, or None; UserError if the recipe has another opinion, or only if it wants none."""
        from layerstill.data.supplementary import read_supplementary

        if needed or self.supplementary is not None:
            recipe.agree_on_supplementary(self.supplementary is not None)
        if self.supplementary is None:
            _refuse_columns("supplementary", self.supplementary_columns)
            return None
        return read_supplementary(self.supplementary, names(self.supplementary_columns))


def _refuse_columns(option: str, columns: str | None) -> None:
    """UserError for columns of a file that was not given."""
    if columns is not None:
        raise UserError(f"--{option}-columns: give --{option} too, or leave it out")
