"""All comparisons of all claims as one family: which of them are evidence when so many are made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.claims import STUDIES
from benchmarks.claims.records import RESULTS, Records
from benchmarks.claims.tables import Answer, Page, answers, table

from layerstill.evaluation.rules import ALPHA
from layerstill.evaluation.statistics import holm


@dataclass(frozen=True)
class Judged:
    """A question, and its p-value after Holm over the questions of all pages."""

    answer: Answer
    whole: float


def kept() -> dict[str, Page]:
    """The questions of every study whose records are in the repository."""
    return {
        name: study.verdicts(Records.read(name))
        for name, study in STUDIES.items()
        if (RESULTS / f"study_{name}.json").is_file()
    }


def one_family(pages: Iterable[Page]) -> list[Judged]:
    """Everything that is asked on any page, adjusted for all of it together; smallest p first."""
    found = [answer for page in pages for answer in answers(page)]
    judged = [Judged(answer, p) for answer, p in zip(found, holm([a.p for a in found]), strict=True)]
    return sorted(judged, key=lambda j: j.answer.p)


def show(family: Sequence[Judged]) -> str:
    """How many there are and stay evidence, and a table of those that are evidence on their own page."""
    clear = [j for j in family if j.answer.adjusted < ALPHA]
    claims = {j.answer.claim for j in family}
    said = (
        f"{len(family)} questions of {len(claims)} claims; p after Holm is below 0.05 in {len(clear)} of them on their "
        f"own page, in {sum(j.whole < ALPHA for j in family)} of them in one family."
    )
    rows = [
        [
            j.answer.claim,
            j.answer.name,
            "" if j.answer.comparison is None else f"{100 * j.answer.comparison.difference:+.1f}",
            *(f"{p:.2g}" for p in (j.answer.p, j.answer.adjusted, j.whole)),
            j.answer.word,
        ]
        for j in clear
    ]
    head = ["claim", "question", "points", "p", "after Holm on its page", "in one family", "pilot verdict"]
    return f"{said}\n\n{table(head, rows)}"
