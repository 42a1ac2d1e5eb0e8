"""Objectives and initialisations: claims C11, C12, C13; the numbers that C16 and C17 were judged by."""

import itertools

import numpy as np
from benchmarks.claims.mappings import best_against_kd
from benchmarks.claims.records import Records
from benchmarks.claims.tables import Row, against, chance, comparisons, effects, mean_cell, table
from scipy import stats

from layerstill.evaluation.comparison import Comparison
from layerstill.randomness import named_seed

LOWER, SPREAD, UPPER = "1,2,3", "2,4,6", "4,5,6"
OBJECTIVES = ["kd", "hid-seq", "att-kl", "att-mse"]


def show(records: Records) -> str:
    """Scores, the decomposition, verdicts."""
    return "\n\n".join([chance(records), _scores(records), _decomposition(records), comparisons(verdicts(records))])


def _scores(records: Records) -> str:
    starts = [LOWER, SPREAD, UPPER]
    head = ["recipe", *(f"{task}, {start}" for task in records.tasks for start in starts)]
    return table(
        head,
        [
            [arm, *(mean_cell(records, task, recipe=arm, initialisation=s) for task in records.tasks for s in starts)]
            for arm in records.values("recipe")
        ],
    )


def grid(records: Records, task: str) -> np.ndarray:
    """Scores `(3, objectives, seeds)` of a task."""
    return np.array(
        [
            [
                [score for _, score in sorted(records.scores(task=task, recipe=o, initialisation=i)[task].items())]
                for o in OBJECTIVES
            ]
            for i in (LOWER, SPREAD, UPPER)
        ]
    )


def tau(scores: np.ndarray) -> float:
    """Mean Kendall tau of the objectives' order between two initialisations."""
    means = scores.mean(2)
    return float(np.mean([stats.kendalltau(a, b).statistic for a, b in itertools.combinations(means, 2)]))


def _decomposition(records: Records, resamples: int = 2000) -> str:
    rows = []
    for task, starts in itertools.product(records.tasks, ([LOWER, SPREAD, UPPER], [LOWER, SPREAD])):
        scores = grid(records, task)[: len(starts)]
        rng = np.random.default_rng(named_seed(0, "decomposition", task))
        drawn = [scores[:, :, rng.integers(0, scores.shape[2], scores.shape[2])] for _ in range(resamples)]
        found, cells = effects(scores), [task, "; ".join(starts)]
        for part in ("first", "second", "interaction"):
            p = found[part].p
            cells.append(f"{found[part].share:.0%} (p {'< 0.001' if p < 0.001 else f'= {p:.2g}'})")
        low, high = np.nanquantile([tau(s) for s in drawn], [0.025, 0.975])
        cells.append(f"{tau(scores):.2f} ({low:.2f} to {high:.2f})")
        ranges = 100 * np.ptp(scores.mean(2), axis=0)
        cells.append(", ".join(f"{o} {r:.1f}" for o, r in zip(OBJECTIVES, ranges, strict=True)))
        more = np.array([100 * (r[2:] - r[0]) for r in (np.ptp(s.mean(2), axis=0) for s in drawn)])
        cells.append(
            ", ".join(
                f"{o} {ranges[i] - ranges[0]:+.1f} ({low:+.1f} to {high:+.1f})"
                for i, (o, low, high) in enumerate(
                    zip(OBJECTIVES[2:], *np.quantile(more, [0.025, 0.975], 0), strict=True), 2
                )
            )
        )
        rows.append(cells)
    head = ["task", "levels", "initialisation", "objective", "interaction", "Kendall tau", "range over initialisations"]
    return table([*head, "attention's range less kd's"], rows)


def verdicts(records: Records) -> list[Row]:
    """What is compared, for which claim."""

    def pair(a: str, b: str, start: str) -> Comparison:
        at = {"initialisation": start}
        return against(records, {"recipe": a} | at, {"recipe": b} | at, (f"{a} at {start}", f"{b} at {start}"))

    rows = [("C11", pair("att-kl", other, SPREAD), "higher") for other in ("att-mse", "hid-seq", "kd")]
    rows += [("C11", pair("att-mse", "kd", SPREAD), "higher"), ("C11", pair("hid-seq", "kd", SPREAD), "higher")]
    rows += [("C13", pair("kd", other, LOWER), "higher") for other in OBJECTIVES[1:]]
    for start in (LOWER, SPREAD, UPPER):
        rows.append(("C16", best_against_kd(records, initialisation=start), "withdrawn"))
    return rows
