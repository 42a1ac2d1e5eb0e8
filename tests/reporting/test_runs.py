"""Reading runs and putting them together: records of a study, plain folders, what is broken, what is paired."""

import itertools
import json
import shlex

import numpy as np
import pytest

from layerstill.data.regimes import Regime
from layerstill.errors import UserError
from layerstill.recipe import Recipe
from layerstill.reporting.arms import cells, compare_all, pareto, rankings
from layerstill.reporting.command import command_of
from layerstill.reporting.figures import Section, comparison_plots
from layerstill.reporting.other_data import out_of_domain, regimes
from layerstill.reporting.runs import read_runs, word
from layerstill.yaml_files import read_settings
from tests.reporting.example import noisy_regime, result, write_predictions, write_run


def study(folder, entries):
    folder.mkdir(exist_ok=True)
    (folder / "records.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries), "utf-8")
    return folder


def entry(key, recipe, seed, score, **coordinates):
    place = {"task": "mrpc", "recipe": recipe, "seed": seed} | coordinates
    data = result("kd", "mrpc", seed, score, recipe_hash=f"{seed:012d}")  # tuning gave each seed another learning rate
    return {"hash": key, "status": "finished", "coordinates": place, "seed": seed, "result": data, "error": None}


def test_plain_folders_are_read_wherever_they_are(tmp_path):
    write_run(tmp_path / "a" / "deep" / "kd", result("kd", "mrpc", 0, 0.7))
    write_run(tmp_path / "b", result("kd", "mrpc", 1, 0.8))
    write_run(tmp_path / "b" / "checkpoints" / "x", result("kd", "mrpc", 2, 0.9))
    runs = read_runs(tmp_path)
    assert [(r.name, r.status, r.seed) for r in runs] == [("a/deep/kd", "finished", 0), ("b", "finished", 1)]
    alone = read_runs(tmp_path / "b")
    assert [r.name for r in alone] == ["b"]
    assert alone[0].score == 0.8
    assert alone[0].metrics == {"accuracy": 0.8, "f1": pytest.approx(0.88)}


def test_a_run_on_running_text_has_no_score_to_compare(tmp_path):
    """Its first number is a loss, of which less is better."""
    write_run(tmp_path / "good", result("kd", "mrpc", 0, 0.7))
    write_run(tmp_path / "text", result("text-att-mse", "text", 0, 0.9) | {"text": {"documents": 3}})
    good, text = read_runs(tmp_path)
    assert (good.status, text.status) == ("finished", "unscored")
    assert "fine-tune the student" in text.error
    assert len(cells([good, text])) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"recipe": "kd", "tas', "cannot be read"),
        ("[]", "recipe: Field required"),
        ("[" * 100_000, "cannot be read"),
        (json.dumps(result("kd", "mrpc", 0, 0.7) | {"seed": "x"}), "seed: Input should be a valid integer"),
        (json.dumps(result("kd", "mrpc", 0, 0.7) | {"metrics": {"selected": "last"}}), "metrics holds no score"),
        (json.dumps(result("kd", "mrpc", 0, float("nan"))), "not finite"),
        (json.dumps(result("kd", "mrpc", 0, 0.7) | {"student": {"layers": 3}}), "student.parameters: Field required"),
    ],
)
def test_a_broken_result_is_named_and_not_fatal(content, reason, tmp_path):
    write_run(tmp_path / "good", result("kd", "mrpc", 0, 0.7))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "result.json").write_text(content, "utf-8")
    bad, good = read_runs(tmp_path)
    assert (bad.name, bad.status) == ("bad", "damaged")
    assert reason in bad.error
    assert good.status == "finished"
    assert len(cells([bad, good])) == 1


def test_no_runs_are_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_runs(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no runs to report .no result.json in it or below it"):
        read_runs(tmp_path)
    (tmp_path / "records.jsonl").write_text("\n", "utf-8")
    with pytest.raises(UserError, match="records.jsonl there is empty"):
        read_runs(tmp_path)


def test_a_study_is_read_from_its_records(tmp_path):
    failed = {"hash": "c", "status": "failed", "coordinates": {"recipe": "kd", "seed": 3}, "seed": 3, "error": "boom"}
    again = entry("a", "kd", 0, 0.75)
    folder = study(tmp_path, [entry("a", "kd", 0, 0.7), entry("b", "kd", 1, 0.8), failed, again])
    with (folder / "records.jsonl").open("a") as file:
        file.write('{"no": "hash"}\n{"hash": "d", "status"')
    write_run(folder / "runs" / "b", result("kd", "mrpc", 1, 0.8))
    write_run(folder / "teachers" / "t", result("finetune", "mrpc", 0, 0.9))  # is no run of the study
    runs = read_runs(folder)
    assert [(r.name, r.status, r.error) for r in runs] == [
        ("a", "finished", ""),
        ("b", "finished", ""),
        ("c", "failed", "boom"),
        ("records.jsonl line 5", "damaged", "no hash"),
        ("records.jsonl line 6", "damaged", "not JSON"),
    ]
    assert runs[0].score == 0.75
    assert (runs[0].folder, runs[1].folder) == (None, folder / "runs" / "b")
    assert command_of(runs[1]).line.startswith("layerstill distill runs/teacher --task mrpc --data DATA --recipe ")


def test_a_study_below_the_folder_is_read_from_its_records_too(tmp_path):
    folder = study(tmp_path / "mine", [entry("a", "kd", 0, 0.7), entry("b", "kd", 1, 0.8)])
    for place in ("runs/a", "tuning/t", "teachers/t"):
        write_run(folder / place, result("kd", "mrpc", 0, 0.9))
    study(tmp_path / "other", [entry("a", "kd", 0, 0.6)])
    write_run(tmp_path / "alone", result("kd", "rte", 0, 0.7))
    write_run(tmp_path / "lost" / "tuning" / "t", result("kd", "mrpc", 0, 0.9))  # of a study without its records
    runs = read_runs(tmp_path)
    assert [(r.name, r.score) for r in runs] == [("alone", 0.7), ("mine/a", 0.7), ("mine/b", 0.8), ("other/a", 0.6)]
    assert runs[1].folder == folder / "runs" / "a"
    assert runs[1].coordinates["recipe"] == "kd"


def test_a_record_cannot_lead_out_of_the_study(tmp_path):
    write_run(tmp_path / "elsewhere", result("kd", "mrpc", 0, 0.7))
    folder = study(tmp_path / "study", [entry("../../elsewhere", "kd", 0, 0.7)])
    assert read_runs(folder)[0].folder is None


def test_a_command_is_quoted_and_says_what_is_known(tmp_path):
    folder = write_run(tmp_path / "my runs" / "kd", result("kd", "mrpc", 3, 0.7, teacher="my teacher; rm -rf x"))
    command = command_of(read_runs(folder.parent)[0])
    assert command.line == (
        f"layerstill distill 'my teacher; rm -rf x' --task mrpc --data DATA --recipe '{folder}/recipe.yaml' "
        f"--student-layers 3 --seed 3 --max-length 64 --precision fp32 --output '{folder}-again'"
    )
    assert command.blanks == ("DATA",)
    assert command.notes == ["DATA stands for where the data are (--data), which no record says"]


def told(folder, data, **settings):
    place = write_run(folder, data, curves=False)
    known = json.loads((place / "run.json").read_text("utf-8"))
    (place / "run.json").write_text(json.dumps(known | settings), "utf-8")
    return shlex.split(command_of(read_runs(place)[0]).line)


def values_of(words, option):
    return [value for name, value in itertools.pairwise(words) if name == option]


def test_a_command_says_regime_supplementary_and_other_domains(tmp_path):
    given = {"few_samples": 100, "keep": {"a.b": 0.5}, "label_noise": 0.3, "noise": "pairs", "seed": 7}
    record = Regime.from_data(given).model_dump(mode="json") | {"examples": {"before": 200, "after": 100}}
    texts = {"source": "more.tsv", "examples": 3, "fingerprint": "f"}
    data = result("kd", "mrpc", 7, 0.7, regime=record, supplementary=texts)
    words = told(tmp_path / "a", data, regime=record, supplementary="f", ood={"hans": "1", "own": "2"}, compile=True)
    regime = values_of(words, "--regime")
    assert Regime.from_data(read_settings(regime, "--regime", "regime")) == Regime.from_data(given)
    assert len(regime) == len(given)
    assert values_of(words, "--supplementary") == ["more.tsv"]
    assert values_of(words, "--ood") == ["hans=FILE", "own=FILE"]
    assert "--compile" in words


def test_a_command_says_what_joined_the_examples_and_what_took_a_teachers_place(tmp_path):
    data = result("kd", "mrpc", 0, 0.8) | {
        "unlabelled": {"source": "more texts.txt"},
        "teacher_probabilities": {"columns": ["p_a", "p_b"]},
    }
    write_run(tmp_path / "a", data)
    settings = json.loads((tmp_path / "a" / "run.json").read_text("utf-8"))
    copies = {"copies": 4, "methods": ["replace"], "probability": None, "model_fingerprint": "0123"}
    joined = {"unlabelled": "0123", "augment": copies, "augment_model": "a/model"}
    (tmp_path / "a" / "run.json").write_text(json.dumps(settings | joined), "utf-8")
    (run,) = read_runs(tmp_path)
    assert " --unlabelled 'more texts.txt' --augment 4 --augment-model a/model " in command_of(run).line
    (tmp_path / "a" / "run.json").write_text(
        json.dumps(settings | joined | {"augment": copies | {"probability": 0.5}}), "utf-8"
    )
    assert command_of(run).remarks == ("only in Python: Augment with other methods or another probability",)
    ready = {"teacher": None, "teacher_probabilities": "0123", "init_from": "a/start"}
    (tmp_path / "a" / "run.json").write_text(json.dumps(settings | ready), "utf-8")
    assert command_of(run).line.startswith("layerstill distill --task mrpc ")
    assert " --init-from a/start --teacher-probabilities p_a,p_b " in command_of(run).line


def test_the_command_of_a_fine_tuning_has_its_recipe(tmp_path):
    sets = ("stages.0.epochs=7", "stages.0.optimiser.warmup=0.2", "stages.0.learning_rate=0.001")
    recipe = Recipe.load("finetune", sets)
    dumped = recipe.model_dump(mode="json", exclude={"name"})
    words = told(tmp_path / "a", result("finetune", "mrpc", 0, 0.7), recipe=dumped)
    assert sorted(s.split("=")[0] for s in values_of(words, "--set")) == sorted(s.split("=")[0] for s in sets)
    assert Recipe.load("finetune", tuple(values_of(words, "--set"))).hash == recipe.hash
    plain = Recipe.load("finetune").model_dump(mode="json", exclude={"name"})
    assert "--set" not in told(tmp_path / "b", result("finetune", "mrpc", 0, 0.7), recipe=plain)
    other = Recipe.load("kd").model_dump(mode="json", exclude={"name"})
    told(tmp_path / "c", result("finetune", "mrpc", 0, 0.7), recipe=other | {"stages": other["stages"] * 2})
    assert "--set" in command_of(read_runs(tmp_path / "c")[0]).line


def test_the_command_of_a_studys_run_names_the_kind_of_its_task(tmp_path):
    folder = study(tmp_path / "s", [entry("a", "kd", 0, 0.7)])
    write_run(folder / "runs" / "a", result("kd", "moods", 0, 0.7))
    source = {"kind": "classification", "dev": "dev.csv", "text_columns": ["one", "two"], "label_column": "mood"}
    file = {"study": {"tasks": {"moods": source | {"train_examples": 100}}}}
    (folder / "study.json").write_text(json.dumps(file), "utf-8")
    (run,) = read_runs(folder)
    task = "--task classification --data DATA --dev DEV --text-columns one,two --label-column mood --recipe"
    assert task in command_of(run).line
    assert command_of(run).remarks == (
        "the study drew a sample (train_examples), which layerstill study alone makes again",
    )
    (folder / "study.json").write_text("[1]", "utf-8")
    assert "--task moods --data DATA --recipe" in command_of(run).line


def test_coordinates_make_cells_and_tuned_hashes_do_not_part_them(tmp_path):
    entries = [entry(f"{i}", "kd", i, 0.7 + i / 100, initialisation="1,2,3", regime="") for i in range(3)]
    entries += [entry(f"b{i}", "kd", i, 0.6, initialisation="2,4,6", batch_size=8) for i in range(3)]
    found = cells(read_runs(study(tmp_path, entries)))
    assert [(c.arm, c.setting.start, len(c.runs)) for c in found] == [
        ("kd", "1,2,3", 3),
        ("kd, batch_size 8", "2,4,6", 3),
    ]
    assert found[0].summary().mean == pytest.approx(0.71)
    assert found[0].setting.regime == "full"


def test_without_coordinates_the_recipes_hash_tells_settings_apart(tmp_path):
    for seed in range(2):
        for name in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
            write_run(tmp_path / f"{name}-{seed}", result("kd", "mrpc", seed, 0.7, recipe_hash=name))
    assert [c.arm for c in cells(read_runs(tmp_path))] == ["kd, setting A", "kd, setting B"]


def test_layers_that_the_seed_drew_are_one_start(tmp_path):
    for seed, layers in enumerate(([1, 2, 3], [1, 4, 6])):
        data = result("kd", "mrpc", seed, 0.7)
        data["student"]["init"]["layers"] = layers
        write_run(tmp_path / str(seed), data)
    (cell,) = cells(read_runs(tmp_path))
    assert cell.setting.start == "layers drawn by seed"


@pytest.mark.parametrize(
    ("key", "values", "names"),
    [
        ("teacher_fingerprint", ("aaaaaaaaaaaa", "bbbbbbbbbbbb"), ["kd, teacher A", "kd, teacher B"]),
        ("data_fingerprint", ("aaaaaaaaaaaa", "bbbbbbbbbbbb"), ["kd, data A", "kd, data B"]),
        ("supplementary", (None, "bbbbbbbbbbbb"), ["kd, supplementary texts A", "kd, without supplementary texts"]),
        ("max_steps", (100, 200), ["kd, max steps 100", "kd, max steps 200"]),
        ("max_length", (64, 128), ["kd, max length 128", "kd, max length 64"]),
        ("precision", ("fp32", "bf16"), ["kd, precision bf16", "kd, precision fp32"]),
    ],
)
def test_runs_that_differ_in_a_setting_are_not_averaged(key, values, names, tmp_path):
    for seed in range(4):
        for recipe in ("finetune", "kd"):
            place = write_run(tmp_path / f"{recipe}-{seed}", result(recipe, "mrpc", seed, 0.7), curves=False)
            settings = json.loads((place / "run.json").read_text("utf-8"))
            given = values[seed // 2] if recipe == "kd" else values[0]
            (place / "run.json").write_text(json.dumps(settings | {key: given}), "utf-8")
    found = cells(read_runs(tmp_path))
    assert [(c.arm, len(c.runs)) for c in found] == [("finetune", 4), *((name, 2) for name in names)]


def regime_run(folder, seed, regime_seed):
    data = result("kd", "mrpc", seed, 0.7, regime={"few_samples": 100, "seed": regime_seed})
    place = write_run(folder / f"{seed}-{regime_seed}", data, curves=False)
    settings = json.loads((place / "run.json").read_text("utf-8"))
    own = {"data_fingerprint": f"{regime_seed}data", "teacher_fingerprint": f"{regime_seed}teacher"}
    (place / "run.json").write_text(json.dumps(settings | own), "utf-8")


def test_draws_by_the_runs_seed_are_one_cell_and_fixed_ones_one_each(tmp_path):
    for seed in range(1, 4):
        regime_run(tmp_path, seed, seed)
    (cell,) = cells(read_runs(tmp_path))
    assert (cell.setting.regime, len(cell.runs)) == ("few_samples 100, seed run", 3)
    for seed in range(1, 4):
        for fixed in (0, 9):
            regime_run(tmp_path, seed, fixed)
    assert [(c.arm, c.setting.regime, len(c.runs)) for c in cells(read_runs(tmp_path))] == [
        ("kd", "few_samples 100", 3),
        ("kd", "few_samples 100, seed 9", 3),
        ("kd", "few_samples 100, seed run", 3),
    ]


def test_a_study_with_random_layers_is_compared(tmp_path):
    entries = []
    for seed, layers in enumerate(([1, 2, 3], [1, 4, 6], [2, 4, 5])):
        for recipe in ("kd", "u-ild"):
            one = entry(f"{recipe}{seed}".replace("-", ""), recipe, seed, 0.7 + seed / 100)
            one["result"]["student"]["init"] = {"layers": layers, "from": "teacher"}
            entries.append(one)
    found = cells(read_runs(study(tmp_path, entries)))
    assert [(c.arm, c.setting.start, len(c.runs)) for c in found] == [
        ("kd", "layers drawn by seed", 3),
        ("u-ild", "layers drawn by seed", 3),
    ]
    assert [c.test.pairs for _, c in compare_all(found).comparisons] == [3]


def test_arms_of_several_studies_are_kept_apart(tmp_path):
    for name, up in (("one", 0.0), ("two", 0.1)):
        scores = [(recipe, seed) for recipe in ("kd", "u-ild") for seed in range(2)]
        study(tmp_path / name, [entry(f"{i}", r, seed, 0.7 + up) for i, (r, seed) in enumerate(scores)])
    found = cells(read_runs(tmp_path))
    assert [(c.arm, len(c.runs)) for c in found] == [
        ("kd, study one", 2),
        ("kd, study two", 2),
        ("u-ild, study one", 2),
        ("u-ild, study two", 2),
    ]
    assert [(c.a, c.b) for _, c in compare_all(found).comparisons] == [
        ("u-ild, study one", "kd, study one"),
        ("u-ild, study two", "kd, study two"),
    ]


def arm(folder, recipe, scores, task="mrpc", **more):
    for seed, score in scores.items():
        name = f"{recipe}-{task}-{seed}-{more.get('teacher', '')}"
        write_run(folder / name, result(recipe, task, seed, score, **more), curves=False)


def test_arms_are_held_against_the_controls_pooled_over_tasks(tmp_path):
    for task, up in (("mrpc", 0.0), ("rte", -0.1)):
        arm(tmp_path, "finetune", dict.fromkeys(range(4), 0.7 + up), task)
        arm(tmp_path, "kd", {s: 0.71 + up + s / 1000 for s in range(4)}, task)
        arm(tmp_path, "cr-ild", dict.fromkeys(range(1, 6), 0.75 + up), task)
    findings = compare_all(cells(read_runs(tmp_path)))
    assert [(c.a, c.b, c.test.pairs) for _, c in findings.comparisons] == [
        ("cr-ild", "finetune", 6),
        ("kd", "finetune", 8),
        ("cr-ild", "kd", 6),
    ]
    assert {c.family for _, c in findings.comparisons} == {3}
    assert findings.comparisons[0][1].difference == pytest.approx(0.05)
    only = compare_all(cells(read_runs(tmp_path)), ("cr-ild",))
    assert [(c.a, c.b) for _, c in only.comparisons] == [("finetune", "cr-ild"), ("kd", "cr-ild")]


def test_equal_differences_are_not_listed_as_excluding_0(tmp_path):
    pytest.importorskip("matplotlib")
    arm(tmp_path, "finetune", {0: 0.6, 1: 0.7})
    arm(tmp_path, "kd", {0: 0.65, 1: 0.75})
    (plot,) = comparison_plots(compare_all(cells(read_runs(tmp_path))).comparisons)
    assert "those of none exclude 0" in plot.alt
    assert plot.table.rows[0][5:7] == [None, None]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scores": {7: 0.7}}, "fewer than two common seeds on mrpc"),
        ({"task": "rte"}, "no task in common"),
        ({"metrics": {"accuracy": 0.7, "selected": "best of 3"}}, "last, and the best of several is a flattering one"),
        ({"metrics": {"f1": 0.7, "selected": "last"}}, "their scores are f1 and accuracy"),
    ],
)
def test_what_cannot_be_compared_is_said(change, reason, tmp_path):
    arm(tmp_path, "finetune", dict.fromkeys(range(3), 0.7))
    arm(tmp_path, "rail-kd-l", **{"scores": dict.fromkeys(range(3), 0.7)} | change)
    findings = compare_all(cells(read_runs(tmp_path)))
    assert not findings.comparisons
    assert reason in findings.left_out[0]


def test_many_arms_without_a_control_are_not_all_compared(tmp_path):
    for i, recipe in enumerate("abcde"):
        arm(tmp_path, recipe, dict.fromkeys(range(2), i / 10))
    findings = compare_all(cells(read_runs(tmp_path)))
    assert not findings.comparisons
    assert "none of the 5 compared settings is finetune or kd" in findings.left_out[0]
    assert len(compare_all(cells(read_runs(tmp_path)), ("c",)).comparisons) == 4
    for recipe in "de":
        for seed in range(2):
            (tmp_path / f"{recipe}-mrpc-{seed}-" / "result.json").unlink()
    assert [(c.a, c.b) for _, c in compare_all(cells(read_runs(tmp_path))).comparisons] == [
        ("b", "a"),
        ("c", "a"),
        ("c", "b"),
    ]


def test_two_runs_of_one_seed_are_not_guessed_apart(tmp_path):
    arm(tmp_path, "finetune", dict.fromkeys(range(3), 0.7))
    for teacher in ("one", "other"):
        arm(tmp_path, "kd", dict.fromkeys(range(3), 0.7), teacher=teacher)
    findings = compare_all(cells(read_runs(tmp_path)))
    assert "kd has several runs of one seed that differ in what no record says" in findings.left_out[0]


def test_predictions_are_used_only_where_they_belong_to_the_scores(tmp_path):
    for recipe, score in (("finetune", 0.7), ("kd", 0.75)):
        for seed in range(3):
            folder = write_run(tmp_path / f"{recipe}-{seed}", result(recipe, "mrpc", seed, score + seed * 0.005))
            write_predictions(folder, score + seed * 0.005, seed)
    (_, fine), *_ = compare_all(cells(read_runs(tmp_path))).comparisons
    assert fine.interval.over == "seeds and examples"
    write_predictions(tmp_path / "kd-1", 0.5, 1)  # of another model
    (_, coarse), *_ = compare_all(cells(read_runs(tmp_path))).comparisons
    assert coarse.interval.over == "seeds"
    assert coarse.interval.high - coarse.interval.low < fine.interval.high - fine.interval.low


def test_wins_need_common_blocks_and_ranks_need_enough(tmp_path):
    for recipe, score in (("finetune", 0.6), ("kd", 0.7), ("cr-ild", 0.8)):
        arm(tmp_path, recipe, {s: score + s / 100 for s in range(6)})
    (ranking,) = rankings(cells(read_runs(tmp_path)))
    assert ranking.arms == ["cr-ild", "finetune", "kd"]
    np.testing.assert_array_equal(ranking.wins[0], [0.5, 1, 1])
    assert ranking.ranks.average == (1.0, 3.0, 2.0)
    for seed in range(2, 6):
        (tmp_path / f"kd-mrpc-{seed}-" / "result.json").unlink()
    (few,) = rankings(cells(read_runs(tmp_path)))
    assert few.ranks is None


def test_pareto_by_hand():
    points = [(3.0, 0.7), (3.0, 0.8), (6.0, 0.8), (6.0, 0.9), (2.0, 0.6), (2.0, 0.6)]
    assert pareto(points) == [False, True, False, True, True, True]


def test_label_noise_is_drawn_from_clean_to_noisy(tmp_path):
    pytest.importorskip("matplotlib")
    arm(tmp_path / "clean", "kd", {0: 0.7, 1: 0.72})
    arm(tmp_path / "noisy", "kd", {0: 0.5, 1: 0.52}, regime={"label_noise": 0.3, "noise": "symmetric", "seed": 0})
    arm(tmp_path / "few", "kd", {0: 0.4}, regime={"few_samples": 1000})
    section: Section = regimes(cells(read_runs(tmp_path)))
    noise, few = section.plots
    assert [row[:3] for row in noise.table.rows] == [["kd", 0.0, pytest.approx(71)], ["kd", 0.3, pytest.approx(51)]]
    assert [row[:3] for row in few.table.rows] == [["kd", 1000.0, pytest.approx(40)], ["kd", 3668, pytest.approx(71)]]


def test_every_way_of_changing_the_data_has_a_line(tmp_path):
    pytest.importorskip("matplotlib")
    arm(tmp_path / "clean", "kd", {0: 0.7})
    ways = [
        ("plain", 0.6, {"label_noise": 0.3}),
        ("pairs", 0.5, {"label_noise": 0.3, "noise": "pairs"}),
        ("again", 0.4, {"label_noise": 0.3, "seed": 7}),
        ("few", 0.3, {"few_samples": 100}),
        ("strata", 0.2, {"few_samples": 100, "stratified": True}),
        ("both", 0.1, {"few_samples": 100, "label_noise": 0.3}),
    ]
    for name, score, given in ways:
        regime = Regime.from_data(given).model_dump(mode="json")  # as a record has it, with every default
        arm(tmp_path / name, "kd", {0: score}, regime=regime)
    noise, few = regimes(cells(read_runs(tmp_path))).plots
    assert sorted((row[0], row[1], round(row[2])) for row in noise.table.rows) == [
        ("kd", 0.0, 70),
        ("kd", 0.3, 60),
        ("kd, few_samples 100", 0.0, 30),
        ("kd, few_samples 100", 0.3, 10),
        ("kd, noise pairs", 0.0, 70),
        ("kd, noise pairs", 0.3, 50),
        ("kd, seed 7", 0.0, 70),
        ("kd, seed 7", 0.3, 40),
    ]
    assert len({(key.colour, key.dash) for key in noise.legend}) == 4
    assert sorted((row[0], row[1], round(row[2])) for row in few.table.rows) == [
        ("kd", 100.0, 30),
        ("kd", 3668, 70),
        ("kd, label_noise 0.3", 100.0, 10),
        ("kd, label_noise 0.3", 3668, 60),
        ("kd, stratified", 100.0, 20),
        ("kd, stratified", 3668, 70),
    ]


def test_wrong_labels_are_counted_and_their_shares_are_percent(tmp_path):
    for seed in range(2):
        arm(tmp_path / str(seed), "kd", {seed: 0.6}, regime=noisy_regime(0.3, seed))
    ((title, table),) = regimes(cells(read_runs(tmp_path))).tables
    assert title == "What became of wrong training labels"
    shares = ["wrong labels reproduced, %", "clean labels predicted, %"]
    assert table.header == ["task", "arm", "setting", "wrong labels", *shares]
    found = [noisy_regime(0.3, seed)["student"] for seed in range(2)]
    (row,) = table.rows
    assert row[3] == sum(f["wrong labels"] for f in found) / 2 > 40
    assert row[4] == pytest.approx(50 * sum(f["wrong labels reproduced"] for f in found))
    assert row[4] + row[5] == pytest.approx(100)


def test_out_of_domain_gaps_are_in_the_classes_of_the_set(tmp_path):
    pytest.importorskip("matplotlib")
    hans = {"metrics": {"accuracy": 0.5}, "in_domain": {"accuracy": 0.8}, "gap": {"accuracy": 0.3}, "examples": 9}
    for seed, ood in enumerate(({"hans": hans, "old": {"metrics": {"accuracy": 0.6}}}, {"hans": hans}, {})):
        arm(tmp_path, "kd", {seed: 0.7 + seed / 10}, ood=ood)
    means, hans_runs, old_runs = out_of_domain(cells(read_runs(tmp_path))).plots
    hans_row, old_row = means.table.rows
    assert hans_row == ["kd", "hans", pytest.approx(50), 0, 2, pytest.approx(30)]
    assert old_row == ["kd", "old", pytest.approx(60), 0, 1, pytest.approx(10)]  # of the run that has this set
    assert [row[2:] for row in hans_runs.table.rows] == [[pytest.approx(80), pytest.approx(50)]] * 2
    assert [row[2:] for row in old_runs.table.rows] == [[pytest.approx(70), pytest.approx(60)]]


def test_words_for_values():
    assert (
        word({"label_noise": 0.3, "keep": {"good": 0.5}, "stratified": True})
        == "label_noise 0.3, keep good 0.5, stratified"
    )
    assert word([1, 2]) == "1+2"
