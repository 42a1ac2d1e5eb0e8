"""RAIL-KD against fixed mappings, PKD and KD: claims C8, C9, C15, C16."""

import itertools
import statistics
from dataclasses import dataclass

import numpy as np
from benchmarks.claims.records import Records, spread
from benchmarks.claims.tables import Page, Row, against, chance, comparisons, mean_cell, table
from scipy import stats

from layerstill.evaluation.comparison import Comparison, compare

RANDOM = "rail-kd-l"
FIXED = ["pooled, uniform", "pooled, last", "pooled, reversed"]


@dataclass(frozen=True)
class Slope:
    """By how many points the score on the set `outside` rises with a point on dev, over so many runs."""

    outside: str
    runs: int
    slope: float
    error: float


def show(records: Records) -> str:
    """Scores, cost, how scores out of domain follow those on dev, verdicts."""
    return "\n\n".join([chance(records), _scores(records), _slopes(records), comparisons(verdicts(records))])


def _scores(records: Records) -> str:
    sets = {task: list(next(records.where(task=task))["ood"]) for task in records.tasks}
    head = ["recipe", *records.tasks, *(f"{name} (of {task})" for task in sets for name in sets[task]), "ms a step"]
    rows = []
    for arm in records.values("recipe"):
        cells = [mean_cell(records, task, recipe=arm) for task in records.tasks]
        cells += [spread(records.ood(task, name, recipe=arm)) for task in sets for name in sets[task]]
        # Runs that filled the teacher's cache did so for others, too.
        plain = [r for r in records.where(recipe=arm) if r["teacher_share"] < 0.1]
        cost = f"{statistics.median(1000 * r['seconds'] / r['steps'] for r in plain):.0f}" if plain else "-"
        rows.append([arm, *cells, cost])
    return table(head, rows)


def slope(records: Records, task: str) -> Slope:
    """Scores out of domain regressed on those on dev, over all runs of a task."""
    runs = list(records.where(task=task))
    (outside,) = {name for run in runs for name in run["ood"]}
    found = stats.linregress([run["score"] for run in runs], [run["ood"][outside] for run in runs])
    return Slope(outside, len(runs), float(found.slope), float(found.stderr))


def _slopes(records: Records) -> str:
    rows = []
    for task in records.tasks:
        found = slope(records, task)
        rows.append([f"{found.outside} on {task}", str(found.runs), f"{found.slope:+.2f} ± {found.error:.2f}"])
    return table(["out of domain on dev", "runs", "slope ± standard error"], rows)


def out_of_domain(records: Records, given_dev: bool) -> Comparison:
    """RAIL-KD against the mean of the fixed mappings, out of domain; `given_dev` less the scores on dev.

    These two are slopes of 0 and 1: the score out of domain does not follow from that on dev, or point for point. The
    slope that the runs have may lie outside (`slope`), so the two are no bounds.
    """

    def scores(arm: str) -> dict[str, dict[int, float]]:
        found: dict[str, dict[int, float]] = {}
        for run in records.where(recipe=arm):
            (outside,) = run["ood"].values()
            at = found.setdefault(run["at"]["task"], {})
            at[run["at"]["seed"]] = outside - run["score"] * given_dev
        return found

    fixed = [scores(arm) for arm in FIXED]
    mean = {t: {s: float(np.mean([f[t][s] for f in fixed])) for s in fixed[0][t]} for t in fixed[0]}
    what = "out of domain less dev" if given_dev else "out of domain"
    return compare(f"{RANDOM} {what}", "mean of fixed", scores(RANDOM), mean)


def best_against_kd(records: Records, **at: str) -> Comparison:
    """On each task the arm that was best on the slice of train, minus KD."""
    arms = [a for a in records.values("recipe") if a not in {"finetune", "kd"}]
    chosen = {task: records.best_on_slice(task, arms) for task in records.tasks}
    best = {task: records.scores(task=task, recipe=arm, **at)[task] for task, arm in chosen.items()}
    right = {task: records.right(task=task, recipe=arm, **at)[task] for task, arm in chosen.items()}
    kd = records.right(recipe="kd", **at)
    name = "best of slice (" + ", ".join(f"{task}: {arm}" for task, arm in chosen.items()) + ")"
    name += "".join(f" at {value}" for value in at.values())
    return compare(name, "kd", best, records.scores(recipe="kd", **at), {t: right[t] - kd[t] for t in right})


def verdicts(records: Records) -> Page:
    """What is compared, for which claim."""

    def pair(a: str, b: str) -> Comparison:
        return against(records, {"recipe": a}, {"recipe": b}, (a, b))

    rows: list[Row] = [("C8", pair(RANDOM, other), "higher") for other in [*FIXED, "pkd", "kd", "finetune"]]
    rows += [("C9", out_of_domain(records, given_dev), "higher") for given_dev in (False, True)]
    rows += [("C15", pair(a, b), "equal") for a, b in itertools.combinations([RANDOM, *FIXED], 2)]
    rows += [("reversed", pair("pooled, reversed", "kd"), None), ("C16", best_against_kd(records), "not higher")]
    return Page(rows)
