"""What a study's file wants compared, as its folder says."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from layerstill.evaluation.rules import MARGIN
from layerstill.reporting.reading import get
from layerstill.reporting.runs import AXIS, RunRecord

_PAIRED = ("seed", "task")
"""Axes over which runs are paired."""


@dataclass(frozen=True)
class Choice:
    """The section `compare` of a study: axis, value that others are held against, main metric, margin."""

    by: str = "recipe"
    against: str | None = None
    metric: str | None = None
    margin: float = MARGIN
    """Of a score; the file says it in points."""


def choice_of(folder: Path) -> Choice:
    """The choice in the folder's `study.json`; nothing is chosen without one."""
    try:
        compare = get(get(json.loads((folder / "study.json").read_text("utf-8")), "study"), "compare")
    except (OSError, ValueError, RecursionError):
        return Choice()
    found = {name: value for name in ("by", "against", "metric") if isinstance(value := get(compare, name), str)}
    margin = get(compare, "margin")
    return Choice(**found, margin=margin / 100 if isinstance(margin, int | float) and margin > 0 else MARGIN)


def compared_by(runs: Sequence[RunRecord], axis: str) -> list[RunRecord]:
    """The runs with their value of this axis in the place of the recipe, which becomes one more thing that differs.

    So that values of any axis are compared as recipes are: where everything else is equal.
    """
    if axis in ("recipe", *_PAIRED):
        return list(runs)
    swapped = []
    for run in runs:
        if axis in run.coordinates and run.status == "finished":
            here = {"recipe": str(run.coordinates[axis]), axis: AXIS, "of": run.recipe}
            run = replace(run, coordinates=run.coordinates | here, by=axis)
        swapped.append(run)
    return swapped


def with_main_metric(runs: Sequence[RunRecord], metric: str | None) -> list[RunRecord]:
    """The runs with this metric as their first, where they have it."""
    return [
        replace(run, result=run.result | {"metrics": {metric: run.metrics[metric], **_others(run, metric)}})
        if metric is not None and run.status == "finished" and metric in run.metrics
        else run
        for run in runs
    ]


def _others(run: RunRecord, metric: str) -> dict[str, float | str]:
    return {name: value for name, value in run.checked.metrics.items() if name != metric}
