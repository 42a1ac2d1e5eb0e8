"""A study that takes seconds: a tiny base model, two dozen texts, a handful of steps."""

import asyncio
from pathlib import Path

import yaml

from layerstill.acts.study import answer
from layerstill.studies.file import load_study
from layerstill.studies.folder import StudyFolder
from layerstill.studies.plan import StudyPlan
from layerstill.studies.pool import Reply
from layerstill.studies.run import StudyRun
from tests.tiny import save_tiny, write_csv


def make_place(folder: Path) -> Path:
    """A base model and data that study files of `write_study` refer to."""
    save_tiny(folder / "base")
    (folder / "data").mkdir()
    write_csv(folder / "data" / "train.csv", rows=48)
    write_csv(folder / "data" / "dev.csv", rows=12, seed=1)
    return folder


def study_data(place: Path, **sections) -> dict:
    data = {
        "name": "small",
        "base": {
            "model": str(place / "base"),
            "task": "moods",
            "recipe": "kd",
            "student_layers": 2,
            "max_length": 32,
            "total_steps": 4,
            "batch_size": 8,
        },
        "teacher": {"max_steps": 4, "learning_rate": 1e-3},
        "tasks": {"moods": {"kind": "classification", "data": "data"}},
        "axes": {"recipe": ["kd", "att-kl"], "seed": [0, 1]},
    }
    base = data["base"] | sections.pop("base", {})
    return data | sections | {"base": base}


def write_study(place: Path, name: str = "study", **sections) -> Path:
    """A study file in `place`; `base` is merged, other sections are replaced."""
    path = place / f"{name}.yaml"
    path.write_text(yaml.safe_dump(study_data(place, **sections), sort_keys=False), "utf-8")
    return path


def plan_of(file: Path, output: Path, quick: bool = False) -> StudyPlan:
    return StudyPlan(load_study(file, quick), file.parent, output)


class Here:
    """A pool that does its jobs in this process, one after the other, and remembers them."""

    def __init__(self) -> None:
        self.jobs: list[dict] = []

    async def perform(self, job: dict) -> Reply:
        self.jobs.append(job)
        reply = answer(job)
        return Reply(reply["error"], reply["refused"], reply["seconds"])

    async def close(self) -> None:
        pass


def run_here(file: Path, output: Path, pool: Here | None = None, **settings) -> tuple[list[dict], Here]:
    """Run a study in this process: its records, and the pool with the jobs that were done."""
    plan = plan_of(file, output)
    folder = StudyFolder(output)
    run = StudyRun(plan, folder, **settings)
    run.recall_tuning()  # as the command does
    pool = pool or Here()
    with folder.open(plan.study, False):
        return asyncio.run(run.run(pool)), pool


def comparable(records: list[dict]) -> list[dict]:
    """Records without what differs between two calls: time and memory, and where the teacher lies."""
    found = []
    for record in records:
        record = dict(record)
        if record["result"] is not None:
            result = {key: value for key, value in record["result"].items() if key != "teacher"}
            steps = {key: result["train"][key] for key in ("examples", "steps", "epochs", "precision")}
            record["result"] = result | {"train": steps}
        found.append(record)
    return found
