"""The verdicts in docs/evidence.md: their statistics on numbers whose answer is known, and that they are those of the
kept records."""

import re
from pathlib import Path

import numpy as np
import pytest
from benchmarks.claims import STUDIES, family, layers, noise
from benchmarks.claims.layers import fall, gap, turn
from benchmarks.claims.mappings import FIXED, RANDOM, out_of_domain, slope
from benchmarks.claims.records import RESULTS, Records
from benchmarks.claims.tables import comparisons, effects, word

from layerstill.evaluation.comparison import compare

ROOT = Path(__file__).parents[1]
SEEDS = range(5)
KEPT = [name for name in STUDIES if (RESULTS / f"study_{name}.json").is_file()]


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
        (0.05, "withdrawn", "withdrawn"),
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


def test_the_slope_out_of_domain_is_that_of_the_runs():
    """Far scores that fall by two points where those on dev rise by one, and do not move with it."""
    arms = {RANDOM: 0.8, "kd": 0.7, "finetune": 0.75}
    records = made(arms, dict.fromkeys(arms, 0.5), tasks=("a",))
    for run in records.runs:
        run["ood"] = {"far": 2.0 - 2 * run["score"]}
    assert slope(records, "a").slope == pytest.approx(-2)
    assert slope(records, "a").runs == 15
    for run in records.runs:
        run["ood"] = {"far": 0.5 + 0.01 * run["at"]["seed"] * (-1) ** run["at"]["seed"]}
    assert abs(slope(records, "a").slope) < 0.1


def compared(name: str, gaps: list[float]):
    """An arm called `name` with these differences from another."""
    there = {"a": dict(enumerate(gaps))}
    return compare(name, "kd", there, {"a": dict.fromkeys(range(len(gaps)), 0.0)})


def test_in_one_family_every_comparison_of_a_claim_counts_once():
    """Ten pairs of one sign have p = 2/1024; the family is as large as the comparisons that claims are judged by."""
    clear, other = compared("clear", [0.01 * (s + 1) for s in range(10)]), compared("other", [0.01, -0.01] * 5)
    rows = [("C1", clear, "higher"), ("C1", other, "higher"), ("C2", clear, "equal")]
    rows += [("nothing", compared("no claim", [0.1] * 10), "none"), ("C3", compared("gone", [0.1] * 10), "withdrawn")]
    found = family.one_family([rows, [("C4", clear, "higher")]])
    assert [(j.claims, j.comparison.a) for j in found] == [
        (("C1", "C2"), "clear"),
        (("C4",), "clear"),
        (("C1",), "other"),
    ]
    assert [j.alone for j in found] == pytest.approx([2 / 1024, 2 / 1024, other.test.p])
    assert [j.comparison.p_holm for j in found] == pytest.approx([6 / 1024, 6 / 1024, other.test.p])
    assert other.test.p > 0.5
    assert family.show(found).startswith("3 comparisons of 3 claims; p after Holm is below 0.05 in 2 of them within")


def test_in_one_family_nothing_is_evidence():
    """To the letter what docs/evidence.md says; and its conditional verdicts are those that the family takes away."""
    found = family.one_family(family.kept().values())
    assert not any(j.comparison.evidence for j in found)
    text = (ROOT / "docs" / "evidence.md").read_text("utf-8")
    for part in family.show(found).split("\n\n"):
        assert part in text, part
    lost = {claim for j in found if j.alone < 0.05 for claim in j.claims}
    verdicts = dict(re.findall(r"^\| (C\d+): [^|]+\| ([^|]+) \| [^|]+\|$", text, re.M))
    conditional = {claim for claim, verdict in verdicts.items() if "conditional" in verdict}
    # C15 is about equality: two differences in one claim leave it inconclusive. CR-ILD is no numbered claim.
    assert conditional == lost - {"C15", "CR-ILD"}
    assert {claim for claim, verdict in verdicts.items() if verdict.startswith("withdrawn")} == {"C16", "C17"}


def test_the_withdrawn_rules_call_noise_supported():
    """What docs/evidence.md says of them, to the letter."""
    assert noise.share(noise.c16_says, 0, draws=200) > 0.7
    assert noise.share(noise.c17_says, 0, draws=200) > 0.85
    assert noise.show() in (ROOT / "docs" / "evidence.md").read_text("utf-8")


def test_the_withdrawn_rules_see_what_is_far_above_noise():
    """So their fault is what they say of little, not that they say it of everything."""
    assert noise.share(noise.c16_says, 3, draws=50) == 0
    assert noise.share(noise.c17_says, 5, draws=50) == 0


def test_so_many_tuned_groups_chose_an_edge():
    """Groups that two studies share, a recipe on a task at one budget, count once."""
    chosen = {}
    for name in KEPT:
        records = Records.read(name)
        rates = records.study["tune"]["fields"]["learning_rate"]
        for group in records.tuning:
            key = group["group"]["task"], group["group"]["recipe"], records.study["base"]["total_steps"]
            assert chosen.setdefault(key, group) == group
            assert sorted(rates) == [2e-4, 4e-4, 8e-4]
    edges = [g["chosen"]["learning_rate"] for g in chosen.values() if g["chosen"]["learning_rate"] != 4e-4]
    said = f"{len(edges)} of {len(chosen)} tuned groups chose an edge of it, {edges.count(2e-4)} of them the lower one"
    assert said in (ROOT / "docs" / "evidence.md").read_text("utf-8")


@pytest.mark.parametrize("name", KEPT)
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
