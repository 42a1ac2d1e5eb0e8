"""RAIL-KD against fixed mappings, PKD and KD: claims C8, C9, C15, C16."""

import itertools
import statistics

import numpy as np
from benchmarks.claims.records import Records, spread
from benchmarks.claims.tables import against, chance, comparisons, mean_cell, table

from layerstill.evaluation.comparison import Comparison, compare

RANDOM = "rail-kd-l"
FIXED = ["pooled, uniform", "pooled, last", "pooled, reversed"]


def show(records: Records) -> str:
    """Scores, cost and verdicts."""
    return "\n\n".join([chance(records), _scores(records), _verdicts(records)])


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


def residuals(records: Records) -> dict[str, dict[str, dict[int, float]]]:
    """By arm, task and seed: the score out of domain less what the score on dev predicts over all arms and seeds."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for task in records.tasks:
        runs = list(records.where(task=task))
        (name,) = runs[0]["ood"]
        inside, outside = (np.array(x) for x in zip(*((r["score"], r["ood"][name]) for r in runs), strict=True))
        slope, start = np.polyfit(inside, outside, 1)
        for run, rest in zip(runs, outside - start - slope * inside, strict=True):
            found.setdefault(run["at"]["recipe"], {}).setdefault(task, {})[run["at"]["seed"]] = float(rest)
    return found


def given_dev(records: Records) -> Comparison:
    """RAIL-KD's residual out of domain against the mean of all other arms'."""
    rest = residuals(records)
    others = {
        task: {s: float(np.mean([rest[a][task][s] for a in rest if a != RANDOM])) for s in rest[RANDOM][task]}
        for task in records.tasks
    }
    return compare(f"{RANDOM} out of domain, given dev", "all others", rest[RANDOM], others)


def best_against_kd(records: Records, **at: str) -> Comparison:
    """On each task the arm that was best on the slice of train, minus KD."""
    arms = [a for a in records.values("recipe") if a not in {"finetune", "kd"}]
    chosen = {task: records.best_on_slice(task, arms) for task in records.tasks}
    best = {task: records.scores(task=task, recipe=arm, **at)[task] for task, arm in chosen.items()}
    right = {task: records.right(task=task, recipe=arm, **at)[task] for task, arm in chosen.items()}
    kd = records.right(recipe="kd", **at)
    name = "best of slice (" + ", ".join(f"{task}: {arm}" for task, arm in chosen.items()) + ")"
    return compare(name, "kd", best, records.scores(recipe="kd", **at), {t: right[t] - kd[t] for t in right})


def _verdicts(records: Records) -> str:
    def pair(a: str, b: str) -> Comparison:
        return against(records, {"recipe": a}, {"recipe": b}, (a, b))

    rows = [("C8", pair(RANDOM, other), "higher") for other in [*FIXED, "pkd", "kd", "finetune"]]
    rows.append(("C9", given_dev(records), "higher"))
    rows += [("C15", pair(a, b), "none") for a, b in itertools.combinations(FIXED, 2)]
    rows += [("C15", pair("pooled, reversed", "kd"), "none"), ("C16", best_against_kd(records), "higher")]
    return comparisons(rows)
