"""`DistillationTrainer` as users of transformers' Trainer know it: own arguments, own data, callbacks, resuming."""

import datasets
import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainingArguments

from layerstill import DistillationTrainer
from layerstill.heads import Classes
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training.module import DistillationModule
from tests.tiny import batch, tiny_model

LENGTHS = [9, 4, 6, 9, 3, 5, 8, 7, 6, 5]


class Stopped(Exception):
    pass


class Stop(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Stopped


def rows() -> datasets.Dataset:
    whole = batch(10, lengths=LENGTHS)
    return datasets.Dataset.from_list(
        [
            {"input_ids": whole["input_ids"][i, :n].tolist(), "labels": int(whole["labels"][i])}
            for i, n in enumerate(LENGTHS)
        ]
    )


def collate(examples: list) -> dict[str, torch.Tensor]:
    ids = [torch.tensor(e["input_ids"]) for e in examples]
    pad = torch.nn.utils.rnn.pad_sequence
    mask = pad([torch.ones_like(i) for i in ids], batch_first=True)
    labels = torch.tensor([e["labels"] for e in examples])
    return {"input_ids": pad(ids, batch_first=True), "attention_mask": mask, "labels": labels}


def trainer(folder, *callbacks, recipe: str = "rail-kd-l", **settings) -> DistillationTrainer:
    """A module and its trainer, the same every time; five steps an epoch, with dropout."""
    teacher = tiny_model(sharp=2.0)
    loaded = Recipe.load(recipe)
    torch.manual_seed(0)
    module = DistillationModule(build_student(teacher, 2, loaded.student, 0), teacher, loaded.stages[0], 0, Classes())
    args = TrainingArguments(
        output_dir=str(folder),
        **{"num_train_epochs": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "report_to": []} | settings,
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        label_names=["labels"],
    )
    return DistillationTrainer(module, args, train_dataset=rows(), data_collator=collate, callbacks=list(callbacks))


def test_nothing_private_of_the_trainer_is_overridden():
    # What is private there changes from one version of transformers to the next.
    ours = {name for name in vars(DistillationTrainer) if name.startswith("_") and not name.startswith("__")}
    assert ours & set(dir(Trainer)) == set()


@pytest.mark.parametrize("named", [True, False])
def test_a_training_that_stopped_within_an_epoch_goes_on_as_if_it_had_not(named, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 3}
    whole = trainer(tmp_path / "whole", **settings)
    whole.train()
    with pytest.raises(Stopped):
        trainer(tmp_path / "s", Stop(4), **settings).train()
    again = trainer(tmp_path / "s", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "s" / "checkpoint-3") if named else True)
    assert again.state.global_step == whole.state.global_step == 10
    ours, theirs = again.module.state_dict(), whole.module.state_dict()
    assert {n for n in theirs if not torch.equal(ours[n], theirs[n])} == set()
    files = {p.name for p in (tmp_path / "s" / "checkpoint-9").iterdir()}
    assert files == {
        "model.safetensors",
        "optimizer.safetensors",
        "optimizer.json",
        "random.safetensors",
        "random.json",
        "cost.json",
        "trainer_state.json",
    }


def test_old_checkpoints_go_when_the_user_wants_few(tmp_path):
    trainer(tmp_path, save_strategy="steps", save_steps=2, save_total_limit=2).train()
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-8"]


def test_save_model_writes_a_plain_model_folder(tmp_path):
    ours = trainer(tmp_path / "out", save_strategy="no")
    ours.train()
    ours.save_model(str(tmp_path / "student"))
    saved = load_file(tmp_path / "student" / "model.safetensors")
    assert saved.keys() == ours.module.student.state_dict().keys()
    assert (tmp_path / "student" / "config.json").is_file()
