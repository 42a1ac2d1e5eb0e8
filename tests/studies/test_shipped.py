"""The study files that come along: each is read, its arms resolve, and its recipes fit 6 layers taught to 3."""

import re
from pathlib import Path

import pytest

from layerstill.heads import Classes
from layerstill.studies.expand import expand
from layerstill.studies.file import load_study
from layerstill.studies.job import with_steps
from layerstill.training.arguments import steps_of
from layerstill.training.misfits import refuse_misfits
from tests.tiny import tiny_config

FILES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))
CLAIMS = {f"C{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18)}


SIZES = {"task": 3668, "supplementary": 5000}


def claims(study) -> set[str]:
    return {study.claim} if isinstance(study.claim, str) else set(study.claim)


def test_every_claim_that_is_feasible_has_a_study():
    assert set().union(*(claims(load_study(file)) for file in FILES)) == CLAIMS


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_study_file_expands_to_runs_that_fit(file, quick):
    study = load_study(file, quick)
    runs = expand(study, file.parent)
    config = tiny_config("bert", layers=6, width=48, heads=12, labels=2)
    for recipe in {run.recipe.hash: run.recipe for run in runs}.values():
        refuse_misfits(recipe, config, config, 3, 0, Classes())
    names = {run.coordinates["recipe"] for run in runs}
    assert {"finetune", "kd"} <= names, "the controls belong to every comparison"
    # Equal updates for every arm.
    totals = set()
    for run in runs:
        made = with_steps(run.recipe, SIZES, run.settings.total_steps, run.settings.max_steps, 1)
        totals.add(sum(steps_of(stage, SIZES[stage.data], None) for stage in made.stages))
    assert totals == {study.base["total_steps"]}
    assert len(runs) <= (60 if quick else 200)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_study_file_says_which_claims_its_runs_are_for(file):
    assert set(re.findall(r"\bC\d+\b", file.read_text("utf-8"))) == claims(load_study(file))
