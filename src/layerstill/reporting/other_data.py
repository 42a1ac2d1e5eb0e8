"""Scores on other data and after training on other data: out-of-domain sets, label noise, few samples."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from layerstill.evaluation.statistics import summarise
from layerstill.reporting import plots
from layerstill.reporting.arms import Cell
from layerstill.reporting.figures import Section, by, legend
from layerstill.reporting.looks import COLOURS, Looks, where
from layerstill.reporting.naming import telling
from layerstill.reporting.plots import Plot, Series, Table
from layerstill.reporting.reading import count, get, number
from layerstill.reporting.runs import REGIME_SETTINGS, RunRecord, word


def out_of_domain(cells: Sequence[Cell], looks: Looks | None = None) -> Section:
    """Scores on other sets than the task's own: means by arm, and each run's against its in-domain score."""
    section = Section(
        "Out of domain",
        "A model that is better at home is usually better abroad, too: what counts is what lies above or below the "
        "others at the same in-domain score. In-domain scores are in the classes of the set, where it has other ones.",
    )
    looks = looks or Looks(cells)
    words = where(cells)
    for (task, _), of in by(cells, lambda c: (c.task, c.setting)).items():
        sets = sorted({name for c in of for r in c.runs for name in r.checked.ood if _abroad(r, name) is not None})
        if not sets:
            continue
        metric = of[0].metric
        series: list[Series] = []
        rows: list[list[Any]] = []
        for cell in of:
            found = {s: [v for r in cell.runs if (v := _abroad(r, s)) is not None] for s in sets}
            means = {s: summarise(v) for s, v in found.items() if v}
            x = [sets.index(s) for s in means]
            y, sd = [100 * m.mean for m in means.values()], [100 * (m.sd or 0) for m in means.values()]
            series.append(Series(looks.name(cell), x, y, sd, looks.look(cell), "point"))
            home = {
                s: 100 * summarise([_home(r, s) for r in cell.runs if _abroad(r, s) is not None]).mean for s in means
            }
            for (s, m), v, d in zip(means.items(), y, sd, strict=True):
                rows.append([looks.name(cell), s, v, d, m.n, home[s] - v])
        alt = f"Mean {metric} of {len(of)} settings on {', '.join(sets)}, from {min(r[2] for r in rows):.1f} to "
        section.plots.append(
            Plot(
                f"{task} out of domain{words[id(of[0])]}",
                alt + f"{max(r[2] for r in rows):.1f}.",
                plots.bars(sets, series, f"{metric}, %"),
                Table(["arm", "set", f"{metric}, %", "sd", "n", "in-domain minus this"], rows),
                legend(series),
            )
        )
        section.plots.extend(_home_and_abroad(task, words[id(of[0])], of, name, looks) for name in sets)
        section.tables.extend(_parts(task, of, looks))
    return section


def _home_and_abroad(task: str, setting: str, of: list[Cell], name: str, looks: Looks) -> Plot:
    series, rows = [], []
    for cell in of:
        pairs = [
            (100 * _home(r, name), 100 * v, r.checked.seed) for r in cell.runs if (v := _abroad(r, name)) is not None
        ]
        x, y = [p[0] for p in pairs], [p[1] for p in pairs]
        series.append(Series(looks.name(cell), x, y, None, looks.look(cell), "point"))
        rows += [[looks.name(cell), seed, a, b] for a, b, seed in pairs]
    return Plot(
        f"{name} against {task}, each run{setting}",
        f"{len(rows)} runs, score on {name} over score on {task}.",
        plots.points(series, f"{of[0].metric} on {task}, %", f"on {name}, %"),
        Table(["arm", "seed", f"on {task}, %", f"on {name}, %"], rows),
        legend(series),
    )


def _parts(task: str, of: list[Cell], looks: Looks) -> list[tuple[str, Table]]:
    rows = []
    for cell in of:
        values = defaultdict(list)
        for run in cell.runs:
            for name, found in run.checked.ood.items():
                parts = found.get("parts")
                for part, result in parts.items() if isinstance(parts, dict) else ():
                    value = number(get(result, "metrics"), run.metric)
                    if value is not None:
                        values[name, str(part)].append(100 * value)
        for (name, part), numbers in values.items():
            s = summarise(numbers)
            rows.append([looks.name(cell), str(cell.setting), name, part, s.mean, s.sd, s.n])
    header = ["arm", "setting", "set", "part", "mean, %", "sd", "n"]
    return [(f"{task}: parts of the out-of-domain sets", Table(header, rows))] if rows else []


def _abroad(run: RunRecord, name: str) -> float | None:
    """A run's score on an out-of-domain set by the task's first metric, or by the first that is there."""
    metrics = get(run.checked.ood.get(name), "metrics")
    if not isinstance(metrics, dict) or not metrics:
        return None
    return number(metrics, _metric(run, metrics))


def _home(run: RunRecord, name: str) -> float:
    """A run's in-domain score that belongs to `_abroad`: in the classes of the set where that is recorded."""
    found = run.checked.ood.get(name)
    metric = _metric(run, get(found, "metrics"))
    recorded = number(get(found, "in_domain"), metric)
    return run.metrics.get(metric, run.score) if recorded is None else recorded


def _metric(run: RunRecord, there: dict[str, Any]) -> str:
    return run.metric if run.metric in there else next(iter(there))


_MANNER = {"label_noise": "noise", "few_samples": "stratified"}
"""What a plot is drawn over, and how it is done, which means nothing to data without it."""


def regimes(cells: Sequence[Cell], looks: Looks | None = None) -> Section:
    """Score against the rate of label noise and against the number of examples, where runs differ in these."""
    section = Section(
        "Data regimes",
        "Scores on clean dev data after training on changed training data; a line for each way of changing them.",
    )
    looks = looks or Looks(cells)
    settings = list(dict.fromkeys((c.setting.size, c.setting.start) for c in cells))
    named = telling([{"size": size, "start": start} for size, start in settings])
    words = {s: f" ({name})" if len(settings) > 1 else "" for s, name in zip(settings, named, strict=True)}
    for key, label in (("label_noise", "share of wrong training labels"), ("few_samples", "training examples")):
        for (task, size, start), of in by(cells, lambda c: (c.task, c.setting.size, c.setting.start)).items():
            series, rows = [], []
            for arm, arms_cells in by(of, lambda c: c.arm).items():
                for place, (how, line) in enumerate(_regime_lines(arms_cells, key).items()):
                    name = f"{arm}, {how}" if how else arm
                    means = [(x, c.summary()) for x, c in line]
                    y, sd = [100 * m.mean for _, m in means], [100 * (m.sd or 0) for _, m in means]
                    look = looks.look(arms_cells[0]) % COLOURS + COLOURS * place
                    series.append(Series(name, [x for x, _ in means], y, sd, look))
                    rows += [
                        [name, x if key == "label_noise" else count(x), 100 * m.mean, m.sd and 100 * m.sd, m.n]
                        for x, m in means
                    ]
            if len({r[1] for r in rows}) < 2:
                continue
            section.plots.append(
                Plot(
                    f"{task}: {of[0].metric} against {label}{words[size, start]}",
                    "; ".join(f"{s.name} from {s.y[0]:.1f} to {s.y[-1]:.1f}" for s in series) + ".",
                    plots.lines(series, label, f"{of[0].metric}, %"),
                    Table(["arm", label, f"{of[0].metric}, %", "sd", "n"], rows),
                    legend(series),
                )
            )
    if table := _memorised(cells):
        section.tables.append(("What became of wrong training labels", table))
    return section


def _regime_lines(cells: Sequence[Cell], key: str) -> dict[str, list[tuple[float, Cell]]]:
    """An arm's points `(x, cell)` in rising order, by what else was done to the data, in words.

    A line begins with the cells that differ from it in nothing but `key`: whole data have noise 0.
    """
    lines: dict[str, list[tuple[float, Cell]]] = {}
    changes = [(cell, _changes(cell)) for cell in cells]
    for cell, changed in changes:
        if key not in changed:
            continue
        how = {k: v for k, v in changed.items() if k != key}
        if word(how) not in lines:
            without = {k: v for k, v in how.items() if k != _MANNER[key]}
            without = without if without.keys() - {"seed"} else {}  # whole data are not drawn
            lines[word(how)] = _points([c for c, other in changes if other == without], key)
        lines[word(how)] += _points([cell], key)
    found = lines or {"": _points([c for c, changed in changes if not changed], key)}
    return {how: sorted(line, key=lambda pair: pair[0]) for how, line in found.items() if line}


def _points(cells: Sequence[Cell], key: str) -> list[tuple[float, Cell]]:
    return [(x, c) for c in cells if (x := _regime_value(c, key)) is not None]


def _changes(cell: Cell) -> dict[str, Any]:
    """The settings of a cell's regime that changed anything, and the seed of its draws if that is not 0."""
    regime = cell.runs[0].checked.regime
    changed = {k: v for k, v in regime.items() if k in REGIME_SETTINGS and v and v != "symmetric"}
    for key, manner in _MANNER.items():
        if key not in changed:
            changed.pop(manner, None)
    seeds = {(run.checked.regime.get("seed"), run.checked.seed) for run in cell.runs}
    seed = "run" if len(seeds) > 1 and all(a == b for a, b in seeds) else regime.get("seed")
    return changed | ({"seed": seed} if changed and seed else {})


def _regime_value(cell: Cell, key: str) -> float | None:
    """The noise rate or number of examples of a cell; the latter, without a regime, from what a run has seen."""
    result = cell.runs[0].checked
    if key == "label_noise":
        return number(result.regime, key) or 0.0
    examples, epochs = result.train.examples, result.train.epochs
    return number(result.regime, key) or (round(examples / epochs) if examples and epochs else None)


def _memorised(cells: Sequence[Cell]) -> Table | None:
    """Means over runs of what `evaluation.noise` found: whole numbers are counts, others shares."""
    values: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    counts = set()
    for cell in cells:
        for run in cell.runs:
            student = run.checked.regime.get("student")
            if not isinstance(student, dict):
                continue
            for name in student:
                if (value := number(student, name)) is not None:
                    counts |= {name} if isinstance(student[name], int) else set()
                    values[cell.task, cell.arm, str(cell.setting)][name].append(value)
    names = list(dict.fromkeys(n for found in values.values() for n in found))
    if not names:
        return None
    rows = [
        [*key, *(_mean(found[n], n in counts) if n in found else None for n in names)] for key, found in values.items()
    ]
    return Table(["task", "arm", "setting", *(n if n in counts else f"{n}, %" for n in names)], rows)


def _mean(values: list[float], counted: bool) -> float | None:
    mean = summarise(values).mean
    return count(mean) if counted else 100 * mean
