"""Any regime on any classes is applied exactly or refused in a line; any bytes are a test set or refused."""

import json

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from layerstill.data.label_agreement import fit
from layerstill.data.ood import KNOWN, read_ood
from layerstill.data.regimes import Regime
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError
from tests.fuzz.strategies import fuzz

RATES = st.sampled_from([0.0, 0.01, 0.3, 0.5, 0.99])
CLASSES = ("a", "b", "c")
REGIMES = st.fixed_dictionaries(
    {},
    optional={
        "few_samples": st.integers(1, 40),
        "stratified": st.booleans(),
        "keep": st.dictionaries(st.sampled_from("abc"), st.sampled_from([0.02, 0.5, 1.0]), max_size=3),
        "long_tail": st.sampled_from([1, 2.5, 100]),
        "label_noise": RATES,
        "noise": st.sampled_from(["symmetric", "pairs"]),
        "transitions": st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from("abc"), RATES)),
        "seed": st.integers(0, 3) | st.just("run"),
    },
)


@fuzz(200, 10_000)
@given(REGIMES, st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(0, 3))
def test_a_regime_is_applied_exactly_or_refused(data, labels, seed):
    train = Split([(str(i),) for i in range(len(labels))], labels)
    task = Task("any", "classification", {"train": train, "dev": train}, CLASSES)
    try:
        changed = Regime.from_data(data).apply(task, seed)
    except UserError as error:
        event("refused")
        assert "\n" not in str(error)
        return
    event("applied")
    kept = [int(text) for (text,) in changed.splits["train"].texts]
    new = changed.splits["train"].labels
    clean = changed.clean_labels or new
    assert kept == sorted(set(kept))
    assert clean == [labels[i] for i in kept], "each example with its own label"
    assert set(labels) <= set(new), "no class is gone"
    assert len(kept) == (data.get("few_samples") or len(kept))
    assert changed.splits["dev"] is train
    if changed.regime:
        assert Regime.from_record(json.loads(json.dumps(changed.regime))).apply(task, seed + 1).splits == changed.splits
        assert changed.regime["examples"] == {"before": len(labels), "after": len(kept)}
        assert changed.regime.get("flipped_labels", 0) == sum(a != b for a, b in zip(new, clean, strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


WORDS = "sentence1 sentence2 sentence label gold_label heuristic votes stars entailment neutral 0 (3,6)".split()
MARKS = ["\t", "\t", "\n", "\n", "-", "b'x'", "b'\\xff'", '"', "{", "}", "[]", ":", ",", "\0", "é"]
TABLES = st.lists(st.sampled_from([*WORDS, *MARKS]), max_size=30).map(lambda parts: "".join(parts).encode())
GOLD = st.sampled_from(["entailment"] * 8 + ["neutral", "entails", "non-entailment", "-", "1", "Entailment"])
LINES = st.tuples(st.sampled_from(["x", "b'z'", 'b"', ""]), st.text("ab\u2028 ", max_size=3), GOLD).map("\t".join)
HEADERS = st.sampled_from(["sentence1\tsentence2\tlabel", "sentence1\tsentence2\tgold_label", "x\ty\tentails"])
PAIR_TABLES = st.tuples(HEADERS, st.lists(LINES, min_size=1, max_size=3)).map(
    lambda t: "\n".join([t[0], *t[1]]).encode()
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"sentence1": st.text(max_size=3) | st.none(), "sentence2": st.text(max_size=3), "label": st.integers(-1, 3)}
    ),
    max_size=3,
)
ADVERSARIAL = st.fixed_dictionaries({"rte": ROWS | st.none() | st.integers()}).map(lambda d: json.dumps(d).encode())
SUFFIXES = st.sampled_from([".tsv", ".tsv", ".txt", ".csv", ".jsonl", ".json"])
PAIRED = ["hans", "scitail", "snli", "mnli", "rte", "advglue", "mine"]


@fuzz(200, 10_000)
@given(
    st.sampled_from([*KNOWN, *PAIRED, *PAIRED]), SUFFIXES, PAIR_TABLES | TABLES | st.binary(max_size=40) | ADVERSARIAL
)
def test_any_bytes_are_a_test_set_or_refused(folder, name, suffix, content):
    path = folder / f"any{suffix}"
    path.write_bytes(content)
    labels = ("entailment", "not_entailment")
    task = Task("rte", "classification", {"dev": Split([("a", "b")], [0])}, labels)
    try:
        ood = read_ood(f"{name}={path}", task)
        event("read")
        fitted = fit(ood, task)
    except UserError as error:
        assert "any" in str(error) or f"--ood {name}" in str(error)
        return
    event("fitted")
    assert len(fitted.split.texts) == len(fitted.split.labels) == len(ood.labels) > 0
    assert set(fitted.split.labels) <= {0, 1}
    assert all(len(texts) == 2 for texts in fitted.split.texts)
    assert all(set(numbers) <= set(range(len(ood.labels))) for numbers in fitted.parts.values())
