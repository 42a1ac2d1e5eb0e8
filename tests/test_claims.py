"""The verdicts in docs/evidence.md: their statistics on numbers whose answer is known, and that they are those of the
kept records."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks.claims import STUDIES, layers
from benchmarks.claims.layers import fall, gap, turn
from benchmarks.claims.mappings import FIXED, RANDOM, out_of_domain
from benchmarks.claims.records import RESULTS, Records
from benchmarks.claims.tables import comparisons, effects, word

from layerstill.evaluation.comparison import compare

ROOT = Path(__file__).parents[1]
SEEDS = range(5)


def made(arms: dict[str, float], ood: dict[str, float], tasks: tuple[str, ...] = ("a", "b")) -> Records:
    """Records in which an arm's scores are these, but for a little by seed and task."""
    runs = []
    for arm, score in arms.items():
        for t, task in enumerate(tasks):
            for seed in SEEDS:
                right = np.arange(200) < round(200 * (score + 0.01 * (seed - 2) + 0.02 * t))
                run = {"at": {"recipe": arm, "task": task, "seed": seed}, "score": float(right.mean())}
                run |= {"ood": {"far": ood[arm] + 0.01 * seed}, "dev": "x", "examples": 200}
                runs.append(run | {"right": np.packbits(right).tobytes().hex()})
    return Records({}, [], runs)


def test_shares_of_variance_are_those_that_are_there():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(200, 3, 4, 5))
    shares = [{name: e.share for name, e in effects(scores).items()} for scores in noise]
    assert all(np.mean([s[name] for s in shares]) < 0.05 for name in shares[0])
    assert np.mean([effects(scores)["first"].p < 0.05 for scores in noise]) < 0.12
    first = np.array([0.0, 10.0, 20.0])[:, None, None] + noise[0] * 0.1
    assert effects(first)["first"].share > 0.99
    assert effects(first)["first"].p < 1e-6
    crossed = np.array([[1.0, -1.0], [-1.0, 1.0]])[:, :, None] + 0.01 * rng.normal(size=(2, 2, 5))
    assert effects(crossed)["interaction"].share > 0.99


@pytest.mark.parametrize(
    ("gap", "way", "said"),
    [
        (0.05, "higher", "supported"),
        (-0.05, "higher", "not supported"),
        (0.001, "equal", "supported"),
        (0.05, "equal", "not supported"),
        (0.05, "none", ""),
    ],
)
def test_a_verdict_is_about_the_direction_of_the_claim(gap, way, said):
    rng = np.random.default_rng(1)
    here = {t: {s: 0.7 + 0.001 * rng.normal() for s in SEEDS} for t in "ab"}
    there = {t: {s: here[t][s] + gap + 0.001 * rng.normal() for s in SEEDS} for t in "ab"}
    comparison = compare("there", "here", there, here)
    assert word(comparison, way) == said
    assert comparisons([("C", comparison, way)]).splitlines()[-1].startswith("| C | there - here |")


def test_a_few_noisy_seeds_decide_nothing():
    here = {"a": dict.fromkeys(SEEDS, 0.7)}
    there = {"a": {s: 0.7 + v for s, v in enumerate([0.05, -0.04, 0.03, -0.05, 0.02])}}
    assert word(compare("there", "here", there, here), "higher") == "inconclusive"
    assert word(compare("there", "here", there, here), "equal") == "inconclusive"


def test_an_arm_that_is_better_everywhere_is_not_better_given_dev():
    arms = {RANDOM: 0.8} | dict.fromkeys(FIXED, 0.75)
    records = made(arms, {arm: score - 0.2 for arm, score in arms.items()})
    assert out_of_domain(records, False).difference == pytest.approx(0.05)
    assert out_of_domain(records, True).difference == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in STUDIES if (RESULTS / f"study_{name}.json").is_file()])
def test_the_evidence_is_what_the_records_say(name):
    """Every table, to the letter."""
    text = (ROOT / "docs" / "evidence.md").read_text("utf-8")
    for part in STUDIES[name].show(Records.read(name)).split("\n\n"):
        assert part in text, part


def test_gaps_falls_and_turns_are_those_of_a_run():
    """Accuracies and an objective that falls, then rises by a half; the second stage is no part of it."""
    epochs = [(0, 4.0), (0, 2.0), (0, 3.0), (1, 9.0)]
    run = {
        "gap": {"train": 0.9, "dev": 0.7},
        "noise": {"sigmas": [0, 0.1, 0.2], "train": [0.9, 0.9, 0.9], "dev": [0.8, 0.7, 0.5]},
        "objectives": [{"stage": stage, "epoch": 1, "train": {}, "dev": {"attention": v}} for stage, v in epochs],
    }
    assert gap(run) == pytest.approx(0.2)
    assert fall(run) == pytest.approx(0.2)
    assert turn(run, "attention") == pytest.approx(0.5)


def test_layers_are_judged_by_gap_score_and_fall():
    """Uniform layers with the wider gap, the lower score and the deeper fall, in every seed: all three claims hold."""
    records = made({"kd": 0.8, "u-ild": 0.6, "l-ild": 0.75}, dict.fromkeys(("kd", "u-ild", "l-ild"), 0.5))
    for run in records.runs:
        worse = (0.1 + 0.001 * run["at"]["seed"]) * (run["at"]["recipe"] == "u-ild")
        run["at"]["initialisation"] = "1,2,3"
        run |= {"gap": {"train": 0.9 + worse, "dev": 0.8}, "majority": 0.5, "teacher": 0.9}
        run |= {"noise": {"sigmas": [0, 0.1], "train": [0.9, 0.9], "dev": [0.8, 0.7 - worse]}}
        epochs = [{"attention": value, "hidden states": value} for value in (2.0, 1.0)]
        run["objectives"] = [{"stage": 0, "epoch": i, "train": e, "dev": e} for i, e in enumerate(epochs)]
    shown = layers.show(records)
    assert "| u-ild | 1,2,3 | a | attention | 1.000, 0.500 | 1.000, 0.500 | 0.0 % |" in shown
    verdicts = [line.split(" | ") for line in shown.splitlines() if line.startswith("| C")]
    assert [(cells[0], cells[-1]) for cells in verdicts] == [(f"| C{n}", "supported |") for n in (1, 2, 7)]
