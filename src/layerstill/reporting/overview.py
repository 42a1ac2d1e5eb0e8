"""The report's tables of runs and cells, for page and terminal alike."""

from collections.abc import Sequence
from typing import Any

from layerstill.evaluation.statistics import Summary, summarise
from layerstill.reporting.arms import Cell, Ranking
from layerstill.reporting.plots import Table
from layerstill.reporting.runs import RunRecord


def cell_table(cells: Sequence[Cell]) -> Table:
    """Mean, standard deviation and n of every metric by task, arm, size, start and regime."""
    metrics = list(dict.fromkeys(name for c in cells for r in c.runs for name in r.metrics))
    rows: list[list[Any]] = []
    for cell in cells:
        there = {name for run in cell.runs for name in run.metrics}
        scores = [cell.summary(name) if name in there else None for name in metrics]
        teacher = [v for r in cell.runs if (v := r.checked.teacher_metrics.get(cell.metric)) is not None]
        where = [cell.task, cell.arm, *cell.setting]
        rows.append([*where, len(cell.runs), *scores, summarise(teacher) if teacher else None, cell.selected])
    return Table(["task", "recipe", "student", "start", "data", "n", *metrics, "teacher", "scores"], rows)


def run_table(runs: Sequence[RunRecord], latency: dict[str, float]) -> Table:
    """One row a run, whatever became of it."""
    header = "run task recipe student start data seed metric score others selected parameters,_M teacher".split()
    header += ["steps", "seconds", "examples/s", *(["ms"] if latency else []), "status"]
    rows = [_run_row(run, latency) for run in runs]
    return Table([name.replace("_", " ") for name in header], rows)


def _run_row(run: RunRecord, latency: dict[str, float]) -> list[Any]:
    more = [latency.get(run.name)] if latency else []
    if run.status != "finished":
        known = [str(run.coordinates.get(axis, "")) for axis in ("task", "recipe")]
        return [run.name, *known, "", "", "", run.seed, "", None, "", "", *[None] * (5 + len(more)), run.status]
    result, score = run.checked, run.metric
    others = ", ".join(f"{name} {100 * v:.1f}" for name, v in run.metrics.items() if name != score)
    arm = f"{run.recipe}, {run.variant}" if run.variant else run.recipe
    teacher = result.teacher_metrics.get(score)
    return [
        run.name, result.task, arm, run.size, run.start, run.regime, result.seed, score, 100 * run.score, others,
        run.selected, result.student.parameters / 1e6, None if teacher is None else 100 * teacher,
        result.train.steps, result.train.seconds, result.train.examples_per_second, *more, run.status,
    ]  # fmt: skip


def problem_table(runs: Sequence[RunRecord]) -> Table:
    """Runs that gave no result, and why."""
    rows: list[list[Any]] = [[r.name, r.status, r.error] for r in runs if r.status != "finished"]
    return Table(["run", "status", "reason"], rows)


def win_table(ranking: Ranking) -> Table:
    """Shares of blocks that each arm wins against each other one, and its average rank."""
    rows: list[list[Any]] = []
    for i, arm in enumerate(ranking.arms):
        wins = [None if i == j else 100 * float(share) for j, share in enumerate(ranking.wins[i])]
        rows.append([arm, *wins, *([ranking.ranks.average[i]] if ranking.ranks else [])])
    return Table(["% of blocks won against", *ranking.arms, *(["average rank"] if ranking.ranks else [])], rows)


def shown(value: Any) -> str:
    """A table's value as its reader sees it; scores of a summary in points."""
    if value is None:
        return "–"
    if isinstance(value, Summary):
        return f"{100 * value.mean:.1f}" + (f" ± {100 * value.sd:.1f}" if value.sd is not None else "")
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.3g}"
    return str(value)


def sort_key(value: Any) -> float | None:
    """The number a value is sorted by; None for text."""
    if isinstance(value, Summary):
        return value.mean
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
