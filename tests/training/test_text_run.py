"""Distillation on running text, through the command line: what it makes, how it resumes, what it refuses."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

from layerstill.names import shipped_recipes
from layerstill.recipe import Recipe
from tests.other_tokenizer import save_other
from tests.tiny import WORDS, save_tiny, save_tiny_masked_lm, write_csv
from tests.training.forks import ROOT, TIMES, record, tear

WORDS_TOO = {"text-kd", "text-distilbert", "text-glmd"}
"""Recipes that need a language model: test_language_run.py."""
TEXT_RECIPES = [name for name in shipped_recipes() if name.startswith("text-") and name not in WORDS_TOO]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    save_tiny(folder / "teacher", labels=3)
    save_tiny_masked_lm(folder / "masked")
    save_tiny(folder / "llama", "llama")
    save_other(folder / "other")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(3, 60))) for _ in range(120)]
    (folder / "texts.txt").write_text("\n\n".join(texts) + "\n", "utf-8")
    return folder


def words(place, output, *more: str, teacher: str = "teacher") -> list[str]:
    line = f"distill {place}/{teacher} --task text --data {place}/texts.txt --student-layers 2 --max-length 16 -q"
    return [*f"{line} --batch-size 8 --precision fp32 --output {output}".split(), *more]


@pytest.fixture(scope="module")
def whole(place, forks):
    """A run to which nothing happens."""
    done = forks(words(place, place / "whole", "--epochs", "2"), folder=place / "whole")
    assert done["status"] == 0, done["err"]
    return record(place / "whole"), done["events"]


def test_the_student_is_a_plain_model_that_has_come_nearer_to_its_teacher(whole, place):
    result = whole[0]["result.json"]
    assert result["task"] == "text"
    assert result["text"]["documents"] == 120
    assert result["text"]["blocks"] + result["text"]["held_out_blocks"] > 250
    log = [json.loads(line) for line in (place / "whole" / "metrics.jsonl").read_text().splitlines()]
    values = [entry["dev_objectives"]["attention"] for entry in log if "dev_objectives" in entry]
    assert len(values) >= 15
    assert values[-1] < 0.6 * values[0]
    assert result["metrics"]["loss"] == result["metrics"]["attention"]
    assert result["metrics"]["attention"] == pytest.approx(values[-1], rel=0.2)
    assert not (place / "whole" / "corpus").exists()
    student = AutoModel.from_pretrained(place / "whole")
    assert student.config.num_hidden_layers == 2
    assert json.loads((place / "whole" / "config.json").read_text())["architectures"] == ["BertModel"]
    assert "from transformers import AutoModel, AutoTokenizer" in (place / "whole" / "README.md").read_text()


def test_the_student_starts_as_layers_of_the_teacher(place, call, tmp_path):
    status, _, err = call([*words(place, tmp_path / "s", "--max-steps", "1"), "--set", "stages.0.learning_rate=1e-12"])
    assert status == 0, err
    teacher, student = load_file(place / "teacher" / "model.safetensors"), load_file(tmp_path / "s/model.safetensors")
    assert student.keys() <= {name.removeprefix("bert.") for name in teacher}
    for name, weight in student.items():
        torch.testing.assert_close(weight, teacher[f"bert.{name}"])


def test_a_run_that_is_killed_inside_an_epoch_and_while_packing_ends_as_if_nothing_had_happened(
    place, forks, whole, tmp_path
):
    expected, events = whole
    folder = tmp_path / "s"
    line = words(place, folder, "--epochs", "2")
    for moment in (
        {"at": "corpus/packed.json"},
        {"after_path": "corpus/packed.json"},
        {"lines": 9},
        {"at": events // 3},
    ):
        done = forks(line, folder=folder, **moment)
        assert done["status"] == -signal.SIGKILL
        tear(folder)
    assert list((folder / "checkpoints").rglob("trainer_state.json")), "the last kill was inside an epoch"
    assert forks(line, folder=folder)["status"] == 0
    assert record(folder) == expected


@pytest.mark.parametrize("moment", [{"at": "stage-1-done/spent.json"}, {"after_path": "stage-1-done/spent.json"}])
def test_a_kill_at_the_end_adds_no_step(moment, place, forks, whole, tmp_path):
    line = words(place, tmp_path / "s", "--epochs", "2")
    assert forks(line, folder=tmp_path / "s", **moment)["status"] == -signal.SIGKILL
    assert forks(line)["status"] == 0
    assert record(tmp_path / "s") == whole[0]


@pytest.mark.parametrize("recipe", TEXT_RECIPES)
def test_every_recipe_of_running_text_comes_nearer_to_its_teacher(recipe, place, call, tmp_path):
    heads = ("--set", "stages.0.objectives.%s.signal.relation.heads=12")
    names = list(Recipe.load(recipe).stages[0].objectives)
    more = [w for name in names if recipe == "text-minilmv2" for w in (heads[0], heads[1] % name)]
    line = [*words(place, tmp_path / "s", "--epochs", "2", "--recipe", recipe), *more]
    status, _, err = call(line)
    assert status == 0, err
    log = [json.loads(line) for line in (tmp_path / "s" / "metrics.jsonl").read_text().splitlines()]
    values = [sum(entry["dev_objectives"].values()) for entry in log if "dev_objectives" in entry]
    assert values[-1] < 0.9 * values[0]


@pytest.mark.parametrize("teacher", ["masked", "llama"])
def test_any_teacher_has_a_body(teacher, place, call, tmp_path):
    status, _, err = call([*words(place, tmp_path / "s", "--max-steps", "2", teacher=teacher), "--init", "random"])
    assert status == 0, err
    assert AutoModel.from_pretrained(tmp_path / "s").config.num_hidden_layers == 2


def test_the_student_is_narrower_if_asked_for(place, call, tmp_path):
    more = "--max-steps 2 --recipe text-hid-seq --set student.hidden_size=24 --set student.narrowing=svd".split()
    status, _, err = call(words(place, tmp_path / "s", *more))
    assert status == 0, err
    assert AutoModel.from_pretrained(tmp_path / "s").config.hidden_size == 24
    assert load_file(tmp_path / "s" / "objectives.safetensors")


def test_a_task_starts_from_the_student(place, whole, call, tmp_path):
    write_csv(tmp_path / "train.csv", rows=30)
    data = f"--task classification --data {tmp_path}/train.csv --max-length 16 -q --epochs 1"
    status, _, err = call(f"finetune {place}/whole {data} --output {tmp_path}/t")
    assert status == 0, err
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "t").config.num_hidden_layers == 2
    cut = f"--student-layers 2 --init-from {place}/whole --recipe kd --output {tmp_path}/s"
    write_csv(tmp_path / "train.csv", rows=30)
    status, _, err = call(f"distill {place}/teacher {data} {cut}")
    assert status == 0, err


def test_length_is_said_in_tokens_or_hours_too(place, call, tmp_path):
    status, _, err = call(words(place, tmp_path / "a", "--max-tokens", "2000"))
    assert status == 0, err
    train = json.loads((tmp_path / "a" / "result.json").read_text())["train"]
    assert 0.6 * 2000 < train["examples"] * 12 < 2 * 2000
    status, _, err = call(words(place, tmp_path / "b", "--max-hours", "0.0005"))
    assert status == 0, err
    kept = json.loads((tmp_path / "b" / "run.json").read_text())["steps"]
    assert [json.loads((tmp_path / "b" / "result.json").read_text())["train"]["steps"]] == kept


def test_runs_share_the_blocks_of_a_corpus(place, call, tmp_path):
    for name, seed in (("a", "0"), ("b", "1")):
        more = "--max-steps", "1", "--cache", str(tmp_path / "shared"), "--seed", seed
        status, _, err = call(words(place, tmp_path / name, *more))
        assert status == 0, err
    (folder,) = (tmp_path / "shared").iterdir()
    assert (folder / "packed.json").is_file()


def test_two_processes_learn_what_one_learns(place, tmp_path):
    save_tiny(tmp_path / "t", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    sets = "--epochs 1 --set stages.0.optimiser.warmup=0 --set stages.0.optimiser.schedule=constant".split()
    found = []
    for count in (1, 2):
        output = tmp_path / f"by-{count}"
        line = [str(w).replace(f"{place}/teacher", f"{tmp_path}/t") for w in words(place, output, *sets)]
        start = [
            "-m",
            "torch.distributed.run",
            "--nproc_per_node",
            str(count),
            "--master_port",
            "29631",
            "-m",
            "layerstill",
        ]
        done = subprocess.run([sys.executable, *start, *line], cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found.append((load_file(output / "model.safetensors"), json.loads((output / "result.json").read_text())))
    (one, first), (two, second) = found
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-5)
    for result in (first, second):
        for name in TIMES:
            del result["train"][name]
    assert second["train"] == first["train"]
    assert second["metrics"]["loss"] == pytest.approx(first["metrics"]["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--recipe minilmv2", "recipe minilmv2, stage 2: objective 'soft targets' is about logits over words"),
        (
            "--recipe text-kd",
            "objective 'words' is about the words of the text, and the teacher has no language head for them "
            "(BertForSequenceClassification); use one saved as ...ForMaskedLM or ...ForCausalLM, or a recipe that",
        ),
        ("--label-column x", "--label-column: --task text has no labels"),
        ("--dev x.csv", "--dev: --task text has no use for it"),
        ("--unlabelled x.txt", "--unlabelled: it is about labelled examples"),
        ("--few-samples 3", "--few-samples: it is about labelled examples"),
        ("--max-tokens 9 --max-hours 1", "--max-tokens 9 and --max-hours 1: give one of them"),
        ("--max-tokens -1", "--max-tokens -1: it must be above 0"),
        ("--learning-rate auto", "--learning-rate auto: it needs scores, and running text has none"),
        ("--max-length 2000", "--max-length 2000: the model allows 64 tokens; use 64 or less"),
        ("--student-layers 9", "--student-layers 9: the teacher has 4 layers"),
        ("--data nowhere", "--data nowhere: no such file or folder"),
        ("--text-columns a", "is plain text and has no columns"),
        ("--set stages.0.select=best", "select: best needs a score"),
        ("--init-from {place}/other", "its tokens are not the teacher's, and on running text everything is compared"),
    ],
)
def test_a_mistake_is_one_clear_line_and_status_2(more, message, place, call, tmp_path):
    line = [*words(place, tmp_path / "s", "--max-steps", "1"), *more.format(place=place).split()]
    status, _, err = call(line)
    assert status == 2
    assert message in " ".join(err.split())
    assert not (tmp_path / "s" / "model.safetensors").exists()


def test_a_corpus_that_changes_makes_another_run(place, call, tmp_path):
    text = (place / "texts.txt").read_text()
    (tmp_path / "texts.txt").write_text(text)
    line = [w.replace(str(place / "texts.txt"), str(tmp_path / "texts.txt")) for w in words(place, tmp_path / "s")]
    assert call([*line, "--max-steps", "1"])[0] == 0
    (tmp_path / "texts.txt").write_text(text + "\n\nthe film was not very good\n")
    status, _, err = call([*line, "--max-steps", "1"])
    assert status == 2
    assert "data_fingerprint" in err


@pytest.mark.parametrize("verb", ["finetune", "evaluate"])
def test_other_verbs_say_what_text_is_for(verb, place, call, tmp_path):
    output = f"--output {tmp_path}/s" if verb == "finetune" else ""
    status, _, err = call(f"{verb} {place}/teacher --task text --data {place}/texts.txt {output}")
    assert status == 2
    assert "--task text: running text has no labels" in err
    status, _, err = call(
        f"distill {place}/teacher --task classification --data x --output {tmp_path}/s --max-tokens 9"
    )
    assert status == 2
    assert "--max-tokens: it is for --task text" in err


@pytest.mark.parametrize("paragraphs", [2, 5])
def test_a_first_try_on_a_few_paragraphs_ends_well(paragraphs, place, call, tmp_path):
    text = "\n\n".join(" ".join(WORDS[i : i + 12]) for i in range(paragraphs))
    (tmp_path / "small.txt").write_text(text + "\n", "utf-8")
    line = f"distill {place}/teacher --task text --data {tmp_path}/small.txt --student-layers 2 --max-length 16 -q"
    for name, more in (("plain", ""), ("hours", "--max-hours 0.0001")):
        status, _, err = call(f"{line} {more} --output {tmp_path}/{name}")
        assert status == 0, err
        result = json.loads((tmp_path / name / "result.json").read_text("utf-8"))
        assert result["text"]["held_out_blocks"] >= 1
        assert np.isfinite(result["metrics"]["loss"])


def test_teachers_with_other_tokens_share_a_folder_of_corpora(place, call, tmp_path):
    for name in ("teacher", "other"):
        line = f"distill {place}/{name} --task text --data {place}/texts.txt --student-layers 2 --max-length 16 -q"
        status, _, err = call(f"{line} --max-steps 1 --cache {tmp_path}/kept --output {tmp_path}/{name}")
        assert status == 0, err
    assert len(list((tmp_path / "kept").glob("corpus-*"))) == 2
