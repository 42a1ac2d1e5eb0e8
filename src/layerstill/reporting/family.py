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
    against the next best, which may be one of the comparisons and is then asked once.
    """
    asked = {_question(c): number for number, (_, c) in enumerate(findings.comparisons)}
    lost = [m.loss.comparison for m in models if m.loss is not None and m.loss.comparison is not None]
    new = {task: c for task, c in rivals.items() if _question(c) not in asked}
    family = iter(as_family([*(c for _, c in findings.comparisons), *lost, *new.values()]))
    compared = [(setting, next(family)) for setting, _ in findings.comparisons]
    tested = [
        replace(m, loss=replace(m.loss, comparison=next(family)))
        if m.loss is not None and m.loss.comparison is not None
        else m
        for m in models
    ]
    judged = {task: next(family) for task in new}
    for task, c in rivals.items():
        if task not in new:
            same = compared[asked[_question(c)]][1]
            judged[task] = replace(c, p_holm=same.p_holm, family=same.family)
    return Findings(compared, findings.left_out, findings.margin), tested, {task: judged[task] for task in rivals}


def _question(c: Comparison) -> tuple:
    """Equal for a comparison and the same the other way round, under whatever names."""
    means = sorted((round(c.of_a.mean, 12), round(c.of_b.mean, 12)))
    return tuple(c.by_task), tuple(means), round(c.test.p, 12), c.test.method
