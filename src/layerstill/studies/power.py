"""What the comparison that a study declares could find, in words, before it is run."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from layerstill.evaluation.estimate import components
from layerstill.evaluation.power import Design
from layerstill.evaluation.rules import ALPHA, MARGIN
from layerstill.reporting.arms import CONTROLS
from layerstill.reporting.runs import adds_in
from layerstill.studies.file import Compare
from layerstill.studies.plan import FOLDERS
from layerstill.studies.run import StudyRun

OVER_SEEDS, OVER_EXAMPLES = 0.01, 0.1
"""Assumed of a score where no records say it. On SST-2 and QQP, with three layers of six and a few hundred updates,
medians over pairs of recipes were 0.008 to 0.02 and once 0.04, and 0.06 to 0.19 (benchmarks/results/study_*.json)."""
TOGETHER = ("pearson", "spearman")
"""Metrics of all examples together, to which no example adds a part."""
Arm = dict[str, dict[int, str]]
"""The hash of a run by task and seed; empty if the run is not finished."""


@dataclass(frozen=True)
class Spread:
    """How much differences vary, and how that is known."""

    over_seeds: float
    over_examples: float
    how: str


def what_it_can_see(run: StudyRun) -> str:
    """Two sentences about the smallest difference and the margin of equality; empty if no comparison is declared."""
    compare = run.plan.study.compare
    if compare is None:
        return ""
    pairs = list(_pairs(run, compare))
    shared = [{task: sorted(a[task].keys() & b[task].keys()) for task in a if task in b} for a, b in pairs]
    shared = [{task: seeds for task, seeds in tasks.items() if len(seeds) > 1} for tasks in shared]
    if not all(shared) or not pairs:
        few = "nothing that is compared has two seeds in common" if pairs else "nothing is compared"
        return f"No difference between methods can be seen: {few}."
    spread = _measured(run, compare, pairs)
    tests = len(pairs) + _other_tests(run)
    designs = [_design(run, compare, tasks, tests, spread) for tasks in shared]
    if blind := next((d for d in designs if not d.reaches), None):
        return (
            f"No difference can be seen: {sum(blind.seeds)} pairs cannot give a p below {blind.smallest_p:.2g}, and "
            f"the first of {tests} tests of its report needs {ALPHA / tests:.2g} after Holm; give it more seeds."
        )
    hardest = max(designs, key=lambda d: d.smallest_difference())
    varies = f"{_points(spread.over_seeds)} over seeds"
    varies += f" and by {100 * spread.over_examples:.0f} over examples" if hardest.by_example else ""
    seen = (
        f"With 80 % power after Holm for the {tests} tests of its report it can see a difference of "
        f"{'' if hardest.by_example else 'at least '}{_points(hardest.smallest_difference())} "
        f"({_sizes(hardest)}), if paired differences vary by {varies} ({spread.how})."
    )
    least, margin = hardest.smallest_margin(), MARGIN if compare.margin is None else compare.margin / 100
    if least <= margin:
        return f"{seen} It can show that two are equal within {100 * margin:g} points."
    return f"{seen} That two are equal within {100 * margin:g} points it cannot show, only within {_points(least)}."


def _pairs(run: StudyRun, compare: Compare) -> Iterator[tuple[Arm, Arm]]:
    """What `report` will compare: where everything else is equal, each value of the axis with that of the control."""
    grid: dict[tuple, dict[str, Arm]] = {}
    for planned, key, state in run.states():
        place = planned.coordinates
        rest = tuple((axis, place[axis]) for axis in place if axis not in (compare.by, "seed", "task"))
        arm = grid.setdefault(rest, {}).setdefault(str(place[compare.by]), {})
        arm.setdefault(planned.settings.task, {})[planned.settings.seed] = key if state == "finished" else ""
    controls = (compare.against,) if compare.against is not None else CONTROLS
    for arms in grid.values():
        there = [control for control in controls if control in arms]
        for number, control in enumerate(there):
            yield from ((arm, arms[control]) for name, arm in arms.items() if name not in there[: number + 1])
        if not there and compare.against is None and len(arms) <= 4:
            yield from itertools.combinations(arms.values(), 2)


def _other_tests(run: StudyRun) -> int:
    """What else a report tests: each student against its teacher, and a task's best against the next."""
    apart = [{axis: value for axis, value in one.coordinates.items() if axis != "seed"} for one in run.plan.runs]
    tasks = [one.settings.task for one in run.plan.runs]
    return len({(task, *place.items()) for task, place in zip(tasks, apart, strict=True)}) + len(set(tasks))


def _design(run: StudyRun, compare: Compare, tasks: dict[str, list[int]], count: int, spread: Spread) -> Design:
    examples = [run.plan.dev_examples(t) if _metric(run, compare, t) not in TOGETHER else None for t in tasks]
    return Design([len(s) for s in tasks.values()], examples, count, spread.over_seeds, spread.over_examples)


def _metric(run: StudyRun, compare: Compare, task: str) -> str:
    metrics = run.plan.metrics(task)
    return compare.metric if compare.metric in metrics else metrics[0]


def _measured(run: StudyRun, compare: Compare, pairs: Sequence[tuple[Arm, Arm]]) -> Spread:
    """The spread among the study's finished runs, the root of the mean variance; what is assumed without them."""
    of_seeds, of_examples = [], []
    for a, b in pairs:
        for task in a.keys() & b.keys():
            both = [s for s in a[task] if a[task][s] and b[task].get(s)]
            if len(both) < 2:
                continue
            metric = _metric(run, compare, task)
            found = [[_run(run, arm[task][seed], metric) for arm in (a, b)] for seed in both]
            of_seeds.append(float(np.var([one[0] - other[0] for one, other in found], ddof=1)))
            known = [(one[1], other[1]) for one, other in found if one[1] is not None and other[1] is not None]
            if len(known) == len(both) and len({len(adds) for pair in known for adds in pair}) == 1:
                of_examples.append(components(np.stack([one - other for one, other in known])).example)
    seeds, examples = (float(np.sqrt(np.mean(v))) if v and np.mean(v) > 0 else None for v in (of_seeds, of_examples))
    if seeds is None:
        why = "for want of finished runs" if not of_seeds else "since those of the finished runs do not vary"
        return Spread(OVER_SEEDS, OVER_EXAMPLES, f"assumed, {why}")
    how = f"measured on {len(of_seeds)} finished pairs of arms"
    if examples is None:
        return Spread(seeds, OVER_EXAMPLES, f"{how}; over examples assumed")
    return Spread(seeds, examples, how)


def _run(run: StudyRun, key: str, metric: str) -> tuple[float, np.ndarray | None]:
    """A finished run's score, and what each example adds to it, if that is known."""
    folder = run.plan.output / FOLDERS["run"] / key
    result = run.folder.result(str(folder))
    assert result is not None  # its state is finished
    adds = adds_in(folder, metric, result.scores[metric])
    return result.scores[metric], None if adds is None else adds[1]


def _sizes(design: Design) -> str:
    """Seeds, tasks and examples of a design in words."""
    fewest, most = min(design.seeds), max(design.seeds)
    seeds = f"{fewest} seeds" if fewest == most else f"{fewest} to {most} seeds"
    tasks = f" on {len(design.seeds)} tasks" if len(design.seeds) > 1 else ""
    known = [f"{count:,}" for count in design.examples if count is not None]
    return f"{seeds}{tasks}" + (f", {' and '.join(known)} examples of dev" if known else "")


def _points(value: float) -> str:
    return f"{100 * value:.1f} points"
