"""All comparisons of all claims as one family: which of them are evidence when so many are made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.claims import STUDIES
from benchmarks.claims.records import RESULTS, Records
from benchmarks.claims.tables import Row, table

from layerstill.evaluation.comparison import ALPHA, Comparison, as_family


@dataclass(frozen=True)
class Judged:
    """A comparison, the claims it is for, and its smallest p-value after Holm within one of them."""

    claims: tuple[str, ...]
    comparison: Comparison
    alone: float


def kept() -> dict[str, list[Row]]:
    """The comparisons of every study whose records are in the repository."""
    return {
        name: study.verdicts(Records.read(name))
        for name, study in STUDIES.items()
        if (RESULTS / f"study_{name}.json").is_file()
    }


def one_family(studies: Iterable[Sequence[Row]]) -> list[Judged]:
    """Every comparison that a claim is judged by, once, adjusted for all of them together; smallest p first.

    Comparisons of no claim and those of withdrawn rules are left out. One that two claims share counts once.
    """
    found: dict[tuple[int, str, str], Judged] = {}
    for number, rows in enumerate(studies):
        for claim in dict.fromkeys(claim for claim, _, way in rows if way not in {"none", "withdrawn"}):
            for c in as_family([c for other, c, _ in rows if other == claim]):
                key = number, c.a, c.b
                before = found.get(key, Judged((), c, 1.0))
                found[key] = Judged((*before.claims, claim), c, min(before.alone, c.p_holm))
    together = as_family([judged.comparison for judged in found.values()])
    whole = [Judged(j.claims, c, j.alone) for j, c in zip(found.values(), together, strict=True)]
    return sorted(whole, key=lambda j: j.comparison.test.p)


def show(family: Sequence[Judged]) -> str:
    """How many there are and stay evidence, and a table of those that are evidence within their own claim."""
    alone = [j for j in family if j.alone < ALPHA]
    stay = sum(j.comparison.evidence for j in family)
    claims = {claim for j in family for claim in j.claims}
    smallest = min(j.comparison.test.smallest for j in family)
    pairs = max(j.comparison.test.pairs for j in family)
    said = (
        f"{len(family)} comparisons of {len(claims)} claims; p after Holm is below 0.05 in {len(alone)} of them within "
        f"the claim, in {stay} of them in one family. {pairs} pairs cannot give a p below {smallest:.2g}, so of "
        f"{len(family)} comparisons the first cannot get below {min(1.0, smallest * len(family)):.2g}."
    )
    rows = [
        [
            ", ".join(j.claims),
            f"{j.comparison.a} - {j.comparison.b}",
            f"{100 * j.comparison.difference:+.1f}",
            f"{j.comparison.test.p:.2g}",
            f"{j.alone:.2g}",
            f"{j.comparison.p_holm:.2g}",
        ]
        for j in alone
    ]
    head = ["claim", "difference", "points", "p", "after Holm within the claim", "in one family"]
    return f"{said}\n\n{table(head, rows)}"
