"""The verdicts in docs/evidence.md: their statistics on numbers whose answer is known, and that they are those of the
kept records."""

import re
from pathlib import Path

import numpy as np
import pytest
from benchmarks.claims import STUDIES, family, layers, noise
from benchmarks.claims.factors import effects, f_test
from benchmarks.claims.layers import fall, gap, turn
from benchmarks.claims.mappings import FIXED, RANDOM, out_of_domain, slope
from benchmarks.claims.records import RESULTS, Records
from benchmarks.claims.tables import Other, Page, answers, comparisons

from layerstill.evaluation.comparison import compare
from layerstill.evaluation.estimate import estimate

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


def answered(rng: np.random.Generator, chances: np.ndarray, of_example: float = 0.0, examples: int = 200) -> np.ndarray:
    """What is right `(A, B, 5, examples)`; `of_example` is the spread of how easy each is for each pair of levels."""
    ease = of_example * rng.normal(size=(*chances.shape, 1, examples))
    return (rng.random((*chances.shape, 5, examples)) < chances[..., None, None] + ease).astype(float)


def test_shares_of_variance_are_those_that_are_there():
    rng = np.random.default_rng(0)
    equal = np.full((3, 4), 0.7)
    found = [effects(answered(rng, equal)) for _ in range(150)]
    assert all(np.mean([of[part].share for of in found]) < 0.05 for part in found[0])
    first = effects(answered(rng, equal + np.array([-0.2, 0.0, 0.2])[:, None]))
    assert first["first"].share > 0.9
    assert first["first"].p < 1e-6
    crossed = effects(answered(rng, 0.6 + 0.2 * np.array([[1.0, -1.0], [-1.0, 1.0]])))
    assert crossed["interaction"].share > 0.9
    assert crossed["interaction"].p < 1e-6


@pytest.mark.parametrize("of_example", [0.0, 0.2])
@pytest.mark.parametrize("additive", [0.0, 0.05])
def test_an_interaction_is_found_as_rarely_as_the_level_says_where_there_is_none(of_example, additive):
    """Also where examples are easier for some pairs of levels than for others, and where both factors have an effect."""
    rng = np.random.default_rng(1)
    chances = 0.5 + additive * np.arange(3)[:, None] + additive * np.arange(4)
    found = [effects(answered(rng, chances, of_example))["interaction"].p < 0.05 for _ in range(300)]
    assert np.mean(found) <= 0.09
    assert np.mean(found) >= 0.003


def test_an_order_that_turns_over_is_found_where_only_the_interaction_is_there():
    rng = np.random.default_rng(2)
    turned = 0.7 + 0.06 * np.array([[1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]])
    found = [effects(answered(rng, turned)) for _ in range(40)]
    assert np.mean([of["interaction"].p < 0.05 for of in found]) > 0.9
    assert np.mean([of["second"].p < 0.05 for of in found]) < 0.2


def test_one_contrast_is_tested_as_two_arms_are():
    rng = np.random.default_rng(3)
    gaps = answered(rng, np.array([[0.8]]))[0, 0] - answered(rng, np.array([[0.7]]))[0, 0]
    assert f_test(gaps[None]) == pytest.approx(estimate([gaps]).test().p)
    assert f_test(np.zeros((2, 5, 9))) == 1


@pytest.mark.parametrize(
    ("gap", "way", "said"),
    [
        (0.05, "higher", "supported"),
        (-0.05, "higher", "not supported"),
        (0.001, "equal", "supported"),
        (0.05, "equal", "not supported"),
        (0.001, "not higher", "supported"),
        (0.05, "not higher", "not supported"),
        (0.05, None, ""),
    ],
)
def test_a_verdict_is_about_what_is_claimed(gap, way, said):
    rng = np.random.default_rng(1)
    here = {t: {s: 0.7 + 0.001 * rng.normal() for s in SEEDS} for t in "ab"}
    there = {t: {s: here[t][s] + gap + 0.001 * rng.normal() for s in SEEDS} for t in "ab"}
    page = Page([("C", compare("there", "here", there, here), way)])
    last = comparisons(page).splitlines()[-1]
    assert last.startswith("| C | there - here |")
    assert last.endswith(f"| {said} |")


def test_a_few_noisy_seeds_decide_nothing():
    here = {"a": dict.fromkeys(SEEDS, 0.7)}
    there = {"a": {s: 0.7 + v for s, v in enumerate([0.05, -0.04, 0.03, -0.05, 0.02])}}
    found = compare("there", "here", there, here)
    assert [a.word for a in answers(Page([("C", found, "higher"), ("C", found, "equal")]))] == ["undecided"] * 2


def test_all_that_a_page_asks_is_one_family():
    """Ten pairs of one sign have p = 2/1024; what is not asked for any claim counts nowhere, an interaction does."""
    clear, other = compared("clear", [0.01 * (s + 1) for s in range(10)]), compared("other", [0.01, -0.01] * 5)
    rows = [("C1", clear, "higher"), ("C1", other, "higher"), ("no claim", compared("x", [0.1, 0.2] * 5), None)]
    found = answers(Page(rows, [Other("C2", "crossed", 0.02), Other("C2", "crossed", 0.9)]))
    assert [(a.claim, a.adjusted) for a in found] == [
        ("C1", pytest.approx(4 * 2 / 1024)),
        ("C1", 1.0),
        ("C2", pytest.approx(0.06)),
        ("C2", 1.0),
    ]
    assert [a.word for a in found] == ["supported", "undecided", "undecided", "undecided"]
    assert {a.family for a in found} == {4}


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


def test_in_one_family_the_questions_of_all_pages_count():
    clear, other = compared("clear", [0.01 * (s + 1) for s in range(10)]), compared("other", [0.01, -0.01] * 5)
    pages = [Page([("C1", clear, "higher"), ("C1", other, "higher")]), Page([("C4", clear, "higher")])]
    found = family.one_family(pages)
    assert [(j.answer.claim, j.answer.adjusted) for j in found] == [
        ("C1", pytest.approx(4 / 1024)),
        ("C4", pytest.approx(2 / 1024)),
        ("C1", other.test.p),
    ]
    assert [j.whole for j in found] == pytest.approx([6 / 1024, 6 / 1024, other.test.p])
    assert family.show(found).startswith(
        "3 questions of 2 claims; p after Holm is below 0.05 in 2 of them on their own page, in 2 of them in one family."
    )


def test_the_verdicts_are_those_of_the_records():
    """The one family to the letter; and what the table of all claims calls supported or not is what the pages say."""
    found = family.one_family(family.kept().values())
    text = (ROOT / "docs" / "evidence.md").read_text("utf-8")
    for part in family.show(found).split("\n\n"):
        assert part in text, part
    said: dict[str, set[str]] = {}
    for judged in found:
        said.setdefault(judged.answer.claim, set()).add(judged.answer.word)
    table = text.split("## The papers' claims: where each stands in the pilot")[1].split("\n## ")[0]
    verdicts = dict(re.findall(r"^\| (C\d+): [^|]+\| ([^|]+) \| [^|]+\|$", table, re.M))
    told = {claim: set(re.findall(r"not supported|supported|undecided", verdicts[claim])) for claim in verdicts}
    assert {claim: words for claim, words in told.items() if words} == {
        claim: words
        for claim, words in said.items()
        if claim != "CR-ILD"  # which is no numbered claim
    } | {"C12": {"undecided"}}


@pytest.mark.slow
def test_the_replaced_rules_call_noise_supported_and_those_in_their_place_do_not():
    """What docs/evidence.md says of them, to the letter."""
    assert noise.share(noise.c16_said, 0, draws=200) > 0.7
    assert noise.share(noise.c17_said, 0, draws=200) > 0.85
    assert noise.share(noise.c17_says, 0, draws=200) < 0.1
    assert noise.share(noise.c16_says, 2, draws=100) < 0.05
    assert noise.show() in (ROOT / "docs" / "evidence.md").read_text("utf-8")


def test_the_replaced_rules_see_what_is_far_above_noise():
    """So their fault is what they say of little, not that they say it of everything."""
    assert noise.share(noise.c16_said, 3, draws=50) == 0
    assert noise.share(noise.c17_said, 5, draws=50) == 0


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
