"""A plan as tables on the terminal, or as plain data."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from layerstill.reporting.words import spec_words
from layerstill.sizes import size_in_words
from layerstill.training.plan import Plan


def plan_data(plan: Plan) -> dict[str, Any]:
    """The plan as JSON would have it."""
    data = asdict(plan)
    for stage, made in zip(data["stages"], plan.stages, strict=True):
        stage["student_capture"] = str(made.student_capture)
        stage["teacher_capture"] = str(made.teacher_capture)
    return data


def _compares(row: dict[str, Any]) -> str:
    """One objective's words, a line each, leaving out what is at its default."""
    lines = [
        f"{spec_words(row['signal'])} by {spec_words(row['distance'] or 'task loss')}",
        f"weight {spec_words(row['weight'])}",
    ]
    usual = {"alignment": "none", "relate": None, "target": "teacher", "view": "clean", "padding": "excluded"}
    for word, default in usual.items():
        if row[word] != default:
            lines.append(f"{word} {spec_words(row[word])}")
    return "\n".join(lines)


def _folded(pairs: list[str]) -> str:
    """The candidates of a random mapping are the same for every student layer: say them once."""
    drawn = [pair.split(" <- drawn from ") for pair in pairs if " <- drawn from " in pair]
    if drawn:
        return "\n".join([*(f"{student} <- drawn" for student, _ in drawn), "from", *drawn[0][1].split(", ")])
    return "\n".join(pairs) or "-"


PARTS = {"trials": "trying learning rates", "asking": "asking the teachers"}
"""What parts of a run's time are called, where their names do not say it."""


def duration(seconds: float) -> str:
    """Seconds as a user reads them: `95 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def measured_lines(plan: Plan) -> list[str]:
    """How fast and large the student will be and how long the run takes, or why neither was measured."""
    if plan.not_measured:
        return [f"neither the run's time nor the student's speed was measured: {plan.not_measured}"]
    lines = []
    if (speed := plan.speed) is not None:
        what = f"student: {speed.p50_ms:.3g} ms for one text of these lengths on the CPU"
        if speed.times_as_fast is not None and speed.teacher_ms is not None:
            what += f", {speed.times_as_fast:.1f} times as fast as the teacher ({speed.teacher_ms:.3g} ms)"
        size = f"{speed.mb:.1f} MB" + (f" of {speed.teacher_mb:.1f}" if speed.teacher_mb is not None else "")
        lines.append(f"{what}; {size} in 32 bits (untrained models, one thread, measured here)")
    if (seconds := plan.seconds) is not None:
        parts = [
            f"{PARTS.get(name, name)} {duration(value)}"
            for name, value in seconds.items()
            if name != "total" and value >= 0.5
        ]
        lines.append(f"run: about {duration(seconds['total'])} from start to end ({', '.join(parts) or 'all of it'})")
    return lines


def print_plan(plan: Plan) -> None:
    """Print the plan: models, then for each stage the pairs and what is captured."""
    console = Console(soft_wrap=False)
    start = f"{plan.source} layers {plan.initialisation}" if plan.initialisation else "random weights"
    taught = bool(plan.teacher_parameters or plan.teachers)
    start = start if taught else start.replace("teacher layers", "layers")
    teacher = f"teacher {plan.teacher_parameters:,} parameters" if plan.teacher_parameters else "no teacher"
    teacher = f"{plan.teachers} teachers, which answer every text once before training" if plan.teachers else teacher
    console.print(
        f"{teacher}; student {plan.student_parameters:,} parameters, "
        f"{plan.student_layers} layers from {start}; about {plan.memory_mb:,.0f} MB of memory while training"
    )
    for line in plan.told:
        console.print(line, highlight=False)
    for line in plan.left_out:
        console.print(line)
    for line in measured_lines(plan):
        console.print(line, highlight=False)
    for number, stage in enumerate(plan.stages, 1):
        steps = f"{stage.steps:,} steps" if stage.steps is not None else "steps depend on the data"
        where = "" if stage.data == "task" else " on supplementary texts"
        table = Table(title=f"stage {number}: {steps}{where}", title_justify="left", show_lines=True)
        table.add_column("objective")
        table.add_column("compares", overflow="fold")
        table.add_column("student <- teacher", no_wrap=True)
        for row in stage.objectives:
            table.add_row(row["objective"], _compares(row), _folded(row["pairs"]))
        console.print(table)
        console.print(f"captured from the student: {stage.student_capture}")
        console.print(f"captured from the teacher: {stage.teacher_capture}")
        if stage.teacher_capture and stage.teacher_depth:
            console.print(f"teacher runs {stage.teacher_depth} of {stage.teacher_layers} layers")
        else:
            console.print("no teacher runs in training" if plan.teachers else "the teacher does not run")
        console.print(f"captured tensors and maps take up to {stage.capture_mb:,.0f} MB")
        if stage.memory_mb:
            size = size_in_words(stage.memory_mb * 2**20 / 1e9)
            console.print(f"what is remembered of the training examples takes {size}")
        console.print(f"alignments have {stage.aligner_parameters:,} parameters")
        if stage.student_tflop is not None and stage.teacher_tflop is not None:
            costs = f"student {stage.student_tflop:,.2f} TFLOP, teacher {stage.teacher_tflop:,.2f} in every step"
            if stage.teacher_tflop_cached is not None and stage.teacher_tflop_cached < stage.teacher_tflop:
                costs += f" or {stage.teacher_tflop_cached:,.2f} into a cache of {size_in_words(stage.cache_gb or 0)}"
            console.print(f"cost: {costs}")
        if stage.seconds is not None and stage.step_seconds is not None:
            how = "with the teacher cache" if stage.cached else "with the teacher live"
            if not stage.teacher_depth:
                how = "with the answers of all teachers" if plan.teachers else "without a teacher"
            each = (
                f"{stage.step_seconds:.2g} s a step, {stage.teacher_seconds:.2g} s of it the teacher's, measured here"
            )
            console.print(f"time: about {duration(stage.seconds)} {how} ({each})")
        if stage.no_cache:
            console.print(f"teacher cache: off, because {stage.no_cache}")
        console.print()
