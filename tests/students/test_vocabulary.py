"""Smaller vocabularies: the training texts keep their tokens, and teacher and student mean the same by them."""

import json
import re

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from layerstill.acts import distill
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.heads import Classes
from layerstill.recipe import Recipe
from layerstill.students.vocabulary import trim_vocabulary
from layerstill.training.arguments import Options
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer, write_csv

TEXTS = [("a good film",), ("goods, filmed badly", "a bad film"), ("a good good plot",)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = sorted(set("abcdefghijklmnopqrstuvwxyz,"))
WORDS = ["the", "good", "bad", "film", "plot", "actor", "##s", "##ed", "##ly", "##er", "##ing"]


def with_edges(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **names)


def word_piece() -> PreTrainedTokenizerFast:
    tokens = SPECIAL + LETTERS + [f"##{c}" for c in LETTERS] + WORDS
    return with_edges(Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]")))


def unigram() -> PreTrainedTokenizerFast:
    pieces = [(t, 0.0) for t in SPECIAL] + [(c, -9.0) for c in LETTERS]
    pieces += [(w.removeprefix("##"), -3.0 - i / 10) for i, w in enumerate(WORDS)]
    return with_edges(Tokenizer(models.Unigram(pieces, unk_id=1)))


@pytest.mark.parametrize("make", [word_piece, unigram, tiny_tokenizer])
def test_training_texts_keep_their_tokens(make, tmp_path):
    whole = make()
    small = trim_vocabulary(whole, TEXTS, "train")
    assert len(small.kept) == len(small.tokenizer) < len(whole)
    small.tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for row in TEXTS:
        mine, theirs = loaded(*row)["input_ids"], whole(*row)["input_ids"]
        assert [small.kept[i] for i in mine] == theirs
        assert loaded.convert_ids_to_tokens(mine) == whole.convert_ids_to_tokens(theirs)
    assert loaded.pad_token == "[PAD]"
    assert loaded.model_max_length == 64


def test_unseen_words_are_spelled_with_the_characters_that_are_there():
    small = trim_vocabulary(word_piece(), TEXTS, "train").tokenizer
    assert small.tokenize("flood") == ["f", "##l", "##o", "##o", "##d"]
    assert small.tokenize("actor") == ["[UNK]"], "c was never seen"


def test_a_number_keeps_the_most_frequent_tokens():
    whole = word_piece()
    with pytest.raises(
        UserError, match=r"vocabulary 3: special tokens and characters .* are \d+; choose \d+ to \d+"
    ) as e:
        trim_vocabulary(whole, TEXTS, 3)
    smallest, largest = map(int, re.findall(r"choose (\d+) to (\d+)", str(e.value))[0])
    assert len(trim_vocabulary(whole, TEXTS, "train").kept) == largest
    small = trim_vocabulary(whole, TEXTS, smallest + 2)
    assert len(small.kept) == smallest + 2
    assert set(WORDS) & set(small.tokenizer.get_vocab()) == {"good", "film", "##s"}, "##s is a character"


def test_byte_pair_vocabularies_are_refused():
    backend = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    with pytest.raises(UserError, match="a BPE tokenizer cannot be trimmed, only WordPiece, WordLevel and Unigram"):
        trim_vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend), TEXTS, "train")


def test_a_distilled_student_with_fewer_tokens_knows_what_its_own_mean(tmp_path):
    teacher = str(save_tiny(tmp_path / "teacher"))
    rows = "".join(f"{'good' if i % 2 else 'bad'} film,{'good' if i % 2 else 'bad'}\n" for i in range(8))
    rows += "fine film,fine\n"
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text("text,label\n" + rows, "utf-8")
    task = Task.from_files("classification", tmp_path)
    recipe = Recipe.load("tinybert", ("student.vocabulary=train", "student.hidden_size=24")).limited(1, 4, 1e-3)
    options = Options(max_length=32, progress=False)
    folder = distill(teacher, task, recipe, 2, tmp_path / "s", options).folder
    student, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    assert student.config.vocab_size == len(tokenizer) == 5 + 5
    assert student.config.pad_token_id == tokenizer.pad_token_id
    assert sorted(set(tokenizer.get_vocab()) - set(SPECIAL)) == ["a", "bad", "film", "fine", "good"], "a is a character"


def test_the_teacher_reads_the_same_words():
    """A student that keeps everything it needs and is cut from the teacher has nothing to learn from its logits."""
    from layerstill.students.build import build_student
    from layerstill.training.module import DistillationModule

    teacher = tiny_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    small = trim_vocabulary(tiny_tokenizer(), [("good film",), ("bad plot",)], "train")
    recipe = Recipe.load("kd", ("stages.0.objectives.soft targets.distance=mse",))
    student = build_student(teacher, 4, recipe.student, 0, vocabulary=small)
    data = dict(small.tokenizer(["good film", "bad plot"], return_tensors="pt")) | {"labels": torch.tensor([0, 1])}
    for tokens, same in ((small.kept, True), (None, False)):
        module = DistillationModule(student, teacher, recipe.stages[0], 0, Classes(), tokens)
        value = module.terms(data)[0]["soft targets"].value.item()
        assert (value < 1e-12) == same


def test_plan_counts_the_smaller_student(tmp_path, capsys, monkeypatch):
    from layerstill.cli import main

    teacher = save_tiny(tmp_path / "teacher")
    write_csv(tmp_path / "train.csv", rows=6)
    write_csv(tmp_path / "dev.csv", rows=6)
    counts = []
    for extra in ([], ["--set", "student.vocabulary=train"]):
        words = f"layerstill plan {teacher} --task classification --data {tmp_path} --student-layers 2 --max-length 32 --json"
        monkeypatch.setattr("sys.argv", [*words.split(), *extra])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 0
        counts.append(json.loads(capsys.readouterr().out)["student_parameters"])
    assert (counts[0] - counts[1]) % 48 == 0
    assert counts[1] < counts[0]


def test_the_padding_token_keeps_its_number_where_positions_are_counted_from_it():
    pieces = [
        ("unused", -20.0),
        ("[PAD]", 0.0),
        ("[UNK]", 0.0),
        ("[CLS]", 0.0),
        ("[SEP]", 0.0),
        ("good", -1.0),
        ("x", -9.0),
    ]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    whole = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    kept = trim_vocabulary(whole, [("good",)], "train", padding_stays=True)
    assert kept.tokenizer.pad_token_id == whole.pad_token_id == 1


def test_unknown_characters_are_scored_as_before():
    """Unigram scores them by its least probable piece, which therefore stays."""
    pieces = [(t, 0.0) for t in SPECIAL] + [("rare", -40.0), ("xy", -3.0), ("x", -4.0), ("yz", -3.5), ("z", -30.0)]
    whole = with_edges(Tokenizer(models.Unigram(pieces, unk_id=1)))
    small = trim_vocabulary(whole, [("xyz",), ("xy",)], "train").tokenizer
    for text in ("xyz", "xy", "qxyz"):
        assert small.tokenize(text) == whole.tokenize(text)
    assert "rare" in small.get_vocab()


def test_an_unknown_token_that_is_not_special_is_kept():
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "[PAD]": 1, "a": 2, "b": 3}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    whole = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
    small = trim_vocabulary(whole, [("a",)], "train").tokenizer
    assert small.tokenize("a b") == ["a", "[UNK]"]


def test_how_many_dev_texts_are_cut_otherwise_is_counted():
    whole = word_piece()
    found = trim_vocabulary(whole, [("a good film",), ("bad",)], "train")
    dev = [("good film",), ("a plot",), ("bad film",), ("good actor", "a film")]
    said = found.notice(whole, dev)
    assert f"{len(found.kept)} of {len(whole)} tokens are kept" in said
    # "plot" and "actor" were whole tokens; of their letters p, t, c, r and p are in no training text.
    assert "2 of 4 dev texts are cut into other tokens than before, and 2 of these hold characters" in said
    known = trim_vocabulary(whole, [("a good film",), ("bad", "p l o t")], "train")
    assert "1 of 3 dev texts are cut into other tokens than before, and 0 of these" in known.notice(whole, dev[:3])
