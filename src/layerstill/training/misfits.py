"""What two models cannot meet of a recipe, said before anything is loaded or written."""

from collections.abc import Mapping

import torch
from transformers import PretrainedConfig

from layerstill.errors import UserError
from layerstill.families import depth_of
from layerstill.heads import Head
from layerstill.recipe import Recipe
from layerstill.students.build import student_config
from layerstill.training.memories import refuse_large_memories
from layerstill.training.module import bind_objectives


def refuse_misfits(
    recipe: Recipe,
    teacher: PretrainedConfig,
    source: PretrainedConfig,
    depth: int,
    seed: int,
    head: Head,
    whose: str | None = None,
    sizes: Mapping[str, int] | None = None,
) -> None:
    """UserError for a depth or an objective that two models cannot meet, before anything is loaded or written.

    `whose` says in messages what the student is cut from; `sizes` is how many examples a stage trains on, by its
    `data`, if what is remembered of them shall fit, too.
    """
    total = depth_of(source)
    if not 1 <= depth <= total:
        whose = whose or ("the teacher" if source is teacher else "the model of --init-from")
        raise UserError(f"--student-layers {depth}: {whose} has {total} layers; choose 1 to {total}")
    student = student_config(source, depth, recipe.student, seed)
    for stage in recipe.stages:
        with torch.random.fork_rng(devices=[]):
            built = [objective.build() for objective in bind_objectives(stage, student, teacher, head, seed)]
        refuse_large_memories(built, (sizes or {}).get(stage.data, 0))


def fit(recipe: Recipe, teacher: PretrainedConfig, source: PretrainedConfig, depth: int, seed: int, head: Head) -> bool:
    """Whether two models of these sizes can meet all of a recipe."""
    try:
        refuse_misfits(recipe, teacher, source, depth, seed, head)
    except UserError:
        return False
    return True
