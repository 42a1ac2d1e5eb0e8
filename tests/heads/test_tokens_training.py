"""Tags in training: where logits count, and what may not change a loss or a gradient."""

import datasets
import pytest
import torch
from torch.nn.functional import pad

from layerstill.heads import Tokens
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training.module import DistillationModule
from layerstill.training.teacher_cache import Contents, TeacherCache
from tests.tiny import batch, no_dropout, tiny_model

TAGS = 5
RECIPES = ["kd", "hid-seq", "att-kl", "tinybert", "finetune"]
FAMILIES = [
    "bert",
    "roberta",
    "electra",
    "albert",
    "distilbert",
    "modernbert",
    "mpnet",
    "deberta-v2",
    "llama",
    "qwen3",
    "gpt2",
]


def tagged(rows: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
    """A batch whose first pieces are drawn; the first token of each row, and what is drawn out, has no label."""
    data = batch(rows, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    counted = torch.rand(data["input_ids"].shape, generator=rng) < 0.6
    counted[:, 0] = False
    counted[:, 1] = True
    data["counted"] = (counted & data["attention_mask"].bool()).long()
    tags = torch.randint(0, TAGS, data["input_ids"].shape, generator=rng)
    data["labels"] = torch.where(data["counted"].bool(), tags, -100)
    return data


def module_for(recipe: str, stage: int = 0, family: str = "bert") -> DistillationModule:
    loaded = Recipe.load(recipe)
    # Decoders drop out a tenth before this head unless told not to.
    quiet = no_dropout(family) | {"classifier_dropout": 0.0}
    teacher = tiny_model(family, sharp=2.0, labels=TAGS, head=Tokens(), **quiet).double()
    torch.manual_seed(1)
    student = build_student(teacher, 2, loaded.student, seed=0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    module = DistillationModule(student, teacher, loaded.stages[stage], 0, Tokens()).double()
    return module.train()


def loss_and_gradients(module, data, units=None):
    module.zero_grad()
    out = module(units=units, **data)
    out["loss"].backward()
    return out["loss"].detach(), {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def assert_same(one, other):
    torch.testing.assert_close(one[0], other[0])
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


STAGES = [(name, i) for name in RECIPES for i in range(len(Recipe.load(name).stages))]


@pytest.mark.parametrize(("recipe", "stage"), STAGES)
def test_more_padding_changes_nothing(recipe, stage):
    data = tagged()
    wide = {name: pad(values, (0, 3), value=-100 if name == "labels" else 0) for name, values in data.items()}
    module = module_for(recipe, stage)
    assert_same(loss_and_gradients(module, data), loss_and_gradients(module, wide))


@pytest.mark.parametrize(("recipe", "stage"), STAGES)
def test_splitting_a_batch_changes_nothing(recipe, stage):
    data = tagged()
    module = module_for(recipe, stage)
    whole = loss_and_gradients(module, data)
    units = module.count_units(data)
    module.zero_grad()
    loss = 0.0
    for rows in (slice(0, 1), slice(1, 4)):
        out = module(units=units, **{name: values[rows] for name, values in data.items()})
        out["loss"].backward()
        loss += out["loss"].detach()
    assert_same(whole, (loss, {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}))


@pytest.mark.parametrize("family", FAMILIES)
def test_families_learn_tags(family):
    data = tagged()
    wide = {name: pad(values, (0, 3), value=-100 if name == "labels" else 0) for name, values in data.items()}
    module = module_for("kd", 0, family)
    narrow = loss_and_gradients(module, data)
    assert narrow[1], "something is trained"
    assert_same(narrow, loss_and_gradients(module, wide))


def test_a_sentence_without_counted_words_adds_nothing():
    data = tagged()
    silent = {name: values.clone() for name, values in data.items()}
    silent["counted"][0], silent["labels"][0] = 0, -100
    rest = {name: values[1:] for name, values in data.items()}
    module = module_for("kd")
    assert_same(loss_and_gradients(module, silent), loss_and_gradients(module, rest))


def test_the_task_loss_is_the_mean_over_words_and_soft_targets_are_too():
    data, module = tagged(), module_for("kd")
    module.eval()
    student, teacher = module.student, module.teacher
    inputs = {name: data[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        terms, _ = module.terms(data)
        mine, theirs = student(**inputs).logits, teacher(**inputs).logits
    at = data["counted"].bool()
    gold = torch.nn.functional.cross_entropy(mine[at], data["labels"][at])
    torch.testing.assert_close(terms["task"].value, gold)
    spec = Recipe.load("kd").stages[0].objectives["soft targets"].distance
    value, count = spec(mine[at], theirs[at], torch.ones(int(at.sum()), 1, dtype=torch.bool))
    torch.testing.assert_close(terms["soft targets"].value, value / count)


@pytest.mark.parametrize("recipe", [*RECIPES[:-1], "att-mse", "minilmv2", "rail-kd-l", "rkd", "bert-emd"])
def test_what_the_head_does_not_count_enters_no_term(recipe):
    module, data = module_for(recipe), tagged()
    uncounted = ~data["counted"].bool()
    before = loss_and_gradients(module, data)
    read = module.source.passes.recorder.run

    def spoilt(*args, **settings):
        captured = read(*args, **settings)
        for states in captured.hidden.values():
            states[uncounted] += 3.0
        for record in captured.attention.values():
            for vectors in (record.query, record.key, record.value):
                vectors += 3.0 * uncounted[:, None, :, None]
        if captured.logits is not None:
            captured.logits[uncounted] += 3.0
        return captured

    module.source.passes.recorder.run = spoilt
    assert_same(before, loss_and_gradients(module, data))


@pytest.mark.parametrize("recipe", ["rail-kd-l", "kd", "att-kl"])
def test_a_cached_teacher_is_the_live_one(recipe, tmp_path):
    module, data = module_for(recipe).float(), tagged()
    module.teacher.float()
    lengths = data["attention_mask"].sum(1).tolist()
    rows = [{"input_ids": data["input_ids"][i, :n].tolist(), "content": i + 1} for i, n in enumerate(lengths)]
    cache = TeacherCache(tmp_path, "teacher", Contents.of(module.terms_of_stage))

    def collate(some):
        longest = max(len(row["input_ids"]) for row in some)
        ids = [row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in some]
        return {"input_ids": torch.tensor(ids), "attention_mask": (torch.tensor(ids) > 0).long()}

    cache.fill(datasets.Dataset.from_list(rows), module.source.ask, collate, torch.device("cpu"))
    live = loss_and_gradients(module, data)
    module.source.cache = cache
    cached = loss_and_gradients(module, data | {"content": [1, 2, 3, 4]})
    torch.testing.assert_close(cached[0], live[0], rtol=1e-5, atol=1e-6)
