"""The verdict: every rule, on facts of real runs where there are some, and what `distill` says and keeps of it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from layerstill.heads import Classes, MultiLabel, Scores, Tokens
from layerstill.recipe import Recipe
from layerstill.reporting.facts import read_losses
from layerstill.reporting.verdict import Facts, verdict
from layerstill.training.reach import ENOUGH, reach_notices, reach_of
from tests.tiny import save_tiny, write_csv

# Real runs of plain KD, MiniLM with 6 layers to 3: 250 updates of 16 at 2e-5 and 176 of 16 at 3e-4 on the tickets, 400 of
# 32 at 3e-4 on the tickets and on TREC-6. Losses are those of every 5 % or so of the updates.
SLOW = (2.01, 1.61, 1.41, 1.38, 0.94, 1.01, 1.26, 0.94, 1.0, 0.86, 0.91, 0.79, 0.85)
SHORT = (1.401, 1.264, 1.203, 1.035, 1.064, 0.564, 0.716, 0.545, 0.76, 0.63, 0.562, 0.313)
SHORT += (0.389, 0.389, 0.347, 0.348, 0.399, 0.23, 0.232, 0.269, 0.238, 0.241, 0.225)
LONG = (2.742, 1.333, 0.516, 0.325, 0.242, 0.192, 0.099, 0.081, 0.066, 0.046, 0.042, 0.034, 0.034, 0.032, 0.03, 0.026)
TREC = (1.655, 0.938, 0.599, 0.616, 0.577, 0.603, 0.591, 0.598, 0.5, 0.363, 0.282, 0.24, 0.333, 0.259, 0.244, 0.261)
TREC += (0.261, 0.269, 0.883, 0.097, 0.116, 0.168)
STUCK = (0.694, 0.693, 0.69, 0.691, 0.688, 0.683, 0.68, 0.679)  # as MRPC at 2e-5: ln 2 is 0.693

TICKETS = Facts(
    metric="accuracy",
    student=0.7,
    teacher=0.75,
    examples=120,
    layers=3,
    teacher_layers=6,
    parameters=17_393_674,
    teacher_parameters=22_717_066,
    times_as_fast=2.0,
    steps=400,
    examples_seen=12_727,
    train_examples=750,
    learning_rate=3e-4,
    reach=0.06,
    losses=LONG,
)
CHANGES = {
    "learning rate": "another learning rate",
    "longer": "a longer training",
    "texts": "more texts",
    "layer": "one more layer",
    "nothing": "Nothing needs to change",
}


def change(facts: Facts) -> str:
    """Which change a verdict names; it must be one."""
    found = [name for name, words in CHANGES.items() if words in verdict(facts)[-1]]
    assert len(found) == 1, verdict(facts)
    return found[0]


def test_the_first_sentence_says_what_was_kept_at_what_speed_and_size():
    kept, _ = verdict(TICKETS)
    assert kept == (
        "It keeps 93.3 % of the teacher's accuracy (0.7000 of 0.7500 on 120 examples), is about 2.0 times as fast, by the "
        "operations of its layers, and has 17.4 of 22.7 million parameters and 3 of 6 layers."
    )
    assert verdict(replace(TICKETS, teacher=0.0))[0].startswith(
        "Nothing can be kept of the teacher's accuracy (0.7000 of 0.0000 on 120 examples). It is about 2.0 times as fast"
    )


def test_real_runs_get_the_change_that_helped_them():
    # 176 updates: five times as many bring 9 points. 400 updates, learnt by heart: texts. TREC keeps 99 %: nothing.
    short = replace(TICKETS, student=0.65, teacher=0.708, steps=176, examples_seen=2_800, losses=SHORT)
    assert change(short) == "longer"
    assert change(TICKETS) == "texts"
    trec = replace(TICKETS, student=0.956, teacher=0.964, train_examples=5_452, losses=TREC)
    assert change(trec) == "nothing"
    slow = replace(TICKETS, student=0.592, steps=250, examples_seen=3_977, learning_rate=2e-5, reach=0.0025)
    slow = replace(slow, losses=SLOW)
    assert change(slow) == "learning rate"  # at 3e-4 as many updates bring 8 points
    assert "a weight moves by 0.0025 in all, and students need about 0.02" in verdict(slow)[-1]
    assert change(replace(slow, learning_rate=3e-4)) == "longer"
    assert change(replace(slow, reach=0.02)) == "longer"


def test_a_loss_that_stays_where_it_began_names_the_learning_rate_and_a_way_out():
    stuck = replace(TICKETS, losses=STUCK, learning_rate=2e-5, steps=500)
    assert change(stuck) == "learning rate"
    said = verdict(stuck)[-1]
    assert "at 2e-5 over 500 updates the loss hardly left its start (0.694 to 0.679)" in said
    assert "--learning-rate auto, or 10 times as much (2e-4)" in said
    assert "or a tenth (2e-4)" in verdict(replace(stuck, learning_rate=2e-3))[-1]
    # One objective that fell is enough: a large one that cannot fall must not hide it.
    falling = {"soft targets": (2.0, 1.0, 0.2), "hidden states": (8.0, 8.0, 7.9)}
    assert change(replace(stuck, objectives=falling)) != "learning rate"
    assert change(replace(stuck, objectives={"soft targets": (2.0, 1.99, 1.9)})) == "learning rate"


def test_a_loss_that_still_falls_or_few_examples_seen_ask_for_longer():
    falling = tuple(2.0 - 0.1 * i for i in range(16))
    many = replace(TICKETS, examples_seen=40_000, train_examples=20_000)
    assert change(replace(many, losses=falling)) == "longer"
    assert "the loss was still falling; give 2 times the --epochs" in verdict(replace(many, losses=falling))[-1]
    assert change(replace(many, losses=TREC)) == "layer"
    assert "3,000 examples seen are few" in verdict(replace(many, losses=TREC, examples_seen=3_000))[-1]


def test_a_gap_after_many_updates_asks_for_a_layer_and_for_texts_where_few_were_learnt_by_heart():
    many = replace(TICKETS, steps=1_500, examples_seen=48_000)
    assert change(replace(many, train_examples=20_000)) == "layer"
    assert "--student-layers 4" in verdict(replace(many, train_examples=20_000))[-1]
    assert change(many) == "texts"
    assert "the 750 training examples are learnt by heart" in verdict(many)[-1]
    whole = replace(many, train_examples=20_000, layers=6)
    assert "one more layer" not in verdict(whole)[-1]


def test_a_student_that_keeps_its_teacher_needs_nothing_and_just_below_something():
    assert change(replace(TICKETS, student=0.7351)) == "nothing"
    assert change(replace(TICKETS, student=0.7349)) == "texts"
    assert change(replace(TICKETS, student=0.76, losses=STUCK)) == "nothing"


def test_one_answer_is_called_that_before_all_else():
    lines = verdict(replace(TICKETS, student=0.74, one_answer="'positive' for 97% of the texts"))
    assert lines[0] == "WARNING: the student says 'positive' for 97% of the texts: it has learnt one answer."
    assert len(lines) == 3
    assert "another learning rate" in lines[-1]
    assert len(verdict(TICKETS)) == 2


def test_classes_that_are_nearly_all_one_and_gold_that_is_not():
    head, names = Classes(), ["bad", "good"]
    gold = np.array([0, 1] * 50)
    assert head.one_answer(names, np.array([1] * 96 + [0] * 4), gold) == "'good' for 96% of the texts"
    assert head.one_answer(names, np.array([1] * 94 + [0] * 6), gold) == ""
    rare = np.array([1] * 96 + [0] * 4)  # where 96 % are good, a model that finds most of the others is right
    assert head.one_answer(names, np.array([1] * 97 + [0] * 3), rare) == ""
    assert head.one_answer(names, np.ones(100, int), rare) == "'good' for 100% of the texts"
    assert head.one_answer(names, np.ones(100, int), np.ones(100, int)) == ""
    assert head.one_answer(names, np.array([1] * 50), np.array([-100] * 50)) == ""


def test_several_labels_of_which_none_is_given():
    gold = np.tile([[1, 0], [0, 1]], (50, 1))
    none = np.zeros((100, 2), bool)
    assert MultiLabel().one_answer(["joy", "fear"], none, gold) == "no label at all for 100% of the texts"
    same = np.tile([[True, True]], (100, 1))
    assert MultiLabel().one_answer(["joy", "fear"], same, gold) == "'joy', 'fear' for 100% of the texts"
    assert MultiLabel().one_answer(["joy", "fear"], gold.astype(bool), gold) == ""
    assert MultiLabel().one_answer(["joy", "fear"], none, np.zeros((100, 2), int)) == ""


def test_tags_of_which_none_is_an_entity_and_words_that_were_cut_off():
    gold = [np.array([0, 1, 2, 0, -100])] * 10
    names = ["O", "B-X", "I-X"]
    assert Tokens().one_answer(names, [np.zeros(5, int)] * 10, gold) == "no entity at all"
    assert Tokens().one_answer(names, [np.zeros(2, int)] * 10, gold) == "no entity at all"
    assert Tokens().one_answer(names, [np.array([0, 1, 2, 0, 0])] * 10, gold) == ""
    assert Tokens().one_answer(["NOUN", "VERB", "DET"], [np.zeros(5, int)] * 10, gold) == "'NOUN' for 100% of the words"


def test_scores_without_spread():
    gold = np.array([0.0, 1.0, 2.0, 3.0, float("nan")])
    assert Scores().one_answer([], np.full(5, 2.5), gold).startswith("nearly 2.5 for every text (standard deviation 0")
    assert Scores().one_answer([], np.array([0.1, 0.9, 2.2, 3.0, 1.0]), gold) == ""


def test_losses_are_those_of_the_last_stage_and_torn_lines_are_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"stage": 1, "step": 1, "loss": 9.0, "objectives": {"a": 9.0}},
        {"stage": 2, "step": 1, "loss": 2.0, "objectives": {"b": 1.0, "c": None}},
        {"stage": 2, "step": 2, "dev": {"accuracy": 1.0}},
        {"stage": 2, "step": 2, "loss": 1.0, "objectives": {"b": 0.5}},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"stage": 3, "lo', "utf-8")
    assert read_losses(path) == ([2.0, 1.0], {"b": [1.0, 0.5]})
    assert read_losses(tmp_path / "none") == ([], {})


def recipe(*settings: str) -> Recipe:
    return Recipe.load("kd", settings)


def test_how_far_a_training_reaches_is_the_area_under_its_schedule():
    rates = [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]  # a warm-up over a third, then down
    whole = recipe("stages.0.learning_rate=1e-3", "stages.0.optimiser.warmup=0.3333", "stages.0.epochs=10").stages[0]
    steps = 10 * 4  # 128 examples in batches of 32
    assert reach_of(whole, 128, None) == pytest.approx(1e-3 * steps * np.trapezoid(rates) / 6, rel=1e-3)
    flat = whole.model_copy(
        update={"optimiser": whole.optimiser.model_copy(update={"schedule": "constant", "warmup": 0})}
    )
    assert reach_of(flat, 128, None) == pytest.approx(1e-3 * steps)
    assert reach_of(flat, 128, 7) == pytest.approx(7e-3)


def test_a_recipe_that_hardly_moves_the_weights_is_noted_with_a_way_out():
    few = recipe("stages.0.learning_rate=2e-5", "stages.0.epochs=2", "stages.0.batch_size=16")
    (said,) = reach_notices(few, {"task": 2_000, "supplementary": 0}, None)
    assert "a learning rate of 2e-05 over 250 updates" in said
    assert "--learning-rate auto" in said
    enough = recipe("stages.0.learning_rate=3e-4", "stages.0.epochs=4", "stages.0.batch_size=16")
    assert reach_notices(enough, {"task": 704, "supplementary": 0}, None) == []  # the demo's 176 updates
    assert reach_of(enough.stages[0], 704, None) > ENOUGH


@pytest.fixture(scope="module")
def collapsed(tmp_path_factory):
    """A teacher and data."""
    place = tmp_path_factory.mktemp("collapsed")
    save_tiny(place / "teacher", layers=3)
    write_csv(place / "train.csv", rows=24)
    write_csv(place / "dev.csv", rows=60, seed=1)
    return place


def test_distill_ends_with_the_verdict_and_a_collapsed_student_is_called_that(collapsed, call):
    words = (
        f"distill {collapsed}/teacher --task classification --data {collapsed} --student-layers 1 --max-length 32 "
        "--recipe kd --precision fp32 --max-steps 12"
    )
    ruined = "--learning-rate 0.5 --set stages.0.optimiser.clip=0 --set stages.0.optimiser.warmup=0"
    status, out, err = call(f"{words} {ruined} --output {collapsed}/ruined")
    assert status == 0, err
    kept = json.loads((collapsed / "ruined" / "result.json").read_text("utf-8"))["verdict"]
    assert kept[0].startswith("WARNING: the student says '")
    assert out.splitlines()[-3:] == kept
    assert "WARNING: the student says" in (collapsed / "ruined" / "README.md").read_text("utf-8")
    # The same command again: the run is finished, and says it again; with --json on standard error.
    status, out, err = call(f"{words} {ruined} --output {collapsed}/ruined --json")
    assert status == 0
    assert json.loads(out)["verdict"] == kept
    assert kept[0] in err


def test_a_student_that_is_well_has_two_sentences_and_a_hopeless_rate_is_noted_before(collapsed, call):
    words = (
        f"distill {collapsed}/teacher --task classification --data {collapsed} --student-layers 3 --max-length 32 "
        f"--recipe kd --learning-rate 1e-7 --max-steps 3 --precision fp32 --output {collapsed}/copy"
    )
    status, out, err = call(words)
    assert status == 0, err
    verdict_lines = json.loads((collapsed / "copy" / "result.json").read_text("utf-8"))["verdict"]
    assert "note: a learning rate of 1e-07 over 3 updates moves a weight by" in err
    assert verdict_lines[-2].startswith("It keeps 100.0 % of the teacher's accuracy")
    assert "and 3 of 3 layers" in verdict_lines[-2]
    assert out.splitlines()[-len(verdict_lines) :] == verdict_lines


def test_a_teacher_that_guesses_is_not_kept_but_replaced():
    facts = replace(TICKETS, student=0.34, teacher=0.33, teacher_guesses=True)
    assert "Nothing needs to change" in verdict(replace(facts, teacher_guesses=False))[-1]
    assert verdict(facts)[-1].startswith("First find a better teacher")


def test_so_few_updates_that_no_rate_helps_want_a_longer_training_which_more_epochs_give_unless_steps_are_limited():
    three = replace(TICKETS, student=0.3, steps=3, examples_seen=96, learning_rate=2e-5, reach=3e-5, losses=STUCK)
    assert change(three) == "longer"
    assert "give 5 times the --epochs" in verdict(three)[-1]
    assert "leave --max-steps out, or give more" in verdict(replace(three, stopped_early=True))[-1]
    assert change(replace(three, one_answer="'good' for 100 % of the texts")) == "longer"
    assert change(replace(three, steps=250, reach=0.0025)) == "learning rate"
