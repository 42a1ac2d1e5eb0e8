"""The act `distill`."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from layerstill.acts.agree import agree
from layerstill.acts.inputs import Model, model_at, read_recipe, read_task
from layerstill.acts.start import Start
from layerstill.data.checks import chance_notices
from layerstill.data.ood import OodSet
from layerstill.data.supplementary import Supplementary
from layerstill.data.tasks import Task
from layerstill.evaluation.predict import evaluate_split
from layerstill.recipe import Recipe
from layerstill.reporting.model_card import card_writer
from layerstill.result import Result
from layerstill.students.build import build_student, chosen_layers
from layerstill.training.arguments import Options, dtype_of
from layerstill.training.models import adopt_padding, load_fine_tuned, with_weights_in
from layerstill.training.records import RunFolder, folder_for
from layerstill.training.stages import StagedRun, note

log = logging.getLogger("layerstill")


def distill(
    teacher: Model,
    data: Any,
    recipe: str | Path | Recipe = "kd",
    student_layers: int | None = None,
    output: str | Path | None = None,
    options: Options = Options(),
    init_from: str | Path | None = None,
    ood: Sequence[OodSet] = (),
    supplementary: Supplementary | None = None,
    teacher_metrics: dict[str, float] | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    labels: Any = None,
    student: str | Path | None = None,
) -> Result:
    """Distil a fine-tuned `teacher` into a student of `student_layers` layers.

    Running the same thing again in the same folder resumes what was interrupted and returns what is finished.

    Args:
        teacher: a folder, a hub id, or a loaded model, which is left as it is.
        data: a `Task`, or whatever `Task.from_data` makes one of: a Dataset, DatasetDict or DataFrame, a list of
            (text, label), a list of texts with `labels`, a dictionary of these by split, or a path. It is taken for
            what the teacher's head is for.
        recipe: a recipe, the name of a shipped one, or a file.
        student_layers: how many layers the student has; with `student`, all of its own unless fewer are asked for.
        output: becomes a plain model folder with a model card and the record of the run. Without it the folder is
            `runs/RECIPE-DIGEST` in the working directory, one for everything that makes a run another.
        options: how to run.
        init_from: the student is cut from this model (its pre-trained parent, say) instead of the teacher, as the
            recipe's `student` section says.
        ood: out-of-domain sets that the student is scored on, too.
        supplementary: texts of stages with `data: supplementary`.
        teacher_metrics: the teacher's scores on dev, if they are known.
        tokenizer: of a loaded teacher; without it the one where the teacher was loaded from.
        labels: of a list of texts.
        student: the student itself before it is distilled, in place of `init_from`: any model of a proven family, with
            a depth, widths and a tokenizer of its own. A folder without weights starts from random ones. With other
            tokens than the teacher's, objectives that compare token by token are left out.

    UserError for everything that does not fit together.
    """
    recipe = read_recipe(recipe)
    recipe.agree_on_supplementary(supplementary is not None)
    with model_at(teacher, tokenizer) as (place, name):
        start = Start.of(init_from, student)
        task = read_task(data, place, labels)
        agreed = agree(place, task, recipe, student_layers, options, start, ood, supplementary)
        task, recipe = agreed.task, agreed.recipe
        # Models are loaded before the folder is made, so that a damaged one leaves nothing behind.
        set_seed(options.seed)  # a source without a head for this task gets a random one
        teacher_model = load_fine_tuned(place, task.head)
        adopt_padding(teacher_model, agreed.teacher_tokenizer)
        source = start.load(teacher_model, task, agreed.readers.student)
        settings = agreed.settings(name)
        with RunFolder(folder_for(output, recipe, settings), settings) as folder:
            if done := folder.finished:
                note([f"{done.folder} already holds this run, finished"])
                return done
            note(agreed.notices)
            if not recipe.needs_teacher:
                teacher_metrics = {}
            elif teacher_metrics is None:
                teacher_metrics = _score_teacher(teacher_model, agreed.teacher_tokenizer, task, options)
            set_seed(options.seed)
            depth, spec = agreed.student_layers, recipe.student
            built = build_student(source, depth, spec, options.seed, agreed.config, agreed.vocabulary)
            chosen = None if start.fresh else chosen_layers(source.config, depth, spec, options.seed)
            run = StagedRun(
                folder=folder,
                student=built,
                # After the student was cut from it: the student's weights stay in fp32.
                teacher=with_weights_in(teacher_model, dtype_of(options.precision)) if recipe.needs_teacher else None,
                readers=agreed.readers,
                task=task,
                recipe=recipe,
                options=options,
                teacher_metrics=teacher_metrics,
                origin={"layers": chosen or "random weights", "from": start.name or "teacher"},
                teacher_tokens=agreed.tokens,
                ood=agreed.fitted,
                supplementary=supplementary,
                describe=card_writer(recipe, task.head),
            )
            return run.train()


def _score_teacher(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, options: Options
) -> dict[str, float]:
    metrics, _ = evaluate_split(teacher, tokenizer, task, "dev", options.max_length)
    log.info("teacher on dev: %s", ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
    note(chance_notices(task, metrics))
    return metrics
