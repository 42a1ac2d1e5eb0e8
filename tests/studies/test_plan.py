"""Hashes: the same for the same run, whatever it is called and wherever it lies; another for another run."""

import json
import shutil

import pytest

from layerstill.errors import UserError
from layerstill.recipe import Recipe
from layerstill.studies.folder import StudyFolder
from layerstill.studies.job import out_of_domain, with_steps
from layerstill.studies.stage_split import stage_split
from layerstill.training.length import steps_of
from tests.studies.small import make_place, plan_of, write_study

ONE = {"axes": {"recipe": ["kd"], "seed": [0]}}
TEXTS = {"name": "texts", "recipe": "l-ild-supplementary"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("plan"))


def hashes(place, output="out", name="study", **sections):
    plan = plan_of(write_study(place, name, **{**ONE, **sections}), place / output)
    run = plan.runs[0]
    return plan.teacher_job(run)["hash"], plan.run_job(run)["hash"]


def test_names_order_and_places_do_not_matter(place, tmp_path):
    first = hashes(place)
    assert hashes(place, output="elsewhere", name="other", question="why?", claim="C1") == first
    assert hashes(place, axes={"seed": [0], "recipe": ["kd", "att-kl"]}) == first
    assert hashes(place, compare={"by": "recipe"}, keep="results") == first
    # The same under another name of the recipe, or with a default written out.
    assert hashes(place, axes={"recipe": [{"name": "mine", "recipe": "kd"}]}) == first
    assert hashes(place, base={"set": {"stages.0.optimiser.clip": 1.0}}) == first
    shutil.copytree(place, tmp_path / "moved")
    assert hashes(tmp_path / "moved") == first


CHANGES = [
    ({"base": {"total_steps": 5}}, (True, False)),
    ({"base": {"batch_size": 4}}, (True, False)),
    ({"base": {"learning_rate": 1e-3}}, (True, False)),
    ({"base": {"initialisation": "1,4"}}, (True, False)),
    ({"base": {"init_from": "model"}}, (True, False)),
    ({"base": {"student_layers": 3}}, (True, False)),
    ({"base": {"set": {"stages.0.optimiser.clip": 2.0}}}, (True, False)),
    ({"axes": {"seed": [1]}}, (True, False)),
    ({"axes": {"recipe": ["finetune"]}}, (True, False)),
    ({"base": {"max_length": 16}}, (True, True)),
    ({"base": {"precision": "fp32"}}, (True, True)),
    ({"base": {"regime": {"few_samples": 5}}}, (True, True)),
    ({"teacher": {"max_steps": 5}}, (True, True)),
    ({"teacher": {"max_steps": 4, "learning_rate": 1e-3, "seed": 1}}, (True, True)),
    ({"tasks": {"moods": {"kind": "classification", "data": "data", "train_examples": 20}}}, (True, True)),
]


@pytest.mark.parametrize(("sections", "changed"), CHANGES)
def test_what_a_run_depends_on_changes_its_hash(sections, changed, place):
    teacher, run = hashes(place)
    other_teacher, other_run = hashes(place, **sections)
    assert (other_run != run, other_teacher != teacher) == changed


def test_a_regime_of_the_student_alone_leaves_the_teacher(place):
    teacher, run = hashes(place)
    full = {"max_steps": 4, "learning_rate": 1e-3, "regime": "full"}
    other_teacher, other_run = hashes(place, teacher=full, base={"regime": {"few_samples": 5}})
    assert other_teacher == teacher
    assert other_run != run


def test_data_and_base_model_are_known_by_their_content(place, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(place, moved)
    with (moved / "data" / "train.csv").open("a", encoding="utf-8") as file:
        file.write("one more film,good\n")
    assert not set(hashes(moved)) & set(hashes(place))
    shutil.copy(place / "data" / "train.csv", moved / "data" / "train.csv")
    assert hashes(moved) == hashes(place)
    config = json.loads((moved / "base" / "config.json").read_text("utf-8"))
    (moved / "base" / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.3}), "utf-8")
    assert not set(hashes(moved)) & set(hashes(place))


def write_reviews(folder, rows):
    folder.mkdir(exist_ok=True)
    lines = ["review,mood", *(f"{mood} film{' very' * i},{mood}" for i, mood in enumerate(rows))]
    (folder / "reviews.csv").write_text("\n".join(lines) + "\n", "utf-8")


OWN = {"kind": "classification", "data": "named", "text_columns": ["review"], "label_column": "mood"}


@pytest.fixture
def with_ood(place, tmp_path):
    """A plan of a tuned run whose own out-of-domain file has the columns of the task, by the size of its sample."""
    (place / "named").mkdir(exist_ok=True)
    for split in ("train", "dev"):
        text = (place / "data" / f"{split}.csv").read_text("utf-8")
        (place / "named" / f"{split}.csv").write_text(text.replace("text,label", "review,mood", 1), "utf-8")

    def plan(**more):
        tasks = {"moods": {**OWN, "ood": ["elsewhere=reviews.csv"], **more}}
        tune = {"learning_rate": [1e-3, 1e-2]}
        made = plan_of(write_study(place, "ood", **{**ONE, "tasks": tasks, "tune": tune}), tmp_path / "out")
        made.ood_data = tmp_path / "ood"
        return made

    return plan


def test_own_out_of_domain_files_have_the_columns_of_the_task(with_ood, tmp_path):
    write_reviews(tmp_path / "ood", ["good", "bad"])
    plan = with_ood()
    plan.check()
    (read,) = out_of_domain(plan.run_job(plan.runs[0]), plan._task("moods")[1])["ood"]
    assert read.texts == [("good film",), ("bad film very",)]
    assert read.labels == ["good", "bad"]


def test_out_of_domain_sets_are_known_by_their_content_and_tuning_does_without(with_ood, tmp_path):
    def known(rows, **more):
        write_reviews(tmp_path / "ood", rows)
        plan = with_ood(**more)
        run = plan.runs[0]
        jobs = plan.teacher_job(run), plan.tuning_job(run, {"learning_rate": 1e-3}, 0, 0.5), plan.run_job(run)
        return [job["hash"] for job in jobs]

    teacher, tuning, run = known(["good", "bad", "fine"])
    assert known(["good", "bad", "fine"]) == [teacher, tuning, run]
    seen = {run}
    for rows, more in ((["good", "bad", "bad"], {}), (["good", "bad", "fine"], {"ood_examples": 2})):
        other_teacher, other_tuning, other_run = known(rows, **more)
        assert (other_teacher, other_tuning) == (teacher, tuning)
        assert other_run not in seen
        seen.add(other_run)


def test_models_are_found_beside_the_study_file_first(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hashes(place, base={"model": "base"}) == hashes(place)
    plan = plan_of(write_study(place, **ONE, base={"model": "base", "init_from": "base"}), place / "out")
    plan.check()
    assert plan.teacher_job(plan.runs[0])["model"] == str(place / "base")
    assert plan.run_job(plan.runs[0])["init_from"] == str(place / "base")
    # What is not there is as it is written: a folder from here, or a model of the hub.
    shutil.copytree(place / "base", tmp_path / "here")
    plan = plan_of(write_study(place, **ONE, base={"model": "here"}), place / "out")
    assert plan.teacher_job(plan.runs[0])["model"] == "here"


def test_a_fine_tuned_teacher_needs_no_job(place):
    tasks = {"moods": {"kind": "classification", "data": "data", "teacher": "base"}}
    plan = plan_of(write_study(place, tasks=tasks), place / "out")
    assert plan.teacher_job(plan.runs[0]) is None
    assert plan.run_job(plan.runs[0])["teacher"] == str(place / "base")


def test_studies_may_share_their_teachers(place):
    plan = plan_of(write_study(place, **ONE), place / "out")
    plan.teachers = place / "teachers"
    job = plan.teacher_job(plan.runs[0])
    assert job["folder"] == plan.run_job(plan.runs[0])["teacher"] == str(place / "teachers" / job["hash"])
    assert (job["hash"], plan.run_job(plan.runs[0])["hash"]) == hashes(place)


def test_a_seed_of_its_own_for_each_regime(place):
    axes = {"seed": [3, 4]}
    for seed, teachers in ((0, 1), ("run", 2)):
        base = {"regime": {"few_samples": 5, "seed": seed}}
        plan = plan_of(write_study(place, axes=axes, base=base), place / "out")
        assert len({plan.teacher_job(run)["hash"] for run in plan.runs}) == teachers
        expected = {(3, 3), (4, 4)} if seed == "run" else {(3, 0), (4, 0)}
        assert {(job["seed"], job["regime_seed"]) for job in map(plan.run_job, plan.runs)} == expected


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"base": {"student_layers": 9}}, "run recipe kd, seed 0: --student-layers 9: the teacher has 4 layers"),
        (
            {"base": {"student_layers": 3}, "axes": {"recipe": ["att-kl"]}},
            "recipe att-kl: initialisation every-k: 3 student layers do not divide 4",
        ),
        ({"base": {"model": "nowhere"}}, "model nowhere"),
        ({"tasks": {"moods": {"kind": "classification", "data": "gone"}}}, "gone: no such file"),
        ({"tasks": {}}, "unknown task 'moods'"),
        ({"tasks": {"moods": {"kind": "classification"}}}, "tasks.moods: kind classification needs data"),
        ({"teacher": {"recipe": "kd"}}, "teacher.recipe kd needs a teacher itself"),
        (
            {"base": {"set": {"stages.0.data": "supplementary"}}, "axes": {"recipe": ["att-kl"], "seed": [0]}},
            "run recipe att-kl, seed 0: recipe att-kl trains on supplementary texts; say which beside it",
        ),
        (
            {"axes": {"recipe": [{"name": "a", "recipe": "kd", "supplementary": "more.txt"}], "seed": [0]}},
            "run recipe a, seed 0: supplementary .*more.txt, but no stage of recipe a says data: supplementary",
        ),
        ({"axes": {"recipe": [TEXTS | {"supplementary": "gone.txt"}], "seed": [0]}}, r"gone\.txt: no such file"),
        ({"axes": {"recipe": [TEXTS | {"supplementary": "mnli"}], "seed": [0]}}, "supplementary mnli: give --data"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_starts(sections, message, place):
    plan = plan_of(write_study(place, **{**ONE, **sections}), place / "out")
    with pytest.raises(UserError, match=message):
        plan.check()


def test_a_dry_run_says_how_the_stages_share_the_updates(place, tmp_path, call):
    (place / "forty.txt").write_text("some film\n" * 40, "utf-8")
    arms = ["kd", "cr-ild", {"name": "short", "recipe": "cr-ild", "set": {"stages.0.epochs": 4}}]
    arms += [TEXTS | {"supplementary": "forty.txt", "set": {"stages.0.epochs": 6, "stages.1.epochs": 2}}]
    file = write_study(place, axes={"recipe": arms, "seed": [0, 1]}, base={"total_steps": 240})
    plan = plan_of(file, tmp_path / "out")
    line = stage_split(plan)
    assert line == "updates of each stage: cr-ild 200 + 40, short 120 + 120, texts 180 + 60"
    # It is what runs do.
    job = plan.run_job(plan.runs[2])
    recipe = with_steps(Recipe.from_data(job["recipe"], "recipe"), {"task": 48}, 240, None, 1)
    assert [steps_of(stage, 48, None) for stage in recipe.stages] == [200, 40]
    status, printed, err = call(f"study {file} --output {tmp_path}/out --dry-run")
    assert status == 0, err
    assert line in printed
    assert (
        "updates of each stage" not in call(f"study {write_study(place, **ONE)} --output {tmp_path}/out --dry-run")[1]
    )
    # One recipe, divided in two ways.
    file = write_study(place, axes={"recipe": ["cr-ild"], "stages.0.epochs": [20, 4]}, base={"total_steps": 240})
    assert stage_split(plan_of(file, tmp_path / "out")) == "updates of each stage: cr-ild 200 + 40 or 120 + 120"


def test_a_job_knows_how_many_runs_ask_its_teacher_for_the_same(place):
    plan = plan_of(write_study(place, axes={"recipe": ["kd", "att-kl"], "seed": [0, 1, 2]}), place / "out")
    assert {plan.run_job(run)["cache_runs"] for run in plan.runs} == {3}


def test_supplementary_texts_count_by_what_they_say(place):
    """Not by where they are: a run is another one with other texts only."""
    axes = {"recipe": [TEXTS | {"supplementary": "more.txt"}], "seed": [0]}
    found = []
    for text, name in (("one more\n", "more.txt"), ("one more\n", "same.txt"), ("another\n", "more.txt")):
        (place / name).write_text(text * 40, "utf-8")
        axes["recipe"][0]["supplementary"] = name
        plan = plan_of(write_study(place, **{**ONE, "axes": axes}), place / "out")
        plan.check()
        found.append(plan.run_job(plan.runs[0])["hash"])
    assert found[0] == found[1] != found[2]


def test_a_folder_belongs_to_one_study(place, tmp_path):
    study = plan_of(write_study(place, **ONE), tmp_path).study
    output = tmp_path / "out"
    with StudyFolder(output).open(study, False), pytest.raises(UserError, match=r"process \d+ is working"):
        StudyFolder(output).open(study, False)
    other = study.model_copy(update={"name": "another"})
    with pytest.raises(UserError, match="holds study 'small', this is 'another'"):
        StudyFolder(output).refuse_others(other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("", "utf-8")
    with pytest.raises(UserError, match="not empty and not a study"):
        StudyFolder(tmp_path / "full").refuse_others(study)
