"""How `total_steps` is divided between the stages of recipes that have several."""

import json

from layerstill.studies.plan import StudyPlan


def stage_split(plan: StudyPlan) -> str:
    """`updates of each stage: cr-ild 200 + 40, ...`, a recipe with several divisions with `or` between them; empty if
    no recipe has several stages."""
    found: dict[str, dict[str, None]] = {}
    seen = set()
    for run in plan.runs:
        s = run.settings
        key = (run.recipe.name, run.recipe.hash, s.task, json.dumps(s.regime), s.total_steps)
        if len(run.recipe.stages) < 2 or s.total_steps is None or key in seen:
            continue
        seen.add(key)
        found.setdefault(run.recipe.name, {})[" + ".join(map(str, plan.stage_steps(run)))] = None
    parts = ", ".join(f"{name} {' or '.join(splits)}" for name, splits in found.items())
    return f"updates of each stage: {parts}" if parts else ""
