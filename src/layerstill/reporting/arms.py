"""Runs put together: those that differ in nothing but their seed are one cell, cells on several tasks are one arm."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from layerstill.errors import UserError
from layerstill.evaluation.comparison import Comparison, as_family, compare, compare_by_example
from layerstill.evaluation.rules import MARGIN
from layerstill.evaluation.statistics import Ranks, Summary, friedman_ranks, summarise, win_matrix
from layerstill.reporting.differences import DETAILS, suffixes
from layerstill.reporting.runs import WHOLE, RunRecord, word

CONTROLS = ("finetune", "kd")
"""What every other recipe is held against, where it is there."""


class Setting(NamedTuple):
    """What must be equal for arms to be compared."""

    size: str
    start: str
    regime: str

    def __str__(self) -> str:
        start = f"started from {self.start}" if self.start != WHOLE else WHOLE
        return f"{self.size}, {start}" + (f", data: {self.regime}" if self.regime != "full" else "")


@dataclass(frozen=True)
class Cell:
    """Runs of one arm on one task."""

    arm: str
    recipe: str
    task: str
    setting: Setting
    runs: list[RunRecord]

    @property
    def metric(self) -> str:
        """The first metric of the first run."""
        return self.runs[0].metric

    @cached_property
    def by_seed(self) -> dict[int, RunRecord]:
        """The runs by seed."""
        return {run.checked.seed: run for run in self.runs}

    @property
    def is_teacher(self) -> bool:
        """Whether its runs made whole models, of which students are made."""
        return self.runs[0].is_teacher

    @property
    def ambiguous(self) -> bool:
        """Whether a seed is there twice, so that runs differ in something their records do not say."""
        return len(self.by_seed) < len(self.runs)

    @property
    def selected(self) -> str:
        """How the scores were selected, if all were in the same way."""
        words = sorted({run.selected for run in self.runs})
        return words[0] if len(words) == 1 else "differs"

    def summary(self, metric: str | None = None) -> Summary:
        """Mean, standard deviation and n of a metric, of those runs that have it."""
        name = metric or self.metric
        return summarise([run.metrics[name] for run in self.runs if name in run.metrics])


@dataclass
class Findings:
    """What comparing gave: sentences' material, and what could not be compared, in words."""

    comparisons: list[tuple[Setting, Comparison]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    margin: float = MARGIN
    """Of a score: a smaller difference is none that matters."""


@dataclass(frozen=True)
class Ranking:
    """Arms of one setting over blocks of a task and a seed."""

    setting: Setting
    arms: list[str]
    wins: np.ndarray
    ranks: Ranks | None


def cells(runs: Sequence[RunRecord]) -> list[Cell]:
    """Finished runs grouped by everything but the seed, in order of task and arm."""
    alike: dict[tuple, list[RunRecord]] = defaultdict(list)
    for run in runs:
        if run.status == "finished":
            alike[_identity(run)].append(run)
    groups: dict[tuple, list[RunRecord]] = defaultdict(list)
    for identity, of in alike.items():
        for run, draw in zip(of, _draws(of), strict=True):
            key = (*identity, draw, *_details(run, draw).items())
            groups[key].append(run)
    settings = {key: _setting(of) for key, of in groups.items()}
    names = _arm_names(groups, settings)
    found = [Cell(names[key], of[0].recipe, of[0].checked.task, settings[key], of) for key, of in groups.items()]
    for cell in found:
        cell.runs.sort(key=lambda r: r.checked.seed)
    return sorted(found, key=lambda c: (c.task, c.setting, c.arm))


def _identity(run: RunRecord) -> tuple:
    # A study's coordinates say all that was varied on purpose. Without them the hash tells settings apart; what
    # layers random initialisation drew belongs to the seed, and the hash and the coordinates know how they were drawn.
    if run.coordinates:
        starts = (word(run.coordinates.get(axis, "")) for axis in ("initialisation", "init"))
        return run.recipe, run.checked.task, run.size, run.regime, run.study, run.variant, *starts
    init = run.checked.student.init
    source = init.get("from") if isinstance(init, dict) else None
    return run.recipe, run.checked.task, run.size, run.regime, run.checked.recipe_hash, str(source)


def _draws(runs: Sequence[RunRecord]) -> list[int | str | None]:
    """The seed of each run's data regime: a number, or `run` where every run drew with its own.

    None without a regime, and in a study, whose coordinates say it.
    """
    own = [run.checked.regime.get("seed") or 0 for run in runs]
    seeds = [run.checked.seed for run in runs]
    fixed = {a for a, b in zip(own, seeds, strict=True) if a != b}
    several = len(set(own) - fixed) > 1
    return [
        None if run.coordinates or run.regime == "full" else a if a in fixed or not several else "run"
        for run, a in zip(runs, own, strict=True)
    ]


def _details(run: RunRecord, draw: int | str | None = None) -> dict[str, str]:
    """What else of a run's settings tells it from others; nothing in a study.

    Where every run drew its data with its own seed, they differ on purpose, and so may the teachers that saw them.
    """
    settings = run.read("run.json") if not run.coordinates else None
    if not isinstance(settings, dict):
        return {}
    own = ("data_fingerprint", "teacher_fingerprint") if draw == "run" else ()
    return {label: word(settings.get(key)) for key, label in DETAILS.items() if key not in own}


def _setting(runs: list[RunRecord]) -> Setting:
    draw = _draws(runs)[0]
    return Setting(runs[0].size, _start(runs), runs[0].regime + (f", seed {draw}" if draw else ""))


def _start(runs: list[RunRecord]) -> str:
    starts = {run.start for run in runs}
    return starts.pop() if len(starts) == 1 else "layers drawn by seed"


def _arm_names(groups: dict[tuple, list[RunRecord]], settings: dict[tuple, Setting]) -> dict[tuple, str]:
    """Each group's name, with what tells it from others of the same name in the same place."""
    names, twins = {}, defaultdict(list)
    studies = {of[0].study for of in groups.values()}
    for key, (run, *_) in groups.items():
        names[key] = f"{run.recipe}, {run.variant}" if run.variant else run.recipe
        names[key] += f", study {run.study}" if run.study and len(studies) > 1 else ""
        twins[names[key], run.checked.task, settings[key]].append(key)
    for keys in twins.values():
        firsts = [groups[key][0] for key in keys]
        for key, suffix in zip(keys, suffixes(firsts, [_details(run) for run in firsts]), strict=True):
            names[key] += f", {suffix}" if suffix else ""
    return names


def compare_all(found: Sequence[Cell], against: Sequence[str] = CONTROLS, margin: float = MARGIN) -> Findings:
    """Every arm against the controls of its setting, pooled over the tasks that both have; one Holm family for all.

    Without a control in a setting, up to four arms are compared with each other.
    """
    findings = Findings(margin=margin)
    for setting, arms in _by_setting(found).items():
        pairs = _pairs(arms, against)
        if not pairs and len(arms) > 1:
            findings.left_out.append(
                f"{setting}: none of the {len(arms)} compared settings is {' or '.join(against)} (in the same "
                "variant); --against names another one to compare with"
            )
        for a, b in pairs:
            try:
                findings.comparisons.append((setting, compare_arms(a, b, arms[a], arms[b])))
            except UserError as reason:
                findings.left_out.append(f"{setting}: {reason}")
    family = as_family([c for _, c in findings.comparisons])
    findings.comparisons = [(s, c) for (s, _), c in zip(findings.comparisons, family, strict=True)]
    return findings


def _by_setting(found: Sequence[Cell]) -> dict[Setting, dict[str, dict[str, Cell]]]:
    settings: dict[Setting, dict[str, dict[str, Cell]]] = defaultdict(lambda: defaultdict(dict))
    for cell in found:
        settings[cell.setting][cell.arm][cell.task] = cell
    return settings


def _pairs(arms: dict[str, dict[str, Cell]], against: Sequence[str]) -> list[tuple[str, str]]:
    recipe = {arm: next(iter(tasks.values())).recipe for arm, tasks in arms.items()}
    pairs = []
    for number, control in enumerate(against):
        same = [arm for arm in arms if recipe[arm] == control]
        for arm in arms:
            if recipe[arm] in against[: number + 1]:
                continue
            suffix = arm.removeprefix(recipe[arm])  # the variant, which the control should have, too
            partner = control + suffix if control + suffix in arms else same[0] if len(same) == 1 else None
            pairs += [(arm, partner)] if partner else []
    if not pairs and not any(r in against for r in recipe.values()) and len(arms) <= 4:
        names = list(arms)
        pairs = [(b, a) for i, a in enumerate(names) for b in names[i + 1 :]]
    return pairs


def compare_arms(a: str, b: str, of_a: dict[str, Cell], of_b: dict[str, Cell]) -> Comparison:
    """Two arms, by their cells on each task; UserError where that cannot be fair.

    Over the seeds that both have, where there are two; else what the two models say of the same examples.
    """
    scores: dict[str, list[dict[int, float]]] = {}
    examples = {}
    tasks = sorted(of_a.keys() & of_b.keys())
    for task in tasks:
        one, other = of_a[task], of_b[task]
        _refuse_unequal(one, other)
        if seeds := sorted(one.by_seed.keys() & other.by_seed.keys()):
            scores[task] = [{s: cell.by_seed[s].score for s in seeds} for cell in (one, other)]
            gaps = _by_example(one, other, seeds)
            if gaps is not None:
                examples[task] = gaps
    several = {task: pair for task, pair in scores.items() if len(pair[0]) > 1}
    if several:
        first, second = ({task: pair[i] for task, pair in several.items()} for i in (0, 1))
        return compare(a, b, first, second, {task: gaps for task, gaps in examples.items() if task in several})
    if examples:
        first, second = ({task: scores[task][i] for task in examples} for i in (0, 1))
        return compare_by_example(a, b, first, second, {task: gaps[0] for task, gaps in examples.items()})
    why = f"fewer than two common seeds on {', '.join(tasks)}" if tasks else "no task in common"
    also = ", and what both said of the same examples is not there" if any(scores.values()) else ""
    raise UserError(f"{a} and {b} are not compared: {why}{also}")


def _refuse_unequal(one: Cell, other: Cell) -> None:
    pair = f"{one.arm} and {other.arm} are not compared on {one.task}"
    for cell in (one, other):
        if cell.ambiguous:
            raise UserError(f"{pair}: {cell.arm} has several runs of one seed that differ in what no record says")
    if one.metric != other.metric:
        raise UserError(f"{pair}: their scores are {one.metric} and {other.metric}")
    if one.selected != other.selected:
        raise UserError(
            f"{pair}: their scores are {one.selected} and {other.selected}, and the best of several is a flattering one"
        )


def _by_example(one: Cell, other: Cell, seeds: list[int]) -> np.ndarray | None:
    """Differences `(S, N)` of what examples contribute, where both arms kept what they said of the same examples."""
    pairs = [(one.by_seed[seed].adds, other.by_seed[seed].adds) for seed in seeds]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if len(known) < len(pairs) or not all(np.array_equal(x[0], known[0][0][0]) for pair in known for x in pair):
        return None
    return np.stack([a[1] - b[1] for a, b in known])


def rankings(found: Sequence[Cell]) -> list[Ranking]:
    """Arms of a setting that share tasks and seeds: who beats whom how often, and average ranks where they tell."""
    made = []
    for setting, arms in _by_setting(found).items():
        usable = {a: tasks for a, tasks in arms.items() if not any(c.ambiguous for c in tasks.values())}
        scores = {a: {(t, s): r.score for t, c in of.items() for s, r in c.by_seed.items()} for a, of in usable.items()}
        if len(scores) < 3:
            continue
        blocks = sorted(set.intersection(*(set(s) for s in scores.values())))
        if len(blocks) < 2:
            continue
        table = np.array([[scores[arm][block] for arm in scores] for block in blocks])
        try:
            ranks = friedman_ranks(table)
        except UserError:
            ranks = None
        made.append(Ranking(setting, list(scores), win_matrix(table), ranks))
    return made


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For each (cost, score): whether no other point is as good in both and better in one."""
    return [not any(c <= cost and s >= score and (c < cost or s > score) for c, s in points) for cost, score in points]
