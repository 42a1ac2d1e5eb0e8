"""Everything that a report tests, as one family: who asks more questions needs smaller p-values for each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from layerstill.evaluation.comparison import Comparison, as_family
from layerstill.reporting.arms import Findings
from layerstill.reporting.models import Model


def one_family(
    findings: Findings, models: Sequence[Model], rivals: Mapping[str, Comparison]
) -> tuple[Findings, list[Model], dict[str, Comparison]]:
    """The same with p-values that are adjusted after Holm for all of them together.

    `findings` are arms against their controls, `models` students against their teachers, `rivals` each card's student
    against the next best.
    """
    lost = [m.loss.comparison for m in models if m.loss is not None and m.loss.comparison is not None]
    family = iter(as_family([*(c for _, c in findings.comparisons), *lost, *rivals.values()]))
    compared = [(setting, next(family)) for setting, _ in findings.comparisons]
    tested = [
        replace(m, loss=replace(m.loss, comparison=next(family)))
        if m.loss is not None and m.loss.comparison is not None
        else m
        for m in models
    ]
    return Findings(compared, findings.left_out, findings.margin), tested, {task: next(family) for task in rivals}
