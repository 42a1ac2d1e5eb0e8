"""Students, their teachers and the files made of both, side by side: what is lost, and what it costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerstill.evaluation.comparison import Comparison, compare_by_example
from layerstill.evaluation.predictions import load_predictions
from layerstill.evaluation.statistics import Summary
from layerstill.reporting.arms import Cell
from layerstill.reporting.forms import FORM_WORDS, Form
from layerstill.reporting.looks import TEACHER, Looks
from layerstill.reporting.naming import tails
from layerstill.reporting.teachers import Teacher, key_of, teachers_of


@dataclass(frozen=True)
class Loss:
    """What a model lost to its teacher."""

    points: float
    """Of the main metric, out of 100; negative where it gained."""
    kept: float | None
    """Percent of the teacher's score; None where the teacher has nothing to keep."""
    comparison: Comparison | None = None
    """The model minus its teacher, over the examples of dev; None where what they said was not kept."""
    interval: tuple[float, float] | None = None
    """Of `kept`, 95 %, where a record has it in place of a comparison."""
    untested: str = ""
    """Why there is no comparison, and what makes one possible."""


@dataclass(frozen=True)
class Model:
    """A student or teacher in one form."""

    task: str
    regime: str
    name: str
    """By what differs among the students, the task aside."""
    form: str
    teaches: bool
    metric: str
    score: Summary
    cell: Cell | None = None
    """Its runs; of a file, those of the model that it was made of. None for a teacher from elsewhere."""
    teacher: Summary | None = None
    loss: Loss | None = None
    parameters: int | None = None
    layers: int | None = None
    mb: float | None = None
    ms: float | None = None
    path: str = ""
    """Of its folder or file; empty where there is none, or several."""
    fit: bool = True
    ship: bool = False
    verdict: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """What it is, where it is no student in PyTorch."""
        kind = {"torch": "", "onnx": "exported", "int8": "quantised"}[self.form]
        return f"{kind} {TEACHER}".strip() if self.teaches else kind

    @property
    def student(self) -> bool:
        """Whether it is a student as it was trained."""
        return not self.teaches and self.form == "torch"


def models_of(
    found: Sequence[Cell], looks: Looks, forms: Sequence[Form] = (), latency: Mapping[str, float] = {}
) -> list[Model]:
    """Teachers, then students, each followed by the files made of it; within a task the best student first.

    `latency` is milliseconds for a text by the name of a run, or by the folder of a teacher. The tests of students
    against teachers are not adjusted; `one_family` does that for all that stands beside them.
    """
    teachers = teachers_of(found)
    students = [cell for cell in found if not cell.is_teacher]
    made = [*_teacher_models(found, teachers, looks), *(_student(cell, teachers, looks) for cell in students)]
    made = [_timed(_measured(model, forms), teachers, latency) for model in made]
    made += [_file(model, form) for model in made for form in forms if form.form != "torch" and _belongs(model, form)]
    tasks = list(dict.fromkeys(cell.task for cell in found))
    groups = {(m.task, m.regime, m.name, m.teaches): m for m in made if m.form == "torch"}

    def order(model: Model) -> tuple:
        whole = groups.get((model.task, model.regime, model.name, model.teaches), model)
        place = list(FORM_WORDS).index(model.form)
        return tasks.index(model.task), not model.teaches, -whole.score.mean, model.name, model.regime, place

    return sorted(made, key=order)


def _teacher_models(found: Sequence[Cell], teachers: Sequence[Teacher], looks: Looks) -> list[Model]:
    """Cells of whole models, and teachers of which only their students tell."""
    made = []
    for cell in (cell for cell in found if cell.is_teacher):
        run = cell.runs[0]
        made.append(
            Model(
                cell.task,
                cell.setting.regime,
                looks.name(cell),
                "torch",
                True,
                cell.metric,
                cell.summary(),
                cell,
                parameters=run.checked.student.parameters,
                layers=run.checked.student.layers,
                path=_place(cell),
            )
        )
    outside = [t for t in teachers if t.run is None]
    several = {t.task for t in outside if sum(o.task == t.task and o.regime == t.regime for o in outside) > 1}
    for teacher, tail in zip(outside, tails([t.place or TEACHER for t in outside]), strict=True):
        name = f"{TEACHER} {tail}" if teacher.task in several else TEACHER
        model = Model(teacher.task, teacher.regime, name, "torch", True, teacher.metric, teacher.score)
        size = teacher.parameters
        made.append(replace(model, parameters=size, layers=teacher.layers, path=teacher.place))
    return made


def _student(cell: Cell, teachers: Sequence[Teacher], looks: Looks) -> Model:
    student = cell.runs[0].checked.student
    teacher = teacher_for(cell, teachers)
    score = cell.summary()
    loss = None
    if teacher is not None and teacher.metric == cell.metric:
        kept = 100 * score.mean / teacher.score.mean if teacher.score.mean > 0 else None
        comparison = _against(cell, teacher, looks.name(cell))
        why = "" if comparison is not None else _why_untested(cell, teacher)
        loss = Loss(100 * (teacher.score.mean - score.mean), kept, comparison, untested=why)
    return Model(
        cell.task,
        cell.setting.regime,
        looks.name(cell),
        "torch",
        False,
        cell.metric,
        score,
        cell,
        None if teacher is None else teacher.score,
        loss,
        student.parameters,
        student.layers,
        path=_place(cell),
    )


def _place(cell: Cell) -> str:
    """Where a cell's model is, if it is one."""
    folder = cell.runs[0].folder
    return str(folder) if len(cell.runs) == 1 and folder is not None else ""


def teacher_for(cell: Cell, teachers: Sequence[Teacher]) -> Teacher | None:
    """The teacher of a cell's runs; of runs without one, that of all others with the same task and data."""
    if (key := key_of(cell)) is not None:
        return next((t for t in teachers if (t.task, t.regime, t.place) == key), None)
    there = [t for t in teachers if (t.task, t.regime) == (cell.task, cell.setting.regime)]
    return there[0] if len(there) == 1 else None


def _against(cell: Cell, teacher: Teacher, name: str) -> Comparison | None:
    """The mean over a cell's seeds minus the teacher, example by example; None where either kept nothing."""
    own = [run.adds for run in cell.runs]
    theirs = teacher.adds
    if theirs is None or cell.ambiguous:
        return None
    known = [adds for adds in own if adds is not None]
    if len(known) < len(own) or not all(np.array_equal(ids, theirs[0]) for ids, _ in known):
        return None
    gaps = np.mean([values for _, values in known], axis=0) - theirs[1]
    scores = {cell.task: {seed: run.score for seed, run in cell.by_seed.items()}}
    reference = {cell.task: dict.fromkeys(cell.by_seed, teacher.score.mean)}
    made = compare_by_example(name, TEACHER, scores, reference, {cell.task: gaps})
    return replace(made, of_b=Summary(teacher.score.mean, None, 1))


def _why_untested(cell: Cell, teacher: Teacher) -> str:
    """Why a cell is not held against its teacher example by example."""
    again = "the same command with a new --output keeps it"
    if cell.ambiguous:
        return "several runs have the same seed"
    if any(run.adds is None for run in cell.runs):
        if not all(run.folder is not None and load_predictions(run.folder) for run in cell.runs):
            return f"what the student said of each example is not in its folder; {again}"
        return f"{cell.metric} is not a sum over examples here, so they cannot be paired"
    if teacher.adds is None:
        return f"what the teacher said of each example was not kept; {again}"
    return "teacher and student were scored on different examples"


def _belongs(model: Model, form: Form) -> bool:
    if model.form != "torch" or (model.task, model.metric) != (form.task, form.metric):
        return False
    if not form.owner:
        return model.teaches
    return not model.teaches and model.cell is not None and form.owner in {run.name for run in model.cell.runs}


def _measured(model: Model, forms: Sequence[Form]) -> Model:
    """With the sizes and times that `compress` measured of it, or the size of its weights on disk."""
    there = next((f for f in forms if f.form == "torch" and _belongs(model, f)), None)
    if there is not None:
        model = replace(model, ship=there.ship, verdict=there.verdict, parameters=there.parameters, layers=there.layers)
        return replace(model, mb=there.mb, ms=there.ms)
    folder = model.cell.runs[0].folder if model.cell else None
    weights = None if folder is None else folder / "model.safetensors"
    return model if weights is None or not weights.is_file() else replace(model, mb=weights.stat().st_size / 1e6)


def _timed(model: Model, teachers: Sequence[Teacher], latency: Mapping[str, float]) -> Model:
    if model.ms is not None:
        return model
    runs = model.cell.runs if model.cell else ()
    known = [latency[run.name] for run in runs if run.name in latency]
    if model.teaches:
        known += [latency[t.place] for t in teachers if t.place == model.path and t.place in latency]
    return replace(model, ms=known[0]) if known else model


def _file(model: Model, form: Form) -> Model:
    """A file made of a model."""
    reference = model.score if model.teaches else model.teacher
    loss = None
    if reference is not None:
        kept = form.kept
        if kept is None and reference.mean > 0:
            kept = 100 * form.score / reference.mean
        loss = Loss(100 * (reference.mean - form.score), kept, None, form.interval)
    return replace(
        model,
        form=form.form,
        score=Summary(form.score, None, 1),
        teacher=reference,
        loss=loss,
        mb=form.mb,
        ms=form.ms,
        path=form.path,
        fit=form.fit,
        ship=form.ship,
        verdict=form.verdict,
    )
