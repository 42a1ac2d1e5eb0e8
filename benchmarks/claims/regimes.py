"""Few samples and label noise: claims C2, C4, C5."""

from benchmarks.claims.records import Records, minus
from benchmarks.claims.tables import Page, Row, against, chance, comparisons, mean_cell, table

from layerstill.evaluation.comparison import Comparison, compare

FULL, FEW, NOISE = "full", "few_samples 1000", "label_noise 0.3"


def show(records: Records) -> str:
    """Scores and verdicts."""
    return "\n\n".join([chance(records), _scores(records), comparisons(verdicts(records))])


def _scores(records: Records) -> str:
    regimes = [FULL, FEW, NOISE]
    head = ["recipe", *(f"{task}, {regime}" for task in records.tasks for regime in regimes)]
    rows = [["teacher"]]
    for task in records.tasks:
        for regime in regimes:
            score = max(r["teacher"] or 0 for r in records.where(task=task, regime=regime))
            rows[0].append(f"{100 * score:.1f}")
    for arm in records.values("recipe"):
        rows.append([arm, *(mean_cell(records, t, recipe=arm, regime=r) for t in records.tasks for r in regimes)])
    return table(head, rows)


def interaction(records: Records, a: str, b: str, regime: str) -> Comparison:
    """(a - b) in a regime minus (a - b) on full data."""
    gaps, right = [], []
    for at in (regime, FULL):
        gaps.append(minus(records.scores(recipe=a, regime=at), records.scores(recipe=b, regime=at)))
        of_a, of_b = records.right(recipe=a, regime=at), records.right(recipe=b, regime=at)
        right.append({task: of_a[task] - of_b[task] for task in of_a})
    examples = {task: right[0][task] - right[1][task] for task in right[0]}
    return compare(f"({a} - {b}) at {regime}", f"({a} - {b}) at full", *gaps, examples)


def verdicts(records: Records) -> Page:
    """What is compared, for which claim."""

    def pair(a: str, b: str, regime: str) -> Comparison:
        at = {"regime": regime}
        return against(records, {"recipe": a} | at, {"recipe": b} | at, (f"{a} at {regime}", f"{b}"))

    rows: list[Row] = [("C2", pair("l-ild", "u-ild", FULL), "higher")]
    rows += [("C2", pair("l-ild", "u-ild", regime), "higher") for regime in (FEW, NOISE)]
    rows += [("CR-ILD", pair("cr-ild", other, r), "higher") for r in (FULL, FEW, NOISE) for other in ("u-ild", "kd")]
    rows += [("C4", interaction(records, a, "u-ild", FEW), "higher") for a in ("cr-ild", "l-ild")]
    rows += [("C5", interaction(records, a, b, NOISE), "higher") for a in ("cr-ild", "l-ild") for b in ("u-ild", "kd")]
    rows.append(("teacher under noise", pair("kd", "finetune", NOISE), None))
    return Page(rows)
