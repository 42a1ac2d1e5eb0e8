"""What a recipe loses where student and teacher have other tokens: the objectives that compare token by token."""

from collections.abc import Callable
from fractions import Fraction

from layerstill.errors import UserError
from layerstill.heads import Head
from layerstill.knowledge.objective import Objective
from layerstill.names import shipped_recipes
from layerstill.recipe import Recipe, Stage, automatic_length


def without_token_terms(
    recipe: Recipe, head: Head, student: str, fits: Callable[[Recipe], bool] = lambda recipe: True
) -> tuple[Recipe, list[str]]:
    """The recipe without what cannot be compared, and what that is, a line each.

    An objective that borrows the maps of one that is left out goes with it, and so does a stage in which neither the
    teacher nor gold labels are left. UserError if nothing of the teacher is left; it names the shipped recipes that
    lose nothing and that `fits` the two models. `student` is what `--student` says.
    """
    stages: list[Stage] = []
    lines: list[str] = []
    lost = Fraction(0)
    for number, stage in enumerate(recipe.stages, 1):
        out = _left_out(stage, head)
        kept = {name: o for name, o in stage.objectives.items() if name not in out}
        lines += [f"stage {number}: objective {name!r} is left out, because {why}" for name, why in out.items()]
        if not out or any(not o.consistent and not o.weight.always_zero for o in kept.values()):
            stages.append(stage.model_copy(update={"objectives": kept}) if out else stage)
        else:
            lines.append(f"stage {number} is left out, because nothing of the teacher is left in it")
            lost += stage.share or 0
    stages = _longer(stages, lost)
    reduced = recipe if not lines else recipe.model_copy(update={"stages": stages})
    if recipe.needs_teacher and not reduced.needs_teacher:
        raise UserError(
            f"recipe {recipe.name}: it compares token by token, and the tokenizer of --student {student} has other "
            f"tokens than the teacher's, so nothing of the teacher would be left; use {_those_that_work(head, fits)}, "
            "or a student with the teacher's tokenizer"
        )
    return reduced, lines


def _longer(stages: list[Stage], lost: Fraction) -> list[Stage]:
    """The stages, of which the first with a share of the automatic length gets another share as well."""
    at = next((i for i, stage in enumerate(stages) if stage.share), None)
    if not lost or at is None:
        return stages
    longer = stages[at].model_copy(update={"epochs": automatic_length(lost + (stages[at].share or 0))})
    return [longer if i == at else stage for i, stage in enumerate(stages)]


def _left_out(stage: Stage, head: Head) -> dict[str, str]:
    """Names of what cannot be compared, with the reason."""
    objectives: dict[str, Objective] = stage.viewed()
    out = {
        name: "it compares token by token, and student and teacher have other tokens"
        for name, o in objectives.items()
        if o.aligned_tokens(head.per_token)
    }
    borrowers = {n: o.alignment.borrows for n, o in objectives.items() if n not in out and o.alignment.borrows in out}
    return out | {name: f"it uses the maps of {other!r}" for name, other in borrowers.items()}


def _those_that_work(head: Head, fits: Callable[[Recipe], bool]) -> str:
    """Shipped recipes that lose nothing and fit the models."""
    known = ((name, Recipe.load(name)) for name in shipped_recipes())
    return ", ".join(
        name
        for name, recipe in known
        if recipe.needs_teacher
        and not recipe.supplementary_stages
        and not any(_left_out(stage, head) for stage in recipe.stages)
        and fits(recipe)
    )
