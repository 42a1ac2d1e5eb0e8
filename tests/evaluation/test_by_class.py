"""Scores of each class: what they are, where they stand, and which of many are shown."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score

from layerstill.heads import Classes
from layerstill.reporting.label_table import MOST, print_by_label, worst_first
from tests.tiny import save_tiny, write_csv

NAMES = ("bad", "fine", "good")


def test_scores_of_classes_are_those_by_hand_and_unknown_labels_count_nowhere():
    said, gold = np.array([0, 0, 1, 1, 2, 0]), np.array([0, 1, 1, 1, 0, -100])
    found = Classes().by_label((*NAMES, "never"), said, gold)
    assert found["bad"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert found["fine"] == pytest.approx({"precision": 1, "recall": 2 / 3, "f1": 0.8, "support": 3})
    assert found["good"] == found["never"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_they_agree_with_the_metrics_of_the_whole():
    rng = np.random.default_rng(0)
    said, gold = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    found = Classes().by_label(NAMES, said, gold)
    assert np.mean([row["f1"] for row in found.values()]) == pytest.approx(f1_score(gold, said, average="macro"))
    right = sum(row["recall"] * row["support"] for row in found.values())
    assert right / 200 == pytest.approx((said == gold).mean())


def test_the_worst_come_first_and_of_many_the_best_are_left_out(capsys):
    found = {f"c{i}": {"precision": 0.5, "recall": 0.5, "f1": i / 20, "support": 5} for i in range(20)}
    found["empty"] = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    found["large"] = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 9}
    assert [name for name, _ in worst_first(found)][:3] == ["large", "c0", "c1"]
    assert [name for name, _ in worst_first(found)][-1] == "empty"
    print_by_label(found)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : MOST + 1]] == ["large", *(f"c{i}" for i in range(MOST - 1))]
    assert lines[MOST + 1].startswith(f"These have the lowest F1; {len(found) - MOST} more")


def test_evaluate_shows_them_and_a_run_records_them(tmp_path, call):
    save_tiny(tmp_path / "base", names=NAMES, layers=2)
    (tmp_path / "data").mkdir()
    for split, seed in (("train", 0), ("dev", 1)):
        write_csv(tmp_path / "data" / f"{split}.csv", rows=60, seed=seed)
    run = f"finetune {tmp_path}/base --task classification --data {tmp_path}/data --output {tmp_path}/run"
    assert call(f"{run} --max-length 32 --max-steps 2")[0] == 0
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    status, out, err = call(f"evaluate {tmp_path}/run --json")
    assert status == 0, err
    found = json.loads(out)
    assert list(found["by_label"]) == list(NAMES)
    assert found["by_label"] == record["by_label"]
    assert found["metrics"]["f1_macro"] == pytest.approx(np.mean([row["f1"] for row in found["by_label"].values()]))
    assert sum(row["support"] for row in found["by_label"].values()) == 60
    out = call(f"evaluate {tmp_path}/run")[1]
    worst = min(found["by_label"], key=lambda name: found["by_label"][name]["f1"])
    row = next(line for line in out.splitlines() if line.startswith(worst))
    assert f"{found['by_label'][worst]['f1']:.4f}" in row
    assert "| dev | precision | recall | F1 | support |" in (tmp_path / "run" / "README.md").read_text()
