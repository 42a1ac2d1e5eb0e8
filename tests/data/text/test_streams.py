"""Corpora whose size nobody knows: data sets as the hub has them, and standard input."""

import io
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from layerstill.data.text.packing import STATE_FILE, Corpus, digest_of, pack
from layerstill.data.text.streams import HubStream, StandardInput, corpus_at
from layerstill.errors import UserError
from tests.tiny import WORDS, tiny_tokenizer

LENGTH = 16


def documents(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(3, 60))) for _ in range(count)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    texts = documents(1500)
    (folder / "texts.txt").write_text("\n\n".join(texts) + "\n", "utf-8")
    (folder / "set").mkdir()
    for i in range(3):  # a data set of the hub is such a folder, elsewhere
        table = pyarrow.table({"number": list(range(500)), "text": texts[i * 500 : (i + 1) * 500]})
        pyarrow.parquet.write_table(table, folder / "set" / f"train-{i:05}-of-00003.parquet")
    return folder


def pipe(monkeypatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(text.encode()))))


def blocks_of(corpus, folder, most=None) -> list[list[int]]:
    blocks = pack(corpus, tiny_tokenizer(), LENGTH, folder, most).opened(folder)
    return [blocks[i]["input_ids"] for i in range(len(blocks))]


def test_a_stream_has_the_blocks_that_a_file_with_its_texts_has(place, tmp_path, monkeypatch):
    expected = blocks_of(Corpus.at(place / "texts.txt"), tmp_path / "file")
    assert blocks_of(corpus_at(f"hub:{place}/set"), tmp_path / "hub") == expected
    assert blocks_of(corpus_at(f"hub:{place}/set::train", "text"), tmp_path / "split") == expected
    pipe(monkeypatch, (place / "texts.txt").read_text("utf-8"))
    assert blocks_of(corpus_at("-"), tmp_path / "plain") == expected
    rows = "".join(json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate(documents(1500)))
    pipe(monkeypatch, rows)
    assert blocks_of(corpus_at("-"), tmp_path / "rows") == expected


def test_no_more_of_a_stream_is_read_than_is_asked_for(place, tmp_path, monkeypatch):
    read = []
    rows = HubStream._rows
    monkeypatch.setattr(HubStream, "_rows", lambda self: (read.append(row) or row for row in rows(self)))
    some = blocks_of(corpus_at(f"hub:{place}/set"), tmp_path / "some", most=1000)
    assert len(read) == 512, "one portion"
    assert some == blocks_of(Corpus.at(place / "texts.txt"), tmp_path / "file", most=1000)


def test_a_stream_that_is_another_one_than_was_packed_is_noticed(place, tmp_path, monkeypatch):
    folder = tmp_path / "blocks"
    texts = documents(1500)
    pipe(monkeypatch, "\n\n".join(texts))
    calls = []
    flush = "layerstill.data.text.packing._Packer._flush"
    from layerstill.data.text.packing import _Packer

    whole = _Packer._flush

    def dying(self):
        whole(self)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(flush, dying)
    with pytest.raises(KeyboardInterrupt):
        pack(corpus_at("-"), tiny_tokenizer(), LENGTH, folder)
    monkeypatch.setattr(flush, whole)
    assert not json.loads((folder / STATE_FILE).read_text())["done"]
    pipe(monkeypatch, "\n\n".join([texts[0], "good film", *texts[2:]]))
    with pytest.raises(UserError, match=r"--data -: its first 1,024 texts are other ones than those in .*blocks"):
        pack(corpus_at("-"), tiny_tokenizer(), LENGTH, folder)
    pipe(monkeypatch, "\n\n".join(texts))
    assert blocks_of(corpus_at("-"), folder) == blocks_of(Corpus.at(place / "texts.txt"), tmp_path / "file")


def test_a_digest_goes_on_where_it_was():
    assert digest_of(digest_of("", ["a", "b"]), ["c"]) == digest_of("", ["a", "b", "c"])
    assert digest_of("", ["ab", "c"]) != digest_of("", ["a", "bc"])


def test_what_is_no_text_is_refused_on_standard_input(monkeypatch):
    for start, message in ((b"\x1f\x8b\x08", "packed with gzip; unpack it"), (b"PK\0\0", "a NUL byte in it")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(start + b"abc")))
        with pytest.raises(UserError, match=message):
            list(StandardInput(corpus_at("-").path, ()).pieces(0))
