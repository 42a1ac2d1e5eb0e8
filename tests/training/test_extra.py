"""Texts without labels beside labelled ones: what terms make of them, and what a run on them leaves, keeps and refuses."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from layerstill.acts import cache, distill, plan
from layerstill.data.copies import Augment
from layerstill.data.encode import Collator, encode
from layerstill.data.extra import ExtraTexts, Unlabelled
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError
from layerstill.heads import Classes, MultiLabel, Scores, Tokens
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.training.arguments import Options
from layerstill.training.cache_choice import CacheOptions
from layerstill.training.module import DistillationModule
from tests.tiny import (
    TAGS,
    no_dropout,
    save_tiny,
    save_tiny_masked_lm,
    tagged_sentences,
    tiny_model,
    tiny_tokenizer,
    write_conll,
    write_csv,
)

QUIET = Options(progress=False, max_length=32, precision="fp32")
TEXTS = [("good film", "a scene"), ("they was", "not very awful"), ("the plot was", "poor")]
MORE = [("the actor was great", "and a plot"), ("very bad", "but fine")]
SENTENCES = tagged_sentences(3)
TASKS = {
    "classes": (Classes(), 3, TEXTS, [0, 2, 1]),
    "scores": (Scores(), 1, TEXTS, [0.5, 2, 1.25]),
    "several labels": (MultiLabel(), 3, TEXTS, [[1, 0, 1], [0, 0, 0], [0, 1, -100]]),
    "tags": (Tokens(), len(TAGS), [s[0] for s in SENTENCES], [[TAGS.index(t) for t in s[1]] for s in SENTENCES]),
}
TERMS = {
    "task": {"signal": "labels"},
    "soft": {"signal": "logits", "distance": "mse"},
    "states": {"signal": "hidden_states", "mapping": "uniform", "distance": "mse"},
}


def one_stage(**objectives) -> Recipe:
    return Recipe.from_data({"stages": [{"epochs": 1, "learning_rate": 1e-3, "objectives": objectives}]})


def batch_of(split: Split, head) -> dict:
    data = encode(split, tiny_tokenizer(), 32, head).dataset
    return {n: v for n, v in Collator(tiny_tokenizer(), head)(list(data)).items() if n != "id"}


@pytest.mark.parametrize("kind", TASKS)
def test_gold_terms_pass_unlabelled_texts_over_and_other_terms_take_them_as_any_other(kind):
    head, outputs, texts, labels = TASKS[kind]
    names = () if kind == "scores" else TAGS if kind == "tags" else ("bad", "fine", "good")
    train = Split(texts, labels)
    more = [tuple(" ".join(row).split()) for row in MORE] if head.per_token else MORE
    joined = ExtraTexts(tuple(more)).joined(Task("t", head, {"train": train, "dev": train}, names))
    assert len(joined) == 5
    config = {"head": head, "labels": outputs, **no_dropout("bert")}
    if kind == "several labels":
        config["problem_type"] = "multi_label_classification"
    teacher = tiny_model(sharp=2.0, **config).double()
    student = build_student(tiny_model(sharp=2.0, seed=1, **config).double(), 2, Recipe.load("kd").student, 0).double()
    module = DistillationModule(student, teacher, one_stage(**TERMS).stages[0], 0, head).double().train()
    parts = {
        "labelled": batch_of(train, head),
        "more": batch_of(Split(joined.texts[3:], joined.labels[3:]), head),
        "all": batch_of(joined, head),
    }
    found, units = {}, {}
    for name, batch in parts.items():
        found[name] = {term: value.value for term, value in module.terms(batch)[0].items()}
        units[name] = dict(zip(TERMS, module.weight_of(batch).tolist(), strict=True))
    torch.testing.assert_close(found["all"]["task"], found["labelled"]["task"], rtol=1e-12, atol=0)
    assert found["more"]["task"] == units["more"]["task"] == 0
    assert found["labelled"]["task"] > 0
    assert units["all"]["task"] == units["labelled"]["task"] > 0
    for term in ("soft", "states"):
        mine, others = units["labelled"][term], units["more"][term]
        assert mine > 0
        assert others > 0
        mean = (mine * found["labelled"][term] + others * found["more"][term]) / (mine + others)
        torch.testing.assert_close(found["all"][term], mean, rtol=1e-9, atol=0)
        assert abs(found["all"][term] / found["labelled"][term] - 1) > 1e-5


def test_split_into_micro_batches_the_gradients_are_those_of_the_whole_step():
    head, _, texts, labels = TASKS["classes"]
    train = Split(texts, labels)
    joined = ExtraTexts(tuple(MORE)).joined(Task("t", head, {"train": train, "dev": train}, ("a", "b", "c")))
    teacher = tiny_model(sharp=2.0, **no_dropout("bert")).double()
    student = build_student(tiny_model(seed=1, **no_dropout("bert")).double(), 2, Recipe.load("kd").student, 0).double()
    module = DistillationModule(student, teacher, one_stage(**TERMS).stages[0], 0, head).double().train()

    def gradient(parts: list[dict]) -> torch.Tensor:
        module.zero_grad()
        units = torch.stack([module.count_units(part) for part in parts]).sum(0)
        for part in parts:
            module(units=units, **part)["loss"].backward()
        return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])

    parts = [batch_of(Split(joined.texts[i:j], joined.labels[i:j]), head) for i, j in ((0, 2), (2, 4), (4, 5))]
    torch.testing.assert_close(gradient(parts), gradient([batch_of(joined, head)]), rtol=1e-8, atol=1e-10)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extra")
    save_tiny(folder / "teacher")
    save_tiny_masked_lm(folder / "masked")
    (folder / "data").mkdir()
    write_csv(folder / "data" / "train.csv", rows=16)
    write_csv(folder / "data" / "dev.csv", rows=6, seed=1)
    write_csv(folder / "data" / "test.csv", rows=6, seed=2)
    write_csv(folder / "other.csv", rows=12, seed=3)
    return folder


@pytest.fixture(scope="module")
def task(place):
    return Task.from_files("classification", place / "data")


def short(*overrides: str, recipe: str = "kd") -> Recipe:
    stages = range(len(Recipe.load(recipe).stages))
    every = [f"stages.{i}.{s}" for i in stages for s in ("epochs=2", "batch_size=8", "learning_rate=1e-3")]
    return Recipe.load(recipe, (*every, *overrides))


def words(place, output, more: str = "", verb: str = "distill") -> str:
    line = f"{verb} {place}/teacher --task classification --data {place}/data --max-length 32 --student-layers 2"
    line += f" --epochs 2 --batch-size 8 --learning-rate 1e-3 --precision fp32 {more}"
    return f"{line} --output {output}" if verb != "cache" else line


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_texts_of_the_task_and_copies_of_each_other_are_left_out_and_counted(place, task, call, tmp_path):
    def twist(text: str) -> str:
        return "  ".join(text.upper().split()) + " "

    known = [task.splits[name].texts[3][0] for name in ("train", "dev", "test")]
    lines = [*map(twist, known), "a new one", "A  new ONE", "not a known one", known[0]]
    (tmp_path / "u.txt").write_text("\n".join(lines) + "\n", "utf-8")
    status, _, err = call(words(place, tmp_path / "s", f"--unlabelled {tmp_path}/u.txt"))
    assert status == 0, err
    assert "2 of 7 texts join the training examples; left out: 2 in train, 1 in dev, 1 in test, 1 twice" in err
    record = json.loads((tmp_path / "s" / "result.json").read_text("utf-8"))
    assert record["unlabelled"]["examples"] == 2
    assert record["unlabelled"]["left_out"] == {"in train": 2, "in dev": 1, "in test": 1, "twice": 1}
    assert record["train"]["examples"] == 2 * 18
    assert "2 texts without labels joined the training examples" in (tmp_path / "s" / "README.md").read_text("utf-8")


def test_plan_counts_what_distill_trains_on(place, call, tmp_path):
    for more in (f"--unlabelled {place}/other.csv", "--augment 3", f"--augment 2 --unlabelled {place}/other.csv"):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        status, out, err = call(words(place, folder, f"{more} --json", "plan"))
        assert status == 0, err
        planned = json.loads(out)["stages"][0]["steps"]
        status, out, err = call(words(place, folder, f"{more} --json"))
        assert status == 0, err
        result = json.loads(out)
        assert result["train"]["steps"] == planned
        blocks = [result[name] for name in ("unlabelled", "augmented") if result[name]]
        assert len(blocks) == more.count("--")
        assert result["train"]["examples"] == 2 * (16 + sum(block["examples"] for block in blocks))


def test_labels_of_the_file_reach_nobody_and_the_texts_do(place, task, tmp_path):
    rows = [line.rsplit(",", 1) for line in (place / "other.csv").read_text("utf-8").splitlines()[1:]]
    (tmp_path / "upset.csv").write_text("text,label\n" + "".join(f"{t},odd\n" for t, _ in rows), "utf-8")
    texts = [Unlabelled("other", [(t,) for t, _ in rows]), Unlabelled("fewer", [(t,) for t, _ in rows[:4]])]
    results = [distill(str(place / "teacher"), task, short(), 2, tmp_path / "none", QUIET)]
    for name, given in zip("ab", texts, strict=True):
        results.append(distill(str(place / "teacher"), task, short(), 2, tmp_path / name, QUIET, unlabelled=given))
    seen = [weights(tmp_path / name) for name in ("none", "a", "b")]
    assert not same(seen[0], seen[1])
    assert not same(seen[1], seen[2])
    assert results[0].data["unlabelled"] is None


def test_a_stage_of_gold_labels_alone_trains_on_the_task_alone(place, task, tmp_path):
    recipe = short("stages.1.objectives={task: {signal: labels}}", recipe="l-ild")
    gold = [all(o.signal.gold for o in stage.objectives.values()) for stage in recipe.stages]
    assert gold == [False, True]
    texts = Unlabelled("other", MORE_TEXTS)
    result = distill(str(place / "teacher"), task, recipe, 2, tmp_path / "s", QUIET, unlabelled=texts)
    assert result.data["train"]["examples"] == 2 * (16 + 3) + 2 * 16


MORE_TEXTS = [("the film was not a film",), ("we and they",), ("awful actor but a plot",)]


@pytest.mark.parametrize("where", ["auto", "shared", "ahead"])
def test_with_or_without_a_teacher_cache_the_losses_are_the_same(where, place, task, tmp_path):
    losses, more = [], {"unlabelled": Unlabelled("other", MORE_TEXTS), "augment": Augment(2)}
    place_of = "auto" if where == "auto" else str(tmp_path / "cache")
    for name, chosen in (("reference", "off"), ("cached", place_of)):
        options = Options(progress=False, max_length=32, precision="fp32", cache=CacheOptions(chosen))
        if name == "cached" and where == "ahead":
            (filled,) = cache(str(place / "teacher"), task, short(), 2, options, **more)
            shards = sorted(p.stat().st_mtime_ns for p in filled.folder.glob("shard-*"))
            assert filled.new == filled.examples > 16
        distill(str(place / "teacher"), task, short(), 2, tmp_path / name, options, **more)
        text = (tmp_path / name / "metrics.jsonl").read_text("utf-8")
        losses.append([json.loads(line)["loss"] for line in text.splitlines()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    if where == "ahead":
        assert sorted(p.stat().st_mtime_ns for p in filled.folder.glob("shard-*")) == shards, "the run found all there"


@pytest.mark.parametrize("model", [False, True])
def test_copies_are_drawn_by_the_seed_and_none_is_a_text_of_the_task(model, place, task, tmp_path):
    augment = Augment(3, str(place / "masked") if model else None)
    runs = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = Options(seed=seed, progress=False, max_length=32, precision="fp32", max_steps=2)
        runs[name] = distill(str(place / "teacher"), task, short(), 2, tmp_path / name, options, augment=augment)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))
    made = runs["a"].data["augmented"]
    assert made["methods"] == (["replace"] if model else ["replace", "delete", "swap", "duplicate"])
    assert made["examples"] + sum(made["left_out"].values()) == 3 * 16
    assert not (tmp_path / "a" / "checkpoints").exists()


def test_a_shorter_vocabulary_knows_the_words_that_joined(place, tmp_path):
    from transformers import AutoTokenizer

    (tmp_path / "train.csv").write_text("text,label\n" + "good film,good\nbad film,bad\nfine plot,fine\n" * 4, "utf-8")
    (tmp_path / "dev.csv").write_text("text,label\ngood film,good\nbad film,bad\nfine plot,fine\n", "utf-8")
    task, recipe = Task.from_files("classification", tmp_path), short("student.vocabulary=train")
    distill(str(place / "teacher"), task, recipe, 2, tmp_path / "s", QUIET, unlabelled=Unlabelled("x", [("actor",)]))
    known = AutoTokenizer.from_pretrained(tmp_path / "s").get_vocab()
    assert {"film", "actor"} <= set(known)
    assert "scene" not in known


def test_sentences_join_words_with_tags(tmp_path, call):
    save_tiny(tmp_path / "teacher", head=Tokens(), names=TAGS)
    (tmp_path / "data").mkdir()
    write_conll(tmp_path / "data" / "train.conll", rows=16)
    write_conll(tmp_path / "data" / "dev.conll", rows=8, seed=1)
    write_conll(tmp_path / "u.conll", rows=8, seed=2)
    (tmp_path / "u.txt").write_text("the actor was very good\n", "utf-8")
    for file, more in (("u.conll", "--augment 2"), ("u.txt", "")):
        line = f"distill {tmp_path}/teacher --task tokens --data {tmp_path}/data --student-layers 2 --max-length 32"
        line += f" --max-steps 3 --unlabelled {tmp_path}/{file} {more} --output {tmp_path}/s-{file} --json"
        status, out, err = call(line)
        assert status == 0, err
        assert json.loads(out)["unlabelled"]["examples"] == (1 if file == "u.txt" else 8)
        assert (json.loads(out)["augmented"] is None) == (not more)


def test_what_cannot_join_is_refused_in_one_line_and_nothing_is_left(place, call, tmp_path):
    known = (place / "data" / "train.csv").read_text("utf-8").splitlines()[1].rsplit(",", 1)[0]
    (tmp_path / "known.txt").write_text(known + "\n", "utf-8")
    write_csv(tmp_path / "pairs.csv", rows=3, seed=5, two_texts=True)
    cases = {
        "--unlabelled none.txt": "none.txt: no such file",
        f"--unlabelled {tmp_path}/known.txt": "none of its 1 texts is new (1 in train); give other texts",
        f"--unlabelled {tmp_path}/pairs.csv --unlabelled-columns text,other": "its examples are two texts, those of task",
        f"--unlabelled {tmp_path}/pairs.csv --unlabelled-columns story": "no column 'story' (from --unlabelled-columns)",
        "--unlabelled-columns text": "--unlabelled-columns: give --unlabelled too",
        f"--unlabelled {place}/other.csv --recipe finetune": "--unlabelled: no stage of recipe finetune learns the task",
        "--augment 2 --recipe finetune": "--augment: no stage of recipe finetune",
        "--augment 0": "--augment': Input should be greater than or equal to 1",
        "--augment-model x": "--augment-model: say with --augment how many",
        f"--augment 1 --augment-model {place}/teacher": "has no masked-language-model head",
        "--augment 1 --augment-model nowhere": "model nowhere: no such folder",
    }
    for more, message in cases.items():
        status, out, err = call(words(place, tmp_path / "s", f"{more} --json"))
        assert (status, out) == (2, ""), more
        assert message in " ".join(err.replace("│", " ").split()), more
        if "--augment" not in more:
            assert err.count("\n") == 1, err
            assert not (tmp_path / "s").exists()


def test_an_evaluation_of_objectives_leaves_out_gold_terms_of_texts_without_labels(place, task, tmp_path):
    """As many training examples are looked at as dev has: with this seed all of them are texts that joined."""
    rows = [(f"good film {'very ' * (i % 20)}the plot {'bad ' * (i // 20)}",) for i in range(400)]
    recipe, texts = short("stages.0.evaluate=objectives", "stages.0.epochs=1"), Unlabelled("many", rows)
    options = Options(seed=1, progress=False, max_length=32, precision="fp32", max_steps=60)
    distill(str(place / "teacher"), task, recipe, 2, tmp_path / "s", options, unlabelled=texts)
    lines = [json.loads(line) for line in (tmp_path / "s" / "metrics.jsonl").read_text("utf-8").splitlines()]
    (found,) = [line["train_objectives"] for line in lines if "train_objectives" in line]
    assert set(found) == {"soft targets"}


def test_other_texts_or_copies_are_another_run(place, task, tmp_path):
    def run(**more):
        return distill(str(place / "teacher"), task, short(), 2, tmp_path / "s", QUIET, **more)

    first = run(unlabelled=Unlabelled("a", MORE_TEXTS), augment=Augment(1))
    again = run(unlabelled=Unlabelled("elsewhere", MORE_TEXTS), augment=Augment(1))
    assert again.data == first.data
    for more, key in (
        ({"unlabelled": Unlabelled("a", MORE_TEXTS[:2]), "augment": Augment(1)}, "unlabelled"),
        ({"unlabelled": Unlabelled("a", MORE_TEXTS), "augment": Augment(2)}, "augment"),
        ({"unlabelled": Unlabelled("a", MORE_TEXTS)}, "augment"),
    ):
        with pytest.raises(UserError, match=f"holds another run: {key}"):
            run(**more)


def test_a_plan_loads_no_masked_language_model_and_counts_the_most_it_can_give(place, task):
    copies = Augment(2, str(place / "masked"))
    made = plan(str(place / "teacher"), task, short(), 2, QUIET, augment=copies)
    assert made.stages[0].steps == 2 * int(np.ceil(16 * 3 / 8))
