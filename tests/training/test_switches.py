"""Switches of torch and transformers that users know: each works on a distillation module, or is refused in a sentence."""

import os
from unittest import mock

import datasets
import pytest
import torch
from transformers import TrainingArguments

from layerstill import DistillationTrainer
from layerstill.errors import UserError
from layerstill.heads import Classes
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training.module import DistillationModule
from tests.tiny import EXAMPLES, FAMILIES, batch, no_dropout, task_recipes, tiny_model

STAGES = [(name, i) for name in task_recipes() for i in range(len(Recipe.load(name).stages))]
NO_CHECKPOINTS = ["albert", "mpnet"]
OWN = {"use_reentrant": False}


def module_of(name: str, stage: int = 0, family: str = "bert", teacher_in=torch.float32) -> DistillationModule:
    recipe = Recipe.load(name)
    teacher = tiny_model(family, sharp=2.0, **no_dropout(family))
    torch.manual_seed(1)
    student = build_student(teacher, 2, recipe.student, seed=0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    torch.manual_seed(2)
    teacher = teacher.to(teacher_in)
    module = DistillationModule(student, teacher, recipe.stages[stage], 0, Classes(), examples=EXAMPLES).train()
    module.clock.epoch, module.clock.epochs = 1, 2
    return module


def terms_and_gradient(module: DistillationModule) -> tuple[dict[str, float], torch.Tensor]:
    out = module(**batch())
    out["loss"].backward()
    gradient = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    return {name: term.value.item() for name, term in out["terms"].items()}, gradient


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in NO_CHECKPOINTS])
@pytest.mark.parametrize("name", ["tinybert", "cr-ild"])
def test_layers_computed_again_in_the_backward_pass_learn_the_same(name, family):
    terms, gradient = terms_and_gradient(module_of(name, family=family))
    module = module_of(name, family=family)
    module.activation_checkpointing_enable(activation_checkpointing_kwargs=OWN)
    assert any(getattr(m, "gradient_checkpointing", False) for m in module.student.modules())
    again = terms_and_gradient(module)
    assert again[0] == pytest.approx(terms, rel=1e-6)
    assert (again[1] - gradient).norm() <= 1e-6 * gradient.norm()


@pytest.mark.parametrize("family", NO_CHECKPOINTS)
def test_families_that_transformers_cannot_do_it_for_are_named(family):
    with pytest.raises(UserError, match=f"no activation checkpointing for model family '{family}'; leave it out"):
        module_of("kd", family=family).activation_checkpointing_enable()


@pytest.mark.parametrize("name", ["tinybert", "att-kl", "cr-ild"])
def test_reentrant_checkpoints_are_refused_before_they_teach_nothing(name):
    module = module_of(name)
    module.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": True})
    for run in (lambda: module(**batch()), lambda: module.freeze_unreached(batch()), lambda: module.terms(batch())):
        with pytest.raises(UserError, match="use_reentrant=True records .* without gradients"):
            run()
    with torch.no_grad():
        module.terms(batch())  # a look at the values is harmless
    module.activation_checkpointing_enable(activation_checkpointing_kwargs=OWN)
    module(**batch())


@pytest.mark.parametrize("training", [True, False])
def test_compiling_a_whole_module_is_refused_with_the_way_out(training):
    module = module_of("kd").train(training)
    with pytest.raises(UserError, match="torch.compile of a whole DistillationModule: .*compile_layers=True"):
        torch.compile(module, backend="eager")(**batch())
    torch.compiler.reset()
    module(**batch())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_a_teacher_in_another_precision_teaches_the_same(name, stage, dtype):
    terms, gradient = terms_and_gradient(module_of(name, stage))
    others, other = terms_and_gradient(module_of(name, stage, teacher_in=dtype))
    tolerance = 1e-4 if dtype == torch.float64 else 0.05
    assert others == pytest.approx(terms, rel=tolerance, abs=1e-5)
    assert (other - gradient).norm() <= tolerance * gradient.norm()


def trained(folder, name: str, **switches) -> dict[str, torch.Tensor]:
    lengths = [9, 4, 6, 9, 3, 5, 8, 7]
    rows = batch(8, lengths=lengths)
    data = [
        {"input_ids": rows["input_ids"][i, :n].tolist(), "labels": int(rows["labels"][i])}
        for i, n in enumerate(lengths)
    ]

    def collate(some: list) -> dict[str, torch.Tensor]:
        ids = [torch.tensor(row["input_ids"]) for row in some]
        both = (torch.nn.utils.rnn.pad_sequence(x, batch_first=True) for x in (ids, [i * 0 + 1 for i in ids]))
        labels = torch.tensor([row["labels"] for row in some])
        return dict(zip(("input_ids", "attention_mask"), both, strict=True)) | {"labels": labels}

    with mock.patch.dict(os.environ):  # where arguments leave what they say of compiling
        args = TrainingArguments(
            output_dir=str(folder), label_names=["labels"], remove_unused_columns=False, save_strategy="no",
            report_to=[], disable_tqdm=True, use_cpu=True, num_train_epochs=2, learning_rate=1e-3,
            **{"per_device_train_batch_size": 8} | switches,
        )  # fmt: skip
        module = module_of(name)
        DistillationTrainer(module, args, train_dataset=datasets.Dataset.from_list(data), data_collator=collate).train()
    return {n: p.detach().clone() for n, p in module.named_parameters()}


BF16 = {"bf16": True}, 5e-3  # two steps of AdamW, which are as long for a gradient that is mostly rounding


@pytest.mark.parametrize(
    ("name", "switches", "apart"),
    [
        ("tinybert", {"activation_checkpointing": True}, 1e-6),
        ("cr-ild", {"activation_checkpointing": True}, 1e-6),
        ("tinybert", {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}, 1e-4),
        ("tinybert", *BF16),
        ("cr-ild", *BF16),
    ],
)
def test_the_trainers_own_switches_work(name, switches, apart, tmp_path):
    plain, switched = trained(tmp_path / "a", name), trained(tmp_path / "b", name, **switches)
    for parameter, weight in plain.items():
        torch.testing.assert_close(switched[parameter], weight, rtol=0, atol=apart, msg=parameter)


def test_the_trainers_switch_for_compiling_is_refused_with_ours(tmp_path):
    with pytest.raises(UserError, match="torch_compile=True .*compile_layers=True"):
        trained(tmp_path, "kd", torch_compile=True)


def test_accumulation_is_refused_by_the_trainer_where_a_recipe_takes_whole_steps(tmp_path):
    with pytest.raises(UserError, match="'queries' counts padding"):
        trained(tmp_path, "cr-ild-released", per_device_train_batch_size=4, gradient_accumulation_steps=2)
