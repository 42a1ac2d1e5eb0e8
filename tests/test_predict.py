"""`layerstill predict` from end to end: every head, in PyTorch and exported, from files and from standard input."""

import csv
import gzip
import io
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from layerstill import UserError, export, predict
from layerstill.data import parts
from layerstill.heads import Classes, MultiLabel, Scores, Tokens
from tests.export.small import LENGTH, NAMES, every_length, own_words, said, save_model, words_of
from tests.tiny import save_tiny, write_csv

TAGS = ("O", "B-A", "I-A")
HEADS = {"classes": Classes(), "pairs": Classes(), "labels": MultiLabel(), "scores": Scores(), "tags": Tokens()}


@pytest.fixture(scope="module", params=[*HEADS])
def place(request, tmp_path_factory):
    """A model, its export, texts of every length, and what PyTorch says of them."""
    head, folder = HEADS[request.param], tmp_path_factory.mktemp(request.param)
    pairs, tagged = request.param == "pairs", head.per_token
    names = TAGS if tagged else NAMES
    model = save_model(folder / "m", "bert", head, names=names)
    texts = words_of([*range(1, 20), 40]) if tagged else every_length(pairs)
    export(model, own_words(model, texts, head, names), int8=True, max_drop=100, max_length=LENGTH)
    logits = said(model, texts, head)
    return SimpleNamespace(model=model, head=head, texts=texts, names=names, logits=logits, pairs=pairs, folder=folder)


def written_as(place, path):
    """The texts as JSON lines with a column of their own."""
    names = ["tokens"] if place.head.per_token else ["sentence1", "sentence2"] if place.pairs else ["text"]
    rows = [
        dict(zip(names, [list(text)] if place.head.per_token else text, strict=True)) | {"number": i}
        for i, text in enumerate(place.texts)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return rows


def test_a_list_of_texts(place):
    found = predict(place.model, place.texts, max_length=LENGTH)
    decided = place.head.decide(place.logits)
    for one, row, answer in zip(found, place.logits, decided, strict=True):
        if isinstance(place.head, Classes):
            powers = np.exp(row - row.max())
            assert one.label == place.names[answer]
            assert one.probability == pytest.approx(powers.max() / powers.sum(), abs=1e-5)
            assert list(one.probabilities) == list(place.names)
            assert sum(one.probabilities.values()) == pytest.approx(1)
        elif isinstance(place.head, MultiLabel):
            assert one.label == tuple(n for n, given in zip(place.names, answer, strict=True) if given)
            assert [one.probabilities[n] for n in one.label] == list(one.probability)
            np.testing.assert_allclose(list(one.probabilities.values()), 1 / (1 + np.exp(-row)), atol=1e-5)
        elif isinstance(place.head, Scores):
            assert (one.label, one.probability, one.probabilities) == (pytest.approx(answer, abs=1e-4), None, {})
        else:
            assert one.label[: len(answer)] == tuple(place.names[tag] for tag in answer)
            assert set(one.label[len(answer) :]) <= {None}
    if place.head.per_token:
        assert [len(one.label) for one in found] == [len(text) for text in place.texts]
        assert found[-1].label[-1] is None, "a word that is cut off has no tag"


def test_a_file_comes_back_with_answers_and_the_export_agrees(place, tmp_path, call):
    rows = written_as(place, tmp_path / "in.jsonl")
    words = f"--data {tmp_path}/in.jsonl --output"
    assert call(f"predict {place.model} {words} {tmp_path}/a.jsonl --max-length {LENGTH}")[0] == 0
    status, out, err = call(f"predict {place.model}/onnx {words} {tmp_path}/b.jsonl")
    assert (status, out) == (0, f"{tmp_path}/b.jsonl: {len(rows)} rows\n")
    assert f"had to be cut to {LENGTH} tokens" in err
    ours, theirs = (
        [json.loads(line) for line in (tmp_path / f"{n}.jsonl").read_text("utf-8").splitlines()] for n in "ab"
    )
    key = place.head.answer
    for row, one, other in zip(rows, ours, theirs, strict=True):
        assert {name: one[name] for name in row} == row, "the columns of the file stay, in its order"
        if key == "score":
            assert one[key] == pytest.approx(other[key], abs=1e-4)
        else:
            assert one[key] == other[key]
            assert np.array(one["probability"], float) == pytest.approx(
                np.array(other["probability"], float), abs=1e-4, nan_ok=True
            )
    assert [row[key] for row in ours] != [ours[0][key]] * len(rows)


def test_a_table_comes_back_as_a_table(place, tmp_path, call):
    written_as(place, tmp_path / "in.jsonl")
    every = "--probabilities" * place.head.probable
    line = f"predict {place.model} --data {tmp_path}/in.jsonl --output {tmp_path}/o.csv --max-length {LENGTH} {every}"
    assert call(line)[0] == 0
    with (tmp_path / "o.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    found = predict(place.model, place.texts, max_length=LENGTH)
    for row, one in zip(table, found, strict=True):
        if place.head.per_token:
            assert row["tags"].split(" ") == [tag or "" for tag in one.label]
        elif place.head.probable:
            label = one.label if isinstance(one.label, str) else "|".join(one.label)
            assert row[place.head.answer] == label
            assert {n: float(row[f"probability_{n}"]) for n in place.names} == pytest.approx(
                one.probabilities, abs=1e-5
            )
        else:
            assert float(row["score"]) == pytest.approx(one.label, abs=1e-5)
    if not every:
        status, _, err = call(f"{line.replace('o.csv', 'p.csv')} --probabilities")
        assert status == 2
        assert "--probabilities: model" in err
        assert not (tmp_path / "p.csv").exists()


def test_standard_input(place, tmp_path):
    """In a process of its own: lines in, lines out, and nothing else on standard output."""
    mark = " " if place.head.per_token else "\t"
    piped = "".join(f"{mark.join(text)}\n" for text in place.texts)
    command = [sys.executable, "-m", "layerstill", "predict", f"{place.model}/onnx", "--data", "-", "--file"]
    done = subprocess.run([*command, "model.int8.onnx"], input=piped, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line)[place.head.answer] for line in done.stdout.splitlines()]
    found = predict(place.model / "onnx", place.texts, file="model.int8.onnx")
    wanted = [list(one.label) if isinstance(one.label, tuple) else one.label for one in found]
    assert answers == pytest.approx(wanted, abs=1e-5) if place.head.answer == "score" else answers == wanted


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A tiny model of three classes of one text, whose run says which columns it read."""
    folder = tmp_path_factory.mktemp("plain")
    save_tiny(folder / "m", layers=1)
    source = {"kind": "classification", "text_columns": ["body"], "label_column": "team"}
    (folder / "m" / "run.json").write_text(json.dumps({"max_length": 32, "source": source}), "utf-8")
    save_tiny(folder / "pairs", layers=1)
    two = {"max_length": 32, "source": source | {"text_columns": ["a", "b"]}}
    (folder / "pairs" / "run.json").write_text(json.dumps(two), "utf-8")
    (folder / "mails.csv").write_text('body,label,team\n"good, ""very"" good",x,good\nbad,y,bad\n', "utf-8")
    (folder / "other.csv").write_text("text,b\ngood,film\n", "utf-8")
    (folder / "empty.csv").write_text("body\n", "utf-8")
    (folder / "nothing.jsonl").write_text("", "utf-8")
    return folder


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_knows_its_columns_and_a_column_called_label_stays(plain, call):
    status, out, err = call(f"predict {plain}/m --data {plain}/mails.csv")
    assert (status, err) == (0, "")
    first, second = lines(out)
    assert (first["body"], first["label"], first["team"]) == ('good, "very" good', "x", "good")
    assert first["predicted_label"] in {"bad", "fine", "good"}
    assert second["probability"] == pytest.approx(predict(plain / "m", ["bad"])[0].probability, abs=1e-6)


def test_other_columns_and_another_length_than_in_training_are_said(plain, call):
    status, out, err = call(f"predict {plain}/m --data {plain}/other.csv --max-length 16")
    assert status == 0
    assert err.splitlines() == [
        "note: --max-length 16 is used, but the model was trained with 32",
        "note: --text-columns text is used, but the model was trained with body",
    ]
    assert lines(out)[0]["b"] == "film"


REFUSED = [
    ("{p}/m --data {p}/mails.csv --text-columns bodi", "no column 'bodi' (from --text-columns): did you mean 'body'?"),
    ("{p}/m --data {p}/empty.csv", "empty.csv: no rows"),
    ("{p}/m --data {p}/nothing.jsonl", "nothing.jsonl: no rows"),
    ("{p}/m --data {p}", "a folder; name the file in it"),
    ("{p}/m --data {p}/none.csv", "no such file"),
    ("{p}/pairs --data {p}/other.csv --text-columns text", "reads pairs of texts, trained with a,b, and text is 1"),
    ("{p}/m --data {p}/other.csv --text-columns text,b", "reads one text, trained with body, and text,b is 2"),
    ("{p}/m --data {p}/mails.csv --file model.int8.onnx", "--file model.int8.onnx: {p}/m is not a folder that"),
    ("{p}/m --data {p}/mails.csv --threshold 0.4", "--threshold: task classification decides without one"),
    ("{p}/m --data {p}/mails.csv --max-length 65", "the model allows 64 tokens"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_a_mistake_is_one_line_and_writes_nothing(words, message, plain, tmp_path, call):
    status, out, err = call(f"predict {words.format(p=plain)} --output {tmp_path}/o.csv")
    assert (status, out) == (2, "")
    assert message.format(p=plain) in err
    assert len([line for line in err.splitlines() if not line.startswith("note:")]) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_whole_or_not_at_all_and_never_over_another(plain, tmp_path, call):
    good = "".join(f'{{"text": "good {i}"}}\n' for i in range(parts.ROWS))
    (tmp_path / "in.jsonl").write_text(good + '{"text": 5}\n', "utf-8")
    line = f"predict {plain}/m --data {tmp_path}/in.jsonl --output {tmp_path}/o"
    status, _, err = call(f"{line}.csv")
    assert status == 2
    assert f"in.jsonl line {parts.ROWS + 1}: column 'text' holds 5 where text is expected" in err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    (tmp_path / "o.csv").write_text("mine", "utf-8")
    status, _, err = call(f"{line}.csv")
    assert status == 2
    assert "exists already" in err
    assert (tmp_path / "o.csv").read_text("utf-8") == "mine"
    assert "unknown kind of file '.xml'" in call(f"{line}.xml")[2]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_file_larger_than_memory_gives_what_a_small_one_does(suffix, plain, tmp_path, monkeypatch, call):
    datasets = pytest.importorskip("datasets")
    rows = [{"body": "good film" if i % 7 else "", "number": str(i)} for i in range(40)] + [{"body": "", "number": "x"}]
    path = tmp_path / f"in.{suffix}"
    table = datasets.Dataset.from_list(rows)
    if suffix == "parquet":
        table.to_parquet(path)
    elif suffix == "jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    else:
        mark = "," if suffix == "csv" else "\t"
        path.write_text("\n".join(mark.join(row) for row in [["body", "number"], *(r.values() for r in rows)]), "utf-8")
    whole = call(f"predict {plain}/m --data {path}")
    monkeypatch.setattr(parts, "ROWS", 8)
    assert call(f"predict {plain}/m --data {path}") == whole
    monkeypatch.setattr(parts, "LARGE", 0)
    status, out, err = call(f"predict {plain}/m --data {path}")
    assert (status, out) == whole[:2]
    assert f"{path}: large, read" in err
    assert [row["number"] for row in lines(whole[1])] == [row["number"] for row in rows]


def test_the_same_of_piped_json_and_of_lines(plain, monkeypatch, call):
    def piped(text: str) -> tuple:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
        return call(f"predict {plain}/m --data -")

    status, out, _ = piped('{"body": "good", "id": 7}\n\n{"body": "bad", "id": 8}\n')
    assert status == 0
    assert [row["id"] for row in lines(out)] == [7, 8]
    status, said, err = piped("\ufeffgood\r\n\nbad\n")
    assert (status, err) == (0, "note: standard input: line 2 is blank and has no answer\n")
    assert [row["text"] for row in lines(said)] == ["good", "bad"]
    assert [row["label"] for row in lines(said)] == [row["label"] for row in lines(out)]
    assert "no texts in it" in piped("\n")[2]
    err = piped('{"body": "good"}\n{name}, hello\n')[2]
    assert "line 2: not JSON" in err
    assert 'line 1 is a JSON object, so every line is read as one. Write a plain text as {"text": "..."}' in err


@pytest.fixture
def piped(plain, monkeypatch, call):
    """The answers to what comes on standard input, and what was said."""

    def of(content: str | bytes) -> tuple[list[dict], str]:
        raw = content.encode() if isinstance(content, str) else content
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
        status, out, err = call(f"predict {plain}/m --data -")
        assert status == 0, err
        return lines(out), err

    return of


@pytest.mark.parametrize(
    "first", ["{name}, where is my order?", "{", "{}{}", "[INFO] late", "[{name}] is late", "{{ user }} asks", "12"]
)
def test_a_text_that_begins_as_json_does_is_a_text(first, piped):
    for texts in ([first], [first, "", "good", '{"body": "bad"}']):
        found, err = piped("\n".join(texts))
        assert [row["text"] for row in found] == [text for text in texts if text]
        said = "standard input: a JSON object was read as text, because the first line is not one (from line 4 on)"
        assert "JSON" not in err.replace(said, "")
        assert (said in err) == (len(texts) > 1)


def test_broken_json_on_standard_input_is_named_and_read_as_texts(piped):
    found, err = piped('\n{"body": "good"\nbad\n')
    assert [row["text"] for row in found] == ['{"body": "good"', "bad"]
    assert "standard input line 2: not JSON (Expecting ',' delimiter at column 16), so every line is read as a" in err


@pytest.mark.parametrize(
    "content", ['[{"body": "good"}, {"body": "bad"}]', '[\n{"body": "good"},\n\n{"body": "bad"}]\n']
)
def test_an_array_on_standard_input_is_its_rows(content, piped):
    found, err = piped(content)
    assert [row["body"] for row in found] == ["good", "bad"]
    assert err == "note: standard input: read as a table with the columns body\n"


def test_a_table_on_standard_input_is_known_by_its_header(piped):
    found, err = piped('id,body\n1,"good, \n\nfilm"\n2,bad\n')
    assert [(row["id"], row["body"]) for row in found] == [("1", "good, \n\nfilm"), ("2", "bad")]
    assert "standard input: read as a table with the columns id, body" in err
    found, err = piped("body, he said, is good\nbad\n")
    assert [row["text"] for row in found] == ["body, he said, is good", "bad"]
    assert "line 1: 'body, he said, is good' is read as a text; if it is a header, leave it out" in err
    found, err = piped("body\ngood\n")
    assert len(found) == 2
    assert "line 1: 'body' is read as a text" in err


def test_texts_come_as_they_are_read(plain):
    """Standard input is not waited for: the first answers are there before the last texts are."""
    command = [sys.executable, "-m", "layerstill", "predict", f"{plain}/m", "--data", "-", "-q"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as done:
        done.stdin.write(b"{name} is good\n" * (parts.ROWS + 1))
        done.stdin.flush()
        assert json.loads(done.stdout.readline())["text"] == "{name} is good"
        done.stdin.close()
        assert len(done.stdout.read().splitlines()) == parts.ROWS


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_columns_that_are_not_read_may_hold_anything(suffix, plain, tmp_path, call):
    row = {"body": "good", "half": "\ud800 é", "list": ["a|b", 1], "none": None, "more": {"x": [1]}}
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    assert call(f"predict {plain}/m --data {tmp_path}/in.jsonl --output {tmp_path}/o.{suffix}")[0] == 0
    text = (tmp_path / f"o.{suffix}").read_text("utf-8")
    if suffix == "jsonl":
        assert {name: json.loads(text)[name] for name in row} == row
    else:
        (found,) = csv.DictReader(io.StringIO(text))
        assert (found["half"], found["list"], found["none"]) == ("\\ud800 é", '["a|b", 1]', "")


def test_a_threshold_of_its_own(tmp_path):
    texts, head = every_length()[:6], MultiLabel()
    model = save_model(tmp_path / "m", "bert", head)
    some, few = (predict(model, texts, max_length=LENGTH, threshold=t) for t in (0.3, 0.7))
    for one, other in zip(some, few, strict=True):
        assert one.label == tuple(n for n, p in one.probabilities.items() if p >= 0.3)
        assert other.label == tuple(n for n, p in one.probabilities.items() if p >= 0.7)
    with pytest.raises(UserError, match="--threshold 2: use a number between 0 and 1"):
        predict(model, texts, threshold=2)


def test_a_head_from_outside_is_asked_as_what_its_model_is(plain, tmp_path):
    shutil.copytree(plain / "m", tmp_path / "m")
    (tmp_path / "m" / "run.json").write_text('{"max_length": 32, "head": {"mine:Focal": {"gamma": 1}}}', "utf-8")
    assert predict(tmp_path / "m", ["good film"]) == predict(plain / "m", ["good film"])


def test_texts_of_another_number_and_a_bare_string_are_refused(plain):
    with pytest.raises(UserError, match=r"texts\[0\]: .* reads two texts"):
        predict(plain / "pairs", ["good"])
    with pytest.raises(UserError, match="got one string"):
        predict(plain / "m", "good")
    assert predict(plain / "m", []) == []


def test_an_export_of_a_run_knows_the_columns(tmp_path, call):
    save_tiny(tmp_path / "m", layers=1)
    (tmp_path / "d").mkdir()
    for split in ("train", "dev"):
        write_csv(tmp_path / "d" / f"{split}.csv")
        file = tmp_path / "d" / f"{split}.csv"
        file.write_text(file.read_text("utf-8").replace("text,label", "body,label"), "utf-8")
    words = f"export {tmp_path}/m --data {tmp_path}/d --text-columns body --max-drop 100"
    assert call(words)[0] == 0
    (tmp_path / "new.csv").write_text("title,body\nx,good film\n", "utf-8")
    status, out, err = call(f"predict {tmp_path}/m/onnx --data {tmp_path}/new.csv")
    assert (status, err) == (0, "")
    assert lines(out)[0]["label"] == predict(tmp_path / "m", ["good film"])[0].label


def test_one_output_without_a_word_about_it_is_a_score(tmp_path):
    """As most cross-encoders are published."""
    save_tiny(tmp_path / "one", labels=1)
    config = json.loads((tmp_path / "one" / "config.json").read_text("utf-8"))
    config.pop("problem_type", None)
    (tmp_path / "one" / "config.json").write_text(json.dumps(config), "utf-8")
    first, second = predict(tmp_path / "one", ["the plot is good", "an awful film"])
    assert isinstance(first.label, float)
    assert first.label != second.label


def test_lines_are_texts_however_the_file_is_called_and_packed(plain, tmp_path, call):
    texts = "the plot is good\nan awful film\n"
    (tmp_path / "A.TXT").write_text(texts, "utf-16")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(texts.encode()))
    answers = []
    for name in ("A.TXT", "b.txt.gz"):
        status, out, err = call(["predict", str(plain / "m"), "--data", str(tmp_path / name)])
        assert status == 0, err
        answers.append([one["label"] for one in lines(out)])
    assert answers[0] == answers[1]
    assert len(answers[0]) == 2


def test_every_line_has_an_answer_or_is_counted(plain, tmp_path, monkeypatch, call):
    files = {
        "a.txt": "good\n\nbad\n  \n\n",
        "a.csv": "body,x\ngood,1\n\nbad,2\n,\n\n",
        "a.tsv": "body\tx\ngood\t1\n\nbad\t2\n\t\n\n",
        "a.jsonl": '{"body": "good"}\n\n{"body": "bad"}\n\n\n',
    }
    blank = {"a.txt": "2, 4, 5", "a.csv": "3, 5, 6", "a.tsv": "3, 5, 6", "a.jsonl": "2, 4, 5"}
    for name, content in files.items():
        (tmp_path / name).write_text(content, "utf-8")
        for size in (parts.LARGE, 0):
            with monkeypatch.context() as patch:
                patch.setattr(parts, "LARGE", size)
                status, out, err = call(f"predict {plain}/m --data {tmp_path}/{name}")
            assert (status, len(lines(out))) == (0, 2), err
            assert f"{name}: 3 lines are blank and have no answer (lines {blank[name]})" in err
            assert ("large, read" in err) == (size == 0 and name != "a.txt")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"\n\ngood\n\n" + b"\n" * 6 + b"bad")))
    status, out, err = call(f"predict {plain}/m --data -")
    assert len(lines(out)) == 2
    assert "standard input: 9 lines are blank and have no answer (lines 1, 2, 4, 5, 6, ...)" in err


@pytest.mark.parametrize("large", [False, True])
def test_a_text_file_that_is_a_table_is_read_as_one(large, plain, tmp_path, monkeypatch, call):
    if large:
        monkeypatch.setattr(parts, "LARGE", 0)

    def answers(content: str, *words: str) -> tuple[list[dict], str]:
        (tmp_path / "in.txt").write_text(content, "utf-8")
        status, out, err = call(f"predict {plain}/m --data {tmp_path}/in.txt {' '.join(words)}")
        assert status == 0, err
        return lines(out), err

    for content in ("body\tn\ngood\t1\nbad\t2\n", "n,body\n1,good\n2,bad\n", '{"body": "good"}\n{"body": "bad"}\n'):
        found, err = answers(content)
        assert [row["body"] for row in found] == ["good", "bad"]
        assert "read as a table with the columns" in err or "large, read" in err
    found, err = answers("mine,n\ngood,1\nbad,2\n", "--text-columns", "mine")
    assert [row["mine"] for row in found] == ["good", "bad"]
    found, err = answers("well, good\nno, bad\noh, a film\n")
    assert [row["text"] for row in found] == ["well, good", "no, bad", "oh, a film"]
    assert large or "read as one text per line; if it is a table with the columns well, good, say which is text" in err


def test_a_large_file_is_read_by_its_content_and_says_how(plain, tmp_path, monkeypatch, call):
    files = {
        "semicolons.csv": "body;x\n\"good; 'film'\";1\nbad;2\n",
        "blanks.csv": 'body, x\n"good, film", 1\nbad, 2\n',
        "quoted.tsv": 'body\tx\n"a ""good"" film\tor\nnot"\t1\nbad\t2\n',
        "plain.tsv": 'body\tx\n"good" and "bad" film\t1\nbad\t2\n',
        "returns.csv": 'body,x\r\n"good\rfilm",1\r\nbad,2\r\n',
        "wrong.csv": '{"body": "good"}\n{"body": "bad", "more": 1}\n',
        "array.jsonl": '[{"body": "good"}, {"body": "bad"}]',
        "cut.csv": "body,x\ngood,1\n" + '"bad\nand\nlong",2\n' * 4,
        "right.csv": "body,x,,\ngood,1,,\nbad,2,,\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, "utf-8", newline="")
    (tmp_path / "wide.csv").write_text("body,x\ngood,1\nbad,2\n", "utf-16")
    for name in (*files, "wide.csv"):
        whole = call(f"predict {plain}/m --data {tmp_path}/{name}")
        assert whole[0] == 0, whole[2]
        with monkeypatch.context() as patch:
            patch.setattr(parts, "LARGE", 0)
            patch.setattr("layerstill.data.large.SAMPLE", 40 if name == "cut.csv" else 2**18)
            status, out, err = call(f"predict {plain}/m --data {tmp_path}/{name}")
        assert (status, out) == whole[:2], err
        assert ("large, read" in err) == (name not in {"array.jsonl", "wide.csv"}), name


def test_keys_that_come_up_late(plain, tmp_path, monkeypatch, call):
    monkeypatch.setattr(parts, "ROWS", 2)
    monkeypatch.setattr(parts, "LARGE", 0)
    rows = [{"body": "good"}, {"body": "bad"}, {"body": "fine", "more": 1}]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    line = f"predict {plain}/m --data {tmp_path}/in.jsonl"
    status, out, err = call(line)
    assert (status, [row.get("more") for row in lines(out)]) == (0, [None, None, 1]), err
    status, _, err = call(f"{line} --output {tmp_path}/o.csv")
    assert status == 2
    assert (
        "key 'more' is in no row before line 3, when the columns of the answers were fixed; write them as .jsonl" in err
    )
    assert not (tmp_path / "o.csv").exists()
    (tmp_path / "in.jsonl").write_text('{"body": "a"}\n{"body": "b"}\n{"body": "c", "label": "mine"}\n', "utf-8")
    status, _, err = call(line)
    assert status == 2
    assert "rename it, as 'label' is taken for the answers" in err
