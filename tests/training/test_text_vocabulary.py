"""Smaller vocabularies on running text: both models read the same tokens, and the teacher says the student's words only."""

import json
import signal

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast

from layerstill.heads.masked_lm import MaskedLM
from layerstill.knowledge.word_logits import WordLogits
from layerstill.recipe import Recipe
from layerstill.students.build import build_student
from layerstill.students.vocabulary import trim_vocabulary
from layerstill.training.module import DistillationModule
from tests.students.test_vocabulary import word_piece
from tests.tiny import WORDS, save_tiny, save_tiny_masked_lm, tiny_tokenizer
from tests.training.forks import record, tear

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ONLY_LOOKING = (
    *("--max-steps", "1", "--set", "stages.0.learning_rate=1e-12"),
    *("--set", "stages.0.objectives.soft targets=null"),  # which would be 0, and a run refuses that
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    save_tiny_masked_lm(folder / "masked", **STILL)
    save_tiny_masked_lm(folder / "padded", vocab_size=40, **STILL)
    save_tiny_masked_lm(folder / "llama", "llama")
    save_tiny_masked_lm(folder / "pieces", tokenizer=word_piece(), vocab_size=70, **STILL)
    save_tiny(folder / "plain", labels=3)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[:9], rng.integers(3, 60))) for _ in range(120)]
    (folder / "texts.txt").write_text("\n\n".join(texts) + "\n", "utf-8")
    pieces = "a good film|goods, filmed badly|a bad film|a good good plot|the actor was bad".split("|")
    texts = [" ".join(rng.choice(pieces, rng.integers(1, 12))) for _ in range(120)]
    (folder / "pieces.txt").write_text("\n\n".join(texts) + "\n", "utf-8")
    return folder


def words(place, output, *more: str, teacher: str = "masked", data: str = "texts", size: object = "train") -> list[str]:
    line = f"distill {place}/{teacher} --task text --data {place}/{data}.txt --max-length 16 -q --student-layers 4"
    line += f" --recipe text-kd --batch-size 8 --precision fp32 --set student.vocabulary={size} --output {output}"
    return [*line.split(), *more]


@pytest.mark.parametrize("teacher", ["masked", "padded", "llama"])
def test_a_student_that_is_its_teacher_without_other_words_has_nothing_to_learn(teacher, place, call, tmp_path):
    status, _, err = call(words(place, tmp_path / "s", *ONLY_LOOKING, teacher=teacher))
    assert status == 0, err
    result = json.loads((tmp_path / "s" / "result.json").read_text("utf-8"))
    assert result["metrics"]["perplexity"] == pytest.approx(result["teacher_metrics"]["perplexity"], rel=1e-4)
    auto = AutoModelForCausalLM if teacher == "llama" else AutoModelForMaskedLM
    student, report = auto.from_pretrained(tmp_path / "s", output_loading_info=True)
    assert not report["missing_keys"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "s")
    kept = sorted({*WORDS[:9], "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"})
    assert sorted(tokenizer.get_vocab()) == kept, "a is a character of the corpus"
    assert student.config.vocab_size == len(kept) == result["text"]["vocabulary"]
    whole = auto.from_pretrained(place / teacher).eval()
    numbers = torch.tensor(tiny_tokenizer().convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(range(len(kept)))))
    ids = tokenizer("good film bad plot", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = whole(numbers[ids]).logits[..., numbers]
        torch.testing.assert_close(student.eval()(ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_smaller_number_cuts_words_into_kept_pieces_for_both_models(place, call, tmp_path):
    line = words(place, tmp_path / "s", *ONLY_LOOKING, teacher="pieces", data="pieces", size=46)
    status, _, err = call([w for w in line if w != "-q"])
    assert status == 0, err
    told = " ".join(err.split())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "s")
    assert len(tokenizer) == 46
    assert f"student.vocabulary: 46 of {len(word_piece())} tokens are kept, with " in told
    assert "what is left out is cut into kept ones, or unknown (0 of" in told
    result = json.loads((tmp_path / "s" / "result.json").read_text("utf-8"))
    ours, theirs = result["metrics"]["perplexity"], result["teacher_metrics"]["perplexity"]
    assert ours == pytest.approx(theirs, rel=1e-4), "both read the same at every place"
    lost = set(word_piece().get_vocab()) - set(tokenizer.get_vocab())
    seen = [word for word in ("good", "film", "plot", "actor", "the") if word in lost]
    assert seen, "a word of the corpus is left out"
    assert len(tokenizer.tokenize(seen[0])) > 1
    assert tokenizer.unk_token not in tokenizer.tokenize(seen[0])


@pytest.mark.slow
def test_a_run_that_is_killed_counts_the_same_tokens_again(place, forks, tmp_path):
    more = "--epochs", "1", "--student-layers", "2"
    done = forks(words(place, tmp_path / "whole", *more), folder=tmp_path / "whole")
    assert done["status"] == 0, done["err"]
    expected, folder = record(tmp_path / "whole"), tmp_path / "s"
    for moment in ({"at": "corpus/whole/packed.json"}, {"after_path": "corpus/packed.json"}, {"lines": 9}):
        assert forks(words(place, folder, *more), folder=folder, **moment)["status"] == -signal.SIGKILL
        tear(folder)
    assert forks(words(place, folder, *more), folder=folder)["status"] == 0
    assert record(folder) == expected
    assert not (folder / "corpus").exists()


def test_what_is_inside_needs_no_words(place, call, tmp_path):
    more = "--recipe", "text-hid-seq", "--set", "student.hidden_size=24", "--max-steps", "2", "--student-layers", "2"
    status, _, err = call(words(place, tmp_path / "s", *more, teacher="plain"))
    assert status == 0, err
    config = json.loads((tmp_path / "s" / "config.json").read_text("utf-8"))
    assert config["vocab_size"] == 15
    assert config["pad_token_id"] == 0


@pytest.mark.parametrize("size", ["train", "14"])
def test_plan_counts_the_smaller_student(size, place, call, tmp_path):
    line = words(place, tmp_path / "s", "--max-steps", "2", "--student-layers", "2", size=size)
    status, _, err = call(line)
    assert status == 0, err
    result = json.loads((tmp_path / "s" / "result.json").read_text("utf-8"))
    status, out, err = call(["plan", *line[1 : line.index("--output")], *line[line.index("--output") + 2 :], "--json"])
    assert status == 0, err
    plan = json.loads(out)
    assert plan["student_parameters"] == result["student"]["parameters"]
    assert plan["text"] == result["text"] | {"estimated_from": None}


def test_a_size_without_room_and_a_tokenizer_of_merges_are_refused(place, call, tmp_path):
    status, _, err = call(words(place, tmp_path / "s", size=3))
    assert status == 2
    assert "student.vocabulary 3: special tokens and characters of the corpus are 6; choose 6 to 15, or train" in err
    status, _, err = call(words(place, tmp_path / "s", "--max-steps", "1", size=6))
    assert status == 0, err
    merges = {"[PAD]": 0, "[MASK]": 1, **{c: i for i, c in enumerate("abdfgilmopt", 2)}}
    whole = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(merges, [])), pad_token="[PAD]", mask_token="[MASK]", model_max_length=64
    )
    save_tiny_masked_lm(tmp_path / "merges", tokenizer=whole)
    line = [str(w).replace(f"{place}/masked", f"{tmp_path}/merges") for w in words(place, tmp_path / "b")]
    status, _, err = call(line)
    assert status == 2
    assert "student.vocabulary: a BPE tokenizer cannot be trimmed, only WordPiece, WordLevel and Unigram" in err
    assert not (tmp_path / "b").exists()


def test_the_teacher_is_compared_as_if_it_knew_the_kept_words_only(place):
    """KL of its distribution given that the word is a kept one, by hand."""
    teacher = AutoModelForMaskedLM.from_pretrained(place / "masked").eval()
    small = trim_vocabulary(tiny_tokenizer(), [("good bad film",)], "train")
    stage = Recipe.load("text-kd", ("stages.0.objectives.words=null",)).stages[0]
    torch.manual_seed(1)
    student = build_student(teacher, 2, Recipe.load("text-kd").student, 0, vocabulary=small).eval()
    module = DistillationModule(student, teacher, stage, 0, MaskedLM(), small.kept)
    batch = dict(small.tokenizer(["good bad film good"], return_tensors="pt"))
    labels = torch.full_like(batch["input_ids"], -100)
    labels[0, 2] = batch["input_ids"][0, 2]
    found = module.terms(batch | {"labels": labels})[0]["soft targets"].value
    with torch.no_grad():
        theirs = teacher(torch.tensor(small.kept)[batch["input_ids"]]).logits[0, 2, small.kept]
        ours = student(batch["input_ids"]).logits[0, 2]
    pair = (ours / 2).log_softmax(0), (theirs / 2).log_softmax(0)
    by_hand = F.kl_div(*pair, log_target=True, reduction="sum") * 4
    torch.testing.assert_close(found.detach(), by_hand, rtol=1e-4, atol=1e-6)


def test_logits_of_some_words_are_those_columns():
    head = torch.nn.Linear(5, 7)
    states = torch.randn(2, 3, 5)
    words = WordLogits.gathered(states, torch.ones(2, 3, dtype=torch.bool), 7, head)
    kept = torch.tensor([6, 0, 3])
    some = words.only(kept)
    assert some.vocabulary == 3
    torch.testing.assert_close(some.whole(), head(states.flatten(0, 1))[:, kept])
