"""Every setting of `optimiser` reaches the weights: a run against AdamW and its schedule written out by hand.

All examples make one batch, so that the order of examples says nothing, and without dropout nothing is drawn.
"""

import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from layerstill import Options, Recipe, Task, finetune
from tests.tiny import no_dropout, save_tiny, write_csv

STEPS = 8
RATE = 4e-3
# Far from every default, of layerstill and of transformers, so that none of them is missed.
MARKED = {"weight_decay": 2.0, "beta1": 0.5, "beta2": 0.7, "epsilon": 1e-3, "warmup": 0.375, "clip": 0.02}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model"), sharp=2.0, **no_dropout("bert"))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "dev"):
        write_csv(folder / f"{split}.csv", rows=9)
    return Task.from_files("classification", folder)


def run(model, task, folder, **optimiser) -> dict[str, torch.Tensor]:
    """The weights after a run of `STEPS` steps of all examples with these settings."""
    stage = {"epochs": STEPS, "learning_rate": RATE, "batch_size": 9, "objectives": {"task": {"signal": "labels"}}}
    recipe = Recipe.from_data({"stages": [stage | {"optimiser": optimiser}]})
    finetune(str(model), task, folder, recipe, Options(progress=False, max_length=32, precision="fp32"))
    return load_file(folder / "model.safetensors")


def rate_at(step: int, warmup: float, schedule: str) -> float:
    """The learning rate of a step, counted from 0."""
    rising = math.ceil(STEPS * warmup)
    if step < rising:
        return RATE * step / rising
    done = (step - rising) / (STEPS - rising)
    return RATE * {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}[schedule]


def by_hand(
    model, task, *, weight_decay, beta1, beta2, epsilon, warmup, clip, schedule="linear"
) -> dict[str, torch.Tensor]:
    """AdamW (Loshchilov and Hutter 2019, with bias correction) in a loop that uses nothing of layerstill."""
    student = AutoModelForSequenceClassification.from_pretrained(model).train()
    train = task.splits["train"]
    batch = AutoTokenizer.from_pretrained(model)([text for text, *_ in train.texts], padding=True, return_tensors="pt")
    labels = torch.tensor(train.labels)
    first = {n: torch.zeros_like(p) for n, p in student.named_parameters()}
    second = {n: torch.zeros_like(p) for n, p in student.named_parameters()}
    for step in range(STEPS):
        student.zero_grad()
        torch.nn.functional.cross_entropy(student(**batch).logits, labels).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(student.parameters(), clip)
        rate = rate_at(step, warmup, schedule)
        for name, parameter in student.named_parameters():
            with torch.no_grad():
                if "bias" not in name and "LayerNorm" not in name:
                    parameter.mul_(1 - rate * weight_decay)
                first[name].lerp_(parameter.grad, 1 - beta1)
                second[name].lerp_(parameter.grad**2, 1 - beta2)
                mean = first[name] / (1 - beta1 ** (step + 1))
                root = (second[name] / (1 - beta2 ** (step + 1))).sqrt()
                parameter.sub_(rate * mean / (root + epsilon))
    return {name: weight.detach() for name, weight in student.state_dict().items()}


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_every_setting_is_what_a_hand_written_loop_does(schedule, model, task, tmp_path):
    settings = MARKED | {"schedule": schedule}
    found, expected = run(model, task, tmp_path / "s", **settings), by_hand(model, task, **settings)
    assert distance(found, expected) < 2e-6
    assert distance(expected, load_file(model / "model.safetensors")) > 2e-3, "nothing was learnt"


@pytest.mark.parametrize(
    ("setting", "other"),
    [
        ("weight_decay", 0.0),
        ("beta1", 0.9),
        ("beta2", 0.999),
        ("epsilon", 1e-8),
        ("warmup", 0.0),
        ("warmup", 0.1),
        ("clip", 0.0),
        ("clip", 1.0),
        ("schedule", "constant"),
        ("schedule", "cosine"),
    ],
)
def test_a_setting_that_were_ignored_would_be_seen(setting, other, model, task):
    """The hand-written loop moves by far more than the tolerance above when one setting falls back to a default."""
    marked = by_hand(model, task, **MARKED)
    assert distance(marked, by_hand(model, task, **MARKED | {setting: other})) > 5e-5


def test_without_settings_those_of_the_documentation_hold(model, task, tmp_path):
    defaults = {"weight_decay": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "warmup": 0.1, "clip": 1.0}
    found, expected = run(model, task, tmp_path / "s"), by_hand(model, task, **defaults)
    # With so small an epsilon a gradient of rounding errors moves its weight as far as any other; compare the rest.
    off = torch.cat([(found[n] - expected[n]).abs().flatten() for n in expected])
    assert off.quantile(0.9) < 2e-6
    assert off.mean() < 2e-5
