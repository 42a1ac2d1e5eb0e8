"""Tagged sentences: columns and tables of lists, schemes of tags, and what is said of files that are wrong."""

import json
import re

import pytest

from layerstill.data.conll import read_splits, read_tagged, read_words
from layerstill.data.tasks import Task
from layerstill.errors import UserError

TWO = [(("EU", "rejects", "German", "call"), ["B-ORG", "O", "B-MISC", "O"]), (("Peter", "Black"), ["B-PER", "I-PER"])]


def columns(tmp_path, text, name="train.conll"):
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


def table(tmp_path, rows):
    return columns(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "train.jsonl")


def pairs(read):
    return list(zip(read.words, read.tags, strict=True))


@pytest.mark.parametrize("suffix", [".conll", ".iob", ".iob2", ".bio", ".txt", ".tsv"])
@pytest.mark.parametrize("separator", ["\t", " ", "   "])
def test_columns_with_tabs_or_spaces(tmp_path, suffix, separator):
    lines = [
        separator.join(pair) if pair else "" for pair in (*zip(*TWO[0], strict=True), (), *zip(*TWO[1], strict=True))
    ]
    assert pairs(read_tagged(columns(tmp_path, "\n".join(lines), f"train{suffix}"))) == TWO


def test_more_columns_documents_comments_and_any_number_of_empty_lines(tmp_path):
    text = (
        "# newdoc id = 1\n-DOCSTART- -X- -X- O\n\n# sent 1 of us O\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n# a comment\n"
        "German JJ B-NP B-MISC\ncall NN I-NP O\n-DOCSTART- -X- -X- O\nPeter NNP B-NP B-PER\n\t \n\n# NN I-NP O\n\n"
    )
    read = read_tagged(columns(tmp_path, text))
    assert pairs(read)[0] == TWO[0], "a comment does not part a sentence"
    assert pairs(read)[1] == (("Peter",), ["B-PER"]), "a document's beginning does"
    assert pairs(read)[2] == (("#",), ["O"]), "the sign is a word where its columns are those of one"
    assert read.where(0, 2) == f"{tmp_path}/train.conll line 8"
    speech = read_tagged(columns(tmp_path, text), None, "2")
    assert speech.tags[0] == ["NNP", "VBZ", "JJ", "NN"]
    assert speech.names == ("JJ", "NN", "NNP", "VBZ"), "parts of speech are no entities"


def test_words_of_tab_separated_columns_keep_spaces_and_hashtags(tmp_path):
    read = read_tagged(columns(tmp_path, "# made by hand\n#fun\tO\nNew York\tB-LOC\n"))
    assert pairs(read) == [(("#fun", "New York"), ["O", "B-LOC"])]


@pytest.mark.parametrize("names", [("tokens", "tags"), ("words", "ner_tags"), ("tokens", "labels")])
def test_tables_with_a_list_of_words_and_a_list_of_tags(tmp_path, names):
    rows = [dict(zip(names, pair, strict=True)) | {"id": i} for i, pair in enumerate(TWO)]
    assert pairs(read_tagged(table(tmp_path, rows))) == TWO


def test_parquet_and_columns_by_name(tmp_path):
    import pyarrow
    import pyarrow.parquet

    words, tags = [list(words) for words, _ in TWO], [tags for _, tags in TWO]
    pyarrow.parquet.write_table(pyarrow.table({"w": [*words, []], "t": [*tags, []]}), tmp_path / "train.parquet")
    read = read_tagged(tmp_path / "train.parquet", "w", "t")
    assert pairs(read) == TWO
    assert read.notices == (f"{tmp_path}/train.parquet: 1 rows without words are left out",)
    assert read.where(1, 1) == f"{tmp_path}/train.parquet line 2, word 2"


def test_the_order_of_tags_is_outside_then_by_type():
    from layerstill.data.conll import order_of_tags

    found = {"I-PER", "B-PER", "O", "I-LOC", "B-LOC", "B-creative-work"}
    assert order_of_tags(found) == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER", "B-creative-work")


def test_iob1_is_rewritten_with_a_notice(tmp_path):
    text = "a I-PER\nb I-PER\nc B-PER\nd O\ne I-LOC\nf I-PER\n\ng I-PER\n"
    read = read_tagged(columns(tmp_path, text))
    assert read.tags == [["B-PER", "I-PER", "B-PER", "O", "B-LOC", "B-PER"], ["B-PER"]]
    assert read.notices == (f"{tmp_path}/train.conll: its tags are IOB1 and are rewritten as IOB2",)


@pytest.mark.parametrize(("name", "last", "only"), [("BIOES", "E", "S"), ("BILOU", "L", "U")])
def test_bioes_is_rewritten_with_a_notice(tmp_path, name, last, only):
    text = f"a B-PER\nb I-PER\nc {last}-PER\nd {only}-PER\ne O\nf {only}-LOC\n"
    read = read_tagged(columns(tmp_path, text))
    assert read.tags == [["B-PER", "I-PER", "I-PER", "B-PER", "O", "B-LOC"]]
    assert read.notices == (f"{tmp_path}/train.conll: its tags are {name} and are rewritten as IOB2",)


def test_an_i_without_its_b_is_refused_with_its_place(tmp_path):
    path = columns(tmp_path, "a B-PER\nb O\nc I-PER\n\nd B-LOC\ne I-PER\n")
    message = (
        f"{path} line 3: I-PER after O continues no entity; write B-PER, as every entity of IOB2 begins; "
        f"1 more tags of {path} are like this"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        read_tagged(path)
    rows = table(tmp_path, [{"tokens": ["a", "b"], "tags": ["B-LOC", "O"]}, {"tokens": ["c"], "tags": ["I-PER"]}])
    with pytest.raises(UserError, match="train.jsonl line 2, word 1: I-PER at the beginning of a sentence continues"):
        read_tagged(rows)
    mended = columns(tmp_path, path.read_text().replace("c I-PER", "c B-PER").replace("e I-PER", "e B-PER"))
    assert read_tagged(mended).notices == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no words in it"),
        ("\n \n# nothing\n", "no words in it"),
        ("-DOCSTART- O\n\n", "no words in it"),
        ("EU\n", "line 1: a single column, 'EU'; a line holds a word and its tag, separated by a tab or by spaces"),
        ("a B-PER\n\nb x O\n", "line 3: 3 columns where line 1 has 2"),
        ("a\tB-PER\nb c\n", "line 2: 1 columns where line 1 has 2"),
        ("a\tO\nb\t\n", "line 2: word 'b' has no tag"),
        ("a\tO\n\tO\n", "line 2: '' is not a word; remove it and its tag"),
        ("token tag\na B-PER\n", "line 1: tag 'tag' among tags of entities, .* if this line names the columns"),
        ("a B-PER\nb B_PER\n", "line 2: tag 'B_PER' among tags of entities, which are O, B-TYPE and I-TYPE$"),
        ("a B-\nb B-PER\n", "line 1: tag 'B-' among tags of entities"),
    ],
)
def test_what_is_wrong_with_columns(tmp_path, text, message):
    with pytest.raises(UserError, match=f"train.conll:? {message}"):
        read_tagged(columns(tmp_path, text))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a b", "tags": ["O", "O"]}, ": no column tokens or words; say which one with --text-columns NAME"),
        ({"tokens": ["a"], "ner": ["O"]}, ": no column tags or ner_tags or labels; say which one with --label-column"),
        ({"tokens": "a b", "tags": ["O"]}, " line 1: column 'tokens' holds 'a b' where a list of words is expected"),
        ({"tokens": ["a"], "tags": "O"}, " line 1: column 'tags' holds 'O' where a list of tags is expected"),
        ({"tokens": ["a", "b"], "tags": ["O"]}, " line 1: 2 words and 1 tags; each word needs one"),
        ({"tokens": ["a", "b"], "tags": ["O", 3]}, " line 1, word 2: tag 3 is a number; write the names of tags"),
        ({"tokens": ["a", "b"], "tags": ["O", None]}, " line 1, word 2: None where the name of a tag is expected"),
        ({"tokens": ["a", 7], "tags": ["O", "O"]}, " line 1, word 2: 7 where a word is expected"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, " line 1, word 2: ' ' is not a word"),
        ({"tokens": ["a", "\ud800"], "tags": ["O", "O"]}, " line 1, word 2: it holds half of a surrogate pair"),
        ({"tokens": [], "tags": []}, ": no words in it"),
    ],
)
def test_what_is_wrong_with_tables(tmp_path, row, message):
    with pytest.raises(UserError, match=f"train.jsonl{message}"):
        read_tagged(table(tmp_path, [row]))


def test_columns_are_asked_for_by_number(tmp_path):
    path = columns(tmp_path, "a B-PER\n")
    with pytest.raises(UserError, match="--label-column 3: the columns of .* are numbered 1 to 2"):
        read_tagged(path, None, "3")
    with pytest.raises(UserError, match="--text-columns word: the columns of .* are numbered 1 to 2"):
        read_tagged(path, "word")
    with pytest.raises(UserError, match="column 1 is both word and tag"):
        read_tagged(path, None, "1")
    with pytest.raises(UserError, match="unknown kind of file '.docx'; use one of .conll, .iob"):
        read_tagged(tmp_path / "train.docx")


def test_splits_have_one_numbering_of_all_tags(tmp_path):
    train = columns(tmp_path, "a B-PER\nb O\n")
    dev = columns(tmp_path, "a B-PER\nb I-PER\n\nc B-LOC\n", "dev.conll")
    read = read_splits({"train": train, "dev": dev})
    assert read.names == ("O", "B-LOC", "B-PER", "I-PER")
    assert read.tags == {"train": [[2, 0]], "dev": [[2, 3], [1]]}
    assert read.words["dev"] == [("a", "b"), ("c",)]
    assert read.notices == ()


def test_splits_without_entities_are_refused(tmp_path):
    outside = columns(tmp_path, "a O\n", "dev.conll")
    train = columns(tmp_path, "a B-PER\n")
    with pytest.raises(UserError, match="every word has the tag 'O'; there is nothing to learn"):
        read_splits({"train": outside})
    with pytest.raises(UserError, match="dev.conll: its tags are O and name no entity, so it cannot be scored"):
        read_splits({"train": train, "dev": outside})
    with pytest.raises(UserError, match="dev.conll: .* no entity, so there is nothing to learn"):
        read_splits({"train": outside, "dev": train})
    with pytest.raises(UserError, match="--text-columns: sentences have one column of words, got 1, 2"):
        read_splits({"train": train}, ("1", "2"))


def test_words_alone(tmp_path):
    assert read_words(columns(tmp_path, "a\nb\n\nc\n")) == [("a", "b"), ("c",)]
    assert read_words(columns(tmp_path, "a B-PER\n# no tag\nb I-LOC\n")) == [("a", "b")]
    with pytest.raises(UserError, match="no words in it"):
        read_words(columns(tmp_path, "\n"))


def test_a_word_may_hold_a_space_that_is_no_blank(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("10\u00a0000 O\nOslo B-PLACE\n\n" * 12, "utf-8")
    task = Task.from_files("tokens", path)
    assert task.splits["train"].texts[0] == ("10\u00a0000", "Oslo")


def test_chunks_without_a_type_are_told(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("Ann B\nLee I\nsings O\n\n" * 12, "utf-8")
    task = Task.from_files("tokens", path)
    assert task.metrics == ("accuracy_tokens",)
    assert any("the tags B, I, O name no type, so words are scored and not entities" in told for told in task.notices)
