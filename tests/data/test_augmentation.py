"""Augmentation: which words change, how often, into what; and the files that come of it."""

import csv
import json
import random
from collections import Counter

import pyarrow
import pyarrow.parquet
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from layerstill.data.augmentation import (
    Augmentation,
    augmented_rows,
    delete_words,
    duplicate_words,
    replace_words,
    swap_words,
    words_of,
)
from layerstill.data.augmented import read_source, write_augmented
from layerstill.data.files import read_table
from layerstill.data.replacement import Replacement, whole_words
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.training.models import load_masked_lm
from tests.tiny import SPECIAL, WORDS, save_tiny, save_tiny_masked_lm, tiny_tokenizer, write_csv

TEXT = "The film, it's said (in 1998), wasn't B52-good: naïve «plot»  and   scene!"
LONG = " ".join(f"{'abcdefgh'[i % 8]}{'ijklmnop'[i // 8 % 8]}" for i in range(4000))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("augmentation")
    save_tiny_masked_lm(folder / "mlm")
    save_tiny(folder / "teacher")
    write_csv(folder / "pairs.csv", rows=9, two_texts=True)
    write_csv(folder / "dev.csv", rows=6, seed=1, two_texts=True)
    return folder


def words(text: str) -> list[str]:
    return [text[start:end] for start, end in words_of(text)]


def others(text: str) -> str:
    """Everything of a text that is no word and no space."""
    at, parts = 0, []
    for start, end in words_of(text):
        parts, at = [*parts, text[at:start]], end
    return "".join("".join([*parts, text[at:]]).split())


def near(share: float, p: float, n: int) -> bool:
    return abs(share - p) <= 4 * (p * (1 - p) / n) ** 0.5


def rows_of(path) -> list[dict]:
    table = read_table(path)
    return [dict(zip(table.columns, row, strict=True)) for row in zip(*table.columns.values(), strict=True)]


# What a word is, and what may happen to it


def test_words_are_letters_and_everything_else_stays():
    assert words(TEXT) == "The film it's said in wasn't good naïve plot and scene".split()
    assert words("") == words("12 + 3x = 4_a !") == []


@pytest.mark.parametrize("p", [0.1, 0.4, 1.0])
def test_a_word_is_replaced_with_the_probability_by_each_candidate_alike(p):
    n = len(words(LONG))
    candidates = [["X", "Y", "Z"]] * n
    changed = words(replace_words(LONG, candidates, p, random.Random(0)))
    counts = Counter(word for word in changed if word in {"X", "Y", "Z"})
    assert near(sum(counts.values()) / n, p, n)
    for word in "XYZ":
        assert near(counts[word] / n, p / 3, n)
    assert all(new in {old, "X", "Y", "Z"} for old, new in zip(words(LONG), changed, strict=True))
    kept = replace_words(TEXT, [[]] * len(words(TEXT)), 1.0, random.Random(0))
    assert kept == TEXT, "a word without candidates stays"


def test_replacing_changes_words_and_nothing_between_them():
    candidates = [["x"]] * len(words(TEXT))
    assert replace_words(TEXT, candidates, 1.0, random.Random(0)) == "x x, x x (x 1998), x B52-x: x «x»  x   x!"


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_words_are_deleted_with_the_probability_and_the_rest_keeps_its_order(p):
    n = len(words(LONG))
    left = words(delete_words(LONG, p, random.Random(0)))
    assert near(1 - len(left) / n, p, n)
    remaining = iter(words(LONG))
    assert all(any(word == other for other in remaining) for word in left), "not a subsequence"
    assert "  " not in delete_words(LONG, p, random.Random(0))
    for seed in range(30):
        some = delete_words(TEXT, p, random.Random(seed))
        assert others(some) == others(TEXT)
        assert len(words(delete_words("good film", 1.0, random.Random(seed)))) == 1, "one word stays"


def test_swapping_keeps_every_word_and_moves_at_least_two():
    for seed in range(30):
        swapped = swap_words(TEXT, 0.1, random.Random(seed))
        assert Counter(words(swapped)) == Counter(words(TEXT))
        assert others(swapped) == others(TEXT)
        moved = sum(a != b for a, b in zip(words(swapped), words(TEXT), strict=True))
        assert moved == 2, "a tenth of eleven words is one swap"
    assert swap_words("good", 0.5, random.Random(0)) == "good"
    assert swap_words("good film", 0.01, random.Random(0)) == "film good"


def test_words_are_doubled_in_their_place_with_the_probability():
    n = len(words(LONG))
    doubled = words(duplicate_words(LONG, 0.3, random.Random(0)))
    assert near(len(doubled) / n - 1, 0.3, n)
    assert [w for i, w in enumerate(doubled) if i == 0 or doubled[i - 1] != w] == words(LONG)
    assert others(duplicate_words(TEXT, 0.5, random.Random(0))) == others(TEXT)


# What a masked language model proposes


@pytest.fixture(scope="module")
def replacement(place):
    return Replacement(*load_masked_lm(str(place / "mlm")), top_k=5)


def by_hand(model, ids: list[int], place: int, allowed: list[int]) -> list[int]:
    """Numbers of the allowed tokens, most probable first, where `place` is masked: one text at a time."""
    ids = [*ids[:place], SPECIAL.index("[MASK]"), *ids[place + 1 :]]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, place]
    return sorted(allowed, key=lambda number: -logits[number].item())


def test_candidates_are_the_models_best_words_in_order(replacement):
    texts = ["good film", "the plot was very poor and not a great scene", "awful", "", "good film"]
    allowed = list(range(len(SPECIAL), len(SPECIAL) + len(WORDS)))
    found = replacement.candidates(texts)
    assert [len(f) for f in found] == [2, 10, 1, 0, 2]
    for text, candidates in zip(texts, found, strict=True):
        ids = replacement.tokenizer(text)["input_ids"]
        for i, words_found in enumerate(candidates):
            best = by_hand(replacement.model, ids, i + 1, allowed)[:5]
            assert words_found == [WORDS[number - len(SPECIAL)] for number in best], (text, i)
    assert len({tuple(c) for f in found for c in f}) > 3, "they depend on the text"


def test_neither_the_batch_nor_the_company_changes_what_is_proposed(place, replacement):
    texts = ["good film", "the plot was very poor and not a great scene", "they was but we a very awful actor"]
    alone = [replacement.candidates([text])[0] for text in texts]
    one_by_one = Replacement(replacement.model, replacement.tokenizer, top_k=5, batch_size=1)
    assert replacement.candidates(texts) == alone == one_by_one.candidates(texts)


def test_words_that_are_cut_off_and_masks_in_the_text_itself_do_not_mislead(replacement):
    short = Replacement(replacement.model, replacement.tokenizer, top_k=5, max_length=6)
    assert [len(c) for c in short.candidates(["good film was a very poor plot"])[0]] == [5, 5, 5, 5, 0, 0, 0]
    (found,) = replacement.candidates(["good [MASK] film"])
    ids = replacement.tokenizer("good [MASK] film")["input_ids"]
    best = by_hand(replacement.model, ids, 3, list(range(len(SPECIAL), len(SPECIAL) + len(WORDS))))[:5]
    assert found[-1] == [WORDS[number - len(SPECIAL)] for number in best]


def wordpiece() -> PreTrainedTokenizerFast:
    tokens = [*SPECIAL, "un", "##able", "good", "film", "##ly", "plot", ",", "7"]
    backend = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    specials = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=specials)
    names = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("unk", "pad", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **names)


def test_a_word_of_several_pieces_is_masked_as_one_and_pieces_are_never_proposed(tmp_path):
    model, tokenizer = load_masked_lm(str(save_tiny_masked_lm(tmp_path / "m", tokenizer=wordpiece())))
    assert set(whole_words(tokenizer).values()) == {"un", "good", "film", "plot"}
    assert len(tokenizer("unable film")["input_ids"]) == 5
    (found,) = Replacement(model, tokenizer, top_k=3).candidates(["unable film"])
    ids = tokenizer("good film")["input_ids"]  # as many tokens as with one mask for the word
    allowed = list(whole_words(tokenizer))
    expected = [tokenizer.convert_ids_to_tokens(n) for n in by_hand(model, ids, 1, allowed)[:3]]
    assert found[0] == expected


def test_words_of_byte_level_vocabularies_are_those_after_a_space():
    vocabulary = {"[UNK]": 0, "good": 1, "\u0120good": 2, "\u0120film": 3, "ing": 4, "\u01207": 5, ",": 6}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    assert whole_words(tokenizer) == {2: "good", 3: "film"}


@pytest.mark.parametrize("family", ["roberta", "distilbert", "albert", "electra", "modernbert", "mpnet", "deberta-v2"])
def test_other_families_propose_words_too(family, tmp_path):
    replacement = Replacement(*load_masked_lm(str(save_tiny_masked_lm(tmp_path / family, family))), top_k=4)
    (found,) = replacement.candidates(["the film was good"])
    assert [len(set(c)) for c in found] == [4] * 4
    assert {word for candidates in found for word in candidates} <= set(WORDS)


def test_models_that_cannot_be_asked_are_refused(place):
    model, tokenizer = load_masked_lm(str(place / "mlm"))
    unmasked = tiny_tokenizer()
    unmasked.mask_token = None
    with pytest.raises(UserError, match="has no mask token"):
        Replacement(model, unmasked)
    model.get_output_embeddings = lambda: torch.nn.Identity()  # its logits do not come from what it says
    with pytest.raises(UserError, match="BertForMaskedLM computes logits in a way of its own"):
        Replacement(model, tokenizer).candidates(["good film"])


# Copies of examples


def test_copies_differ_from_the_example_and_from_each_other_and_methods_take_turns():
    how = Augmentation(methods=("swap", "duplicate"), copies=8, probability=0.5)
    example = ("good film was poor", "a scene, the plot")
    made = how.examples(example, [[], []], 7)
    assert made[0] == example
    assert len(set(made)) == len(made) > 4
    turns = [how.copy(example, [[], []], 7, number) for number in range(8)]
    assert all(sorted(words(c[0])) == sorted(words(example[0])) for c in turns[::2]), "even ones are swapped"
    assert all(len(words(c[0])) >= 4 and words(c[0])[0] == "good" for c in turns[1::2])
    assert made[1:] == list(dict.fromkeys(turn for turn in turns if turn != example))
    alone = Augmentation(methods=("swap", "duplicate"), copies=8, probability=0.5, originals=False)
    assert alone.examples(example, [[], []], 7) == made[1:]
    assert how.examples(example, [[], []], 8) != made, "other lines, other copies"


def test_the_two_texts_of_a_pair_are_never_mixed():
    left, right = "aa ab ac ad ae af", "ba bb bc bd be bf"
    for method in ("delete", "swap", "duplicate"):
        for a, b in Augmentation((method,), probability=0.5).examples((left, right), [[], []], 1):
            assert all(w[0] == "a" for w in words(a))
            assert all(w[0] == "b" for w in words(b))
    proposed = [[["ax"]] * 6, [["bx"]] * 6]
    pairs = Augmentation().examples((left, right), proposed, 1)
    assert {w for a, _ in pairs for w in words(a)} <= {*words(left), "ax"}
    assert {w for _, b in pairs for w in words(b)} <= {*words(right), "bx"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ("shuffle",)}, "--method shuffle: unknown method"),
        ({"methods": ()}, "name each method once"),
        ({"methods": ("swap", "swap")}, "name each method once"),
        ({"copies": 0}, "--copies 0: at least 1"),
        ({"probability": 0.0}, "--probability 0.0: more than 0"),
        ({"probability": 1.5}, "--probability 1.5: more than 0 and at most 1"),
        ({"probability": float("nan")}, "--probability nan"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Augmentation(**settings)


# Files


def command(place, data, output, more: str = "") -> str:
    return f"augment {data} --output {output} --model {place}/mlm --copies 4 --candidates 6 --max-length 32 {more}"


def test_an_own_file_keeps_labels_and_columns_and_every_new_word_is_a_candidate(place, call, tmp_path):
    out = tmp_path / "more.csv"
    status, printed, err = call(command(place, place / "pairs.csv", out, "--text-columns text,other --json"))
    assert status == 0, err
    source, made = rows_of(place / "pairs.csv"), rows_of(out)
    told = json.loads(printed)
    assert (told["examples"], told["rows"]) == (9, len(made))
    assert list(made[0]) == ["text", "other", "label", "origin"]
    proposed = Replacement(*load_masked_lm(str(place / "mlm")), top_k=6)
    changed = 0
    for line, row in enumerate(source, 2):
        mine = [r for r in made if r["origin"] == str(line)]
        assert {k: mine[0][k] for k in row} == row, "the example itself comes first"
        assert 1 < len(mine) <= 5
        for copy in mine:
            assert copy["label"] == row["label"]
            for column in ("text", "other"):
                (candidates,) = proposed.candidates([row[column]])
                pairs = zip(words(row[column]), words(copy[column]), candidates, strict=True)
                for old, new, allowed in pairs:
                    assert new == old or new in allowed
                    changed += new != old
    assert changed > 20


def test_the_file_is_a_function_of_its_settings_and_the_seed(place, call, tmp_path):
    def make(name: str, more: str = "") -> bytes:
        line = command(place, place / "pairs.csv", tmp_path / name, f"--text-columns text,other {more}")
        status, _, err = call(line)
        assert status == 0, err
        return (tmp_path / name).read_bytes()

    first = make("a.csv")
    assert make("b.csv") == make("c.csv", "--batch-size 1") == first
    assert len({first, make("d.csv", "--seed 1"), make("e.csv", "--copies 5"), make("f.csv", "--probability 0.8")}) == 4
    without = rows_of(tmp_path / "a.csv")
    make("g.csv", "--no-originals")
    originals = {tuple(r.values()) for r in rows_of(place / "pairs.csv")}
    assert rows_of(tmp_path / "g.csv") == [r for r in without if tuple(r.values())[:3] not in originals]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_every_kind_of_file_comes_back_as_what_it_was(suffix, place, call, tmp_path):
    rows = [
        {"text": 'good "film", a', "score": 1.5, "n": i, "note": f"the {i}"}
        if suffix in {".jsonl", ".parquet"}
        else {"text": 'good "film", a', "score": "1.5", "n": str(i), "note": f"the {i}"}
        for i in range(3)
    ]
    path, out = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    elif suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("\n".join("\t".join(r) for r in ([*rows[0]], *(r.values() for r in rows))) + "\n", "utf-8")
    status, _, err = call(f"augment {path} --output {out} --method delete --method swap --copies 4 --probability 0.5")
    assert status == 0, err
    lines = read_table(path).lines
    made = rows_of(out)
    assert len(made) > 6
    for row, line in zip(rows, lines, strict=True):
        mine = [r for r in made if int(r["origin"]) == line]
        assert {k: mine[0][k] for k in row} == row
        assert all({k: r[k] for k in row if k != "text"} == {k: v for k, v in row.items() if k != "text"} for r in mine)
    if suffix == ".parquet":
        schema = pyarrow.parquet.read_schema(out)
        assert schema.field("score").type == pyarrow.float64()
        assert schema.field("origin").type == pyarrow.int64()
    task = Task.from_files("regression", out, out, label_column="score")
    assert len(task.splits["train"]) == len(made)


def test_a_folder_becomes_a_folder_that_trains(place, call, tmp_path):
    (tmp_path / "own").mkdir()
    for split, name in (("train", "pairs.csv"), ("dev", "dev.csv")):
        (tmp_path / "own" / f"{split}.csv").write_bytes((place / name).read_bytes())
    status, _, err = call(command(place, tmp_path / "own", tmp_path / "more", "--text-columns text,other"))
    assert status == 0, err
    assert sorted(p.name for p in (tmp_path / "more").iterdir()) == ["dev.csv", "train.csv"]
    assert (tmp_path / "more" / "dev.csv").read_bytes() == (place / "dev.csv").read_bytes()
    data = f"--task classification --data {tmp_path}/more --text-columns text,other --max-length 32"
    status, out, err = call(
        f"distill {place}/teacher {data} --recipe tinybert --student-layers 2 --epochs 1 --output {tmp_path}/s --json"
    )
    assert status == 0, err
    assert json.loads(out)["train"]["examples"] == 2 * len(rows_of(tmp_path / "more" / "train.csv"))


GLUE_FILES = {
    "mrpc": ("MRPC", ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"], '{y}\t7\t8\tgood film {i}, was\tthe "plot was'),
    "cola": ("CoLA", [], "gj04\t{y}\t*\tthe film {i} was good"),
    "stsb": ("STS-B", ["index\tsentence1\tsentence2\tscore"], "{i}\tgood film was a\tthe plot was poor\t{y}.5"),
}


@pytest.mark.parametrize("name", GLUE_FILES)
def test_a_glue_task_becomes_a_folder_in_the_same_layout(name, place, call, tmp_path):
    folder, header, row = GLUE_FILES[name]
    (tmp_path / "glue" / folder).mkdir(parents=True)
    for split, count in (("train", 5), ("dev", 3)):
        lines = [*header, *(row.format(i=i, y=i % 2) for i in range(count))]
        (tmp_path / "glue" / folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    status, out, err = call(command(place, tmp_path / "glue", tmp_path / "more", f"--task {name}"))
    assert status == 0, err
    made = tmp_path / "more" / folder
    assert (made / "dev.tsv").read_bytes() == (tmp_path / "glue" / folder / "dev.tsv").read_bytes()
    before, after = Task.glue(name, tmp_path / "glue"), Task.glue(name, tmp_path / "more")
    assert after.splits["dev"] == before.splits["dev"]
    assert f"{len(after.splits['train'])} rows from 5 examples" in out
    labels = dict(zip(before.splits["train"].texts, before.splits["train"].labels, strict=True))
    originals = [t for t in after.splits["train"].texts if t in labels]
    assert originals == before.splits["train"].texts
    origins = [line.split("\t")[-1] for line in (made / "train.tsv").read_text("utf-8").splitlines()[len(header) :]]
    first = 1 + len(header)
    expected = [before.splits["train"].labels[int(origin) - first] for origin in origins]
    assert after.splits["train"].labels == expected
    status, _, err = call(command(place, tmp_path / "glue", tmp_path / "more", f"--task {name}"))
    assert status == 2
    assert f"more/{folder}: it exists already and is not overwritten" in err


def test_copies_of_held_out_rows_do_not_stay_in_train(place, call, tmp_path):
    write_csv(tmp_path / "all.csv", rows=24)
    status, _, err = call(f"augment {tmp_path}/all.csv --output {tmp_path}/more.csv --method swap")
    assert status == 0, err
    data = f"{place}/teacher --task classification --data {tmp_path}/more.csv --student-layers 2 --output {tmp_path}/s"
    status, _, err = call(f"distill {data}")
    assert status == 2
    assert "more.csv: its column 'origin' says that rows are copies of others" in err
    assert "give --dev" in err
    status, _, err = call(f"distill {data} --dev {tmp_path}/all.csv --max-steps 1 --max-length 32")
    assert status == 0, err
    rows = (tmp_path / "all.csv").read_text("utf-8").splitlines()
    (tmp_path / "mine.csv").write_text("\n".join([f"{rows[0]},origin", *(f"{r},Rome" for r in rows[1:])]), "utf-8")
    assert len(Task.from_files("classification", tmp_path / "mine.csv", text_columns=("text",)).splits["dev"]) == 3


def test_a_killed_augmentation_leaves_nothing_behind(place, tmp_path):
    write_csv(tmp_path / "all.csv", rows=200)
    source = read_source(tmp_path / "all.csv", tmp_path / "more.csv")
    seen = []

    def stop(read: int) -> None:
        seen.append((tmp_path / ".more.csv.part").exists())
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_augmented(source, Augmentation(("swap",)), advance=stop)
    assert seen == [True, True]
    assert [p.name for p in tmp_path.iterdir()] == ["all.csv"]
    (tmp_path / ".more.csv.part").write_text("what a kill left", "utf-8")
    write_augmented(source, Augmentation(("swap",)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.csv", "more.csv"]


def test_what_appears_at_the_output_in_the_meantime_is_not_overwritten(place, tmp_path):
    source = read_source(place / "pairs.csv", tmp_path / "more.csv")

    def someone_else(read: int) -> None:
        (tmp_path / "more.csv").write_text("dear", "utf-8")

    with pytest.raises(UserError, match="more.csv: it exists already"):
        write_augmented(source, Augmentation(("swap",)), advance=someone_else)
    assert (tmp_path / "more.csv").read_text("utf-8") == "dear"
    (tmp_path / "link.csv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="link.csv: it exists already"):
        read_source(place / "pairs.csv", tmp_path / "link.csv")


MISTAKES = [
    ("{p}/pairs.csv --output {o}.csv", "--method replace needs --model"),
    ("{p}/pairs.csv --output {o}.csv --method swap --model {p}/mlm", "--model proposes words for --method replace"),
    ("{p}/pairs.csv --output {o}.csv --model {p}/teacher", "teacher: has no masked-language-model head (BertForSeq"),
    ("{p}/pairs.csv --output {o}.csv --model {p}/decoder", "decoder: has no masked-language-model head (LlamaForSeq"),
    ("{p}/pairs.csv --output {o}.csv --model {p}/none", "none: no such folder"),
    ("{p}/pairs.csv --output {o}.csv --model {p}/mlm --max-length 32 --candidates 99", "--candidates 99: the model's"),
    ("{p}/pairs.csv --output {o}.csv --model {p}/mlm", "--max-length 128: the model allows 64 tokens"),
    ("{p}/pairs.csv --output {p}/dev.csv --method swap", "dev.csv: it exists already and is not overwritten"),
    ("{p}/pairs.csv --output {o}.tsv --method swap", "pairs.csv is a .csv file; choose a name with that ending"),
    ("{p}/pairs.csv --output {o}.csv --method swap --text-columns txet", "no column 'txet' (from --text-columns): did"),
    ("{p}/pairs.csv --output {o}.csv --method shuffle", "--method shuffle: unknown method"),
    ("{p}/pairs.csv --output {o}.csv --method swap --task mprc", "--task mprc: did you mean 'mrpc'"),
    ("{p}/none.csv --output {o}.csv --method swap", "DATA {p}/none.csv: no such file or folder"),
    ("{p}/pairs.csv --output {o}.csv --method swap --task mrpc", "DATA {p}/pairs.csv: a file, and a GLUE task is read"),
    ("{p} --output {o} --method swap --task mrpc", "task mrpc: split train is missing"),
    ("{p} --output {o} --method swap", "DATA {p}: split train is missing"),
    ("{p}/mlm --output {o} --method swap --task mrpc --text-columns a", "--text-columns: the texts of task mrpc"),
    ("{p}/twice.csv --output {o}.csv --method swap", "twice.csv: it has a column 'origin', so it is augmented already"),
]


@pytest.mark.parametrize(("words_", "message"), MISTAKES)
def test_mistakes_are_one_line_and_nothing_is_written(words_, message, place, call, tmp_path):
    if "decoder" in words_:
        save_tiny(place / "decoder", "llama")
    (place / "twice.csv").write_text("text,label,origin\ngood film,a,1\n", "utf-8")
    status, out, err = call("augment " + words_.format(p=place, o=tmp_path / "more"))
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert message.format(p=place) in err
    assert not list(tmp_path.iterdir())


def test_from_python_replacement_needs_someone_who_proposes(place):
    table = read_table(place / "pairs.csv")
    with pytest.raises(UserError, match="--method replace needs --model"):
        next(augmented_rows(table, ("text",), Augmentation(), None))
