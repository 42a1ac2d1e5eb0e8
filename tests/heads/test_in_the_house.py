"""What data, loading and evaluation do with a head, whichever it is."""

import numpy as np
import pytest
import torch

from layerstill.data.checks import data_counts
from layerstill.data.encode import Collator, encode
from layerstill.data.label_agreement import agree_on_labels
from layerstill.data.ood import read_ood
from layerstill.data.regimes import Regime
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError
from layerstill.evaluation.agreement import agreement
from layerstill.evaluation.predict import batches_of, predict
from layerstill.evaluation.predictions import prediction_tensors
from layerstill.heads import HEADS, Classes, MultiLabel, Scores, Tokens, head_of
from layerstill.training.models import load_config, load_fine_tuned, load_for_finetuning, require_head
from tests.tiny import save_tiny, tiny_config, tiny_tokenizer

NAMES = ("a", "b", "c")
LABELS = {
    "classification": [0, 2, 1, 0],
    "regression": [0.5, 1.5, 2.5, 0.0],
    "multilabel": [[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]],
    "tokens": [[0, 1], [2, 2, 0], [1], [0, 0, 1, 2]],
}
SENTENCES = [("good", "film-plot"), ("bad", "actor", "was"), ("the-the-the",), ("we", "and", "they", "great-scene")]


def task_of(word: str) -> Task:
    texts = SENTENCES if word == "tokens" else [(" ".join(words),) for words in SENTENCES]
    split = Split(texts, LABELS[word])
    names = NAMES if HEADS[word].named else ()
    return Task("t", word, {"train": split, "dev": split}, names, metrics=())


def model_of(word: str):
    torch.manual_seed(0)
    head = HEADS[word]()
    return head.auto_class.from_config(tiny_config("bert", labels=head.outputs(NAMES if head.named else ()))).eval()


def test_a_word_stands_for_its_head_and_another_is_refused():
    assert Task("t", "regression", {}).head == Scores()
    assert Task("t", MultiLabel(threshold=0.3), {}).head.threshold == 0.3
    with pytest.raises(UserError, match="unknown kind of task 'token': did you mean 'tokens'"):
        Task("t", "token", {})


def test_words_are_cut_into_pieces_and_the_first_one_has_the_tag():
    task = task_of("tokens")
    encoded = encode(task.splits["train"], tiny_tokenizer(), 16, task.head)
    first = encoded.dataset[0]  # [CLS] good film - plot [SEP]
    assert first["counted"] == [0, 1, 1, 0, 0, 0]
    assert first["labels"] == [-100, 0, 1, -100, -100, -100]
    assert encoded.lost_words == 0
    cut = encode(task.splits["train"], tiny_tokenizer(), 4, task.head)
    assert (cut.truncated, cut.lost_words) == (4, 1 + 2), "two words fit between the marks"
    assert "which lost 3 words with their labels" in cut.notices("train", 4)[0]


def test_texts_without_tags_are_words_between_white_space():
    split = Split([("good film-plot",), ("bad", "actor was")], [])
    data = encode(split, tiny_tokenizer(), 16, Tokens()).dataset
    assert "labels" not in data.column_names
    assert data["counted"][0] == [0, 1, 1, 0, 0, 0]
    assert sum(data["counted"][1]) == 3


def test_a_batch_of_tags_is_padded_with_what_does_not_count():
    task, tokenizer = task_of("tokens"), tiny_tokenizer()
    data = encode(task.splits["train"], tokenizer, 16, task.head).dataset
    batch = Collator(tokenizer, task.head)([data[0], data[3]])
    assert batch["labels"].shape == batch["counted"].shape == batch["input_ids"].shape == (2, 8)
    assert batch["labels"][0].tolist() == [-100, 0, 1, *[-100] * 5]
    assert task.head.positions(batch).sum(1).tolist() == [2, 4]
    assert (batch["labels"] != -100).equal(task.head.positions(batch))


@pytest.mark.parametrize("word", HEADS)
def test_predictions_stand_in_their_places_whatever_the_batch(word):
    task, model, tokenizer = task_of(word), model_of(word), tiny_tokenizer()
    found = [predict(model, tokenizer, task.splits["dev"], 16, task.head, size) for size in (1, 3, 64)]
    for other in found[1:]:
        for row, same in zip(other, found[0], strict=True):
            np.testing.assert_allclose(row, same, atol=2e-5)
    shapes = [row.shape for row in found[0]]
    outputs = task.head.outputs(task.labels)
    assert shapes == ([(len(words), outputs) for words in SENTENCES] if word == "tokens" else [(outputs,)] * 4)
    tensors = prediction_tensors(found[0], task.splits["dev"], task.head)
    assert tensors["ids"].shape == (4,)


@pytest.mark.parametrize("word", HEADS)
def test_padding_changes_no_error_and_every_label_has_one(word):
    task, tokenizer = task_of(word), tiny_tokenizer()
    wanted = {"multilabel": 12, "tokens": 10}.get(word, 4)
    for size in (1, 4):
        batches = batches_of(task.splits["dev"], tokenizer, 16, "cpu", task.head, size)
        assert sum(int(task.head.labelled(batch.known["labels"]).sum()) for batch in batches) == wanted
        assert all("labels" not in batch.inputs and "counted" not in batch.inputs for batch in batches)


@pytest.mark.parametrize("word", ["classification", "multilabel", "tokens"])
def test_labels_follow_the_models_order(word):
    config = tiny_config("bert", labels=4)
    config.id2label = {0: "d", 1: "c", 2: "b", 3: "a"}
    task, _ = agree_on_labels(task_of(word), config, "model m", subset=True)
    moved = {
        "classification": [3, 1, 2, 3],
        "multilabel": [[0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 1, 0]],
        "tokens": [[3, 2], [1, 1, 3], [2], [3, 3, 2, 1]],
    }
    assert task.splits["train"].labels == moved[word]


@pytest.mark.parametrize("word", HEADS)
def test_a_model_is_made_saved_and_loaded_with_its_head_and_no_other(word, tmp_path):
    save_tiny(tmp_path / "start", width=32, layers=2)
    task = task_of(word)
    model = load_for_finetuning(str(tmp_path / "start"), task)
    model.save_pretrained(tmp_path / "made")
    config = load_config(str(tmp_path / "made"), task.head)
    assert config.num_labels == task.head.outputs(task.labels)
    assert type(head_of(config)) is type(task.head)
    assert load_fine_tuned(str(tmp_path / "made"), task.head).config.architectures == config.architectures
    for head in (made() for other, made in HEADS.items() if other != word):
        with pytest.raises(UserError, match=f"its head gives {task.head.gives}.*, and the task has {head.gives}"):
            require_head("m", config, head)


def test_what_takes_classes_or_sets_is_refused_in_a_line():
    for word in ("regression", "multilabel", "tokens"):
        with pytest.raises(UserError, match=f"regime label_noise: it is about classes, .* has {HEADS[word].gives}"):
            Regime(label_noise=0.1).apply(task_of(word), 0)
    for word in ("multilabel", "tokens"):
        with pytest.raises(UserError, match="--ood far: it is read as one class or one score a text"):
            read_ood("far=nowhere.csv", task_of(word))
        assert Regime(few_samples=2).apply(task_of(word), 0).regime["examples"] == {"before": 4, "after": 2}


def test_the_same_text_with_other_labels_is_counted_for_every_head():
    for word in HEADS:
        split = task_of(word).splits["train"]
        per_token = HEADS[word].per_token
        other = [(tag + 1) % len(NAMES) for tag in split.labels[0]] if per_token else split.labels[1]
        twice = Split([*split.texts, split.texts[0]], [*split.labels, other])
        task = Task("t", word, {"train": twice}, NAMES if HEADS[word].named else ())
        assert data_counts(task)["train contradicting"] == 2


def test_agreement_counts_every_decision():
    tags = [np.eye(3)[[0, 1]], np.eye(3)[[2]]]
    assert agreement(tags, [np.eye(3)[[0, 2]], np.eye(3)[[2]]], Tokens()) == pytest.approx(2 / 3)
    several = np.array([[1.0, -1.0], [2.0, 3.0]])
    assert agreement(several, -several, MultiLabel()) == 0
    assert agreement(several, np.abs(several), MultiLabel()) == 0.75


def test_what_a_trainer_gathers_loses_its_padding():
    logits, labels = np.zeros((2, 4, 3)), np.array([[-100, 1, -100, 2], [-100, 0, -100, -100]])
    logits[0, 3], logits[1, 1] = (0, 0, 9), (0, 9, 0)
    rows, gold = Tokens().gathered(logits, labels)
    assert [row.tolist() for row in gold] == [[1, 2], [0]]
    assert [row.tolist() for row in Tokens().decide(rows)] == [[0, 2], [1]]
    same, alike = Classes().gathered(logits[:, 0], labels[:, 1])
    assert same.shape == (2, 3)
    assert alike.tolist() == [1, 0]
