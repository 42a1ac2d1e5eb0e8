"""The act `distill`."""

from collections.abc import Sequence
from pathlib import Path

from layerstill.data.ood import OodSet
from layerstill.data.supplementary import Supplementary
from layerstill.data.tasks import Task
from layerstill.recipe import Recipe
from layerstill.reporting.model_card import card_writer
from layerstill.result import Result
from layerstill.training import run
from layerstill.training.arguments import Options


def distill(
    teacher: str,
    task: Task,
    recipe: Recipe,
    student_layers: int,
    output: str | Path,
    options: Options = Options(),
    init_from: str | None = None,
    ood: Sequence[OodSet] = (),
    supplementary: Supplementary | None = None,
    teacher_metrics: dict[str, float] | None = None,
) -> Result:
    """Distil a fine-tuned `teacher` (folder or hub id) into a student of `student_layers` layers.

    The student is cut from the teacher, or from the model `init_from` (its pre-trained parent, say), as the recipe's
    `student` section says. `supplementary` has the texts of stages with `data: supplementary`; the student is scored on
    the sets `ood`, too. `teacher_metrics` are the teacher's scores on dev, if they are known. `output` becomes a plain
    model folder with a model card and the record of the run. Running the same thing again in the same folder resumes
    what was interrupted and returns what is finished. UserError for everything that does not fit together.
    """
    return run.distill(
        teacher,
        task,
        recipe,
        student_layers,
        output,
        options,
        init_from,
        ood,
        supplementary,
        teacher_metrics,
        card_writer(recipe, task.head),
    )
