"""Documents are read as they are written, whatever kind of file they are in, and what is no text is named."""

import gzip
import json

import pytest

from layerstill.data.text.documents import PIECE, corpus_files, read_documents
from layerstill.errors import UserError


def documents(path, column=None) -> list[str]:
    """Whole documents, pieces put together."""
    found: list[str] = []
    for piece in read_documents(path, column):
        found = [*found, piece.text] if piece.begins else [*found[:-1], found[-1] + piece.text]
    return [" ".join(text.split()) for text in found]


def test_in_plain_text_blank_lines_end_documents_and_titles_begin_them(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\nstill one\n\n  \ntwo\n = Three = \nof three\n = = Part = = \nmore of three\n", "utf-8")
    assert documents(path) == ["one still one", "two", "= Three = of three = = Part = = more of three"]


def test_a_document_without_any_end_is_read_in_pieces_that_cut_no_word(tmp_path):
    words = [f"word{i}" for i in range(120_000)]
    for name, text in (("lines", "\n".join(words)), ("one line", " ".join(words))):
        path = tmp_path / f"{name}.txt"
        path.write_text(text, "utf-8")
        pieces = list(read_documents(path))
        assert len(pieces) > 3
        assert max(len(piece.text) for piece in pieces) <= 2 * PIECE
        assert [piece.begins for piece in pieces] == [True] + [False] * (len(pieces) - 1)
        assert "".join(piece.text for piece in pieces).split() == words


def test_a_line_without_any_white_space_is_cut_somewhere_and_nothing_is_lost(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("x" * (9 * PIECE) + " end\n", "utf-8")
    assert "".join(piece.text for piece in read_documents(path)) == "x" * (9 * PIECE) + " end\n"


def test_rows_are_documents_in_every_kind_of_table(tmp_path):
    import pyarrow
    import pyarrow.parquet

    texts = ["one\n\nstill one", "two"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"id": 1, "text": t}) + "\n" for t in [*texts, None, ""]))
    (tmp_path / "b.ndjson").write_text("".join(json.dumps(t) + "\n" for t in texts))
    (tmp_path / "c.csv").write_text('id,text\n1,"one\n\nstill one"\n2,two\n')
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2, 3], "text": [*texts, None]}), tmp_path / "d.parquet")
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    files, others = corpus_files(tmp_path)
    assert [path.name for path in files] == ["a.jsonl", "b.ndjson", "c.csv", "d.parquet", "e.jsonl.gz"]
    assert others == 0
    for path in files:
        assert documents(path) == ["one still one", "two"], path
    (tmp_path / "f.jsonl").write_text('{"a": "x", "b": "y"}\n')
    assert documents(tmp_path / "f.jsonl", "b") == ["y"]
    with pytest.raises(UserError, match="no row has 'txt'"):
        documents(tmp_path / "f.jsonl", "txt")


def test_marks_at_the_beginning_are_no_text(tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "a.txt").write_text("one\n", encoding)
        assert documents(tmp_path / "a.txt") == ["one"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"good\nb\xe4d\n", "a.txt line 1 or soon after: not UTF-8; convert the file to UTF-8"),
        ("a.txt", b"MZ\0\0\1", "a.txt line 1: a NUL byte in it, so it is not text"),
        ("a.txt", b"BZh91AY", "packed with bzip2; unpack it (bunzip2)"),
        ("a.txt.gz", gzip.compress(b"good " * 9000, mtime=0)[:-20], "cannot be read to its end"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "a.jsonl line 2: not JSON"),
        ("a.jsonl", b'{"text": 7}\n', "a.jsonl line 1: column 'text' holds int, not a text"),
        ("a.jsonl", b'{"x": "a", "y": "b"}\n', "which column holds the texts? Set --text-columns to one of x, y"),
        ("a.csv", b"x,y\na,b\n", "which column holds the texts? Set --text-columns to one of x, y"),
    ],
)
def test_what_is_no_text_is_named_with_file_and_line(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(read_documents(tmp_path / name))
    assert message in str(caught.value)


def test_a_place_without_texts_is_refused(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"1")
    for path, message in (
        (tmp_path / "nothing", "no such file or folder"),
        (tmp_path, "no texts in it; looked for .txt"),
    ):
        with pytest.raises(UserError, match=message):
            corpus_files(path)
    (tmp_path / "a.txt").write_text("one\n")
    with pytest.raises(UserError, match="plain text and has no columns"):
        list(read_documents(tmp_path / "a.txt", "text"))


def test_a_row_is_one_piece_with_its_last_word(tmp_path):
    """Byte-level tokenizers tell a word with a space before it from one without."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "a good film"}) + "\n", "utf-8")
    assert [piece.text for piece in read_documents(path)] == ["a good film"]
