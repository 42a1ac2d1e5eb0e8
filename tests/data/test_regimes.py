"""Regimes: exactly what was asked for, the same every time, recorded, and refused where it makes no sense."""

import json
from collections import Counter

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification

from layerstill.data.regimes import Regime
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError
from layerstill.evaluation.predict import predict
from layerstill.randomness import generator
from tests.tiny import save_tiny, tiny_tokenizer, write_csv


def task(sizes=(30, 20, 10), kind="classification") -> Task:
    """Classes `a`, `b`, ... of these sizes, mixed; the text says which example it is."""
    labels = [y for y, n in enumerate(sizes) for _ in range(n)]
    generator(0, "mixed").shuffle(labels)
    texts = [(f"text {i}",) for i in range(len(labels))]
    dev = Split([("one",), ("two",)], [0, 1])
    if kind == "regression":
        return Task("scores", "regression", {"train": Split(texts, [y / 2 for y in labels]), "dev": dev})
    return Task(
        "letters", "classification", {"train": Split(texts, labels), "dev": dev}, tuple("abcdefghij"[: len(sizes)])
    )


def numbers(changed: Task) -> list[int]:
    """Which of the original examples are left."""
    return [int(text.split()[1]) for (text,) in changed.splits["train"].texts]


def sizes_of(changed: Task) -> list[int]:
    return [changed.splits["train"].labels.count(i) for i in range(len(changed.labels))]


@pytest.mark.parametrize("stratified", [False, True])
def test_few_samples_are_so_many_examples_as_they_were(stratified):
    full = task()
    few = Regime(few_samples=17, stratified=stratified).apply(full, 5)
    left = numbers(few)
    assert len(left) == len(set(left)) == 17
    assert left == sorted(left), "in the order of the data"
    assert [few.splits["train"].labels[k] for k in range(17)] == [full.splits["train"].labels[i] for i in left]
    assert few.splits["dev"] is full.splits["dev"]
    assert few.clean_labels is None
    assert Regime(few_samples=60, stratified=stratified).apply(full, 5).splits == full.splits, "all of them is allowed"


def test_a_draw_is_a_function_of_the_seed_and_larger_draws_contain_smaller_ones():
    full = task()
    draw = lambda k, regime_seed, run_seed: numbers(Regime(few_samples=k, seed=regime_seed).apply(full, run_seed))  # noqa: E731
    assert draw(12, 0, 1) == draw(12, 0, 2), "a fixed seed does not look at the run's"
    assert draw(12, "run", 1) == draw(12, 1, 7)
    assert draw(12, "run", 1) != draw(12, "run", 2)
    assert set(draw(12, 0, 0)) < set(draw(30, 0, 0)) < set(draw(50, 0, 0))


def test_the_draws_of_seed_0_stay_what_they_are():
    """Pinned, so that runs of different versions and machines see the same data."""
    assert numbers(Regime(few_samples=20).apply(task(), 0)) == [
        0,
        1,
        7,
        15,
        17,
        22,
        24,
        28,
        34,
        38,
        41,
        44,
        45,
        49,
        51,
        52,
        55,
        56,
        57,
        59,
    ]
    noisy = Regime(label_noise=0.2).apply(task(), 0)
    flipped = [
        i for i, (a, b) in enumerate(zip(noisy.splits["train"].labels, noisy.clean_labels, strict=True)) if a != b
    ]
    assert flipped == [2, 6, 9, 16, 17, 18, 20, 35, 36, 42, 46, 54, 57, 58]


@pytest.mark.parametrize("k", [7, 10, 31, 59])
def test_stratified_draws_keep_the_proportions_to_within_one_example(k):
    sizes = (41, 13, 6)
    got = sizes_of(Regime(few_samples=k, stratified=True, seed=3).apply(task(sizes), 0))
    assert sum(got) == k
    assert all(abs(g - k * n / 60) < 1 for g, n in zip(got, sizes, strict=True))


def test_symmetric_noise_flips_the_asked_share_evenly_and_keeps_what_was_there():
    full = task((3000, 2000, 1000))
    noisy = Regime(label_noise=0.3, seed=2).apply(full, 0)
    before, after = np.array(full.splits["train"].labels), np.array(noisy.splits["train"].labels)
    assert noisy.clean_labels == full.splits["train"].labels
    assert noisy.splits["train"].texts == full.splits["train"].texts
    wrong = before != after
    assert abs(wrong.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 6000)
    for y in range(3):
        others = Counter(after[wrong & (before == y)])
        assert set(others) == {0, 1, 2} - {y}
        n = sum(others.values())
        assert abs(others.most_common()[0][1] / n - 0.5) < 5 * np.sqrt(0.25 / n), "each other class as often"
    assert noisy.regime["flipped_labels"] == wrong.sum()


def test_a_higher_rate_flips_what_a_lower_one_flips_and_a_subset_has_the_same_noise():
    full = task((100, 100, 100))
    flipped = {}
    for rate in (0.1, 0.4):
        noisy = Regime(label_noise=rate).apply(full, 0).splits["train"].labels
        flipped[rate] = {i: y for i, y in enumerate(noisy) if y != full.splits["train"].labels[i]}
    assert flipped[0.1].items() < flipped[0.4].items()
    few = Regime(label_noise=0.4, few_samples=100).apply(full, 0)
    assert few.clean_labels == [full.splits["train"].labels[i] for i in numbers(few)]
    for i, y in zip(numbers(few), few.splits["train"].labels, strict=True):
        assert y == flipped[0.4].get(i, full.splits["train"].labels[i])


def test_pairs_flip_each_class_to_the_next():
    full = task((400, 400, 400))
    noisy = Regime(label_noise=0.4, noise="pairs").apply(full, 0)
    moves = Counter(zip(noisy.clean_labels, noisy.splits["train"].labels, strict=True))
    assert set(moves) == {(0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0)}
    assert all(abs(moves[y, (y + 1) % 3] / 400 - 0.4) < 5 * np.sqrt(0.24 / 400) for y in range(3))
    assert noisy.regime["pairs"] == {"a": "b", "b": "c", "c": "a"}


def test_transitions_flip_by_names_of_classes():
    full = task((1000, 1000, 1000))
    noisy = Regime(transitions={"a": {"b": 0.2, "c": 0.1}, "c": {"a": 0.5}}).apply(full, 0)
    moves = Counter(zip(noisy.clean_labels, noisy.splits["train"].labels, strict=True))
    assert set(moves) == {(0, 0), (0, 1), (0, 2), (1, 1), (2, 2), (2, 0)}
    for move, p in {(0, 1): 0.2, (0, 2): 0.1, (2, 0): 0.5}.items():
        assert abs(moves[move] / 1000 - p) < 5 * np.sqrt(p * (1 - p) / 1000)
    assert noisy.regime["flipped_labels"] == moves[0, 1] + moves[0, 2] + moves[2, 0]


def test_noise_that_outweighs_the_signal_is_said():
    noisy = Regime(label_noise=0.6).apply(task((50, 50)), 0)
    assert "label noise calls 'a' 'b' at least as often as 'a'" in noisy.notices
    assert not any("at least as often" in n for n in Regime(label_noise=0.6).apply(task(), 0).notices)


def test_rare_classes():
    assert sizes_of(Regime(keep={"a": 0.1, "c": 0.5}).apply(task(), 0)) == [3, 20, 5]
    assert sizes_of(Regime(long_tail=100).apply(task((1000, 1000, 1000)), 0)) == [1000, 100, 10]
    assert sizes_of(Regime(long_tail=100).apply(task((1000, 60, 1000)), 0)) == [1000, 10, 100], "largest class first"
    assert sizes_of(Regime(long_tail=4).apply(task((100, 30, 20)), 0)) == [100, 30, 20], "none gets more than it has"
    small, large = (set(numbers(Regime(keep={"a": share}).apply(task(), 0))) for share in (0.2, 0.6))
    assert small < large
    rare = set(numbers(Regime(keep={"a": 0.2}).apply(task(), 0)))
    assert set(numbers(Regime(keep={"a": 0.2}, few_samples=25).apply(task(), 0))) < rare, "drawn from what is kept"
    both = Regime(keep={"a": 0.5}, few_samples=9, stratified=True, label_noise=0.2).apply(task(), 0)
    assert both.regime["classes"]["drawn"] == {"a": 3, "b": 4, "c": 2}


def test_the_record_counts_and_brings_the_regime_back():
    full = task()
    regime = Regime(few_samples=40, keep={"a": 0.8}, label_noise=0.25, seed="run")
    made = regime.apply(full, 11)
    record = json.loads(json.dumps(made.regime))
    assert record["few_samples"] == 40
    assert record["seed"] == 11
    assert record["examples"] == {"before": 60, "after": 40}
    assert record["classes"]["before"] == {"a": 30, "b": 20, "c": 10}
    assert record["classes"]["drawn"] == {n: made.clean_labels.count(i) for i, n in enumerate("abc")}
    assert record["classes"]["after"] == dict(zip("abc", sizes_of(made), strict=True))
    again = Regime.from_record(record | {"student": {"wrong labels": 3}}).apply(full, 99)
    assert again.splits == made.splits
    assert made.notices[-1] == (
        f"regime: 40 of 60 training examples, seed 11; {record['flipped_labels']} of their labels were made wrong"
    )


def test_nothing_asked_for_changes_nothing():
    full = task()
    assert Regime().apply(full, 0) is full
    assert Regime(label_noise=0, stratified=True, noise="pairs", seed="run").apply(full, 0) is full
    assert full.regime == {}


def test_clean_labels_follow_the_order_of_classes():
    noisy = Regime(label_noise=0.3).apply(task(), 0)
    turned = noisy.with_label_order(("c", "a", "b"))
    name = lambda t, labels: [t.labels[y] for y in labels]  # noqa: E731
    assert name(turned, turned.clean_labels) == name(noisy, noisy.clean_labels)
    assert name(turned, turned.splits["train"].labels) == name(noisy, noisy.splits["train"].labels)


def test_scores_can_be_few():
    few = Regime(few_samples=20).apply(task(kind="regression"), 0)
    assert numbers(few) == numbers(Regime(few_samples=20).apply(task(), 0))
    assert "classes" not in few.regime


SCORES = "it is about classes, and task scores has scores; it can only have few_samples"


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        ({"few_samples": 61}, "classification", "regime few_samples 61: train of letters has 60 examples"),
        (
            {"few_samples": 50, "keep": {"a": 0.2}},
            "classification",
            "few_samples 50: 36 training examples are left by keep",
        ),
        ({"few_samples": 0}, "classification", "few_samples: .* greater than 0, got 0"),
        ({"few_samples": 2.5}, "classification", "few_samples: .*integer.*got 2.5"),
        ({"label_noise": 1}, "classification", "label_noise: .* less than 1, got 1"),
        ({"label_noise": -0.1}, "classification", "label_noise: .* greater than or equal to 0, got -0.1"),
        ({"label_noise": float("nan")}, "classification", "label_noise: must be a finite number"),
        ({"keep": {"a": 0}}, "classification", "keep.a: .* greater than 0"),
        ({"keep": {"a": 1.5}}, "classification", "keep.a: .* less than or equal to 1"),
        ({"keep": {"a": 0.001}}, "classification", "30 of 60 training examples are left, and none of class 'a'"),
        ({"keep": {"A": 0.5}}, "classification", "regime keep: unknown class 'A': .*known: a, b, c"),
        ({"long_tail": 0.5}, "classification", "long_tail: .* greater than or equal to 1"),
        ({"long_tail": 1000}, "classification", "are left, and none of class 'c'"),
        ({"long_tail": 2, "keep": {"a": 0.5}}, "classification", "keep and long_tail both set the sizes"),
        ({"transitions": {"a": {"a": 0.1}}}, "classification", "'a' to itself is not noise"),
        ({"transitions": {"a": {"b": 0.6, "c": 0.4}}}, "classification", "sum to 1, which leaves no right label"),
        ({"transitions": {"a": {"d": 0.1}}}, "classification", "regime transitions: unknown class 'd'"),
        ({"transitions": {"d": {"a": 0.1}}}, "classification", "regime transitions: unknown class 'd'"),
        ({"transitions": {"a": {"b": 0.1}}, "label_noise": 0.1}, "classification", "label_noise must be 0"),
        ({"noise": "symetric"}, "classification", "noise: .*symmetric"),
        ({"few_sample": 3}, "classification", "unknown key 'few_sample': did you mean 'few_samples'"),
        ({"few_samples": 2}, "classification", "2 of 60 training examples are left, and none of class"),
        ({"label_noise": 0.1}, "regression", "regime label_noise: " + SCORES),
        ({"transitions": {"a": {"b": 0.1}}}, "regression", "regime transitions: " + SCORES),
        ({"long_tail": 2}, "regression", "regime long_tail: " + SCORES),
        ({"few_samples": 9, "stratified": True}, "regression", "regime stratified: " + SCORES),
    ],
)
def test_what_makes_no_sense_is_refused(data, kind, message):
    with pytest.raises(UserError, match=message):
        Regime.from_data(data).apply(task(kind=kind), 0)


def test_noise_may_not_remove_a_class():
    with pytest.raises(UserError, match="label noise leaves no training label of class 'a'; take more examples, less"):
        Regime(transitions={"a": {"b": 0.999}}).apply(task((2, 5)), 0)


def test_a_regime_is_given_once_and_after_the_first_examples_are_taken():
    changed = Regime(few_samples=20).apply(task().limited(40), 0)
    assert changed.regime["examples"] == {"before": 40, "after": 20}
    with pytest.raises(UserError, match="the task has one already"):
        Regime(label_noise=0.1).apply(changed, 0)
    with pytest.raises(UserError, match="before a regime is applied"):
        changed.limited(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regimes")
    save_tiny(folder / "model", width=32, layers=2)
    (folder / "data").mkdir()
    write_csv(folder / "data" / "train.csv", rows=48)
    write_csv(folder / "data" / "dev.csv", rows=6, seed=1)
    (folder / "scores").mkdir()
    for split in ("train", "dev"):
        (folder / "scores" / f"{split}.csv").write_text("text,label\n" + "good film,1\nbad film,0.5\n" * 6, "utf-8")
    (folder / "regime.yaml").write_text("label_noise: 0.3\nkeep: {good: 0.5}\n", "utf-8")
    (folder / "list.yaml").write_text("- 1\n", "utf-8")
    return folder


@pytest.fixture
def call(call, monkeypatch, place):
    """The command line, in the folder `place`."""
    monkeypatch.chdir(place)
    return call


DATA = "--task classification --data data --max-length 32"


def test_teacher_and_student_train_on_the_same_wrong_labels_and_the_record_says_which(call, tmp_path, place):
    noise = "--few-samples 30 --label-noise 0.3"
    status, out, err = call(f"finetune model {DATA} {noise} --seed 1 --max-steps 2 --output {tmp_path}/t --json")
    assert status == 0, err
    teacher = json.loads(out)["regime"]
    words = f"distill {tmp_path}/t {DATA} --student-layers 1 --seed 2 --max-steps 2 --output {tmp_path}/s"
    status, _, err = call(f"{words} {noise}")
    assert status == 0, err
    assert "note: regime: 30 of 48 training examples, seed 0; " in err
    student = json.loads((tmp_path / "s" / "result.json").read_text())["regime"]
    assert {k: v for k, v in student.items() if k != "student"} == {k: v for k, v in teacher.items() if k != "student"}
    assert student["flipped_labels"] == student["student"]["wrong labels"] > 0

    full = Task.from_files("classification", place / "data")
    noisy = Regime.from_record(student).apply(full, 0)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "s").eval()
    logits = predict(model, tiny_tokenizer(), noisy.splits["train"], 32, noisy.head)
    pairs = list(zip(logits.argmax(-1), noisy.splits["train"].labels, noisy.clean_labels, strict=True))
    wrong = [(p, y, c) for p, y, c in pairs if y != c]
    assert student["student"]["wrong labels reproduced"] == pytest.approx(np.mean([p == y for p, y, _ in wrong]))
    assert student["student"]["clean labels predicted"] == pytest.approx(np.mean([p == c for p, _, c in wrong]))

    status, _, err = call(f"{words} --few-samples 30 --label-noise 0.2")
    assert status == 2, "another regime is another run"
    assert "holds another run: regime.label_noise is 0.3 there and 0.2 here" in err
    status, _, err = call(f"{words} {noise}")
    assert status == 0
    assert "already holds this run" in err


def test_a_teacher_from_another_regime_is_a_note(call, tmp_path):
    status, _, err = call(f"finetune model {DATA} --few-samples 30 --regime seed=5 --max-steps 1 --output {tmp_path}/t")
    assert status == 0, err
    note = "note: the teacher learnt from other training examples: "
    plan = f"plan {tmp_path}/t {DATA} --student-layers 1"
    assert note not in call(f"{plan} --few-samples 30 --regime seed=run --seed 5")[2]
    assert f"{note}seed 5 there and 0 here\n" in call(f"{plan} --few-samples 30")[2]
    assert f"{note}few_samples 30 there and None here\n" in call(plan)[2]
    other = f"{note}few_samples 30 there and None here, label_noise 0.0 there and 0.3 here, seed 5 there and 0 here\n"
    assert other in call(f"{plan} --label-noise 0.3")[2]
    run = f"distill {tmp_path}/t {DATA} --student-layers 1 --max-steps 1 --output {tmp_path}/s"
    assert f"{note}few_samples 30 there and None here\n" in call(run)[2]
    for spoilt in ("[]", "{", '{"regime": 3}', '{"regime": {"seed": "x"}}'):
        (tmp_path / "t" / "result.json").write_text(spoilt, "utf-8")
        status, _, err = call(plan)
        assert status == 0
        assert note not in err


def test_a_regime_from_a_file_with_settings_over_it_and_a_plan_of_it(call, tmp_path):
    words = f"model {DATA} --student-layers 1 --regime regime.yaml --regime keep.bad=0.25 --regime seed=run --seed 4"
    status, out, err = call(f"distill {words} --recipe finetune --max-steps 1 --output {tmp_path}/s --json")
    assert status == 0, err
    record = json.loads(out)["regime"]
    assert record["keep"] == {"good": 0.5, "bad": 0.25}
    assert record["seed"] == 4
    assert record["classes"]["drawn"] == {"bad": 4, "fine": 16, "good": 8}
    status, out, err = call(f"plan {words} --epochs 1 --batch-size 7")
    assert status == 0, err
    assert "stage 1: 4 steps" in out, "28 examples"
    assert "note: regime: 28 of 48 training examples, seed 4" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (f"{DATA} --few-samples 49", "regime few_samples 49: train of classification has 48 examples"),
        (f"{DATA} --label-noise 1.2", "label_noise: Input should be less than 1, got 1.2"),
        (f"{DATA} --label-noise 0.2 --regime label_noise=0.3", "--label-noise 0.2: --regime says label_noise 0.3"),
        (
            f"{DATA} --regime label_noise",
            "--regime label_noise: write setting=value, or give a file that ends in .yaml",
        ),
        (f"{DATA} --regime none.yaml", "regime file none.yaml: No such file"),
        (f"{DATA} --regime list.yaml", "regime file list.yaml: a regime is a mapping, got list"),
        (
            f"{DATA} --regime seed.a.b=1 --regime seed=2 --regime seed.a=1",
            "--regime seed.a: 'a' cannot be set inside 2",
        ),
        (f"{DATA} --regime keep.awful=0.5", "regime keep: unknown class 'awful'"),
        ("--task regression --data scores --label-noise 0.2", "regime label_noise: it is about classes"),
    ],
)
@pytest.mark.parametrize(
    "verb", ["finetune model", "distill model --student-layers 1", "plan model --student-layers 1"]
)
def test_mistakes_are_one_line_before_anything_is_written(verb, words, message, call, tmp_path):
    status, out, err = call(f"{verb} {words} --output {tmp_path}/out" if "plan" not in verb else f"{verb} {words}")
    assert status == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "out").exists()
