"""Words from outside have all that shipped words have: plan, cache, processes, resume, report and model card."""

import ast
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification

import layerstill
from layerstill import Recipe, Task, UserError, diagnose
from layerstill.heads import HEADS
from layerstill.knowledge import meeting
from layerstill.knowledge.alignment import ALIGNMENTS
from layerstill.knowledge.distances import DISTANCES, MSE
from layerstill.knowledge.mappings import MAPPINGS, Group, Mapping
from layerstill.knowledge.objective import TARGETS, Objective
from layerstill.knowledge.relate import RELATIONS
from layerstill.knowledge.signals import SIGNALS, HiddenStates
from layerstill.knowledge.views import VIEWS
from layerstill.knowledge.weights import WEIGHTS
from layerstill.reporting import plan as plan_report
from layerstill.students.build import build_student
from layerstill.training.module import DistillationModule
from layerstill.training.plan import make_plan
from tests import toy_words
from tests.tiny import WORDS, batch, save_tiny, tiny_model, tiny_tokenizer, write_csv
from tests.training.forks import ROOT, record
from tests.words_run import run

NAMES = [f"tests.toy_words:{word.__name__}" for word in toy_words.WORDS]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    # No dropout, which each process draws for itself; and in the last step a process has no row at all.
    save_tiny(folder / "teacher", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (folder / "data").mkdir()
    rows = "".join(f"{WORDS[i % 3]}{' film was' * i},{('bad', 'fine', 'good')[i % 3]}\n" for i in range(17))
    (folder / "data" / "train.csv").write_text(f"text,label\n{rows}", "utf-8")
    write_csv(folder / "data" / "dev.csv", rows=7, seed=1)
    return folder


@pytest.fixture(scope="module")
def whole(place):
    """The run in this process, with the teacher cache."""
    threads = torch.get_num_threads()
    done = run(place, place / "runs" / "whole")
    torch.set_num_threads(threads)
    return done.folder


def in_processes(place: Path, output: Path, *step: int, processes: int = 1) -> int:
    """The run in a process of its own, or several; the exit status."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    words = [*launch, "-m", "tests.words_run", str(place), str(output), *map(str, step)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return done.returncode


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def test_every_kind_trains_and_what_words_own_is_saved_beside_the_student(whole):
    owned = load_file(whole / "objectives.safetensors")
    assert set(owned) == {"added.aligner.factors", "added.mapping_state.costs"}
    assert owned["added.mapping_state.costs"].shape == (8,)
    assert (owned["added.mapping_state.costs"] > 0).all()
    assert not torch.equal(owned["added.aligner.factors"], torch.ones(48)), "a foreign alignment is trained"
    names = {name for line in lines(whole) for name in line.get("objectives", ())}
    assert names == {"task", "soft targets", "gaps", "added", "between"}
    _, report = AutoModelForSequenceClassification.from_pretrained(whole, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_the_teacher_cache_holds_what_foreign_signals_read(place, whole, caplog):
    with caplog.at_level("INFO", "layerstill"):
        run(place, place / "again", "auto")
        live = run(place, place / "live", "off").folder
    assert "teacher cache: on, hidden states of embeddings" in caplog.text
    for line, other in zip(lines(whole), lines(live), strict=True):
        if "objectives" in line:
            assert line["objectives"] == pytest.approx(other["objectives"], rel=1e-5, abs=1e-7)
    a, b = (load_file(folder / "model.safetensors") for folder in (whole, live))
    for name, weight in a.items():
        torch.testing.assert_close(weight, b[name], rtol=1e-4, atol=1e-6)


def test_foreign_maps_are_compared_in_parts_where_they_are_large(place, monkeypatch):
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    teacher = tiny_model(**still).double()
    recipe = toy_words.recipe(place)
    student = build_student(teacher, 2, recipe.student, 0)
    module = DistillationModule(student, teacher, recipe.stages[0], 0, toy_words.Smoothed()).double()
    asked, read = [], toy_words.Gaps.read
    monkeypatch.setattr(toy_words.Gaps, "read", lambda *words: asked.append(1) or read(*words))
    found = []
    for elements in (2**20, 0):
        monkeypatch.setattr(meeting, "MAP_ELEMENTS", elements)
        monkeypatch.setattr(meeting, "PART_ELEMENTS", 9 * 9)
        value = module(**batch())["terms"]["gaps"].value
        gradients = torch.autograd.grad(value, list(student.parameters()), allow_unused=True)
        found.append((value, [g for g in gradients if g is not None], len(asked)))
    (whole, gradients, reads), (parts, others, more) = found
    assert more > 8 * reads
    torch.testing.assert_close(parts, whole)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other, gradient)


@pytest.mark.slow
def test_two_processes_equal_one(place, whole):
    assert in_processes(place, place / "two", processes=2) == 0
    ours, theirs = lines(place / "two"), lines(whole)
    for a, b in zip(ours, theirs, strict=True):
        if "objectives" in b:
            assert a["objectives"] == pytest.approx(b["objectives"], rel=2e-5, abs=2e-6), b["step"]
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)
    one, two = (load_file(folder / "objectives.safetensors") for folder in (whole, place / "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(place):
    assert in_processes(place, place / "straight") == 0
    assert in_processes(place, place / "killed", 5) == -signal.SIGKILL
    (saved,) = (place / "killed").glob("checkpoints/stage-1/checkpoint-*")
    assert saved.name == "checkpoint-3"
    assert load_file(saved / "model.safetensors")["objectives.3.mapping_state.costs"].all()
    assert in_processes(place, place / "killed") == 0
    assert record(place / "killed") == record(place / "straight")


def test_the_plan_knows_foreign_words(place, capsys, monkeypatch):
    recipe = toy_words.recipe(place)
    config = AutoConfig.from_pretrained(place / "teacher")
    plan = make_plan(recipe, config, config, 2, toy_words.Smoothed(), 0, 32, examples=17, tokens=12.0)
    (stage,) = plan.stages
    assert stage.teacher_capture.attention == {2, 4}
    assert stage.teacher_capture.hidden == {0, 1, 2, 3, 4}
    assert stage.aligner_parameters == 48
    assert stage.cache_gb, stage.no_cache
    assert "tests.toy_words:Gaps" in json.dumps(plan_report.plan_data(plan))
    monkeypatch.setattr(plan_report, "Console", lambda **_: Console(width=200))
    plan_report.print_plan(plan)
    shown = capsys.readouterr().out
    assert "tests.toy_words:Gaps by tests.toy_words:LogCosh" in shown
    assert "weight tests.toy_words:Halving (start 2)" in shown
    assert "relate tests.toy_words:Dots (over tokens)" in shown


def test_model_card_report_and_diagnostics_know_foreign_words(place, whole, call):
    card = (whole / "README.md").read_text("utf-8")
    for name in NAMES:
        assert name in card.replace("\\", ""), name
    assert "The head: tests.toy_words:Smoothed (smoothing 0.2)." in card.replace("\\", "")
    page = place / "report.html"
    status, out, err = call(f"report {whole.parent} --output {page}")
    assert status == 0, err
    assert "all mine" in out
    told = page.read_text("utf-8")
    assert "only in Python: Recipe.load(FILE, words=[...])" in told
    assert "only in Python: a task with the head" in told
    found = diagnose(whole, Task.from_files(toy_words.Smoothed(), place / "data"), parts=["gap"])
    assert "gap" in json.dumps(found)


def test_saved_recipes_name_modules_and_are_read_when_the_words_are_handed_over(place, whole):
    recipe = toy_words.recipe(place)
    text = (whole / "recipe.yaml").read_text("utf-8")
    assert text == recipe.to_yaml()
    assert all(name in text for name in NAMES)
    assert Recipe.load(whole / "recipe.yaml", words=toy_words.WORDS).hash == recipe.hash
    assert Recipe.from_data(yaml.safe_load(text), words=toy_words.WORDS) == recipe
    by_name = {"far": toy_words.Gaps}
    term = {"signal": "far", "mapping": "last", "distance": "mse"}
    data = {"stages": [{"epochs": 1, "learning_rate": 1, "objectives": {"x": term}}]}
    assert Recipe.from_data(data, words=by_name).stages[0].objectives["x"].signal == toy_words.Gaps()
    objective = Objective(signal=toy_words.Added(), mapping=toy_words.Easiest(), distance=toy_words.LogCosh())
    assert objective.model_dump()["mapping"] == "tests.toy_words:Easiest"


def test_reading_a_file_imports_nothing(place, whole, tmp_path, monkeypatch):
    (tmp_path / "their_words.py").write_text("from layerstill.knowledge.distances import MSE\nclass Mine(MSE): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    term = {"signal": "logits", "distance": "their_words:Mine"}
    path = tmp_path / "theirs.yaml"
    path.write_text(yaml.safe_dump({"stages": [{"epochs": 1, "learning_rate": 1.0, "objectives": {"x": term}}]}))
    before = set(sys.modules)
    for words in ((), toy_words.WORDS):
        with pytest.raises(UserError) as told:
            Recipe.load(path, words=words)
        assert str(told.value) == (
            f"{path}: stages.0.objectives.x.distance: distance 'their_words:Mine' does not come with layerstill, and a "
            "file never imports code: import it and hand it over, Recipe.load(FILE, words=[Mine])"
        )
    assert set(sys.modules) == before
    import their_words

    assert Recipe.load(path, words=[their_words.Mine]).stages[0].objectives["x"].distance == their_words.Mine()


@pytest.mark.parametrize(
    ("objective", "words", "message"),
    [
        ({"distance": "msse"}, toy_words.WORDS, "unknown distance 'msse': did you mean 'mse'"),
        ({"distance": "log_coshh"}, toy_words.WORDS, "unknown distance 'log_coshh': did you mean 'log_cosh'"),
        ({"distance": "log_cosh"}, (), "unknown distance 'log_cosh': .*known: mse, l1"),
        ({"distance": "gaps"}, toy_words.WORDS, "unknown distance 'gaps'"),
        ({"distance": "a: b\nc" * 99}, (), r"does not come with layerstill.*words=\[CLASS\]"),
        ({"weight": "1/3", "mapping": {"easiest": {"sharp": 1}}}, toy_words.WORDS, "easiest: .*unknown key 'sharp'"),
        ({"mapping": {"easiest": {"sharpness": -1}}}, toy_words.WORDS, "easiest: sharpness: .*got -1"),
        ({}, {"mse": toy_words.LogCosh}, "distance 'mse' comes with layerstill and is handed over, too"),
        ({}, toy_words.LogCosh, "words: give a list of classes"),
        ({}, [toy_words.LogCosh()], "words: LogCosh.* is not the class of a word"),
        ({}, [toy_words.Gaps, type("Gaps", (toy_words.Gaps,), {})], "words: two are called 'gaps'"),
    ],
)
def test_mistakes_with_foreign_words_are_one_line(objective, words, message):
    term = {"signal": "hidden_states", "mapping": "last", "distance": "mse"} | objective
    with pytest.raises(UserError, match=message) as told:
        Recipe.from_data({"stages": [{"epochs": 1, "learning_rate": 1, "objectives": {"x": term}}]}, words=words)
    assert "\n" not in str(told.value)


class Wrong(Mapping):
    """A mapping whose groups are given to it."""

    given: list

    def groups(self, S, T, rng):
        return [Group(*group) for group in self.given]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "its mapping leaves no pair for 2 layers"),
        ([((3,), (1,))], "its mapping names student layer 3, but the student has 2 layers"),
        ([((1,), (5,))], "its mapping names teacher layer 5, but the teacher has 4 layers"),
        ([((1, 2), (1,))], "its mapping gives Group"),
        ([((1,), (), 1.0, "concatenated")], "its mapping gives Group"),
        ([((1,), (1, 2), 1.0, "concatenated")], "the student is 48 wide and the teacher 96"),
        ([((1,), (), 1.0, "fused")], "its mapping gives Group"),
    ],
)
def test_a_foreign_mapping_that_names_what_is_not_there_is_told_so(given, message):
    objective = Objective(signal=HiddenStates(), mapping=Wrong(given=given), distance=MSE())
    stage = layerstill.Stage(epochs=1.0, learning_rate=1.0, objectives={"x": objective})
    teacher = tiny_model()
    with pytest.raises(UserError, match=message):
        DistillationModule(
            build_student(teacher, 2, Recipe.load("kd").student, 0), teacher, stage, 0, HEADS["classification"]()
        )


def test_an_evaluation_or_a_trial_teaches_a_mapping_nothing_even_one_that_learns_as_it_weighs():
    class Hasty(toy_words.Easiest):
        """Learns at once, without waiting for the step to be finished."""

        def weigh(self, costs, state):
            state.costs += costs
            return super().weigh(costs, state)

    objective = Objective(signal=HiddenStates(), mapping=Hasty(), distance=MSE())
    stage = layerstill.Stage(epochs=1.0, learning_rate=1.0, objectives={"x": objective})
    teacher = tiny_model()
    student = build_student(teacher, 2, Recipe.load("kd").student, 0)
    module = DistillationModule(student, teacher, stage, 0, HEADS["classification"]())
    module.freeze_unreached(batch())
    module.eval().terms(batch())
    module.finish_step()
    assert not module.owned()["x.mapping_state.costs"].any()
    module.train()(**batch())
    assert module.owned()["x.mapping_state.costs"].all()


def test_heads_with_other_settings_are_other_runs(place, whole):
    task = Task.from_files(toy_words.Smoothed(smoothing=0.3), place / "data")
    with pytest.raises(UserError, match="smoothing"):
        layerstill.distill(
            str(place / "teacher"),
            task,
            toy_words.recipe(place),
            2,
            whole,
            layerstill.Options(max_length=32, precision="fp32", progress=False),
        )


WORD_TABLES = (SIGNALS, MAPPINGS, ALIGNMENTS, DISTANCES, RELATIONS, WEIGHTS, VIEWS, TARGETS, HEADS)
CONCRETE = {word.__name__: word.__module__ for table in WORD_TABLES for word in table.values()}


def asked(tree: ast.AST) -> set[str]:
    """Names of classes that code compares a type with: isinstance, issubclass, `type(x) is C`, and `case C()`."""
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 2:
            found += [node.args[1]] if node.func.id in {"isinstance", "issubclass"} else []
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(isinstance(s, ast.Call) and isinstance(s.func, ast.Name) and s.func.id == "type" for s in sides):
                found += sides
        elif isinstance(node, ast.MatchClass):
            found.append(node.cls)
    parts = [part for node in found for part in ast.walk(node)]
    return {p.id if isinstance(p, ast.Name) else p.attr for p in parts if isinstance(p, ast.Name | ast.Attribute)}


def test_nobody_asks_which_concrete_word_he_has():
    source = Path(layerstill.__file__).parent
    assert asked(ast.parse("isinstance(x, (a.KL, MSE)) or type(x) is Last\nmatch x:\n case Random(): pass")) >= {
        "KL", "MSE", "Last", "Random",
    }  # fmt: skip
    for path in sorted(source.rglob("*.py")):
        module = ".".join(["layerstill", *path.relative_to(source).with_suffix("").parts])
        tree = ast.parse(path.read_text("utf-8"))
        wrong = {name for name in asked(tree) & CONCRETE.keys() if CONCRETE[name] != module}
        assert not wrong, f"{path.name} asks for {', '.join(wrong)}"
        guesses = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == "hasattr"]
        assert not guesses, f"{path.name} line {guesses[0].lineno}: hasattr"


def blocks(path: Path) -> list[str]:
    """The Python examples of a document."""
    return [part.split("```")[0] for part in path.read_text("utf-8").split("```python\n")[1:]]


def test_the_words_in_the_documentation_train(place, tmp_path, monkeypatch):
    text = "\n".join(blocks(ROOT / "docs" / "words.md"))
    (tmp_path / "documented_words.py").write_text(text, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import documented_words as mine

    term = {"signal": "hidden_states", "mapping": {"easiest": {"sharpness": 2}}, "distance": "mse"}
    stage = {
        "epochs": 1,
        "learning_rate": 1e-3,
        "batch_size": 8,
        "objectives": {"x": term, "task": {"signal": "labels"}},
    }
    recipe = Recipe.from_data({"stages": [stage]}, words=[mine.Easiest])
    task = Task.from_files(mine.Focal(), place / "data")
    options = layerstill.Options(max_length=32, precision="fp32", progress=False)
    done = layerstill.distill(str(place / "teacher"), task, recipe, 2, tmp_path / "student", options)
    assert load_file(done.folder / "objectives.safetensors")["x.mapping_state.mean"].all()
    logits, labels = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]]), torch.tensor([0, -100])
    focal, plain = (mine.Focal(gamma=gamma).errors(logits, labels) for gamma in (2.0, 0.0))
    assert focal[1] == plain[1] == 0
    assert 0 < focal[0] < plain[0]


def test_the_example_of_own_words(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    import own_words

    teacher = tiny_model(labels=10)
    teacher.config.id2label = dict(enumerate(Task.demo().labels))
    teacher.config.label2id = {label: i for i, label in teacher.config.id2label.items()}
    teacher.save_pretrained(tmp_path / "teacher")
    tiny_tokenizer().save_pretrained(tmp_path / "teacher")
    settings = ["--student-layers", "2", "--max-steps", "3", "--output", str(tmp_path / "student")]
    result = own_words.main([str(tmp_path / "teacher"), *settings])
    assert result.data["recipe"] == "own words"
    assert result.data["recipe_hash"] == own_words.in_python().hash
    logged = [line["objectives"] for line in lines(result.folder) if "objectives" in line]
    assert all(set(values) == {"task", "added"} for values in logged)
    pairs = [str(group) for group in own_words.Neighbours().groups(2, 4, None)]
    assert pairs == [f"layer {s} <- layer {t}" for s, t in ((1, 1), (1, 2), (1, 3), (2, 3), (2, 4))]
    s, t = torch.tensor([[1.0, 0.0], [9.0, 9.0]]), torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    total, count = own_words.Relative()(s, t, torch.tensor([[True], [False]]))
    assert (total.item(), count.item()) == (5 / 4, 1)
