"""Pieces that every study's page is made of: tables of means, rows of comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.claims.records import Records, spread

from layerstill.evaluation.comparison import Comparison, compare
from layerstill.evaluation.rules import ALPHA, Claimed, as_page, p_of

Row = tuple[str, Comparison, Claimed | None]
"""A claim, a comparison, and what is claimed of it; None where it stands there for comparison only."""
NEAR = 0.02
"""Above the most frequent class's share by less than this is at the majority."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def chance(records: Records) -> str:
    """The teachers, and what always saying the most frequent class would score."""
    found = []
    for task in records.tasks:
        run = next(records.where(task=task))
        teachers = sorted({f"{100 * r['teacher']:.1f}" for r in records.where(task=task) if r["teacher"] is not None})
        found.append(
            f"{task}: {run['examples']} dev examples, majority {100 * run['majority']:.1f}, teacher "
            + " or ".join(teachers)
        )
    return "; ".join(found)


def mean_cell(records: Records, task: str, **at: str) -> str:
    """Mean and spread of an arm on a task, with a note of runs that learnt next to nothing."""
    runs = list(records.where(task=task, **at))
    if not runs:
        return ""
    cell = spread([run["score"] for run in runs])
    stuck = sum(run["score"] <= run["majority"] + NEAR for run in runs)
    return f"{cell} ({stuck} of {len(runs)} at the majority)" if stuck else cell


def against(records: Records, a: dict[str, str], b: dict[str, str], names: tuple[str, str]) -> Comparison:
    """Arm `a` minus arm `b`, over seeds and examples."""
    right_a, right_b = records.right(**a), records.right(**b)
    examples = {task: right_a[task] - right_b[task] for task in right_a}
    return compare(*names, records.scores(**a), records.scores(**b), examples)


def interval(low: float, high: float) -> str:
    """In points."""
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


@dataclass(frozen=True)
class Other:
    """A test that is no comparison of two arms, such as that of an interaction."""

    claim: str
    name: str
    p: float


@dataclass(frozen=True)
class Page:
    """All that is asked on a study's page: one family."""

    rows: list[Row]
    others: list[Other] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """What a page says of one of its questions: p-values before and after Holm over the page, and a verdict."""

    claim: str
    name: str
    comparison: Comparison | None
    p: float
    adjusted: float
    family: int
    word: str


def answers(page: Page) -> list[Answer]:
    """The page's comparisons and other tests, judged by the rules that reports are judged by."""
    asked = [(claim, c, way) for claim, c, way in page.rows if way is not None]
    judged, others = as_page([(c, way) for _, c, way in asked], others=[other.p for other in page.others])
    size = len(asked) + len(others)
    found = [
        Answer(claim, f"{c.a} - {c.b}", c, p_of(c, way), c.p_holm, size, said.word)
        for (claim, _, way), (c, said) in zip(asked, judged, strict=True)
    ]
    for other, p in zip(page.others, others, strict=True):
        found.append(Answer(other.claim, other.name, None, other.p, p, size, "supported" if p < ALPHA else "undecided"))
    return found


def comparisons(page: Page) -> str:
    """A table of what the page asks: differences, p-values adjusted for all of it, verdicts by evaluation/rules.py."""
    cells = []
    for answer in answers(page):
        p = f"{answer.adjusted:.2g} ({answer.family})"
        cells.append([answer.claim, answer.name, *_numbers(answer.comparison), p, answer.word])
    for claim, c, way in page.rows:
        if way is None:
            cells.append([claim, f"{c.a} - {c.b}", *_numbers(c), f"{c.test.p:.2g} (not asked)", ""])
    head = ["claim", "difference", "points", "95 % interval", "by task", "p (Holm, of n)", "pilot verdict"]
    return table(head, cells)


def _numbers(c: Comparison | None) -> list[str]:
    if c is None:
        return ["", "", ""]
    by_task = ", ".join(f"{task} {interval(i.low, i.high)}" for task, i in c.by_task.items())
    return [f"{100 * c.difference:+.1f}", interval(c.interval.low, c.interval.high), by_task]
