"""Tasks: the official layouts, own files, and what is said of files that are wrong."""

import json
import re
from itertools import product

import pytest

from layerstill.data.glue import GLUE
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.heads import Classes, Scores


def glue_rows(name: str) -> tuple[list[str], list[str]]:
    """Header and rows of a GLUE file, as the official ones are laid out."""
    spec = GLUE[name]
    labels = list(spec.labels) or ["0.0", "2.5", "5.000"]
    header = list(spec.header or ("index", *spec.texts, "extra", spec.label))
    rows = []
    for i in range(6):
        fields = {spec.label: labels[i % len(labels)]} | {t: f'text {i} of {t} "unbalanced' for t in spec.texts}
        rows.append("\t".join(fields.get(column, str(i)) for column in header))
    return [] if spec.header else ["\t".join(header)], rows


@pytest.mark.parametrize("name", GLUE)
def test_glue_tasks_in_the_official_layout(name, tmp_path):
    spec = GLUE[name]
    folder = tmp_path / spec.folder
    folder.mkdir()
    header, rows = glue_rows(name)
    for split, some in (("train", rows), (spec.dev, rows[:3])):
        mark = "\ufeff" if name == "mrpc" else ""
        (folder / f"{split}.tsv").write_text(mark + "\n".join([*header, *some]) + "\n", "utf-8")
    task = Task.glue(name, tmp_path)
    assert task == Task.glue(name, folder), "the task's own folder is understood too"
    assert (len(task.splits["train"]), len(task.splits["dev"])) == (6, 3)
    assert task.splits["train"].texts[1] == tuple(f'text 1 of {t} "unbalanced' for t in spec.texts)
    if spec.labels:
        assert task.head == Classes()
        assert task.labels == tuple(spec.labels.values())
        assert task.splits["train"].labels == [i % len(spec.labels) for i in range(6)]
    else:
        assert task.head == Scores()
        assert task.splits["train"].labels[:3] == [0.0, 2.5, 5.0]


def test_metrics_of_glue():
    assert GLUE["cola"].metrics[0] == "matthews_correlation"
    assert GLUE["mrpc"].metrics == GLUE["qqp"].metrics == ("accuracy", "f1")
    assert GLUE["stsb"].metrics == ("pearson", "spearman")
    assert len(GLUE["mnli"].labels) == 3


def write(folder, split, suffix, rows):
    path = folder / f"{split}{suffix}"
    names = list(rows[0])
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    elif suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        import csv

        tab = suffix == ".tsv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(
                file, delimiter="\t" if tab else ",", quoting=csv.QUOTE_NONE if tab else csv.QUOTE_MINIMAL
            )
            writer.writerows([names, *([r[n] for n in names] for r in rows)])
    return path


ROWS = [{"body": f"mail {i}, it says", "topic": t} for i, t in enumerate(["spam", "ham", "eggs"] * 4)]


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_own_files(suffix, tmp_path):
    for split in ("train", "dev", "test"):
        write(tmp_path, split, suffix, ROWS)
    task = Task.from_files("classification", tmp_path, text_columns=("body",), label_column="topic")
    assert task.labels == ("eggs", "ham", "spam")
    assert task.splits["test"].texts[0] == ("mail 0, it says",)
    assert task.splits["train"].labels[:3] == [2, 1, 0]


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_own_files_with_two_texts_whole_numbers_and_scores(suffix, tmp_path):
    rows = [{"sentence1": f"a {i}", "sentence2": "b", "label": i % 12, "score": i / 2} for i in range(24)]
    write(tmp_path, "train", suffix, rows)
    write(tmp_path, "dev", suffix, rows[:12])
    task = Task.from_files("classification", tmp_path)
    assert task.labels == tuple(str(i) for i in range(12)), "numbers are sorted as numbers"
    assert task.splits["dev"].texts[1] == ("a 1", "b")
    scores = Task.from_files("regression", tmp_path, label_column="score")
    assert scores.splits["dev"].labels[:3] == [0.0, 0.5, 1.0]


def test_a_single_file_gives_a_tenth_to_dev_and_says_so(tmp_path):
    path = write(tmp_path, "mails", ".csv", ROWS * 10)
    task, again = (
        Task.from_files("classification", path, text_columns=("body",), label_column="topic") for _ in range(2)
    )
    assert task == again
    assert (len(task.splits["train"]), len(task.splits["dev"])) == (108, 12)
    assert "held out 12 of 120" in task.notices[0]
    with_dev = Task.from_files("classification", path, write(tmp_path, "other", ".csv", ROWS), ("body",), "topic")
    assert len(with_dev.splits["dev"]) == 12
    assert len(with_dev.splits["train"]) == 120


def own(tmp_path, text, kind="classification", name="train.csv", **options):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return Task.from_files(kind, tmp_path, **options)


GOOD = "text,label\ngood film,yes\nbad film,no\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,label\ngood film\n", r"train.csv line 2: 1 fields where the header has 2"),
        ('text,label\n"good film,yes\n', r"train.csv line 2: a quote is opened here and never closed"),
        ("", "no rows"),
        ("text,label\n", "no rows"),
        (b"text,label\ngood \xff film,yes\n", "not UTF-8 at byte 16"),
        ("text,label\na,yes\nb,yes\n", "single class, 'yes'"),
        ("text,label\na,0.5\nb,0.25\n", r"line 2: label '0.5' names no class; .* --task regression"),
        ("text,label\na,\nb,1\n", r"line 2: label '' names no class"),
        ("body,label\na,1\nb,2\n", "which columns are text.*columns: body"),
        ("text,topic\na,1\nb,2\n", r"no column 'label' \(from --label-column\): known: text, topic"),
        ("text,text\na,1\n", "column name appears twice"),
    ],
)
def test_wrong_files_are_refused_with_file_and_line(text, message, tmp_path):
    (tmp_path / "dev.csv").write_text(GOOD, "utf-8")
    with pytest.raises(UserError, match=message):
        own(tmp_path, text)


def test_more_wrong_input(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        Task.from_files("classification", tmp_path / "nowhere")
    with pytest.raises(UserError, match="split train is missing, looked for train"):
        Task.from_files("classification", tmp_path)
    (tmp_path / "dev.csv").write_text("text,label\na,maybe\n", "utf-8")
    with pytest.raises(UserError, match=r"dev.csv line 2: label 'maybe' is not in train, which has no, yes"):
        own(tmp_path, GOOD)
    (tmp_path / "train.tsv").write_text("text\tlabel\n", "utf-8")
    with pytest.raises(UserError, match="several files for split train: train.tsv, train.csv"):
        own(tmp_path, GOOD)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UserError, match=r"too few to hold a tenth out; give --dev"):
        own(other, GOOD)
    (other / "dev.csv").write_text(GOOD, "utf-8")
    with pytest.raises(UserError, match="one or two text columns, got 3"):
        own(other, GOOD, text_columns=("a", "b", "c"))
    with pytest.raises(UserError, match="is both text and label"):
        own(other, GOOD, text_columns=("label",))
    with pytest.raises(UserError, match=r"score 'yes' is not a finite number"):
        own(other, GOOD, kind="regression")
    texts = "text,label\n" + "".join(f"{'ab'[i % 2]},message number {i}\n" for i in range(60))
    with pytest.raises(UserError, match="60 different labels in 60 rows; if it is the text column"):
        own(other, texts)


def test_unknown_tasks_and_missing_splits(tmp_path):
    with pytest.raises(UserError, match="unknown task 'mprc': did you mean 'mrpc'"):
        Task.glue("mprc", tmp_path)
    with pytest.raises(UserError, match=r"task rte: split train is missing, looked for .*train.tsv"):
        Task.glue("rte", tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        Task.glue("rte", tmp_path / "none")
    (tmp_path / "train.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tmaybe\n", "utf-8")
    (tmp_path / "dev.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n", "utf-8")
    with pytest.raises(UserError, match=r"train.tsv line 2: label 'maybe' is not one of entailment, not_entailment"):
        Task.glue("rte", tmp_path)


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9']+", text.lower()))


def test_the_tickets_are_about_a_thousand_in_ten_balanced_intents():
    task = Task.demo()
    sizes = {name: len(split) for name, split in task.splits.items()}
    assert sizes == {"train": 700, "dev": 120, "test": 240}
    assert len(task.labels) == 10
    for split in task.splits.values():
        counts = [split.labels.count(i) for i in range(10)]
        assert max(counts) == min(counts)


def test_no_ticket_has_a_near_duplicate_in_another_split():
    task = Task.demo()
    texts = {name: [t for (t,) in split.texts] for name, split in task.splits.items()}
    shingles = {}
    for name, split in texts.items():
        for text in split:
            tokens = re.findall(r"[a-z0-9']+", text.lower())
            shingles[name, text] = ({tuple(tokens[i : i + 8]) for i in range(len(tokens) - 7)}, set(tokens))
    for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
        for one, two in product(texts[a], texts[b]):
            runs, bag = shingles[a, one]
            other_runs, other_bag = shingles[b, two]
            assert not runs & other_runs, f"eight words in a row: {one!r} / {two!r}"
            assert len(bag & other_bag) / len(bag | other_bag) < 0.5, f"{one!r} / {two!r}"


def test_a_linear_bag_of_words_model_does_not_solve_the_tickets():
    # The demo's teacher scores about 75 % (`make demo`); counting words must stay clearly below.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    task = Task.demo()
    train, test = task.splits["train"], task.splits["test"]
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10, max_iter=2000))
    model.fit([t for (t,) in train.texts], train.labels)
    assert 0.25 < model.score([t for (t,) in test.texts], test.labels) < 0.5


def test_a_class_with_one_example_stays_in_train_when_dev_is_held_out(tmp_path):
    for at in range(0, 61, 6):
        rows = [f"message number {i},{'abc'[i % 3]}" for i in range(60)]
        rows.insert(at, "my dog ate it,other")
        task = own(tmp_path, "text,label\n" + "\n".join(rows) + "\n")
        train, dev = task.splits["train"], task.splits["dev"]
        assert len(train) + len(dev) == 61
        assert len(dev) in {6, 7}
        assert {task.labels[i] for i in train.labels} == {"a", "b", "c", "other"}
        assert not set(train.texts) & set(dev.texts)


def test_as_many_classes_as_rows_are_classes_where_another_split_has_them_too(tmp_path):
    names = [f"intent {i:02}" for i in range(30)]
    train = "text,label\n" + "".join(f"please do thing {i},{name}\n" for i, name in enumerate(names))
    dev = train.replace("please do", "now do")
    (tmp_path / "dev.csv").write_text(dev, "utf-8")
    assert own(tmp_path, train).labels == tuple(names)
    (tmp_path / "dev.csv").unlink()
    with pytest.raises(UserError, match="30 different labels in 30 rows; .* give --dev"):
        own(tmp_path, train)


def test_labels_that_look_like_several_are_named(tmp_path):
    rows = [f"message number {i},{'a b a|b'.split()[i % 3]}" for i in range(30)]
    text = "text,label\n" + "\n".join(rows) + "\n"
    (note,) = [n for n in own(tmp_path, text).notices if "multilabel" in n]
    assert "'a|b' is taken as a class of its own" in note
    other = own(tmp_path, text.replace("a|b", "x|y"))
    assert not [n for n in other.notices if "multilabel" in n], "a name with a bar may be a name"
