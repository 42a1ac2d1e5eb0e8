"""A tiny teacher, a student and batches for every head, made on the CPU, and a few steps of them on any device.

Without dropout, whose draws differ from device to device.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from layerstill.heads import CausalLM, Classes, Head, MaskedLM, MultiLabel, Scores, Tokens
from layerstill.recipe import Recipe, Stage
from layerstill.students.build import build_student
from layerstill.training.clock import Clock
from layerstill.training.models import with_weights_in
from layerstill.training.module import DistillationModule
from tests.tiny import EXAMPLES, batch, no_dropout, tiny_model

STEPS = 4
RATE = 1e-4
HEADS: dict[str, Head] = {
    "classification": Classes(),
    "regression": Scores(),
    "multilabel": MultiLabel(),
    "tokens": Tokens(),
    "masked_lm": MaskedLM(),
    "causal_lm": CausalLM(),
}
RECIPES = ("tinybert", "rail-kd-l", "cr-ild")
CASES = [(head, "kd", 0) for head in HEADS]
CASES += [("classification", recipe, i) for recipe in RECIPES for i in range(len(Recipe.load(recipe).stages))]
WORDS = {
    "words": {"signal": "labels"},
    "soft": {"signal": "logits", "distance": {"kl": {"temperature": 2}}},
    "hidden": {"signal": "hidden_states", "mapping": "last", "distance": "mse"},
}
"""What language models are trained on here."""


def stage_of(head: str, recipe: str, number: int) -> Stage:
    """A recipe's stage; for language models one of their own."""
    if not HEADS[head].speaks:
        return Recipe.load(recipe).stages[number]
    view = "masked" if head == "masked_lm" else "clean"
    stage = {"epochs": 1, "learning_rate": RATE, "view": view, "objectives": WORDS}
    return Recipe.from_data({"stages": [stage]}).stages[0]


def module_of(head: str, recipe: str = "kd", number: int = 0, kind: torch.dtype = torch.float32) -> DistillationModule:
    """Teacher 4 layers, student 2; the teacher's weights in `kind`."""
    family = "llama" if head == "causal_lm" else "bert"
    quiet = no_dropout(family) | ({"classifier_dropout": 0.0} if head == "tokens" else {})
    labels = 1 if head == "regression" else 3
    teacher = tiny_model(family, sharp=2.0, labels=labels, head=HEADS[head], **quiet)
    torch.manual_seed(1)
    student = build_student(teacher, 2, Recipe.load(recipe).student, seed=0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    stage = stage_of(head, recipe, number)
    module = DistillationModule(student, with_weights_in(teacher, kind), stage, 0, HEADS[head], examples=EXAMPLES)
    module.clock = Clock(epochs=2, steps=STEPS)
    return module.train()


def batch_of(head: str, seed: int) -> dict[str, Tensor]:
    """Four texts of unequal length with labels as the head has them."""
    data = batch(lengths=[9, 3, 6, 8], seed=seed)
    rng = torch.Generator().manual_seed(seed)
    there = data["attention_mask"].bool()
    if head == "regression":
        data["labels"] = torch.randn(4, generator=rng)
    elif head == "multilabel":
        data["labels"] = torch.randint(0, 2, (4, 3), generator=rng).float()
    elif head == "tokens":
        data["counted"] = (there & (torch.rand(there.shape, generator=rng) < 0.7)).long()
        tags = torch.randint(0, 3, there.shape, generator=rng)
        data["labels"] = torch.where(data["counted"].bool(), tags, -100)
    elif HEADS[head].speaks:
        hidden = None
        if head == "masked_lm":
            where = there & (torch.rand(there.shape, generator=rng) < 0.4)
            hidden = torch.where(where, data["input_ids"], -100)
            data["input_ids"] = data["input_ids"].masked_fill(where, 4)
        data["labels"] = HEADS[head].asked(data, hidden)
    return data


def batches_of(head: str) -> list[dict[str, Tensor]]:
    """As many as there are steps."""
    return [batch_of(head, seed) for seed in range(1, 1 + STEPS)]


def moved(data: dict, device: torch.device, like: torch.dtype = torch.float32) -> dict:
    """A batch on a device, with real numbers as wide as the model's."""
    return {
        n: (v.to(device, like if v.is_floating_point() else None) if isinstance(v, Tensor) else v)
        for n, v in data.items()
    }


def values(
    module: DistillationModule,
    data: Iterable[dict],
    device: torch.device,
    kind: torch.dtype = torch.float32,
) -> list[dict[str, float]]:
    """Train a step on each batch; the value of every objective before each. 16-bit kinds multiply under autocast."""
    module.to(device)
    narrow = kind in (torch.bfloat16, torch.float16)
    like = torch.float32 if narrow else kind
    scaler = torch.amp.GradScaler(device.type, init_scale=256.0, enabled=kind is torch.float16)
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=RATE)
    found = []
    for one in data:
        with torch.autocast(device.type, kind if narrow else torch.bfloat16, enabled=narrow):
            out = module(**moved(one, device, like))
        scaler.scale(out["loss"]).backward()
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad()
        module.finish_step()
        found.append({name: term.value.item() for name, term in out["terms"].items()})
    return found
