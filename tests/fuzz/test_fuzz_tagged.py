"""Any file is read as tagged sentences or refused with its name; good sentences are read back as they were written."""

import json

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from layerstill.data.conll import SUFFIXES, read_splits, read_tagged
from layerstill.data.iob import has_entities
from layerstill.errors import UserError
from layerstill.metrics.entities import entities
from tests.fuzz.strategies import fuzz


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


FRAGMENTS = (
    "word B-PER I-PER O S-PER E-PER # -DOCSTART- \t \n \n\n { } : [ ] , null \ufeff \0 é \u2028 \x85 tokens".split(" ")
)
COLUMNISH = st.lists(st.sampled_from([*FRAGMENTS, " ", '"']), max_size=25).map(lambda parts: "".join(parts).encode())


@fuzz(150, 10_000)
@given(st.sampled_from(SUFFIXES), st.binary(max_size=60) | COLUMNISH)
@example(".conll", b"word I-PER\nword B-PER")
@example(".jsonl", b'{"tokens": ["a"], "tags": [1e400]}')
def test_any_bytes_are_sentences_or_refused(folder, suffix, content):
    path = folder / f"any{suffix}"
    path.write_bytes(content)
    try:
        read = read_splits({"train": path, "dev": path})
    except UserError as error:
        assert f"any{suffix}" in str(error)
        event("refused")
        return
    event("read")
    for words, tags in zip(read.words["train"], read.tags["dev"], strict=True):
        assert len(words) == len(tags) > 0
        assert all(word.strip() for word in words)
        names = [read.names[tag] for tag in tags]
        if has_entities(read.names):  # IOB2: as many entities as there are first words
            assert len(entities(names)) == sum(name.startswith("B-") for name in names)


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["a\ud800", "O", "B-X"])
LISTS = st.lists(SCALARS, max_size=3) | SCALARS


@fuzz(80, 5000)
@given(st.lists(st.fixed_dictionaries({"tokens": LISTS, "tags": LISTS}), min_size=1, max_size=4))
def test_any_json_rows_are_sentences_or_refused(folder, rows):
    path = folder / "any.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    try:
        read = read_tagged(path)
    except UserError as error:
        assert "any.jsonl" in str(error)
        return
    assert read.words == [tuple(row["tokens"]) for row in rows if row["tokens"]]


WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=5).filter(
    lambda word: not word.startswith(("#", "-DOCSTART-", "\ufeff"))
)
TYPED = st.sampled_from(["PER", "LOC", "creative-work"])
CHUNKS = st.lists(st.tuples(st.none() | TYPED, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=5)


@fuzz(100, 10_000)
@given(st.sampled_from([".conll", ".tsv", ".jsonl"]), st.sampled_from("\t "), st.lists(CHUNKS, min_size=1, max_size=4))
def test_good_sentences_are_read_back_as_they_were_written(folder, suffix, separator, drawn):
    sentences = []
    for chunks in drawn:
        pairs = [
            (word, "O" if kind is None else f"{'I' if i else 'B'}-{kind}")
            for kind, words in chunks
            for i, word in enumerate(words)
        ]
        sentences.append(([word for word, _ in pairs], [tag for _, tag in pairs]))
    path = folder / f"good{suffix}"
    if suffix == ".jsonl":
        text = "".join(json.dumps({"tokens": words, "tags": tags}) + "\n" for words, tags in sentences)
    else:
        text = "\n".join("".join(f"{w}{separator}{t}\n" for w, t in zip(*s, strict=True)) for s in sentences)
    path.write_text(text, "utf-8")
    read = read_tagged(path)
    assert [(list(words), tags) for words, tags in zip(read.words, read.tags, strict=True)] == sentences
    assert read.notices == ()
