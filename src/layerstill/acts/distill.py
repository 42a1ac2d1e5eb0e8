"""The act `distill`."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from layerstill.acts.agree import Agreement, More, agree
from layerstill.acts.extra import gather
from layerstill.acts.inputs import Model, model_at, read_recipe, read_task, recipe_for, start_of
from layerstill.acts.rates import Rate, apply_rate, refuse_untaught, tuned
from layerstill.acts.rungs import Judge, Train, Trial
from layerstill.acts.start import Start
from layerstill.acts.teacher_says import TeacherSays
from layerstill.data.checks import chance_notices
from layerstill.data.copies import Augment
from layerstill.data.extra import Unlabelled
from layerstill.data.ood import OodSet
from layerstill.data.probabilities import Probabilities
from layerstill.data.supplementary import Supplementary
from layerstill.data.tasks import Task
from layerstill.evaluation.nearness import kept_predictions, loss_of
from layerstill.heads import Classes
from layerstill.progress import our_bars_only, showing
from layerstill.recipe import Recipe
from layerstill.reporting.facts import judge_of
from layerstill.reporting.model_card import card_writer
from layerstill.result import Result
from layerstill.students.build import build_student, chosen_layers
from layerstill.training.accounting import Spent
from layerstill.training.arguments import Options, dtype_of
from layerstill.training.models import adopt_padding, load_fine_tuned, with_weights_in
from layerstill.training.reach import reach_notices
from layerstill.training.records import RunFolder, folder_for
from layerstill.training.stages import StagedRun, note
from layerstill.training.teachers import MoreTeachers, Said

log = logging.getLogger("layerstill")


@our_bars_only()
def distill(
    teacher: Model | None,
    data: Any,
    recipe: str | Path | Recipe | None = None,
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
    learning_rate: Rate = None,
    unlabelled: Unlabelled | None = None,
    augment: Augment | None = None,
    probabilities: Probabilities | None = None,
    more_teachers: Sequence[str | Path] = (),
) -> Result:
    """Distil a fine-tuned `teacher` into a student of `student_layers` layers.

    Running the same thing again in the same folder resumes what was interrupted and returns what is finished.

    Args:
        teacher: a folder, a hub id, or a loaded model, which is left as it is; None with `probabilities`.
        data: a `Task`, or whatever `Task.from_data` makes one of: a Dataset, DatasetDict or DataFrame, a list of
            (text, label), a list of texts with `labels`, a dictionary of these by split, or a path. It is taken for
            what the teacher's head is for.
        recipe: a recipe, the name of a shipped one, or a file; without it `best`, or `best-pairs` where an example has
            two texts.
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
        learning_rate: of every stage, in place of the recipe's; `auto` finds one by short trainings on a slice of the
            training examples, before the student is trained on all of them.
        unlabelled: texts that join the training examples, for everything that learns from more than gold labels.
        augment: copies of the training examples that do so.
        probabilities: what a teacher that is not here said of the training examples. The student is then cut from
            `init_from`, or is `student`, and no term may look at more of a teacher than its logits.
        more_teachers: folders or hub ids of models with the same labels, of any family. Soft targets are the mean of
            what all teachers say, each weighted by its score on dev; everything else is learnt from `teacher` alone.

    UserError for everything that does not fit together.
    """
    named = None if recipe is None else read_recipe(recipe)
    refuse_untaught(learning_rate, probabilities)
    more, start = More(unlabelled, augment, probabilities, MoreTeachers.of(more_teachers)), Start.of(init_from, student)
    with showing(options.progress), model_at(start_of(teacher, start.name, probabilities), tokenizer) as (place, name):
        task = read_task(data, place, labels, Classes() if probabilities else None)
        recipe = apply_rate(recipe_for(named, task), learning_rate)
        recipe.agree_on_supplementary(supplementary is not None)
        agreed = agree(place, task, recipe, student_layers, options, start, ood, supplementary, more)
        task, recipe = agreed.task, agreed.recipe
        # Models are loaded before the folder is made, so that a damaged one leaves nothing behind.
        set_seed(options.seed)  # a source without a head for this task gets a random one
        teacher_model = None if probabilities else load_fine_tuned(place, task.head)
        if teacher_model is not None:
            adopt_padding(teacher_model, agreed.teacher_tokenizer)
        source = start.load(teacher_model, task, agreed.whole_readers.student)
        settings = agreed.settings(name) | ({"learning_rate": "auto"} if learning_rate == "auto" else {})
        with RunFolder(folder_for(output, recipe, settings), settings) as folder:
            if done := folder.finished:
                note([f"{done.folder} already holds this run, finished"])
                return done
            note(agreed.notices)
            agreed = agreed.joined_by(gather(agreed, folder.checkpoints / "augmented.json"))
            note(list(agreed.extra.notices) if agreed.extra else [])
            recipe, sizes = agreed.recipe, agreed.sizes
            teacher_logits = None
            if teacher_model is None or not recipe.needs_teacher:
                teacher_metrics = {}
            elif teacher_metrics is None:
                says = _score_teacher(teacher_model, agreed.teacher_tokenizer, task, options)
                teacher_metrics, teacher_logits = says.metrics, says.logits
            if learning_rate == "auto":
                taught = recipe.needs_teacher

                def prepare(cut: Task) -> tuple[Train, Judge]:
                    first = place, cut, options, taught, student_layers, start.init_from, supplementary
                    return trainer_for(*first, start.student, more_teachers, _answers_in(folder, options))

                recipe = tuned(recipe, task, options, folder, prepare, sizes.get("supplementary", 0))
            elif recipe.needs_teacher:
                note(reach_notices(recipe, sizes, options.max_steps))
            several = agreed.more_teachers is not None and recipe.needs_teacher
            said = _asked(agreed, place, name, _answers_in(folder, options)) if several else None
            set_seed(options.seed)
            depth, spec = agreed.student_layers, recipe.student
            built = build_student(source, depth, spec, options.seed, agreed.config, agreed.vocabulary)
            chosen = None if start.fresh else chosen_layers(source.config, depth, spec, options.seed)
            judge = None
            if teacher_model is not None and recipe.needs_teacher:
                models = teacher_model, built.config, agreed.readers
                judge = judge_of(recipe, task, *models, options, sizes, folder.path)
            run = StagedRun(
                folder=folder,
                student=built,
                # After the student was cut from it: the student's weights stay in fp32.
                teacher=with_weights_in(teacher_model, dtype_of(options.precision))
                if teacher_model is not None and recipe.needs_teacher
                else None,
                readers=agreed.readers,
                task=task,
                recipe=recipe,
                options=options,
                teacher_metrics=teacher_metrics,
                teacher_logits=teacher_logits,
                origin={"layers": chosen or "random weights", "from": start.name or "teacher"},
                teacher_tokens=agreed.tokens,
                ood=agreed.fitted,
                supplementary=supplementary,
                extra=agreed.extra,
                probabilities=probabilities,
                said=said,
                spent=Spent() if said is None else Spent(seconds=said.seconds, teacher_seconds=said.seconds),
                describe=card_writer(recipe, task.head),
                judge=judge,
            )
            return run.train()


def trainer_for(
    teacher: str,
    task: Task,
    options: Options,
    taught: bool = True,
    student_layers: int | None = None,
    init_from: str | None = None,
    supplementary: Supplementary | None = None,
    student: str | None = None,
    more_teachers: Sequence[str | Path] = (),
    answers: Path | None = None,
) -> tuple[Train, Judge]:
    """What distils a trial on a task with its dev split, and how far the student is from the teacher's logits there, or
    from the gold labels unless it is `taught`.

    The trial's own number of layers and start come before these. With `more_teachers` it is their mean that students
    are measured by; `answers` is the folder where what they say is kept.
    """
    several = MoreTeachers.of(more_teachers)
    if taught and several is not None and answers is not None:
        said = several.ask(teacher, task, [task.splits["train"]], options.max_length, answers)
        says: TeacherSays | None = TeacherSays(task, said.of(task.splits["dev"]), said.metrics)
    else:
        says = TeacherSays.of(teacher, task, options.max_length) if taught else None

    def train(trial: Trial, output: Path, how: Options) -> Result:
        layers, start = trial.student_layers or student_layers, trial.init_from or init_from
        known = says.metrics if says is not None else None
        arguments = teacher, task, trial.recipe, layers, output, how, start, (), supplementary, known
        return distill(*arguments, student=student, more_teachers=more_teachers)

    def loss(folder: Path) -> float:
        return loss_of(kept_predictions(folder), task)

    return train, says.distance if says is not None else loss


def _asked(agreed: Agreement, place: str, name: str, kept: Path) -> Said:
    """What the teachers say of everything that is trained on."""
    assert agreed.more_teachers is not None
    splits = [agreed.split(stage) for stage in agreed.recipe.stages]
    said = agreed.more_teachers.ask(place, agreed.task, splits, agreed.options.max_length, kept, name)
    metric = agreed.task.metrics[0]
    each = ", ".join(f"{one['teacher']} {one[metric]:.4f} (weight {one['weight']:.2f})" for one in said.record())
    log.info("teachers on dev, %s: %s", metric, each)
    return said


def _answers_in(folder: RunFolder, options: Options) -> Path:
    """Where the answers of several teachers are kept: beside what the teacher gives away, which runs may share."""
    where = options.cache.where
    return folder.teacher_cache if where in {"auto", "off"} else Path(where)


def _score_teacher(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, options: Options
) -> TeacherSays:
    with showing(what="teacher"):
        says = TeacherSays.asked(teacher, tokenizer, task, options.max_length)
    log.info("teacher on dev: %s", ", ".join(f"{k} {v:.4f}" for k, v in says.metrics.items()))
    note(chance_notices(task, says.metrics, says.logits))
    return says
