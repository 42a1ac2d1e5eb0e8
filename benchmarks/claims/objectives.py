"""Objectives and initialisations: claims C11, C12, C13, C16, C17."""

import itertools

import numpy as np
from benchmarks.claims.factors import PARTS, effects
from benchmarks.claims.mappings import best_against_kd
from benchmarks.claims.records import Records
from benchmarks.claims.tables import Other, Page, Row, against, answers, chance, comparisons, mean_cell, table

from layerstill.evaluation.comparison import Comparison
from layerstill.randomness import named_seed

LOWER, SPREAD, UPPER = "1,2,3", "2,4,6", "4,5,6"
LEVELS = [LOWER, SPREAD, UPPER], [LOWER, SPREAD]
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


def grid(records: Records, task: str, starts: list[str]) -> np.ndarray:
    """What was right `(initialisations, objectives, seeds, examples)` on a task."""
    return np.array([[records.right(task=task, recipe=o, initialisation=i)[task] for o in OBJECTIVES] for i in starts])


def _decomposition(records: Records, resamples: int = 2000) -> str:
    adjusted = {answer.name: answer.adjusted for answer in answers(verdicts(records)) if answer.comparison is None}
    rows = []
    for task, starts in itertools.product(records.tasks, LEVELS):
        right = grid(records, task, starts)
        scores = right.mean(3)
        rng = np.random.default_rng(named_seed(0, "decomposition", task))
        drawn = [scores[:, :, rng.integers(0, scores.shape[2], scores.shape[2])] for _ in range(resamples)]
        found, cells = effects(right), [task, "; ".join(starts)]
        for part in PARTS:
            cells.append(f"{found[part].share:.0%} ({_p(found[part].p)})")
        cells.append(_p(adjusted[_name(task, starts)]))
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
    head = ["task", "levels", "initialisation", "objective", "interaction", "interaction after Holm"]
    return table([*head, "range over initialisations", "attention's range less kd's"], rows)


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _name(task: str, starts: list[str]) -> str:
    return f"objective x initialisation ({'; '.join(starts)}) on {task}"


def verdicts(records: Records) -> Page:
    """What is compared, for which claim."""

    def pair(a: str, b: str, start: str) -> Comparison:
        at = {"initialisation": start}
        return against(records, {"recipe": a} | at, {"recipe": b} | at, (f"{a} at {start}", f"{b} at {start}"))

    rows: list[Row] = [("C11", pair("att-kl", other, SPREAD), "higher") for other in ("att-mse", "hid-seq", "kd")]
    rows += [("C11", pair("att-mse", "kd", SPREAD), "higher"), ("C11", pair("hid-seq", "kd", SPREAD), "higher")]
    rows += [("C13", pair("kd", other, LOWER), "higher") for other in OBJECTIVES[1:]]
    for start in (LOWER, SPREAD, UPPER):
        rows.append(("C16", best_against_kd(records, initialisation=start), "not higher"))
    # That rankings follow the initialisation is that the objectives' differences depend on it.
    crossed = [
        Other("C17", _name(task, starts), effects(grid(records, task, starts))["interaction"].p)
        for task, starts in itertools.product(records.tasks, LEVELS)
    ]
    return Page(rows, crossed)
