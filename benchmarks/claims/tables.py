"""Pieces that every study's page is made of: tables of means, rows of comparisons."""

from collections.abc import Sequence

import numpy as np
from benchmarks.claims.records import Records, spread

from layerstill.evaluation.comparison import Comparison, as_family, compare, verdict

WORDS = {"undecided": "inconclusive"}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def chance(records: Records) -> str:
    """The teachers, and what always saying the most frequent class would score."""
    found = []
    for task in records.tasks:
        run = next(records.where(task=task))
        found.append(f"{task}: {run['examples']} dev examples, majority {100 * run['majority']:.1f}")
    return "; ".join(found)


def mean_cell(records: Records, task: str, **at: str) -> str:
    """Mean and spread of an arm on a task, with a note of runs that say one class only."""
    runs = list(records.where(task=task, **at))
    if not runs:
        return ""
    cell = spread([run["score"] for run in runs])
    stuck = sum(run["one_class"] for run in runs)
    return f"{cell} ({stuck} of {len(runs)} say one class)" if stuck else cell


def against(records: Records, a: dict[str, str], b: dict[str, str], names: tuple[str, str]) -> Comparison:
    """Arm `a` minus arm `b`, over seeds and examples."""
    right_a, right_b = records.right(**a), records.right(**b)
    examples = {task: right_a[task] - right_b[task] for task in right_a}
    return compare(*names, records.scores(**a), records.scores(**b), examples)


def interval(low: float, high: float) -> str:
    """In points."""
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def comparisons(rows: Sequence[tuple[str, Comparison, str]]) -> str:
    """A table of (claim, comparison, claimed direction), p-values adjusted for all of them."""
    family = as_family([c for _, c, _ in rows])
    cells = []
    for (claim, _, way), c in zip(rows, family, strict=True):
        found = verdict(c, claimed="lower" if way == "lower" else "higher").word
        by_task = ", ".join(f"{task} {interval(i.low, i.high)}" for task, i in c.by_task.items())
        cells.append(
            [
                claim,
                f"{c.a} - {c.b}",
                f"{100 * c.difference:+.1f}",
                interval(c.interval.low, c.interval.high),
                by_task,
                f"{c.p_holm:.2g}",
                "-" if way == "none" else WORDS.get(found, found),
            ]
        )
    head = ["claim", "difference", "points", "95 % interval", "by task", f"p (Holm, {len(rows)})", "verdict"]
    return table(head, cells)


def sums_of_squares(scores: np.ndarray) -> dict[str, float]:
    """Shares of the variance of `(A, B, S)` scores: first factor, second, their interaction, seeds."""
    whole = scores.mean()
    total = ((scores - whole) ** 2).sum()
    first = scores.mean((1, 2), keepdims=True) - whole
    second = scores.mean((0, 2), keepdims=True) - whole
    cells = scores.mean(2, keepdims=True) - whole - first - second
    parts = {"first": first, "second": second, "interaction": cells}
    found = {name: float((np.broadcast_to(p, scores.shape) ** 2).sum() / total) for name, p in parts.items()}
    return found | {"seeds": 1 - sum(found.values())}
