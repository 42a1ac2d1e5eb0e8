"""`evaluate: objectives`: every objective on dev and on train while training goes on as if nobody looked."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from layerstill.acts import distill
from layerstill.data.encode import Collator, encode
from layerstill.data.tasks import Task
from layerstill.recipe import Recipe
from layerstill.training import stages
from layerstill.training.arguments import Options
from layerstill.training.module import DistillationModule
from layerstill.training.objective_values import add_up_objectives, batches_by_length
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer, write_csv

QUIET = Options(progress=False, max_length=32, precision="fp32")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("teacher")))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_csv(folder / "train.csv", rows=26)
    write_csv(folder / "dev.csv", rows=10, seed=1)
    return Task.from_files("classification", folder)


def recipe(name: str, evaluate: str, *more: str) -> Recipe:
    return Recipe.load(name, ("stages.0.epochs=3", "stages.0.batch_size=8", f"stages.0.evaluate={evaluate}", *more))


def lines_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize(
    ("name", "ways"), [("rail-kd-l", ("end", "epoch", "objectives")), ("cr-ild", ("end", "objectives"))]
)
def test_training_does_not_notice(name, ways, teacher, task, tmp_path):
    weights = []
    for evaluate in ways:
        distill(teacher, task, recipe(name, evaluate, "stages.0.epochs=2"), 2, tmp_path / evaluate, QUIET)
        weights.append(load_file(tmp_path / evaluate / "model.safetensors"))
    for other in weights[1:]:
        assert all(torch.equal(weights[0][key], other[key]) for key in weights[0])
    kept = [{k: v for k, v in line.items() if k in ("loss", "objectives")} for line in lines_of(tmp_path / "end")]
    also = [line for line in lines_of(tmp_path / "objectives") if "loss" in line]
    assert kept == [{k: v for k, v in line.items() if k in ("loss", "objectives")} for line in also]


def test_every_epoch_has_every_objective_on_both_splits(teacher, task, tmp_path):
    distill(teacher, task, recipe("rail-kd-l", "objectives"), 2, tmp_path / "s", QUIET)
    lines = [line for line in lines_of(tmp_path / "s") if "dev_objectives" in line]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    names = {"task", "soft targets", "random layers"}
    assert all(set(line["dev_objectives"]) == set(line["train_objectives"]) == names for line in lines)
    # The labels' term of the last evaluation is the finished student's cross-entropy.
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "s").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "s")
    texts, labels = task.splits["dev"].texts, torch.tensor(task.splits["dev"].labels)
    inputs = tokenizer([t for (t,) in texts], padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        expected = F.cross_entropy(student(**inputs).logits, labels).item()
    assert lines[-1]["dev_objectives"]["task"] == pytest.approx(expected, rel=1e-4)
    assert lines[-1]["train_objectives"]["task"] != lines[-1]["dev_objectives"]["task"]


def test_random_mappings_are_those_of_the_epoch_that_ends(teacher, task, tmp_path, monkeypatch):
    asked = []
    pairs = stages.DistillationModule.terms

    def noting(module, batch, units=None):
        asked.append((module.training, [o.groups(module.clock.epoch, 0) for o in module.objectives]))
        return pairs(module, batch, units)

    monkeypatch.setattr(DistillationModule, "terms", noting)
    distill(teacher, task, recipe("rail-kd-l", "objectives", "stages.0.epochs=6"), 2, tmp_path / "s", QUIET)
    trained = [drawn for training, drawn in asked if training][2:]  # the first two try the objectives
    for epoch in range(6):
        here = trained[4 * epoch : 4 * epoch + 4]
        assert all(drawn == here[0] for drawn in here)
    evaluated = [drawn for training, drawn in asked if not training]
    assert evaluated == [trained[4 * epoch] for epoch in range(6) for _ in range(4)]  # 2 batches of 2 splits
    assert len({str(drawn) for drawn in evaluated}) > 1


def test_the_value_does_not_depend_on_batches_and_the_cache_is_not_asked(task):
    teacher = tiny_model()
    stage = Recipe.load("rail-kd-l").stages[0]
    torch.manual_seed(0)
    module = DistillationModule(tiny_model(layers=2, seed=1), teacher, stage, 0, task.head).double()
    teacher.double()
    data = encode(task.splits["dev"], tiny_tokenizer(), 32, task.head).dataset
    collate = Collator(tiny_tokenizer(), task.head)

    class NoCache:
        def read(self, content, mask):
            raise AssertionError("the cache knows training examples only")

    module.source.cache = NoCache()
    module.train()
    values = []
    for size in (3, 10):
        batches = [collate([data[i] for i in rows]) for rows in batches_by_length(data["length"], range(10), size)]
        amounts, units = add_up_objectives(module, batches, "cpu")
        values.append(amounts / units)
    torch.testing.assert_close(values[0], values[1], rtol=1e-10, atol=0)
    assert module.training
    assert isinstance(module.source.cache, NoCache)
    module.source.cache = None
    everything, _ = module.eval().terms(collate([data[i] for i in range(10)]))
    for value, term in zip(values[1], everything.values(), strict=True):
        assert value.item() == pytest.approx(term.value.item(), rel=1e-10)


def test_a_run_that_goes_on_logs_what_the_undisturbed_one_logs(teacher, task, tmp_path, monkeypatch):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 6:
                raise KeyboardInterrupt

    class Stopping(stages.DistillationTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.add_callback(Stop())

    settings = (teacher, task, recipe("rail-kd-l", "objectives"), 2)
    distill(*settings, tmp_path / "whole", QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "DistillationTrainer", Stopping)
        with pytest.raises(KeyboardInterrupt):
            distill(*settings, tmp_path / "stopped", QUIET)
    distill(*settings, tmp_path / "stopped", QUIET)
    found = [[line for line in lines_of(tmp_path / f) if "dev_objectives" in line] for f in ("whole", "stopped")]
    assert found[0] == found[1]
    assert len(found[0]) == 3
