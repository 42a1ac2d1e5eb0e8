"""The report's tables of runs and cells, for page and terminal alike."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerstill.evaluation.statistics import Summary
from layerstill.reporting.arms import Cell, Ranking
from layerstill.reporting.forms import FORM_WORDS
from layerstill.reporting.looks import TEACHER, Looks
from layerstill.reporting.models import Model
from layerstill.reporting.naming import letter, looks_like_a_hash, telling
from layerstill.reporting.plots import Table
from layerstill.reporting.runs import RunRecord, word


@dataclass(frozen=True)
class Named:
    """A name with what marks it: that it is the teacher, say."""

    name: str
    mark: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.mark})" if self.mark and self.mark != self.name else self.name


class P(float):
    """A p-value."""

    def __str__(self) -> str:
        return f"{float(self):.2g}" if self >= 0.001 else "< 0.001"


def model_table(models: Sequence[Model]) -> Table:
    """A row for every model: its score, what it lost, what it costs; columns that would be empty are left out."""
    metrics = list(dict.fromkeys(name for m in models for r in (m.cell.runs if m.cell else ()) for name in r.metrics))
    first = dict.fromkeys(m.metric for m in models)
    metrics = [*first, *(name for name in metrics if name not in first)]
    header = ["model", *metrics, "lost, points", "95 % interval", "p", "kept, %", "n", "ms", "MB", "M parameters"]
    header += ["task", "recipe", "student", "start", "data", "scores"]
    always = ("model", *first, "lost, points", "95 % interval", "p", "kept, %")
    return _lean(Table(header, [_model_row(m, metrics) for m in models]), always)


def _model_row(model: Model, metrics: Sequence[str]) -> list[Any]:
    named = model.name if model.form == "torch" else f"{model.name}, {FORM_WORDS[model.form]}"
    cell = model.cell
    scores = [_summary(model, name) for name in metrics]
    loss = model.loss
    comparison = None if loss is None else loss.comparison
    interval = p = None
    if comparison is not None:
        p = P(comparison.p_holm)
        interval = None if comparison.interval.empty else _range(-comparison.interval.high, -comparison.interval.low)
    elif loss is not None and loss.interval is not None and model.teacher is not None:
        interval = _range(*(model.teacher.mean * (1 - kept / 100) for kept in reversed(loss.interval)))
    setting = ["", "", model.regime] if cell is None else [*cell.setting]
    return [
        Named(named, model.mark),
        *scores,
        None if loss is None else loss.points,
        interval,
        p,
        None if loss is None else loss.kept,
        model.score.n if model.form == "torch" and cell is not None else None,
        model.ms,
        model.mb,
        None if model.parameters is None else model.parameters / 1e6,
        model.task,
        cell.recipe if cell is not None and not model.teaches else "",
        *setting,
        cell.selected if cell is not None and model.form == "torch" else "",
    ]


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}".replace("-0.0", "0.0")


def _summary(model: Model, metric: str) -> Summary | None:
    if metric == model.metric:
        return model.score
    cell = model.cell if model.form == "torch" else None
    return cell.summary(metric) if cell and any(metric in run.metrics for run in cell.runs) else None


def run_table(runs: Sequence[RunRecord], found: Sequence[Cell], looks: Looks, latency: Mapping[str, float]) -> Table:
    """One row a run, whatever became of it, called by what differs; where it lies stands at the end."""
    names = run_names(runs, found, looks)
    arms = {id(run): cell.recipe for cell in found for run in cell.runs}
    header = ["run", "score", "metric", "others", "teacher", "seed", "task", "recipe", "student", "start", "data"]
    header += ["selected", "M parameters", "steps", "seconds", "examples/s", "ms", "status", "folder"]
    rows = [_run_row(run, name, arms.get(id(run), ""), latency) for run, name in zip(runs, names, strict=True)]
    return _lean(Table(header, rows), keep=("run", "score", "seed", "task", "status", "folder"))


def run_names(runs: Sequence[RunRecord], found: Sequence[Cell], looks: Looks) -> list[Named]:
    """What each run is called: its task, arm and seed, as far as these differ; never by a hash."""
    cells = {id(run): cell for cell in found for run in cell.runs}
    parts = []
    for run in runs:
        cell = cells.get(id(run))
        if cell is not None:
            own = {"arm": looks.name(cell), "task": cell.task, "data": cell.setting.regime}
            parts.append(own | {"seed": f"seed {run.seed}"})
        else:
            known = {axis: word(run.coordinates[axis]) for axis in run.coordinates if axis not in ("seed", "task")}
            task = word(run.coordinates.get("task", ""))
            arm = ", ".join(value for value in known.values() if value)
            seed = "" if run.seed is None else f"seed {run.seed}"
            parts.append({"arm": arm or task or _readable(run.name), "task": task, "data": "", "seed": seed})
    named = telling(parts)
    counts = Counter(named)
    twins: Counter[str] = Counter()
    made = []
    for run, name in zip(runs, named, strict=True):
        if counts[name] > 1:  # nothing in any record tells these apart
            twins[name] += 1
            name = f"{name} ({letter(twins[name] - 1)})"
        made.append(Named(name, TEACHER if run.status == "finished" and run.is_teacher else ""))
    return made


def _readable(name: str) -> str:
    """A folder's name without the digits that a program drew."""
    last = name.rpartition("/")[2]
    return name if not looks_like_a_hash(last) else last.rpartition("-")[0] or "run"


def _run_row(run: RunRecord, name: Named, arm: str, latency: Mapping[str, float]) -> list[Any]:
    if run.status != "finished":
        task, recipe = (word(run.coordinates.get(axis, "")) for axis in ("task", "recipe"))
        return [name, None, "", "", None, run.seed, task, recipe, "", "", "", "", *[None] * 5, run.status, run.name]
    result, score = run.checked, run.metric
    others = ", ".join(f"{name} {100 * v:.1f}" for name, v in run.metrics.items() if name != score)
    teacher = result.teacher_metrics.get(score)
    return [
        name, 100 * run.score, score, others, None if teacher is None else 100 * teacher, result.seed, result.task,
        arm, run.size, run.start, run.regime, run.selected, result.student.parameters / 1e6, result.train.steps,
        result.train.seconds, result.train.examples_per_second, latency.get(run.name), run.status, run.name,
    ]  # fmt: skip


def problem_table(runs: Sequence[RunRecord], names: Sequence[Named] | None = None) -> Table:
    """Runs that gave no result, and why."""
    named = [str(name) for name in names] if names is not None else [run.name for run in runs]
    rows: list[list[Any]] = [
        [name, r.status, r.error, r.name] for r, name in zip(runs, named, strict=True) if r.status != "finished"
    ]
    return Table(["run", "status", "reason", "folder"], rows)


def _lean(table: Table, keep: Sequence[str]) -> Table:
    """Without the columns that say nothing, or the same in every row; the latter in words in `same`."""
    dropped, same = set(), {}
    for number, head in enumerate(table.header):
        values = [row[number] for row in table.rows]
        known = [v for v in values if v is not None and v != ""]
        if not known or (head == "recipe" and all(row[number] in ("", _plain_name(row[0])) for row in table.rows)):
            dropped.add(number)
        elif head not in keep and len(table.rows) > 1 and _all_alike(values, known):
            dropped.add(number)
            same[head] = shown(known[0])
    header = [head for number, head in enumerate(table.header) if number not in dropped]
    rows = [[v for number, v in enumerate(row) if number not in dropped] for row in table.rows]
    return Table(header, rows, same)


def _all_alike(values: Sequence[Any], known: Sequence[Any]) -> bool:
    """Whether a column says one thing; a number that some rows lack is more than one."""
    return len({shown(v) for v in known}) == 1 and (len(known) == len(values) or isinstance(known[0], str))


def _plain_name(value: Any) -> str:
    return value.name if isinstance(value, Named) else str(value)


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
    if isinstance(value, P):
        return str(value)
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.3g}"
    return str(value)


def sort_key(value: Any) -> float | None:
    """The number a value is sorted by; None for text."""
    if isinstance(value, Summary):
        return value.mean
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
