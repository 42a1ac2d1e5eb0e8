"""How many runs at a time: the scarcest of cores, memory and work decides, and says so."""

import json

import pytest

from layerstill.errors import UserError
from layerstill.studies.capacity import ON_CARD_MB, PROCESS_MB, AtOnce, Machine, jobs_of, most_at_once
from tests.studies.small import make_place, plan_of, write_study

PLENTY = 1e6


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("capacity"))


def decided(machine: Machine, run_mb: float = 100, jobs: int = 50, left: int = 50) -> AtOnce:
    return most_at_once(machine, lambda: run_mb, jobs, left)


def test_every_core_has_a_run():
    assert decided(Machine(2, PLENTY)) == AtOnce(2, 1, "2 at a time: 2 cores, one for each run")
    assert decided(Machine(1, 1)) == AtOnce(1, 1, "1 at a time: there is one core")


def test_memory_that_a_run_takes_limits_them_and_the_others_share_the_cores():
    found = decided(Machine(8, 10_000), run_mb=2000)
    assert (found.count, found.threads) == (2, 4)
    assert found.why == "2 at a time: 10.5 GB of memory are free, and a run may take 3.36 GB"
    assert found.count * (2000 + PROCESS_MB) <= 10_000
    assert decided(Machine(8, 500), run_mb=2000).count == 1  # one is tried whatever it takes


def test_on_a_card_its_memory_counts_and_that_of_the_processes():
    found = decided(Machine(16, PLENTY, 20_000), run_mb=1000)
    assert found.count == 7
    assert found.why.endswith("21 GB of memory of the card are free, and a run may take 1.99 GB")
    assert found.count * (1000 + ON_CARD_MB) <= 20_000
    assert decided(Machine(16, PLENTY, PLENTY), run_mb=1000).count == 16
    assert decided(Machine(16, 3 * PROCESS_MB, PLENTY), run_mb=1000).count == 2


def test_what_is_left_limits_the_runs_and_not_their_threads():
    """Results depend a little on the number of threads, so the last run has as many as the others had."""
    assert decided(Machine(8, PLENTY), jobs=4, left=4) == AtOnce(4, 2, "4 at a time: the study has 4 jobs")
    assert decided(Machine(8, PLENTY), jobs=4, left=1) == AtOnce(1, 2, "1 at a time: 1 job left")
    assert decided(Machine(8, PLENTY), left=0) == AtOnce(1, 1, "1 at a time: nothing left")


def test_a_run_takes_what_its_plan_says(place, tmp_path):
    def size(**sections):
        return plan_of(write_study(place, **sections), tmp_path).memory_mb()

    small = size()
    assert 0 < small < 20
    assert size(base={"max_length": 64}) > small  # activations, of teacher and student
    bigger = size(tune={"batch_size": [8, 64], "per": ["recipe"]})
    assert bigger > size(tune={"batch_size": [4, 8], "per": ["recipe"]}) == small
    assert size(tune={"learning_rate": [1e-3, 1e-2]}) == small
    # Where no teacher is made here, the student is what is trained.
    assert size(tasks={"moods": {"kind": "classification", "data": "data", "teacher": "base"}}) < small


def test_the_option(place, tmp_path, call):
    assert (jobs_of("auto"), jobs_of("3")) == ("auto", 3)
    for word in ("0", "-1", "many", "1.5", ""):
        with pytest.raises(UserError, match="give a whole number from 1, or auto"):
            jobs_of(word)
    file, out = write_study(place), tmp_path / "out"
    status, printed, err = call(f"study {file} --output {out} --jobs auto --dry-run")
    assert status == 0, err
    assert " at a time: " in printed
    assert " at a time" not in call(f"study {file} --output {out} --jobs 2 --dry-run")[1]
    assert len(json.loads(call(f"study {file} --output {out} --jobs auto --dry-run --json")[1])) == 4
    for words, message in (
        ("--jobs two", "--jobs two: give"),
        ("--jobs auto --ray local", "looks at this machine only"),
    ):
        status, _, err = call(f"study {file} --output {out} {words}")
        assert (status, err.count("\n")) == (2, 1)
        assert message in err
    assert not out.exists()
