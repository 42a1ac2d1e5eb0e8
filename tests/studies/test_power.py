"""What `layerstill study --dry-run` says that the declared comparison could find."""

import re

import pytest

from layerstill.evaluation.power import Design
from layerstill.studies.folder import StudyFolder
from layerstill.studies.power import what_it_can_see
from layerstill.studies.run import StudyRun
from tests.studies.small import make_place, plan_of, run_here, write_study


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("power"))


def said(place, tmp_path, **sections):
    plan = plan_of(write_study(place, **sections), tmp_path / "out")
    return what_it_can_see(StudyRun(plan, StudyFolder(tmp_path / "out")))


def test_a_dry_run_says_what_it_can_see(place, tmp_path, call):
    axes = {"recipe": ["kd", "att-kl", "hid-seq"], "seed": [0, 1, 2, 3, 4]}
    file = write_study(place, axes=axes, compare={"against": "kd"})
    status, out, err = call(f"study {file} --output {tmp_path}/out --dry-run")
    assert status == 0, err
    least = Design([5], [12], 6, 0.01, 0.1)  # two comparisons, three students against their teacher, the best
    # and the next
    assert (
        "With 80 % power after Holm for the 6 tests of its report it can see a difference of "
        f"{100 * least.smallest_difference():.1f} points (5 seeds, 12 examples of dev), if paired differences vary by 1.0 "
        "points over seeds and by 10 over examples (assumed, for want of finished runs). That two are equal within 0.5 "
        f"points it cannot show, only within {100 * least.smallest_margin():.1f} points."
    ) in " ".join(out.split())
    assert not (tmp_path / "out").exists()


def test_a_margin_within_reach_is_called_that(place, tmp_path):
    axes = {"recipe": ["kd", "att-kl"], "seed": [0, 1, 2, 3, 4]}
    assert said(place, tmp_path, axes=axes, compare={"margin": 20}).endswith("that two are equal within 20 points.")


def test_comparisons_are_counted_as_the_report_makes_them(place, tmp_path):
    def count(axes, **compare):
        found = re.search(r"for the (\d+) tests", said(place, tmp_path, axes=axes, compare=compare))
        assert found is not None
        return int(found[1])

    seeds = [0, 1, 2]
    recipes = ["finetune", "kd", "att-kl", "hid-seq"]
    assert (
        count({"recipe": recipes, "seed": seeds}, against="kd") == 3 + 4 + 1
    )  # and four students against their teacher, and one rival
    assert count({"recipe": recipes, "seed": seeds}) == 5 + 4 + 1  # three against finetune, two against kd
    assert count({"recipe": ["att-kl", "hid-seq", "pkd"], "seed": seeds}) == 3 + 3 + 1  # each with each
    starts = {"initialisation": ["1,2", "3,4"], "seed": seeds}
    assert count({"recipe": ["kd", "att-kl"], **starts}, against="kd") == 2 + 4 + 1
    assert count({"recipe": recipes, **starts}, by="initialisation", against="1,2") == 4 + 8 + 1


def test_a_study_that_can_see_nothing_says_so(place, tmp_path):
    alone = {"recipe": ["kd", "att-kl"], "seed": [0]}
    assert said(place, tmp_path, axes=alone, compare={"against": "kd"}) == (
        "No difference between methods can be seen: nothing that is compared has two seeds in common."
    )
    assert said(place, tmp_path, axes=alone) == ""
    lines = [f"a film number {i}\t{i % 5}.0" for i in range(20)]
    for split in ("train", "dev"):
        (place / f"{split}-scores.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n", "utf-8")
    tasks = {"moods": {"kind": "regression", "data": "train-scores.tsv", "dev": "dev-scores.tsv"}}
    axes = {"recipe": ["kd", "att-kl"], "seed": [0, 1, 2, 3, 4]}
    assert said(place, tmp_path, axes=axes, tasks=tasks, compare={"against": "kd"}) == (
        "No difference can be seen: 5 pairs cannot give a p below 0.062, and the first of 4 tests of its report needs "
        "0.013 after Holm; give it more seeds."
    )


def test_finished_runs_say_how_much_differences_vary(place, tmp_path):
    axes = {"recipe": ["kd", "att-kl"], "seed": [0, 1, 2]}
    base = {"learning_rate": 0.01}
    file = write_study(place, "done", axes=axes, base=base, compare={"against": "kd"})
    records, _ = run_here(file, tmp_path / "out")
    assert all(record["status"] == "finished" for record in records)
    run = StudyRun(plan_of(file, tmp_path / "out"), StudyFolder(tmp_path / "out"))
    scores = {}
    for record in records:
        scores.setdefault(record["coordinates"]["recipe"], []).append(record["result"]["metrics"]["accuracy"])
    gaps = [a - b for a, b in zip(scores["att-kl"], scores["kd"], strict=True)]
    mean = sum(gaps) / 3
    spread = (sum((gap - mean) ** 2 for gap in gaps) / 2) ** 0.5
    sentence = what_it_can_see(run)
    assert spread > 0
    assert f"vary by {100 * spread:.1f} points over seeds" in sentence
    assert "(measured on 1 finished pairs of arms" in sentence
