"""`plan --task text` says what the run then does, and of a large corpus nearly so, without packing it."""

import gzip
import json
import re

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from layerstill.data.text import estimate
from layerstill.data.text.documents import extent, read_documents
from layerstill.data.text.estimate import look_at
from layerstill.data.text.packing import Corpus
from tests.tiny import WORDS, save_tiny, save_tiny_masked_lm, tiny_tokenizer

LENGTH = 16


def documents(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(3, 60))) for _ in range(count)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    save_tiny(folder / "teacher", labels=3)
    save_tiny_masked_lm(folder / "masked")
    save_tiny_masked_lm(folder / "llama", "llama")
    (folder / "texts.txt").write_text("\n\n".join(documents(120)) + "\n", "utf-8")
    return folder


def words(place, verb: str, *more: str, teacher: str = "masked", recipe: str = "text-kd") -> list[str]:
    line = f"{verb} {place}/{teacher} --task text --data {place}/texts.txt --student-layers 2 --max-length {LENGTH} -q"
    return [*f"{line} --recipe {recipe} --batch-size 8 --precision fp32".split(), *more]


@pytest.mark.parametrize(
    "more",
    [
        "",
        "--max-tokens 2000",
        "--max-steps 5 --set student.hidden_size=24",
        "--epochs 3 --cache {tmp}/cache",
    ],
)
def test_a_run_has_the_numbers_that_plan_said(more, place, call, tmp_path):
    more = more.format(tmp=tmp_path).split()
    status, out, err = call(words(place, "plan", *more, "--json"))
    assert status == 0, err
    plan = json.loads(out)
    status, _, err = call(words(place, "distill", *more, "--output", str(tmp_path / "s")))
    assert status == 0, err
    result = json.loads((tmp_path / "s" / "result.json").read_text("utf-8"))
    assert plan["text"] == result["text"] | {"estimated_from": None}
    assert [stage["steps"] for stage in plan["stages"]] == [result["train"]["steps"]]
    assert plan["student_parameters"] == result["student"]["parameters"]
    assert plan["initialisation"] == result["student"]["init"]["layers"] == [1, 2]
    assert plan["seconds"]["total"] == pytest.approx(sum(plan["seconds"].values()) / 2, abs=0.05)
    assert plan["seconds"]["training"] > 0
    if "--cache" in more:
        assert plan["seconds"]["packing"] > 0
        status, out, err = call(words(place, "plan", *more, "--json"))
        assert status == 0, err
        again = json.loads(out)
        assert again["text"] == plan["text"]
        assert again["seconds"]["packing"] == 0, "the blocks are there"


def test_hours_are_as_many_steps_as_fit_in_them(place, call):
    status, out, err = call(words(place, "plan", "--max-hours", "0.01", "--json"))
    assert status == 0, err
    (stage,) = json.loads(out)["stages"]
    assert stage["steps"] * stage["step_seconds"] == pytest.approx(36, rel=0.05)
    assert stage["seconds"] == pytest.approx(36, rel=0.05)


def test_what_is_left_out_is_said_with_the_reason(place, call):
    status, out, err = call([w for w in words(place, "plan", teacher="llama") if w != "-q"])
    assert status == 0, err
    assert "a causal model is asked for the next word, so none is hidden" in " ".join(err.split())
    assert "soft targets" in out
    line = words(place, "plan", teacher="teacher", recipe="text-att-mse")
    status, out, err = call([w for w in line if w != "-q"])
    assert status == 0, err
    assert "the head of BertForSequenceClassification is left out: it says no words" in " ".join(err.split())
    told = " ".join(out.split())
    assert re.search(r"120 documents in \d+ blocks of at most 16 tokens, \d+ on average", told)
    assert re.search(r"training takes \d+ steps of 8 blocks, about [\d,]+ tokens, 1 passes over the corpus", told)
    assert "the student takes 0.2 MB in 32 bits" in told
    assert re.search(r"run: about \d+ s from start to end \(start", told)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--recipe minilmv2", "stage 2: objective 'soft targets' is about logits over words"),
        ("--max-hours -1", "--max-hours -1: it must be above 0"),
        ("--data nowhere", "--data nowhere: no such file or folder"),
        ("--dev x.csv", "--dev: --task text has no use for it"),
        ("--few-samples 3", "--few-samples: it is about labelled examples"),
        ("--set stages.0.select=best", "select: best needs a score"),
    ],
)
def test_plan_refuses_what_distill_refuses(more, message, place, call):
    status, _, err = call([*words(place, "plan", teacher="teacher", recipe="text-att-mse"), *more.split()])
    assert status == 2
    assert message in " ".join(err.split())


def test_only_running_text_is_planned_in_tokens(place, call):
    status, _, err = call(f"plan {place}/teacher --task classification --data x.csv --max-tokens 9")
    assert status == 2
    assert "--max-tokens: it is for --task text" in err


def write(folder, kind: str, texts: list[str]) -> None:
    if kind == "txt":
        (folder / "a.txt").write_text("\n\n".join(texts) + "\n", "utf-8")
    elif kind == "txt.gz":
        with gzip.open(folder / "a.txt.gz", "wt") as file:
            file.write("\n\n".join(texts) + "\n")
    elif kind == "jsonl":
        rows = [json.dumps({"text": text, "source": "x" * 500}) for text in texts]
        (folder / "a.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    elif kind == "csv":
        rows = [f'{i},"{text}"\n' for i, text in enumerate(texts)]
        (folder / "a.csv").write_text("number,text\n" + "".join(rows), "utf-8")
    elif kind == "parquet":
        table = pyarrow.table({"text": texts, "noise": np.random.default_rng(1).random(len(texts))})
        pyarrow.parquet.write_table(table, folder / "a.parquet")
    else:
        for i in range(12):
            (folder / f"{i:02}.txt").write_text("\n\n".join(texts[i * 1000 : (i + 1) * 1000]) + "\n", "utf-8")


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "jsonl", "csv", "parquet", "many files"])
def test_a_large_corpus_is_estimated_from_a_part_of_it(kind, tmp_path, monkeypatch):
    folder = tmp_path / "texts"
    folder.mkdir()
    write(folder, kind, documents(12_000))
    corpus, tokenizer = Corpus.at(folder), tiny_tokenizer()
    truth = look_at(corpus, tokenizer, LENGTH, tmp_path / "whole")
    assert not truth.read
    assert truth.text["documents"] == 12_000
    monkeypatch.setattr(estimate, "SAMPLE", 300_000)
    monkeypatch.setattr(estimate, "FILES", 4)
    found = look_at(corpus, tokenizer, LENGTH, tmp_path / "some")
    assert found.read
    assert len(found.blocks) < 0.5 * len(truth.blocks)
    for name in ("documents", "blocks", "tokens", "held_out_blocks"):
        assert found.text[name] == pytest.approx(truth.text[name], rel=0.15), name
    few = look_at(corpus, tokenizer, LENGTH, tmp_path / "few", most=20_000)
    assert few.text["tokens"] + few.text["held_out_tokens"] == pytest.approx(20_000 * 1.15, rel=0.1)


def test_a_piece_ends_where_its_file_was_read_to(tmp_path):
    for kind in ("txt", "txt.gz", "jsonl", "csv", "parquet"):
        folder = tmp_path / kind
        folder.mkdir()
        write(folder, kind, documents(500))
        (file,) = folder.iterdir()
        ends = [piece.end for piece in read_documents(file)]
        assert ends == sorted(ends)
        assert ends[-1] == pytest.approx(extent(file), abs=2), kind
