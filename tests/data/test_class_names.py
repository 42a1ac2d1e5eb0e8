"""Labels as pandas and spreadsheets write them."""

import pytest

from layerstill.data.tasks import Task
from layerstill.errors import UserError


def task(folder, train, dev, kind="csv", head="classification"):
    pandas = pytest.importorskip("pandas")
    for split, labels in (("train", train), ("dev", dev)):
        frame = pandas.DataFrame({"text": [f"text {i}" for i in range(len(labels))], "label": labels})
        path = folder / f"{split}.{kind}"
        if kind == "csv":
            frame.to_csv(path, index=False)
        elif kind == "parquet":
            frame.to_parquet(path)
        else:
            path.write_text(frame.to_json(orient="records", lines=True))
    return Task.from_files(head, folder)


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize(("train", "dev"), [([1.0, 2.0, 10.0], [2, 1]), ([1, 2, 10], [2.0, 1.0])])
def test_whole_numbers_with_a_fraction_of_nothing(kind, train, dev, tmp_path):
    read = task(tmp_path, train * 4, dev, kind)
    assert read.labels == ("1", "2", "10")
    assert read.splits["dev"].labels == [1, 0]
    assert any("are read as" in notice and "because all are whole numbers" in notice for notice in read.notices)


def test_numbers_that_are_not_all_whole_are_left_alone(tmp_path):
    with pytest.raises(UserError, match=r"line 2: label '1.0' names no class; use strings or whole numbers"):
        task(tmp_path, ["1.0", "2.5", "3.0"], ["1.0"])
    with pytest.raises(UserError, match=r"label '1.0' names no class"):
        task(tmp_path, ["1.0", "yes", "no"], ["yes"])


@pytest.mark.parametrize(
    ("label", "way"),
    [
        ("", r"it is missing: fill it in or leave the row out \(pandas: df.dropna\(subset=\['label'\]\)\)"),
        ("nan", "it is missing"),
        ("Infinity", "it is read as an infinite number; if it is a name, write another one"),
        ("-inf", "it is read as an infinite number"),
    ],
)
def test_labels_that_are_none_are_refused_with_their_row(label, way, tmp_path):
    for number, (train, dev) in enumerate(((["1.0", label, "2.0"], ["1.0"]), (["a", label, "b"], ["a"]))):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(UserError, match=f"train.csv line 3: label '{label}' names no class; {way}"):
            task(tmp_path / str(number), train, dev)


def test_missing_labels_of_dev_and_of_parquet(tmp_path):
    with pytest.raises(UserError, match="dev.csv line 3: label '' names no class; it is missing"):
        task(tmp_path, ["a", "b"], ["a", ""])
    with pytest.raises(UserError, match="line 2: label nan names no class; it is missing"):
        Task.from_data([("x", 1.0), ("y", float("nan")), ("z", 2.0)])
    (tmp_path / "p").mkdir()
    with pytest.raises(UserError, match="line 2: label None names no class; it is missing"):
        task(tmp_path / "p", ["a", None, "b"], ["a"], "parquet")


@pytest.mark.parametrize(
    ("train", "dev", "names"),
    [
        (["True", "False"], ["True"], ("False", "True")),
        (["TRUE", "FALSE"], ["TRUE"], ("FALSE", "TRUE")),
        (["TRUE", "FALSE"], ["True"], ("False", "True")),
        ([True, False], [True], ("False", "True")),
    ],
)
def test_true_and_false_are_classes_however_they_are_spelled(train, dev, names, tmp_path):
    read = task(tmp_path, train * 4, dev, "jsonl" if isinstance(train[0], bool) else "csv")
    assert read.labels == names
    assert read.splits["dev"].labels == [1]
    assert len(read.notices) == (train[0] != str(names[1]) and train[0] is not True)


def test_blanks_around_labels_are_left_out_and_absent_ones_are_named(tmp_path):
    read = task(tmp_path, ["a", " a", "None", "b "], ["a"])
    assert read.labels == ("None", "a", "b")
    assert "blanks around them (' a')" in read.notices[0]
    assert "'None' is taken as the name of a class; if it means that there is no label" in read.notices[1]


@pytest.mark.parametrize(("score", "way"), [("", "it is missing"), ("nan", "it is missing"), ('"0,5"', "write 0.5")])
def test_scores_that_are_none_say_the_way_out(score, way, tmp_path):
    (tmp_path / "train.csv").write_text(f"text,label\na,1\nb,{score}\n")
    with pytest.raises(UserError, match=f"line 3: score .* is not a finite number; .*{way}"):
        Task.from_files("regression", tmp_path / "train.csv", tmp_path / "train.csv")


@pytest.mark.parametrize(
    ("label", "way"),
    [
        ({"a": 0.9, "b": 0.1}, "look like probabilities of classes, which are for --teacher-probabilities label"),
        ([0.25, 0.75], "look like probabilities of classes"),
        ({"text": ["Oslo"], "answer_start": [13]}, "layerstill does not do question answering"),
        ({"name": "a"}, "use strings or whole numbers$"),
        ([0, 1], "--task multilabel"),
        (["a", "b"], "--task multilabel"),
        (0.5, "--task regression"),
    ],
)
def test_what_names_no_class_is_told_by_its_shape(label, way):
    with pytest.raises(UserError, match=way):
        Task.from_data([{"text": "x", "label": label}, {"text": "y", "label": "a"}])


def test_a_list_of_dictionaries_is_read_by_column():
    rows = [{"body": f"text {i}", "team": "ab"[i % 2], "id": i} for i in range(40)]
    read = Task.from_data(rows, text_columns=("body",), label_column="team")
    pairs = Task.from_data([(row["body"], row["team"]) for row in rows], label_column="team")
    assert read.splits == pairs.splits
    assert read.labels == ("a", "b")
    assert ("text 0",) in read.splits["train"].texts
    with pytest.raises(UserError, match="label None names no class; it is missing"):
        Task.from_data([*rows, {"body": "no team"}], text_columns=("body",), label_column="team")
