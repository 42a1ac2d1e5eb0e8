"""Weights of examples: how they are read, what they do to the loss on labels, and what they leave alone."""

import json

import pytest
import torch
from safetensors.torch import load_file

from layerstill import Task, UserError
from layerstill.data.extra import ExtraTexts
from layerstill.data.readers import Readers
from layerstill.data.slices import slice_of
from layerstill.data.split import Split
from layerstill.heads import Classes, MultiLabel, Tokens
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training.module import DistillationModule
from layerstill.training.records import task_fingerprint
from tests.tiny import batch, no_dropout, save_tiny, tiny_model, tiny_tokenizer, write_csv

HOW = "--max-length 32 --max-steps 4 --batch-size 8"


def write_weighted(path, weights, rows: int = 48, seed: int = 0) -> None:
    """The usual small data with a column `trust`, in which the weights come round and round."""
    write_csv(path, rows=rows, seed=seed)
    header, *lines = path.read_text().splitlines()
    more = [f"{line},{weights[i % len(weights)]}" for i, line in enumerate(lines)]
    path.write_text("\n".join([f"{header},trust", *more]) + "\n")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_tiny(folder / "teacher", layers=3, **no_dropout("bert"))
    for name, weights in {"mixed": (0, 1, 2.5, 0.25), "equal": (0.1,)}.items():
        (folder / name).mkdir()
        write_weighted(folder / name / "train.csv", weights)
        write_csv(folder / name / "dev.csv", rows=24, seed=1)  # only train has the column
    return folder


def trained(home, call, output: str, data: str, *more: str, recipe: str = "kd") -> dict:
    """The student's tensors, and its first losses under `objectives`."""
    run = (
        f"distill {home}/teacher --task classification --data {home}/{data} --recipe {recipe} --student-layers 2 {HOW}"
    )
    status, _, err = call([*run.split(), "--output", str(home / output), *more])
    assert status == 0, err
    first = json.loads((home / output / "metrics.jsonl").read_text().splitlines()[0])
    return {**load_file(home / output / "model.safetensors"), "objectives": first["objectives"]}


def test_equal_weights_train_the_student_that_none_do_to_the_last_bit(home, call):
    plain, equal = trained(home, call, "plain", "equal"), trained(home, call, "e", "equal", "--weight-column", "trust")
    assert plain.pop("objectives") == equal.pop("objectives")
    assert all(torch.equal(tensor, equal[name]) for name, tensor in plain.items())


def test_other_weights_change_the_loss_on_labels_and_no_other_term(home, call):
    plain = trained(home, call, "p2", "mixed")["objectives"]
    weighted = trained(home, call, "w2", "mixed", "--weight-column", "trust")["objectives"]
    assert weighted["task"] != plain["task"]
    assert weighted["soft targets"] == plain["soft targets"]


def test_the_loss_is_independent_of_accumulation(home, call):
    words = ["--weight-column", "trust"]
    whole = trained(home, call, "whole", "mixed", *words, "--set", "stages.0.accumulation=1")
    split = trained(home, call, "split", "mixed", *words, "--set", "stages.0.accumulation=4")
    assert split["objectives"]["task"] == pytest.approx(whole["objectives"]["task"], rel=1e-5)


def test_a_run_remembers_its_column_and_scoring_needs_none(home, call):
    trained(home, call, "kept", "mixed", "--weight-column", "trust")
    assert json.loads((home / "kept" / "run.json").read_text())["source"]["weight_column"] == "trust"
    status, out, err = call(f"evaluate {home}/kept --json")
    assert status == 0, err
    record = json.loads((home / "kept" / "result.json").read_text())
    assert json.loads(out)["metrics"]["accuracy"] == record["metrics"]["accuracy"]
    assert call(f"evaluate {home}/kept --data {home}/mixed/dev.csv --json")[0] == 0
    run = f"distill {home}/teacher --task classification --data {home}/mixed --recipe kd --student-layers 2 {HOW}"
    status, _, err = call(f"{run} --output {home}/kept")
    assert status == 2, "other weights are another run"
    train = home / "mixed" / "train.csv"
    before = train.read_text()
    train.write_text(before.replace("2.5\n", "3.5\n"))
    status, _, err = call(f"evaluate {home}/kept")
    train.write_text(before)
    assert status == 2
    assert "its data have changed since it was trained" in err


def test_finetune_compress_plan_and_cache_take_the_column(home, call):
    data = f"--task classification --data {home}/mixed --weight-column trust"
    assert call(f"finetune {home}/teacher {data} {HOW} --output {home}/tuned")[0] == 0
    status, _, err = call(f"compress {home}/teacher {data} --dry-run --effort quick --layers 2 --max-length 32")
    assert status == 0, err
    teaches = f"{home}/teacher {data} --recipe kd --max-length 32 --batch-size 8"
    status, _, err = call(f"plan {teaches} --student-layers 2")
    assert status == 0, err
    status, _, err = call(f"cache {teaches} --student-layers 2 --cache {home}/teacher-says")
    assert status == 0, err


def test_a_first_batch_that_counts_nothing_is_no_fault(home, call):
    (home / "rare").mkdir(exist_ok=True)
    write_weighted(home / "rare" / "train.csv", [0] * 47 + [1])
    write_csv(home / "rare" / "dev.csv", rows=24, seed=1)
    trained(home, call, "rare-run", "rare", "--weight-column", "trust", recipe="finetune")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (("1", "-2"), "train.csv line 3: weight '-2' in column 'trust' is not a number of 0 or more"),
        (("1", "nan"), "line 3: weight 'nan'"),
        (("1", "1", "inf"), "line 4: weight 'inf'"),
        (("1", "much"), "line 3: weight 'much'"),
        (("1", ""), "line 3: weight ''"),
        (("1", "1_0"), "line 3: weight '1_0'"),
        (("0",), "train.csv: column 'trust' (from --weight-column) is 0 in all of its 48 rows"),
    ],
)
def test_bad_weights_are_refused_with_their_line(weights, said, tmp_path, call):
    write_weighted(tmp_path / "train.csv", weights)
    run = f"finetune {tmp_path}/none --task classification --data {tmp_path}/train.csv --output {tmp_path}/out"
    status, _, err = call(f"{run} --weight-column trust")
    assert status == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_columns_that_are_none_or_another_are_refused(tmp_path, call):
    write_weighted(tmp_path / "train.csv", (1,))
    run = f"finetune {tmp_path}/none --output {tmp_path}/out --weight-column"
    for column, said in (("trusty", "no column 'trusty' (from --weight-column)"), ("label", "holds the texts or the")):
        status, _, err = call(f"{run} {column} --task classification --data {tmp_path}/train.csv")
        assert status == 2
        assert said in err
    status, _, err = call(f"{run} trust --task tickets")
    assert status == 2
    assert "--task tickets takes no --weight-column" in err
    (tmp_path / "train.conll").write_text("film B-THING\n\nplot O\n")
    status, _, err = call(f"{run} trust --task tokens --data {tmp_path}/train.conll")
    assert status == 2
    assert "has a word per line" in err


def test_twice_the_weight_is_the_example_twice():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 3), [0, 2, 1, 1]
    split = Split(list("abcd"), labels, [2, 1, 0, 3])
    weighted = Classes().errors(logits, torch.tensor(labels)) * torch.tensor(split.relative_weights(Classes()))
    rows = [0, 0, 1, 3, 3, 3]
    assert weighted.mean().item() == pytest.approx(
        Classes().errors(logits[rows], torch.tensor(labels)[rows]).mean().item()
    )


def test_examples_without_labels_do_not_move_the_mean():
    split = Split(list("abc"), [0, -100, 1], [1, 50, 3])
    assert split.relative_weights(Classes()) == [0.5, 25, 1.5]
    with pytest.raises(UserError, match="the weights of all 2 training examples that have a label are 0"):
        Split(list("abc"), [0, -100, 1], [0, 50, 0]).relative_weights(Classes())
    several = Split(list("ab"), [[1, 0], [-100, -100]], [0.3, 9])
    assert several.relative_weights(MultiLabel())[0] == 1


def test_weights_stay_with_their_examples():
    rows = {"train": [(f"text {i}", "ab"[i % 2]) for i in range(40)]}
    task = Task.from_data({**rows, "dev": rows["train"][:9]})
    weighted = Task("w", "classification", {**task.splits, "train": Split(
        task.splits["train"].texts, task.splits["train"].labels, list(range(40)))}, task.labels)  # fmt: skip

    def belong(split: Split) -> bool:
        return len(split.weights) == len(split) and all(
            text == f"text {weight:g}" for (text,), weight in zip(split.texts, split.weights, strict=True)
        )

    assert belong(weighted.limited(7).splits["train"])
    assert belong(weighted.with_label_order(("b", "a")).splits["train"])
    assert belong(slice_of(weighted).splits["train"])
    assert slice_of(weighted).splits["dev"].weights == []
    joined = ExtraTexts((("more",),)).joined(weighted)
    assert joined.weights == [*range(40), 1]
    assert task_fingerprint(weighted) != task_fingerprint(task)


def test_tagged_sentences_in_tables_have_weights_and_columns_of_words_none(tmp_path):
    rows = [{"tokens": ["the", "film"], "tags": ["O", "B-THING"], "trust": 2}, {"tokens": [], "tags": [], "trust": 7},
            {"tokens": ["good"], "tags": ["O"], "trust": 0.5}]  # fmt: skip
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "dev.jsonl").write_text(json.dumps(rows[0]) + "\n")
    task = Task.from_files("tokens", tmp_path, weight_column="trust")
    assert task.splits["train"].weights == [2, 0.5]
    assert task.splits["dev"].weights == []
    encoded = Readers(tiny_tokenizer(), tiny_tokenizer()).encode(task.splits["train"], 16, Tokens())
    assert encoded.dataset["weights"] == pytest.approx([1.6, 0.4])


@pytest.mark.parametrize("recipe", ["kd", "cr-ild", "finetune"])
def test_splitting_a_weighted_batch_changes_no_loss_and_no_gradient(recipe):
    loaded = Recipe.load(recipe)
    teacher = tiny_model(**no_dropout("bert")).double()
    student = build_student(teacher, 2, loaded.student, seed=0)
    stage = loaded.stages[0]
    module = DistillationModule(student, teacher, stage, seed=0, head=Classes()).double().train()
    data = batch() | {"weights": torch.tensor([0.5, 2.0, 0.0, 1.5], dtype=torch.float64)}
    mixed = any(o.batch_coupled for o in stage.objectives.values())
    parts = [[0, 3], [1, 2]] if mixed else [[0], [1, 2, 3]]  # mixup pairs rows, and parts keep the pairs
    results = []
    for rows in ([[0, 1, 2, 3]], parts):
        module.zero_grad()
        pieces = [{name: values[r] for name, values in data.items()} for r in rows]
        units = torch.stack([module.count_units(piece) for piece in pieces]).sum(0)
        terms = []
        for piece in pieces:
            out = module(units=units, **piece)
            out["loss"].backward()
            terms.append(torch.stack([term.value.detach() for term in out["terms"].values()]))
        results.append((sum(terms), torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])))
    torch.testing.assert_close(*[terms for terms, _ in results], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(*[gradient for _, gradient in results], rtol=1e-7, atol=1e-10)
