"""Distilling language models on running text, through the command line: masked and causal ones, with their heads."""

import json
import math
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from layerstill.data.text.blocks import held_out
from layerstill.data.text.hiding import Hiding
from layerstill.data.text.packing import Corpus, pack
from layerstill.recipe import Recipe
from tests.tiny import WORDS, save_tiny, save_tiny_masked_lm, tiny_tokenizer, write_csv
from tests.training.forks import ROOT, TIMES, record, tear


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    save_tiny_masked_lm(folder / "masked")
    save_tiny_masked_lm(folder / "still", **still)
    save_tiny_masked_lm(folder / "padded", vocab_size=40)
    save_tiny_masked_lm(folder / "llama", "llama")
    save_tiny(folder / "plain", labels=3)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[:9], rng.integers(3, 60))) for _ in range(120)]
    (folder / "texts.txt").write_text("\n\n".join(texts) + "\n", "utf-8")
    return folder


def words(place, output, *more: str, teacher: str = "masked", recipe: str = "text-kd") -> list[str]:
    line = f"distill {place}/{teacher} --task text --data {place}/texts.txt --student-layers 2 --max-length 16 -q"
    return [*f"{line} --recipe {recipe} --batch-size 8 --precision fp32 --output {output}".split(), *more]


def dev_of(folder) -> list[dict]:
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [entry for entry in log if "dev_objectives" in entry]


@pytest.fixture(scope="module")
def whole(place, forks):
    """A run to which nothing happens."""
    done = forks(words(place, place / "whole", "--epochs", "2"), folder=place / "whole")
    assert done["status"] == 0, done["err"]
    return record(place / "whole"), done["events"]


@pytest.mark.parametrize("recipe", ["text-kd", "text-distilbert"])
@pytest.mark.parametrize("teacher", ["masked", "llama", "padded"])
def test_a_student_with_a_head_learns_the_words(teacher, recipe, place, call, tmp_path):
    folder = tmp_path / "s"
    status, _, err = call(words(place, folder, "--epochs", "3", "--init", "random", teacher=teacher, recipe=recipe))
    assert status == 0, err
    seen = dev_of(folder)
    assert seen[-1]["dev_objectives"]["words"] < 0.95 * seen[0]["dev_objectives"]["words"]
    assert seen[-1]["dev_perplexity"] < 0.9 * seen[0]["dev_perplexity"]
    result = json.loads((folder / "result.json").read_text())
    assert result["task"] == "text"
    assert result["head"]["kind"] == ("causal_lm" if teacher == "llama" else "masked_lm")
    assert 1 < result["metrics"]["perplexity"] < result["teacher_metrics"]["perplexity"]
    auto = AutoModelForCausalLM if teacher == "llama" else AutoModelForMaskedLM
    student, report = auto.from_pretrained(folder, output_loading_info=True)
    assert student.config.num_hidden_layers == 2
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    card = (folder / "README.md").read_text()
    assert f"from transformers import {auto.__name__}, AutoTokenizer" in card
    assert "perplexity" in card
    hides = [stage.hiding is not None for stage in Recipe.load(folder / "recipe.yaml").stages]
    assert hides == [teacher != "llama"]


@pytest.mark.parametrize("distance", ["reverse_kl", "jsd"])
def test_a_decoder_learns_by_other_divergences_in_bf16(distance, place, call, tmp_path):
    sets = f"stages.0.objectives.soft targets.distance={distance}", "stages.0.objectives.words.weight=0.001"
    more = "--set", sets[0], "--set", sets[1], "--precision", "bf16"
    status, _, err = call(words(place, tmp_path / "s", "--epochs", "2", "--init", "random", *more, teacher="llama"))
    assert status == 0, err
    seen = [entry["dev_objectives"]["soft targets"] for entry in dev_of(tmp_path / "s")]
    assert 0 < seen[-1] < 0.9 * seen[0]


def test_glmd_teaches_words_without_being_told_any(place, call, tmp_path):
    folder = tmp_path / "s"
    status, _, err = call(words(place, folder, "--epochs", "3", "--init", "random", recipe="text-glmd"))
    assert status == 0, err
    seen = dev_of(folder)
    assert list(seen[0]["dev_objectives"]) == ["soft targets"]
    assert seen[-1]["dev_objectives"]["soft targets"] < 0.8 * seen[0]["dev_objectives"]["soft targets"]
    student = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not student[1]["missing_keys"]


def test_perplexity_is_that_of_the_model_in_a_plain_loop(place, call, tmp_path):
    more = "--epochs", "1", "--cache", str(tmp_path / "cache")
    status, _, err = call(words(place, tmp_path / "s", *more, teacher="llama"))
    assert status == 0, err
    blocks = pack(Corpus.at(place / "texts.txt"), tiny_tokenizer(), 16, tmp_path / "blocks").opened(tmp_path / "blocks")
    rows = [blocks[int(i)]["input_ids"] for i in held_out(len(blocks)).nonzero()[0]]
    result = json.loads((tmp_path / "s" / "result.json").read_text())
    for name, said in (("s", result["metrics"]), ("llama", result["teacher_metrics"])):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "s" if name == "s" else place / name).eval()
        losses = []
        for row in rows:
            ids = torch.tensor([row])
            with torch.no_grad():
                losses.append(F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none"))
        assert said["perplexity"] == pytest.approx(math.exp(torch.cat(losses).mean()), rel=1e-5)
    assert result["metrics"]["words"] == pytest.approx(math.log(result["metrics"]["perplexity"]), rel=1e-5)


def test_a_recipe_without_words_keeps_the_head(place, call, tmp_path):
    for teacher, auto in (("masked", AutoModelForMaskedLM), ("llama", AutoModelForCausalLM)):
        folder = tmp_path / teacher
        line = words(place, folder, "--max-steps", "1", teacher=teacher, recipe="text-att-mse")
        status, _, err = call([*line, "--set", "stages.0.learning_rate=1e-12"])
        assert status == 0, err
        weights, kept = load_file(place / teacher / "model.safetensors"), load_file(folder / "model.safetensors")
        head = [name for name in kept if not name.startswith(("bert.", "model."))]
        assert head
        for name in kept:
            torch.testing.assert_close(kept[name], weights[name])
        assert not auto.from_pretrained(folder, output_loading_info=True)[1]["missing_keys"]
        result = json.loads((folder / "result.json").read_text())
        assert result["metrics"]["perplexity"] > 1
        assert result["teacher_metrics"]["perplexity"] > 1


def test_a_run_that_is_killed_hides_the_same_words_again(place, forks, whole, tmp_path):
    expected, events = whole
    folder = tmp_path / "s"
    line = words(place, folder, "--epochs", "2")
    for moment in ({"lines": 9}, {"at": events // 2}):
        done = forks(line, folder=folder, **moment)
        assert done["status"] == -signal.SIGKILL
        tear(folder)
    assert list((folder / "checkpoints").rglob("trainer_state.json")), "the last kill was inside a pass"
    assert forks(line, folder=folder)["status"] == 0
    assert record(folder) == expected


def test_the_second_pass_hides_other_words_than_the_first(place, call, tmp_path, monkeypatch):
    told, hide = [], Hiding.__call__

    def watched(self, ids, real, blocks, epochs):
        told.append((blocks.tolist(), set(epochs.tolist())))
        return hide(self, ids, real, blocks, epochs)

    monkeypatch.setattr(Hiding, "__call__", watched)
    status, _, err = call(words(place, tmp_path / "s", "--epochs", "2"))
    assert status == 0, err
    result = json.loads((tmp_path / "s" / "result.json").read_text())["text"]
    passes = {epoch: {b for blocks, epochs in told if epochs == {epoch} for b in blocks} for epoch in (0, 1)}
    assert len(passes[1]) == result["blocks"], "held-out blocks are always those of pass 0"
    assert len(passes[0]) == result["blocks"] + result["held_out_blocks"]


@pytest.mark.slow
def test_two_processes_and_accumulation_learn_what_one_process_learns(place, tmp_path):
    sets = "--epochs 1 --set stages.0.optimiser.warmup=0 --set stages.0.optimiser.schedule=constant".split()
    found = []
    for name, count, more in (("one", 1, []), ("two", 2, []), ("parts", 1, ["--set", "stages.0.accumulation=4"])):
        output = tmp_path / name
        start = f"-m torch.distributed.run --nproc_per_node {count} --master_port 29633 -m layerstill".split()
        line = words(place, output, *sets, *more, teacher="still")
        done = subprocess.run([sys.executable, *start, *line], cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found.append((load_file(output / "model.safetensors"), json.loads((output / "result.json").read_text())))
    weights, first = found[0]
    for name in TIMES:
        del first["train"][name]
    for other, result in found[1:]:
        for name, weight in weights.items():
            torch.testing.assert_close(other[name], weight, rtol=1e-3, atol=1e-5)
        assert result["metrics"]["perplexity"] == pytest.approx(first["metrics"]["perplexity"], rel=1e-4)
        assert result["metrics"]["soft targets"] == pytest.approx(first["metrics"]["soft targets"], rel=1e-3)
        assert result["train"] | first["train"] == result["train"]


def test_a_start_brings_its_own_head_or_leaves_both_without(place, whole, call, tmp_path):
    start = "--init-from", f"{place}/whole", "--student-layers", "1", "--max-steps", "1"
    status, _, err = call(words(place, tmp_path / "a", *start))
    assert status == 0, err
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "a").config.num_hidden_layers == 1
    plain = "--init-from", f"{place}/plain", "--max-steps", "1"
    status, _, err = call(words(place, tmp_path / "b", *plain))
    assert status == 2
    assert "the model of --init-from" in err
    assert "has no language head for them (BertForSequenceClassification)" in " ".join(err.split())
    status, _, err = call(words(place, tmp_path / "b", *plain, recipe="text-hid-seq"))
    assert status == 0, err
    assert json.loads((tmp_path / "b" / "config.json").read_text())["architectures"] == ["BertModel"]


def test_a_narrower_student_keeps_a_narrower_head(place, call, tmp_path):
    more = "--max-steps 2 --set student.hidden_size=24 --set student.narrowing=svd".split()
    status, _, err = call(words(place, tmp_path / "s", *more, recipe="text-distilbert"))
    assert status == 0, err
    student, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "s", output_loading_info=True)
    assert student.config.hidden_size == 24
    assert not report["missing_keys"]


def test_a_task_starts_from_the_student(place, whole, call, tmp_path):
    write_csv(tmp_path / "train.csv", rows=30)
    data = f"--task classification --data {tmp_path}/train.csv --max-length 16 -q --epochs 1"
    status, _, err = call(f"finetune {place}/whole {data} --output {tmp_path}/t")
    assert status == 0, err
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "t").config.num_hidden_layers == 2
    assert AutoModel.from_pretrained(place / "whole").config.num_hidden_layers == 2
    cut = f"--student-layers 2 --init-from {place}/whole --recipe kd --output {tmp_path}/s"
    status, _, err = call(f"distill {place}/plain {data} {cut}")
    assert status == 0, err


@pytest.mark.parametrize("teacher", ["masked", "llama"])
def test_a_corpus_whose_held_out_block_asks_for_nothing_is_no_error(teacher, place, call, tmp_path):
    (tmp_path / "few.txt").write_text("good film\n\n" * 12, "utf-8")
    line = [
        str(w).replace(f"{place}/texts.txt", f"{tmp_path}/few.txt")
        for w in words(place, tmp_path / "s", teacher=teacher)
    ]
    status, _, err = call([*line, "--epochs", "3"])
    assert status == 0, err
    json.loads((tmp_path / "s" / "result.json").read_text(), parse_constant=lambda word: pytest.fail(word))


def test_hours_are_turned_into_steps(place, call, tmp_path):
    status, _, err = call(words(place, tmp_path / "s", "--max-hours", "0.0005"))
    assert status == 0, err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--recipe kd", "objective 'task' asks for hidden words, and its view hides none; set view: masked"),
        ("--set stages.0.view=mixup", "view mixup is not for the logits of a language model"),
        ("--set stages.0.view.masked.share=1.5", "share: Input should be less than 1, got 1.5"),
        ("--set stages.0.view.masked.unit=lines", "unit: Input should be 'tokens' or 'words', got 'lines'"),
        ("--set stages.0.objectives.words.view=clean", "set view: masked for the stage"),
    ],
)
def test_a_mistake_is_one_clear_line_and_status_2(more, message, place, call, tmp_path):
    status, _, err = call([*words(place, tmp_path / "s", "--max-steps", "1"), *more.split()])
    assert status == 2
    assert message in " ".join(err.split())
    assert not (tmp_path / "s" / "model.safetensors").exists()


def test_view_masked_is_for_running_text(place, call, tmp_path):
    write_csv(tmp_path / "train.csv", rows=30)
    data = f"--task classification --data {tmp_path}/train.csv --max-length 16 -q --student-layers 2"
    status, _, err = call(f"distill {place}/plain {data} --recipe kd --set stages.0.view=masked --output {tmp_path}/s")
    assert status == 2
    assert "view masked hides words of running text (--task text)" in " ".join(err.split())
