"""What two models cannot meet of a recipe, said before anything is loaded or written."""

import torch
from transformers import PretrainedConfig

from layerstill.errors import UserError
from layerstill.families import depth_of
from layerstill.heads import Head
from layerstill.recipe import Recipe
from layerstill.students.build import student_config
from layerstill.training.module import bind_objectives


def refuse_misfits(
    recipe: Recipe,
    teacher: PretrainedConfig,
    source: PretrainedConfig,
    depth: int,
    seed: int,
    head: Head,
    whose: str | None = None,
) -> None:
    """UserError for a depth or an objective that two models cannot meet, before anything is loaded or written.

    `whose` says in messages what the student is cut from.
    """
    total = depth_of(source)
    if not 1 <= depth <= total:
        whose = whose or ("the teacher" if source is teacher else "the model of --init-from")
        raise UserError(f"--student-layers {depth}: {whose} has {total} layers; choose 1 to {total}")
    student = student_config(source, depth, recipe.student, seed)
    for stage in recipe.stages:
        for objective in bind_objectives(stage, student, teacher, head, seed):
            with torch.random.fork_rng(devices=[]):
                objective.build()


def fit(recipe: Recipe, teacher: PretrainedConfig, source: PretrainedConfig, depth: int, seed: int, head: Head) -> bool:
    """Whether two models of these sizes can meet all of a recipe."""
    try:
        refuse_misfits(recipe, teacher, source, depth, seed, head)
    except UserError:
        return False
    return True
