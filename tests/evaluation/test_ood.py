"""Out-of-domain scores: by hand, and through the commands on a model in three classes of inference."""

import json

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification

from layerstill.data.label_agreement import FittedSet, fit
from layerstill.data.ood import OodSet, read_ood
from layerstill.data.tasks import Split, Task
from layerstill.evaluation.ood import score_ood
from layerstill.evaluation.predict import predict
from layerstill.heads import Classes, Scores
from tests.tiny import WORDS, save_tiny, tiny_model, tiny_tokenizer, write_csv

NAMES = ("entailment", "neutral", "contradiction")


def pairs(n: int, seed: int) -> list[tuple[str, str]]:
    words = np.random.default_rng(seed).choice(WORDS, (n, 2, 4))
    return [(" ".join(a), " ".join(b)) for a, b in words]


def test_the_prediction_is_taken_before_classes_are_taken_together():
    """With these in-domain logits the summed probability of two classes would win, and must not."""
    logits = np.array([[1.0, 0.9, 0.9], [0.0, 2.0, 1.0], [0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
    labels = np.array([0, 2, 2, 1])
    texts = pairs(3, 0)
    task = Task("mnli", "classification", {"dev": Split(texts, [0, 1, 2])}, NAMES, ("accuracy",))
    two_way = FittedSet("far", Split(texts, [0, 1, 1]), ("entailment", "not_entailment"), (0, 1, 1))
    block = score_ood(tiny_model(), tiny_tokenizer(), task, [two_way], 32, logits, labels)
    # predicted 0 1 2 0, as two classes 0 1 1 0; gold as two classes 0 1 1 1
    assert block["far"]["in_domain"] == {"accuracy": 0.75}
    assert block["far"]["classes"] == ["entailment", "not_entailment"]


def test_scores_gap_and_parts_by_hand():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    texts = pairs(12, 1)
    said = predict(model, tokenizer, Split(texts, [0] * 12), 32, Classes()).argmax(-1)
    gold = [0 if i % 3 == 0 else 1 for i in range(12)]
    task = Task("mnli", "classification", {"dev": Split(texts, [0] * 12)}, NAMES, ("accuracy", "f1_macro"))
    parts = {"even": list(range(0, 12, 2)), "entailed": [0, 3, 6, 9]}
    far = FittedSet("far", Split(texts, gold), ("entailment", "not_entailment"), (0, 1, 1), parts)
    logits = np.eye(3)[[0, 1, 2, 2]]
    block = score_ood(model, tokenizer, task, [far], 32, logits, np.array([0, 1, 1, 0]))["far"]
    right = [(p > 0) == bool(y) for p, y in zip(said, gold, strict=True)]
    assert block["metrics"]["accuracy"] == pytest.approx(np.mean(right))
    assert block["in_domain"]["accuracy"] == 0.75
    assert block["gap"] == {n: block["in_domain"][n] - v for n, v in block["metrics"].items()}
    assert block["examples"] == 12
    assert block["parts"]["even"]["metrics"]["accuracy"] == pytest.approx(np.mean(right[::2]))
    assert set(block["parts"]["even"]["metrics"]) == {"accuracy", "f1_macro"}
    one_class = FittedSet("one", Split(texts, [1] * 12), ("entailment", "not_entailment"), (0, 1, 1))
    whole = score_ood(model, tokenizer, task, [one_class], 32, logits, np.array([0, 1, 1, 0]))["one"]
    assert set(whole["metrics"]) == set(whole["gap"]) == {"accuracy", "f1_macro"}, "a whole set has the task's metrics"
    assert block["parts"]["entailed"] == {"metrics": {"accuracy": pytest.approx(np.mean(right[::3]))}, "examples": 4}


def test_f1_is_about_the_positive_class_whatever_it_is_called():
    model, tokenizer = tiny_model(labels=2), tiny_tokenizer()
    texts = pairs(10, 2)
    said = predict(model, tokenizer, Split(texts, [0] * 10), 32, Classes()).argmax(-1)
    task = Task(
        "qqp", "classification", {"dev": Split(texts, [0] * 10)}, ("duplicate", "not_duplicate"), ("f1",), "duplicate"
    )
    paws = OodSet("paws", texts, ["paraphrase", "not_paraphrase"] * 5)
    block = score_ood(model, tokenizer, task, [fit(paws, task)], 32, np.eye(2), np.array([0, 1]))
    found = int((said[::2] == 0).sum())
    assert found
    assert block["paws"]["metrics"]["f1"] == pytest.approx(2 * found / ((said == 0).sum() + 5))
    assert block["paws"]["in_domain"]["f1"] == 1


def test_scores_of_a_regression():
    model, tokenizer = tiny_model(labels=1), tiny_tokenizer()
    texts = pairs(8, 3)
    said = predict(model, tokenizer, Split(texts, [0.0] * 8), 32, Scores())[:, 0]
    task = Task("stsb", "regression", {"dev": Split(texts, [0.0] * 8)}, metrics=("pearson",))
    sick = FittedSet("sick", Split(texts, [float(2 * s + 1) for s in said]), (), ())
    block = score_ood(model, tokenizer, task, [sick], 32, said[:, None], said)["sick"]
    assert block["metrics"]["pearson"] == pytest.approx(1)
    assert block["gap"]["pearson"] == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model `nli`, MNLI in `glue`, and three sets far from it."""
    folder = tmp_path_factory.mktemp("ood")
    save_tiny(folder / "nli", width=32, layers=2)
    config = json.loads((folder / "nli" / "config.json").read_text())
    config["id2label"] = {str(i): name for i, name in enumerate(reversed(NAMES))}
    config["label2id"] = {name: i for i, name in enumerate(reversed(NAMES))}
    (folder / "nli" / "config.json").write_text(json.dumps(config))
    (folder / "glue" / "MNLI").mkdir(parents=True)
    for split, seed, n in (("train", 4, 24), ("dev_matched", 5, 15)):
        rows = ["sentence1\tsentence2\tgold_label"]
        rows += [f"{a}\t{b}\t{NAMES[i % 3]}" for i, (a, b) in enumerate(pairs(n, seed))]
        (folder / "glue" / "MNLI" / f"{split}.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    hans = ["gold_label\tsentence1\tsentence2\theuristic"]
    for i, (a, b) in enumerate(pairs(24, 6)):
        label = ("entailment", "non-entailment")[i % 2]
        hans.append(f"{label}\t{a}\t{b}\t{('lexical_overlap', 'subsequence', 'constituent')[i % 3]}")
    (folder / "hans.txt").write_text("\n".join(hans) + "\n", "utf-8")
    own = ["sentence1\tsentence2\tlabel"] + [
        f"{a}\t{b}\t{'yes' if i % 2 else 'no'}" for i, (a, b) in enumerate(pairs(10, 7))
    ]
    (folder / "own.tsv").write_text("\n".join(own) + "\n", "utf-8")
    (folder / "reviews.tsv").write_text("sentence\tlabel\ngood film\t1\n", "utf-8")
    save_tiny(folder / "moods", width=32, layers=2)
    write_csv(folder / "train.csv", rows=12)
    write_csv(folder / "dev.csv", rows=6, seed=1)
    write_csv(folder / "far.csv", rows=9, seed=2)
    return folder


@pytest.fixture
def call(call, monkeypatch, place):
    """The command line, in the folder `place`."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "150")
    return call


MNLI = "--task mnli --data glue --max-length 32"
SETS = "--ood hans=hans.txt --ood own.tsv --ood-labels yes=entailment,no=not_entailment"


def test_distill_and_evaluate_score_the_same_sets_the_same(call, place, tmp_path):
    words = f"distill nli {MNLI} --student-layers 1 --max-steps 2 {SETS} --output {tmp_path}/s"
    status, out, err = call(words)
    assert status == 0, err
    for cell in ("out of domain", "hans", "lexical_overlap: not_entailment", "subsequence", "own", "gap"):
        assert cell in out, cell
    assert "note: ood hans: scored as not_entailment or entailment; neutral and contradiction are not" in err
    result = json.loads((tmp_path / "s" / "result.json").read_text())
    status, out, err = call(f"evaluate {tmp_path}/s {MNLI} {SETS} --json")
    assert status == 0, err
    evaluated = json.loads(out)
    assert evaluated["ood"] == result["ood"]
    assert evaluated["metrics"]["accuracy"] == result["metrics"]["accuracy"]
    assert set(result["ood"]) == {"hans", "own"}
    hans = result["ood"]["hans"]
    assert hans["examples"] == 24
    assert hans["truncated"] == 0
    assert len(hans["parts"]) == 9
    assert hans["parts"]["constituent: entailment"]["examples"] == 4

    task = Task.glue("mnli", place / "glue").with_label_order(tuple(reversed(NAMES)))
    read = read_ood(f"hans={place}/hans.txt", task)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "s").eval()
    said = [
        model.config.id2label[i]
        for i in predict(model, tiny_tokenizer(), Split(read.texts, [0] * 24), 32, Classes()).argmax(-1)
    ]
    right = [(name == "entailment") == (label == "entailment") for name, label in zip(said, read.labels, strict=True)]
    assert hans["metrics"]["accuracy"] == pytest.approx(np.mean(right))
    parts = [i for i in range(24) if i % 3 == 1]
    assert hans["parts"]["subsequence"]["metrics"]["accuracy"] == pytest.approx(np.mean([right[i] for i in parts]))

    status, _, err = call(words.replace("own.tsv", "mine=own.tsv"))
    assert status == 2
    assert "holds another run: ood" in err
    status, out, err = call(f"evaluate {tmp_path}/s {MNLI} {SETS}")
    assert status == 0, err
    assert "lexical_overlap: not_entailment" in out


def test_texts_that_are_cut_are_counted(call):
    status, out, err = call(f"evaluate nli {MNLI.replace('32', '8')} --ood hans=hans.txt --json")
    assert status == 0, err
    assert json.loads(out)["ood"]["hans"]["truncated"] == 24
    _, out, _ = call(f"evaluate nli {MNLI.replace('32', '8')} --ood hans=hans.txt")
    assert "texts were longer than the model was allowed to read, and cut: hans 24" in " ".join(out.split())


def test_finetune_scores_own_files_of_own_tasks(call, tmp_path):
    data = "--task classification --data train.csv --dev dev.csv --max-length 32 --ood far.csv"
    status, out, err = call(f"finetune moods {data} --max-steps 2 --output {tmp_path}/t --json")
    assert status == 0, err
    far = json.loads(out)["ood"]["far"]
    assert far["examples"] == 9
    assert set(far["metrics"]) == set(far["gap"]) == {"accuracy", "f1_macro"}
    assert far["classes"] == ["bad", "fine", "good"]
    assert "parts" not in far


def test_plan_says_what_becomes_of_the_sets(call):
    status, _, err = call(f"plan nli {MNLI} --student-layers 1 {SETS}")
    assert status == 0, err
    assert "note: ood own: scored as not_entailment or entailment" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--ood imdb=reviews.tsv",
            "--ood imdb: its examples are one text, those of task mnli two texts; leave this set out",
        ),
        (
            "--ood own.tsv",
            "--ood own: its labels are no, yes, the model's ",
        ),
        ("--ood own.tsv --ood-labels yes=entailment", "--ood own: its labels are entailment, no, the model's"),
        ("--ood hans=none.txt", "none.txt: no such file"),
        ("--ood hans=hans.txt --ood hans=hans.txt", "--ood hans: two sets have this name"),
        ("--ood hans=hans.txt --ood-labels yes=entailment", "it is for files of your own, and --ood names none"),
        ("--ood own.tsv --ood-labels mine:yes=entailment", "--ood-labels mine: no --ood has this name: own"),
        ("--ood-labels yes=entailment", "--ood-labels: it is for files of your own, and --ood names none"),
    ],
)
@pytest.mark.parametrize(
    "verb", ["distill nli --student-layers 1", "evaluate nli", "plan nli --student-layers 1", "finetune nli"]
)
def test_a_set_that_cannot_be_scored_is_refused_before_anything_is_done(verb, words, message, call, tmp_path):
    output = "" if verb.startswith(("evaluate", "plan")) else f"--output {tmp_path}/out"
    status, out, err = call(f"{verb} {MNLI} {words} {output}")
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "out").exists()
