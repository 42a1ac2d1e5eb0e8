"""What a study leaves in a run's folder: the job, by which `diagnose` finds the data that the run was trained on."""

import json
import shutil

import numpy as np
import pytest

from layerstill.acts.study import perform
from layerstill.errors import UserError
from layerstill.evaluation.predict import predict
from layerstill.studies.tasks import task_of, task_of_run
from layerstill.training.models import load_fine_tuned, load_tokenizer
from layerstill.training.records import task_fingerprint
from tests.studies.small import make_place, plan_of, run_here, write_study

HALF = {"kind": "classification", "data": "data", "train_examples": 20, "dev_examples": 8}
SECTIONS = {
    "base": {"task": "moods half", "regime": {"few_samples": 12, "label_noise": 0.3}},
    "tasks": {"moods half": HALF},
    "axes": {"recipe": ["kd"], "seed": [0]},
}


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A study of one run on a sample of a task, under a regime."""
    place = make_place(tmp_path_factory.mktemp("jobs"))
    _, pool = run_here(write_study(place, **SECTIONS), place / "out")
    return place, pool.jobs


@pytest.fixture
def run(studied, tmp_path):
    """A copy of the run's folder."""
    _, jobs = studied
    return shutil.copytree(jobs[1]["folder"], tmp_path / "run")


def test_every_folder_has_its_job(studied):
    _, jobs = studied
    assert [job["kind"] for job in jobs] == ["teacher", "run"]
    for job in jobs:
        with open(f"{job['folder']}/job.json", encoding="utf-8") as file:
            assert json.load(file) == json.loads(json.dumps(job))


def test_a_run_is_looked_at_with_the_sample_and_the_regime_it_was_trained_on(run, studied, call):
    status, _, said = call(f"diagnose {run} --parts gap")
    assert status == 0, said
    task = task_of(studied[1][1])
    assert len(task.splits["train"]) == 12
    assert len(task.splits["dev"]) == 8
    found = json.loads((run / "diagnostics.json").read_text("utf-8"))
    assert found["made_with"]["gap"]["data"] == task_fingerprint(task)
    model, tokenizer = (
        load_fine_tuned(str(run), task.head),
        load_tokenizer(str(run), load_fine_tuned(str(run), task.head).config),
    )
    for split in ("train", "dev"):
        right = (
            predict(model.eval(), tokenizer, task.splits[split], 32, task.head).argmax(-1) == task.splits[split].labels
        )
        assert found["gap"]["accuracy"][split] == pytest.approx(np.mean(right))


def test_other_data_than_the_studys_are_refused_with_the_way_out(run, studied, call):
    place, _ = studied
    status, _, said = call(f"diagnose {run} --task classification --data {place}/data --parts gap")
    assert status == 2
    assert f"these are not the data of run {run}" in said
    assert "leave the data options out, since its job.json has them" in said
    # Files that were changed since, by way of job.json.
    data = shutil.copytree(place / "data", run.parent / "data")
    (data / "dev.csv").write_text((data / "dev.csv").read_text("utf-8") + "a new film,good\n" * 9, "utf-8")
    job = json.loads((run / "job.json").read_text("utf-8"))
    job["source"]["data"] = str(data)
    (run / "job.json").write_text(json.dumps(job), "utf-8")
    status, _, said = call(f"diagnose {run} --parts gap")
    assert (status, "the files have changed" in said) == (2, True)
    assert not (run / "diagnostics.json").exists()


def test_a_run_whose_weights_the_study_deleted_says_so(run, call):
    (run / "model.safetensors").unlink()
    status, _, said = call(f"diagnose {run}")
    assert status == 2
    assert said.startswith(f"error: run {run}: the study deleted this run's weights (keep: results); ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "job.json: damaged; give the run's data with --task and --data"),
        ("[]", "job.json: damaged"),
        ('{"source": 1}', "job.json: .*source"),
        ("{}", "job.json: .*source"),
    ],
)
def test_a_damaged_job_is_refused(text, message, tmp_path):
    (tmp_path / "job.json").write_text(text, "utf-8")
    with pytest.raises(UserError, match=message):
        task_of_run(tmp_path)


def test_a_folder_that_holds_only_the_job_is_gone_on_with_and_links_are_not_followed(studied, tmp_path):
    place, _ = studied
    plan = plan_of(write_study(place, **SECTIONS), tmp_path / "out")
    job = plan.teacher_job(plan.runs[0])
    folder = tmp_path / "out" / "teachers" / job["hash"]
    folder.mkdir(parents=True)
    for name in ("job.json", ".job.json.part"):
        (folder / name).symlink_to(tmp_path / "target")
        with pytest.raises(UserError, match=f"{name}: a symbolic link"):
            perform(job)
        (folder / name).unlink()
    assert not (tmp_path / "target").exists()
    (folder / "job.json").write_text("{}", "utf-8")  # killed right after it was written
    (folder / ".job.json.part").write_text("{", "utf-8")
    perform(job)
    assert (folder / "result.json").is_file()
    assert json.loads((folder / "job.json").read_text("utf-8"))["hash"] == job["hash"]
