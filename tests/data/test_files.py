"""Files as pandas, Excel and spreadsheets write them: read right, or named with the two readings, never in silence."""

import gzip
import io
import json
import sys
import zipfile
from pathlib import Path

import pytest

from layerstill.data.files import read_table, read_unquoted
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.heads import Classes
from tests.tiny import save_tiny

ROWS = [(f"mail {i}, it says", ("spam", "ham", "eggs")[i % 3]) for i in range(12)]
HEADER = ("text", "label")


def lined(separator: str, rows=ROWS, end: str = "\n", header=HEADER) -> str:
    return "".join(separator.join(row) + end for row in (header, *rows))


def plain(rows=ROWS):
    """Rows whose texts hold no comma."""
    return [(text.replace(",", ""), label) for text, label in rows]


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(path: Path) -> list[tuple[str, ...]]:
    return list(zip(*(read_table(path).columns[name] for name in HEADER), strict=True))


def pandas_tsv(rows, quoting=0) -> str:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(rows, columns=HEADER).to_csv(sep="\t", index=False, quoting=quoting)


ODD = [('he said "yes" twice', "a"), ("two\nlines", "b"), ("a\ttab", "a"), ('"', "b"), ("plain", "a"), ("", "b")]


@pytest.mark.parametrize("quoting", [0, 1])  # only where needed, and everywhere
@pytest.mark.parametrize("rows", [ODD, ODD[:1] * 3, ODD[1:2] * 3, ODD[2:3] * 3, ODD[3:4] * 3])
def test_a_tsv_of_pandas_is_read_as_it_was_written(rows, quoting, tmp_path):
    table = read_table(put(tmp_path, "a.tsv", pandas_tsv(rows, quoting)))
    assert list(zip(table.columns["text"], table.columns["label"], strict=True)) == rows
    assert table.notices == ()
    assert table.quoted


@pytest.mark.parametrize(
    ("texts", "note"),
    [
        (['"not closed', "b", "c"], "do not match"),
        (['"not closed', "b", 'c"'], "they make 1"),
        (['a "word"', '"whole"', "c"], "1 fields hold quotes without being quoted; 1 fields are in quotes as a whole"),
        (['5" screen', "b", "c"], None),
        (['"one" and "two"', "b", "c"], "do not match"),
    ],
)
def test_a_tsv_without_quoting_keeps_its_quotes_and_rows(texts, note, tmp_path):
    rows = [(text, "ab"[i % 2]) for i, text in enumerate(texts)]
    path = put(tmp_path, "a.tsv", lined("\t", rows))
    table = read_table(path)
    assert rows_of(path) == rows
    assert len(table.notices) == (note is not None)
    assert note is None or note in table.notices[0]
    assert read_unquoted(path).columns == table.columns


def test_quotes_around_whole_texts_are_left_out_with_a_note(tmp_path):
    table = read_table(put(tmp_path, "a.tsv", lined("\t", [('"Big Fish"', "a"), ("Jaws", "b")])))
    assert table.columns["text"] == ["Big Fish", "Jaws"]
    assert "the quotes around 1 fields are left out" in table.notices[0]


def test_unquoted_files_are_read_as_glue_writes_them(tmp_path):
    table = read_unquoted(put(tmp_path, "a.tsv", 'text\tlabel\n"Big Fish"\ta\nx "y\tb\n'))
    assert table.columns["text"] == ['"Big Fish"', 'x "y']


@pytest.mark.parametrize(
    "first", ["Dear team,\nwhere is it", "one\ntwo, three", "a\n\nb", 'he "said"\nno', "spam\nspam"]
)
def test_line_breaks_in_csv_are_no_reason_for_a_note(first, tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = [(f"{first} {i}", label) for i, (_, label) in enumerate(ROWS)] + ROWS
    for header, put_first in ((["text", "label"], False), (["label", "text"], True)):
        written = [row[::-1] for row in rows] if put_first else rows
        path = put(tmp_path, "a.csv", pandas.DataFrame(written, columns=header).to_csv(index=False))
        assert rows_of(path) == rows
        assert read_table(path).notices == ()


def test_a_quote_that_takes_rows_along_is_named(tmp_path):
    rows = [*ROWS[:6], ('"open', "ham"), ("next", "eggs"), ('last"', "spam")]
    text = "text,label\n" + "".join(f'"{t}",{y}\n' if "," in t else f"{t},{y}\n" for t, y in rows)
    table = read_table(put(tmp_path, "a.csv", text))
    assert len(table.lines) == 7
    assert "a.csv line 8: the text in quotes that begins here takes up 3 lines" in table.notices[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_encodings_and_line_ends(encoding, end, tmp_path):
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    rows = [*plain(), ("größe 价格", "ham")]
    for separator, name in (("\t", "a.tsv"), (",", "a.csv")):
        path = put(tmp_path, name, (mark + lined(separator, rows, end)).encode(encoding))
        assert rows_of(path) == rows
        assert read_table(path).notices == ()


@pytest.mark.parametrize(("separator", "name"), [("\t", "a.tsv"), (",", "a.csv"), (";", "a.csv")])
def test_a_carriage_return_in_a_text_stays_where_lines_end_otherwise(separator, name, tmp_path):
    rows = [*plain(), ("a\rb", "ham")]
    assert rows_of(put(tmp_path, name, lined(separator, rows))) == rows
    mixed = lined(separator, plain()) + lined(separator, plain(), "\r").replace(lined(separator, [], "\r"), "")
    assert rows_of(put(tmp_path, name, mixed)) == plain() * 2, "two files joined, one of an old Mac"


@pytest.mark.parametrize(
    ("name", "separator", "told"),
    [
        ("a.csv", ";", "semicolons"),
        ("a.csv", "\t", "tabs"),
        ("a.tsv", ";", "semicolons"),
        ("a.csv", "|", "bars"),
        ("a.CSV", ",", None),
        ("a.txt", "\t", None),
        ("a.jsonl", "\t", None),
    ],
)
def test_the_separator_is_what_is_in_the_file(name, separator, told, tmp_path):
    rows = plain() if separator == "," else ROWS
    path = put(tmp_path, name, lined(separator, rows))
    assert rows_of(path) == rows
    assert [f"separated by {told} and were read that way" in note for note in read_table(path).notices] == [
        True
    ] * bool(told)


def test_two_separators_are_named_with_both_readings(tmp_path):
    table = read_table(put(tmp_path, "a.csv", "a,b;c\n1,2;3\n4,5;6\n"))
    assert table.columns == {"a": ["1", "4"], "b;c": ["2;3", "5;6"]}
    assert "split at commas into 2 columns; semicolons would make 2" in table.notices[0]
    said = read_table(put(tmp_path, "b.csv", "sep=;\na,b;c\n1,2;3\n"))
    assert said.columns["a,b"] == ["1,2"]


@pytest.mark.parametrize("quote", ["", '"'])
def test_blanks_after_commas(quote, tmp_path):
    rows = plain() if not quote else ROWS
    text = "text, label\n" + "".join(f"{quote}{t}{quote}, {quote}{y}{quote}\n" for t, y in rows)
    for content in (text, text.replace("text, label", "text,label") if quote else text):
        path = put(tmp_path, "train.csv", content)
        assert rows_of(path) == rows
        assert read_table(path).column(" label", "--label-column") == [label for _, label in rows]
        assert Task.from_files("classification", path).labels == ("eggs", "ham", "spam")


RECORDS = [{"text": text, "label": label} for text, label in ROWS]
COLUMNS = {name: {str(i): row[name] for i, row in enumerate(RECORDS)} for name in HEADER}
JSON = {
    "array": json.dumps(RECORDS),
    "pretty array": json.dumps(RECORDS, indent=2),
    "lines": "".join(json.dumps(row) + "\n" for row in RECORDS),
    "columns of pandas": json.dumps(COLUMNS),
    "split of pandas": json.dumps({"columns": HEADER, "index": list(range(12)), "data": ROWS}),
    "wrapped": json.dumps({"version": 1, "data": RECORDS}, indent=1),
}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "A.JSON", "a.csv", "a.jsonl.gz"])
@pytest.mark.parametrize("kind", JSON)
def test_json_whatever_its_form_and_name(kind, name, tmp_path):
    content = JSON[kind].encode()
    if kind in {"columns of pandas", "split of pandas"} and not name.lower().endswith(".json"):
        name = "a.json"
    if kind == "wrapped":
        name = "a.json"
    assert rows_of(put(tmp_path, name, gzip.compress(content) if name.endswith(".gz") else content)) == ROWS


def test_the_only_sentence_of_a_file_of_lines_is_a_row(tmp_path):
    table = read_table(put(tmp_path, "a.jsonl", '{"tokens": ["EU", "x"], "tags": ["B-ORG", "O"]}\n'))
    assert table.columns == {"tokens": [["EU", "x"]], "tags": [["B-ORG", "O"]]}
    columns = read_table(put(tmp_path, "a.json", '{"text": ["x", "y"], "label": ["a", "b"]}'))
    assert columns.columns == {"text": ["x", "y"], "label": ["a", "b"]}
    assert "read as 2 columns of 2 rows and not as a single row" in columns.notices[0]


def test_keys_that_some_rows_lack(tmp_path):
    rows = [*RECORDS, {"label": "ham", "text": "b", "source": "web"}]
    path = put(tmp_path, "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows) + "\n\n")
    assert read_table(path).columns["source"] == [None] * 12 + ["web"]
    assert len(Task.from_files("classification", path).labels) == 3
    put(tmp_path, "train.jsonl", path.read_text() + '{"text": "no label"}\n')
    with pytest.raises(UserError, match=r"line 16: label None names no class; it is missing: fill it in or leave"):
        Task.from_files("classification", path)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.TSV.GZ", "a.csv"])
def test_files_packed_with_gzip(name, tmp_path):
    content = lined("\t" if "TSV" in name else ",", plain()).encode()
    assert rows_of(put(tmp_path, name, gzip.compress(content))) == plain()
    with pytest.raises(UserError, match="a damaged gzip file"):
        read_table(put(tmp_path, name, gzip.compress(content)[:-9]))


def test_parquet_of_any_name(tmp_path):
    pandas = pytest.importorskip("pandas")
    buffer = io.BytesIO()
    pandas.DataFrame(ROWS, columns=HEADER).to_parquet(buffer)
    for name, content in (("a.csv", buffer.getvalue()), ("a.parquet.gz", gzip.compress(buffer.getvalue()))):
        assert rows_of(put(tmp_path, name, content)) == ROWS


def zipped(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", b"PK\x03\x04xx", "not a readable Excel file"),
        ("a.csv", zipped(a_csv="text,label\n"), "a ZIP archive; unpack it"),
        ("a.xlsx", zipped(mimetype="x"), "an OpenDocument file; save it as .xlsx or as CSV"),
        ("a.csv", b"BZh91AY", "packed with bzip2; unpack it"),
        ("a.csv", b"\xd0\xcf\x11\xe0\xa1", "an old Excel file; save it as .xlsx"),
        ("a.xlsx", "hello", "not a readable Excel file; save it again"),
        ("a.txt", "one text\nand another, here\n", "a text file without columns has no labels"),
        ("a.doc", "x", "unknown kind of file '.doc'"),
    ],
)
def test_what_is_not_read_says_the_way_out(name, content, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_table(put(tmp_path, name, content))


def test_excel_without_openpyxl_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    path = put(tmp_path, "a.xlsx", zipped(xl__workbook_xml="<workbook/>"))
    with pytest.raises(UserError, match=r"pip install 'layerstill\[excel\]', or save the file as 'CSV UTF-8'"):
        read_table(path)


def test_excel_is_read_as_if_saved_as_csv(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in ([], [" text", "label", "when"], ["a\nb", 1.0, None], [12, True, None], [], [None, None, None]):
        book.active.append(row)
    book.create_sheet("notes").append(["more"])
    book.save(tmp_path / "a.xlsx")
    table = read_table(tmp_path / "a.xlsx")
    assert table.columns == {"text": ["a\nb", "12"], "label": ["1", "True"], "when": ["", ""]}
    assert "read from its sheet 'Sheet'; 'notes' is not read" in table.notices[0]
    assert table.where(table.lines[0]).endswith("a.xlsx row 3")
    put(tmp_path, "b.csv", (tmp_path / "a.xlsx").read_bytes())
    assert read_table(tmp_path / "b.csv").columns == table.columns


def test_empty_rows_and_columns_of_spreadsheets(tmp_path):
    table = read_table(put(tmp_path, "a.csv", "text,label,,\na,x,,\nb,y,,\n,,,\n,\n\n"))
    assert table.columns == {"text": ["a", "b"], "label": ["x", "y"]}
    assert table.notices == ()
    between = read_table(put(tmp_path, "a.csv", "text,label\na,x\n,\nb,y\n,\n"))
    assert between.lines == [2, 4]
    assert "1 empty rows are left out (line 3)" in between.notices[0]
    assert read_table(put(tmp_path, "a.csv", 'text,label\n,x\n"",y\n')).columns["label"] == ["x", "y"]


@pytest.mark.parametrize("dev", ["val.csv", "valid.csv", "Validation.CSV", "dev.csv", "DEV.Csv.gz", "val.tsv"])
def test_splits_of_a_folder_by_any_usual_name(dev, tmp_path):
    put(tmp_path, "Train.CSV", lined(",", plain()))
    put(tmp_path, "TEST.csv", lined(",", plain()[:3]))
    put(tmp_path, "notes.md", "x")
    content = lined("\t" if dev.endswith(".tsv") else ",", plain()[:6]).encode()
    put(tmp_path, dev, gzip.compress(content) if dev.endswith(".gz") else content)
    task = Task.from_files("classification", tmp_path)
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 12, "dev": 6, "test": 3}
    put(tmp_path, "val.jsonl", JSON["lines"])
    with pytest.raises(UserError, match="several files for split dev"):
        Task.from_files("classification", tmp_path)


def test_folders_without_train_say_what_is_there(tmp_path):
    put(tmp_path, "mails.csv", lined(",", plain()))
    with pytest.raises(UserError, match=r"split train is missing, .*; there is mails.csv: rename it, or name the file"):
        Task.from_files("classification", tmp_path)
    put(tmp_path, "dataset_info.json", "{}")
    with pytest.raises(UserError, match="a folder of save_to_disk: write each split with to_parquet"):
        Task.from_files("classification", tmp_path)


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t"), ("a.csv", ";")])
@pytest.mark.parametrize("options", [{}, {"text_columns": ("text",)}])
def test_a_missing_header_is_said_so(name, separator, options, tmp_path):
    path = put(tmp_path, name, lined(separator, plain()[1:], header=plain()[0]))
    shown = separator.replace("\t", "<TAB>")
    message = f"line 1 looks like data: put a line with the names of the columns before it, such as text{shown}label"
    with pytest.raises(UserError, match=message):
        Task.from_files("classification", path, **options)


def test_a_header_with_other_names_is_no_missing_header(tmp_path):
    path = put(tmp_path, "a.csv", lined(",", plain(), header=("body", "topic")))
    with pytest.raises(UserError, match=r"columns: body, topic$"):
        Task.from_files("classification", path)


def test_a_name_of_the_hub_says_how_to_save_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"load_dataset\('stanfordnlp/imdb'\)\['train'\].to_parquet"):
        Task.from_files("classification", "stanfordnlp/imdb")
    with pytest.raises(UserError, match=r"no such file or folder$"):
        Task.from_files("classification", "mails.csv")


def test_usual_columns_are_found_in_any_letter_case_and_a_note_says_so(tmp_path):
    rows = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20))
    (tmp_path / "c.csv").write_text(f"Text,LABEL\n{rows}", "utf-8")
    task = Task.from_files(Classes(), tmp_path / "c.csv")
    assert task.labels == ("a", "b")
    assert (task.source.text_columns, task.source.label_column) == (["Text"], "LABEL")
    assert any("columns are found in any letter case: Text, LABEL" in notice for notice in task.notices)
    (tmp_path / "both.csv").write_text(f"Text,text,label\n{rows.replace('text', 'x,text')}", "utf-8")
    assert Task.from_files(Classes(), tmp_path / "both.csv").source.text_columns == ["text"]
    (tmp_path / "two.csv").write_text(f"Text,TEXT,label\n{rows.replace('text', 'x,text')}", "utf-8")
    with pytest.raises(UserError, match="which columns are text"):
        Task.from_files(Classes(), tmp_path / "two.csv")


def test_a_file_without_names_is_called_so_by_predict_too(call, tmp_path):
    (tmp_path / "n.csv").write_text("good film plot,good\na bad film,bad\nthe good actor,good\n", "utf-8")
    status, _, err = call(f"predict {save_tiny(tmp_path / 'm')} --data {tmp_path}/n.csv")
    assert status == 2
    assert "line 1 looks like data: put a line with the names of the columns before it, such as text,label" in err
