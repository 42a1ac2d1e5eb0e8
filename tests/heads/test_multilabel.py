"""Several labels: their files, their head, their metrics and thresholds."""

import json

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torch.nn import functional as F

from layerstill.data.files import read_table
from layerstill.data.label_sets import read_label_sets
from layerstill.errors import UserError
from layerstill.heads import MultiLabel
from layerstill.metrics.multilabel import (
    LABEL_METRICS,
    label_contributions,
    label_table,
    log_odds,
    tuned_threshold,
)

NAMES = ("billing", "shipping", "voucher")
SETS = [["billing"], [], ["voucher", "billing"], ["shipping", "voucher"]]
ROWS = [[1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 1, 1]]


def read(tmp_path, *files, column="label"):
    """`files` are (name, text); the split is called as the file is."""
    tables = {}
    for name, text in files:
        (tmp_path / name).write_text(text, "utf-8")
        tables[name.split(".")[0]] = read_table(tmp_path / name)
    return read_label_sets(tables, column)


def as_lists(sets):
    return "".join(json.dumps({"text": f"mail {i}", "label": labels}) + "\n" for i, labels in enumerate(sets))


def with_bars(sets):
    return "text,label\n" + "".join(f"mail {i},{'|'.join(labels)}\n" for i, labels in enumerate(sets))


def in_columns(sets, yes="1", no="0"):
    rows = [",".join([f"mail {i}", *(yes if n in labels else no for n in NAMES)]) for i, labels in enumerate(sets)]
    return "\n".join([f"text,{','.join(NAMES)}", *rows]) + "\n"


def test_three_ways_to_write_the_same_labels(tmp_path):
    for name, text, column in (
        ("train.jsonl", as_lists(SETS), "label"),
        ("train.csv", with_bars(SETS), "label"),
        ("train.csv", in_columns(SETS), ",".join(NAMES)),
        ("train.csv", in_columns(SETS, "True", "false"), ", ".join(NAMES)),
        ("train.csv", in_columns(SETS, "1.0", "0.0"), ",".join(NAMES)),
    ):
        assert read(tmp_path, (name, text), column=column) == (NAMES, {"train": ROWS}, [])


def test_parquet_holds_lists_or_columns(tmp_path):
    import pyarrow
    import pyarrow.parquet

    columns = {"label": SETS} | {name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b", "c", "d"], **columns}), tmp_path / "train.parquet")
    tables = {"train": read_table(tmp_path / "train.parquet")}
    for column in ("label", ",".join(NAMES)):
        assert read_label_sets(tables, column) == (NAMES, {"train": ROWS}, [])


def test_names_are_those_of_train_and_columns_keep_the_order_they_are_named_in(tmp_path):
    files = (("train.jsonl", as_lists(SETS)), ("dev.jsonl", as_lists([["shipping"], []])))
    assert read(tmp_path, *files)[1]["dev"] == [[0, 1, 0], [0, 0, 0]]
    numbers = (("train.jsonl", as_lists([[10, 9], [2], []])),)
    assert read(tmp_path, *numbers)[0] == ("2", "9", "10")
    turned = read(tmp_path, ("train.csv", in_columns(SETS)), column="voucher,billing,shipping")
    assert turned[:2] == (("voucher", "billing", "shipping"), {"train": [[row[2], row[0], row[1]] for row in ROWS]})


def test_a_label_that_is_not_known_is_marked_in_its_column(tmp_path):
    text = in_columns(SETS).replace("mail 1,0,0,0", "mail 1,-100,0,0")
    assert read(tmp_path, ("train.csv", text), column=",".join(NAMES))[1]["train"][1] == [-100, 0, 0]


@pytest.mark.parametrize(
    ("name", "text", "column", "message"),
    [
        ("train.jsonl", as_lists([["a"], ["b", "b"]]), "label", r"line 2: column 'label': label 'b' appears twice"),
        (
            "train.jsonl",
            as_lists([["a"], [0, 0, 1]]),
            "label",
            r"line 2: .*label '0' appears twice.*a column for each label",
        ),
        ("train.jsonl", as_lists([["a"], ["b", " "]]), "label", r"line 2: column 'label': ' ' in .* names no label"),
        ("train.jsonl", as_lists([["a"], [0.5]]), "label", r"line 2: column 'label': 0.5 in \[0.5\] names no label"),
        ("train.jsonl", as_lists([["a"], [True]]), "label", r"line 2: column 'label': True in .* names no label"),
        ("train.jsonl", as_lists([["a"], None]), "label", r"line 2: column 'label' holds None where the labels"),
        ("train.jsonl", as_lists([["a"], {"b": 1}]), "label", r"line 2: column 'label' holds {'b': 1} where"),
        (
            "train.csv",
            "text,label\nx,a\ny,a||b\n",
            "label",
            r"train.csv line 3: column 'label': '' in 'a\|\|b' names no",
        ),
        ("train.csv", "text,label\nx,\ny,\n", "label", r"train.csv: column 'label' is empty in all of its 2 rows"),
        ("train.csv", "text,label\nx,a\ny,\n", "label", r"train.csv: column 'label' holds a single label, 'a'"),
        ("train.csv", "text,label\nx,1\ny,0\n", "label", r"holds only 0 and 1.*--label-column a,b,c.*--task classif"),
        ("train.csv", "text,a,b\nx,1,0\ny,2,0\n", "a,b", r"train.csv line 3: column 'a' holds '2' where 1 .* or 0"),
        ("train.csv", "text,a,b\nx,1,0\ny,,0\n", "a,b", r"line 3: column 'a' holds '' where 1 .*-100 where it is not"),
        ("train.csv", "text,a,b\nx,1,0\n", "label", r"no column 'label' .*: text, a, b; where .* --label-column a,b,c"),
        ("train.csv", "text,a,b\nx,1,0\n", "a,c", r"no column 'c' \(from --label-column\)"),
        ("train.csv", "text,a,b\nx,1,0\n", "a,b,a", r"column 'a' is named twice"),
        ("train.csv", "text,a,b\nx,1,0\n", "a,,b", r"a name between two commas is missing"),
        ("train.csv", with_bars([[f"mail number {i}"] for i in range(60)]), "label", r"60 different labels in 60 rows"),
    ],
)
def test_wrong_labels_are_refused_with_file_line_and_column(name, text, column, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read(tmp_path, (name, text), column=column)


def test_a_label_that_train_does_not_have_is_refused_in_dev(tmp_path):
    with pytest.raises(
        UserError, match=r"dev.jsonl line 2: column 'label': label 'refund' is not in train, which has b"
    ):
        read(tmp_path, ("train.jsonl", as_lists(SETS)), ("dev.jsonl", as_lists([[], ["refund"]])))


def test_what_is_perhaps_not_meant_is_told(tmp_path):
    text = 'text,label\nx,"billing,voucher"\ny,billing\n'
    assert "holds 'billing,voucher', taken as one label" in read(tmp_path, ("train.csv", text))[2][0]
    assert (
        "Billing, billing differ only in upper"
        in read(tmp_path, ("train.jsonl", as_lists([["Billing"], ["billing"]])))[2][0]
    )


def some(seed=0, rows=200, labels=6):
    rng = np.random.default_rng(seed)
    gold = (rng.random((rows, labels)) < np.linspace(0.05, 0.6, labels)).astype(int)
    gold[:, 0] = 0  # a label that is nowhere
    return rng.normal(0, 1, (rows, labels)) + 1.5 * gold - 1, gold


def test_metrics_are_those_of_scikit_learn():
    logits, gold = some()
    decided = MultiLabel().decide(logits)
    found = MultiLabel().score(MultiLabel().metrics, "abcdef", decided, gold)
    assert found["f1_micro"] == pytest.approx(sklearn.f1_score(gold, decided, average="micro"))
    assert found["f1_macro"] == pytest.approx(sklearn.f1_score(gold, decided, average="macro", zero_division=0))
    assert found["subset_accuracy"] == pytest.approx(sklearn.accuracy_score(gold, decided))
    columns = sklearn.precision_recall_fscore_support(gold, decided, zero_division=0)
    table = label_table("abcdef", decided, gold)
    for name, values in zip(("precision", "recall", "f1", "support"), columns, strict=True):
        assert [row[name] for row in table.values()] == pytest.approx(list(values))


def test_labels_that_are_not_known_change_no_metric():
    logits, gold = some()
    decided = MultiLabel().decide(logits)
    gold[:50, 2] = -100
    other = decided.copy()
    other[:50, 2] = ~other[:50, 2]
    for name, metric in LABEL_METRICS.items():
        assert metric(decided, gold) == metric(other, gold), name
    assert label_table("abcdef", decided, gold) == label_table("abcdef", other, gold)
    assert label_table("abcdef", decided, gold)["c"]["support"] == (gold[50:, 2] == 1).sum()


@pytest.mark.parametrize("metric", LABEL_METRICS)
def test_what_each_example_adds_is_what_leaving_it_out_takes(metric):
    logits, gold = some(3, rows=40)
    decided, measure = MultiLabel().decide(logits), LABEL_METRICS[metric]
    gold[3, 1] = -100
    whole, n = measure(decided, gold), len(gold)
    without = [measure(np.delete(decided, i, 0), np.delete(gold, i, 0)) for i in range(n)]
    values = n * whole - (n - 1) * np.array(without)
    found = label_contributions(metric, decided, gold)
    assert found == pytest.approx(values - values.mean() + whole)
    assert found.mean() == pytest.approx(whole)


def test_a_label_is_given_from_the_threshold_on():
    logits = np.array([[log_odds(0.29), log_odds(0.3), log_odds(0.31)]])
    assert MultiLabel(threshold=0.3).decide(logits).tolist() == [[False, True, True]]
    assert MultiLabel().decide(np.array([[-1e-9, 0.0, 1e-9]])).tolist() == [[False, True, True]]
    with pytest.raises(ValueError, match="less than 1"):
        MultiLabel(threshold=1.0)


@pytest.mark.parametrize("metric", LABEL_METRICS)
def test_the_tuned_threshold_is_the_best_of_the_grid(metric):
    logits, gold = some(1)
    best = tuned_threshold(logits, gold, metric)
    every = {t / 100: LABEL_METRICS[metric](1 / (1 + np.exp(-logits)) >= t / 100, gold) for t in range(1, 100)}
    assert every[best] == max(every.values())
    assert best != 0.5, "these logits are shifted, so that the usual threshold is not the best"
    assert tuned_threshold(np.array([[5.0, -5.0]]), np.array([[1, 0]]), metric) == 0.5, "of equals the nearest to 0.5"


def test_the_task_error_is_binary_cross_entropy_and_leaves_unknown_labels_out():
    logits, gold = (torch.tensor(x) for x in some(2, rows=5))
    labels = MultiLabel().pad_labels(gold.tolist(), 9)
    assert labels.dtype == torch.float32
    errors = MultiLabel().errors(logits, labels)
    torch.testing.assert_close(errors, F.binary_cross_entropy_with_logits(logits, gold.double(), reduction="none"))
    labels[1, 2] = -100
    without = MultiLabel().errors(logits, labels)
    assert without[1, 2] == 0
    assert not MultiLabel().labelled(labels)[1, 2]
    assert MultiLabel().labelled(labels).sum() == labels.numel() - 1
    without[1, 2] = errors[1, 2]
    assert torch.equal(without, errors)
