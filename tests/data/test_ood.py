"""Out-of-domain sets: every known layout as it is published, own files, and what is said of those that are wrong."""

import json
from pathlib import Path

import pytest

from layerstill.data.glue import GLUE
from layerstill.data.ood import KNOWN, OodSet, label_maps, layout_of, read_ood, split_spec
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError

PAIRS = Split([("a man sleeps", "a man rests")], [0])
ONE = Split([("a good film",)], [0])


def glue(name: str) -> Task:
    """A GLUE task with one example."""
    spec = GLUE[name]
    kind = "classification" if spec.labels else "regression"
    split = PAIRS if len(spec.texts) == 2 else ONE
    return Task(name, kind, {"train": split, "dev": split}, tuple(spec.labels.values()), spec.metrics, spec.positive)


MNLI, RTE, QQP, SST2 = map(glue, ("mnli", "rte", "qqp", "sst2"))


def tsv(path: Path, *rows: str) -> Path:
    """Rows with a space bar `|` where the file has a tab."""
    path.write_text("\n".join(row.replace("|", "\t") for row in rows) + "\n", "utf-8")
    return path


HANS_HEADER = (
    "gold_label|sentence1_binary_parse|sentence2_binary_parse|sentence1_parse|sentence2_parse|"
    "sentence1|sentence2|pairID|heuristic|subcase|template"
)


def test_hans_as_published_has_a_part_for_each_heuristic_and_each_class_in_it(tmp_path):
    file = tsv(
        tmp_path / "heuristics_evaluation_set.txt",
        HANS_HEADER,
        "non-entailment|( p )|( h )|(ROOT p)|(ROOT h)|The doctor saw .|The lawyer saw .|ex0|lexical_overlap|ln_passive|t1",
        "entailment|( p )|( h )|(ROOT p)|(ROOT h)|The men ran .|The men moved .|ex1|constituent|ce_adverb|t2",
        "entailment|( p )|( h )|(ROOT p)|(ROOT h)|The cat sat .|The cat was .|ex2|lexical_overlap|le_conjunction|t3",
    )
    hans = read_ood(f"hans={file}", MNLI)
    assert hans.texts[0] == ("The doctor saw .", "The lawyer saw .")
    assert hans.labels == ["not_entailment", "entailment", "entailment"]
    assert hans.parts == {
        "constituent": [1],
        "constituent: entailment": [1],
        "lexical_overlap": [0, 2],
        "lexical_overlap: entailment": [2],
        "lexical_overlap: not_entailment": [0],
    }
    assert read_ood(f"hans-mine={tmp_path}", MNLI).labels == hans.labels, "the folder will do, and so will a suffix"


def test_regenerated_hans_without_parses(tmp_path):
    file = tsv(
        tmp_path / "hans.tsv",
        "gold_label|sentence1|sentence2|pairID|heuristic|subcase|template",
        "non-entailment|a|b|ex0|subsequence|sn_NP/S|temp1",
    )
    assert read_ood(f"hans={file}", RTE).parts == {"subsequence": [0], "subsequence: not_entailment": [0]}


def test_scitail_with_and_without_a_header(tmp_path):
    official = tsv(
        tmp_path / "scitail_1.0_test.tsv", "Plants grow.|Plants live.|entails", "Rain falls.|It is dry.|neutral"
    )
    named = tsv(tmp_path / "n.tsv", "index|sentence1|sentence2|label", "0|Rain falls.|It is dry.|not_entailment")
    snli_format = tmp_path / "scitail.jsonl"
    snli_format.write_text('{"gold_label": "entails", "sentence1": "a", "sentence2": "b"}\n', "utf-8")
    assert read_ood(f"scitail={official}", RTE).labels == ["entailment", "not_entailment"]
    assert read_ood(f"scitail={official}", RTE).texts[0] == ("Plants grow.", "Plants live.")
    assert read_ood(f"scitail={named}", RTE).labels == ["not_entailment"]
    assert read_ood(f"scitail={snli_format}", RTE).labels == ["entailment"]


def test_snli_leaves_out_pairs_without_a_gold_label(tmp_path):
    rows = [
        {"gold_label": y, "sentence1": "a", "sentence2": y} for y in ("neutral", "-", "contradiction", "entailment")
    ]
    file = tmp_path / "snli_1.0_dev.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    snli = read_ood(f"snli={file}", MNLI)
    assert snli.labels == ["neutral", "contradiction", "entailment"]
    assert snli.texts[1] == ("a", "contradiction")
    assert snli.left_out == 1


def test_paws_also_as_it_is_often_found(tmp_path):
    plain = tsv(tmp_path / "dev.tsv", "id|sentence1|sentence2|label", "1|What 's \"new\" ?|Café or b'x|0", "2|a|b|1")
    found = tsv(
        tmp_path / "dev.orig.tsv",
        "id|sentence1|sentence2|label",
        "1|b'What \\'s \"new\" ?'|b\"Caf\\xc3\\xa9 or b'x\"|0",
        "2|b'a'|b'b'|1",
    )
    one, other = read_ood(f"paws={plain}", QQP), read_ood(f"paws={found}", QQP)
    assert one == other
    assert one.labels == ["not_paraphrase", "paraphrase"]
    assert one.fingerprint == other.fingerprint
    other = tsv(tmp_path / "qqp.tsv", "question1|question2|is_duplicate", "b'a'|c|0")
    assert read_ood(f"qqp={other}", QQP).texts == [("b'a'", "c")], "in other sets it may be meant"


def test_twitter_url_by_votes_and_by_label(tmp_path):
    rows = [f"tweet {n}|another|({n}, 6)|https://t.co/x" for n in range(7)]
    official = read_ood(f"twitter-url={tsv(tmp_path / 'Twitter_URL_Corpus_test.txt', *rows)}", QQP)
    assert official.labels == ["not_paraphrase"] * 3 + ["paraphrase"] * 3
    assert official.left_out == 1
    assert official.texts[3] == ("tweet 4", "another")
    named = tsv(tmp_path / "test.tsv", "index|sentence1|sentence2|votes|label", "0|a|b|4|1")
    assert read_ood(f"twitter-url={named}", QQP).labels == ["paraphrase"]


def test_reviews_in_tables_by_stars_and_in_folders(tmp_path):
    table = tsv(tmp_path / "test.tsv", "sentence|label|source_file", "fine film|1|pos/1.txt", "dull film|0|neg/2.txt")
    assert read_ood(f"imdb={table}", SST2).labels == ["positive", "negative"]
    words = tsv(tmp_path / "imdb.tsv", "review|sentiment", "fine film|positive")
    assert read_ood(f"imdb-kaggle={words}", SST2).labels == ["positive"]
    stars = tsv(tmp_path / "yelp.tsv", "text|stars", *(f"meal {n}|{n}" for n in range(1, 6)))
    yelp = read_ood(f"yelp={stars}", SST2)
    assert yelp.labels == ["negative", "negative", "positive", "positive"]
    assert yelp.texts[2] == ("meal 4",)
    assert yelp.left_out == 1
    for label in ("pos", "neg"):
        (tmp_path / "aclImdb" / "test" / label).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "aclImdb" / "test" / label / f"{i}_9.txt").write_text(f"{label} review {i}", "utf-8")
    folder = read_ood(f"imdb={tmp_path}/aclImdb", SST2)
    assert folder.labels == ["negative"] * 2 + ["positive"] * 2
    assert folder.texts[2] == ("pos review 0",)
    assert read_ood(f"imdb={tmp_path}/aclImdb/test", SST2) == folder


ADVERSARIAL = {
    "sst2": [{"idx": 0, "sentence": "an uneven treat", "label": 1}],
    "qqp": [{"idx": 0, "question1": "who ?", "question2": "what ?", "label": 0}],
    "mnli": [
        {"idx": 0, "premise": "a", "hypothesis": "b", "label": 2},
        {"premise": "c", "hypothesis": "d", "label": 0},
    ],
    "mnli-mm": [{"idx": 0, "premise": "e", "hypothesis": "f", "label": 1}],
    "qnli": [{"idx": 0, "question": "who ?", "sentence": "he .", "label": 1}],
    "rte": [{"idx": 0, "sentence1": "a", "sentence2": "b", "label": 0}],
}


def test_advglue_has_a_list_for_each_task(tmp_path):
    file = tmp_path / "dev.json"
    file.write_text(json.dumps(ADVERSARIAL), "utf-8")
    mnli = read_ood(f"advglue={file}", MNLI)
    assert mnli.labels == ["contradiction", "entailment", "neutral"]
    assert mnli.texts[2] == ("e", "f")
    assert mnli.parts == {"mnli": [0, 1], "mnli-mm": [2]}
    assert read_ood(f"advglue-mnli={tmp_path}", MNLI).labels == ["contradiction", "entailment"]
    expected = {"sst2": "positive", "qqp": "not_duplicate", "qnli": "not_entailment", "rte": "entailment"}
    for task, label in expected.items():
        assert read_ood(f"advglue={file}", glue(task)).labels == [label]
    with pytest.raises(UserError, match="AdvGLUE has sst2, .*, not cola; name one: advglue-sst2=PATH"):
        read_ood(f"advglue={file}", glue("cola"))
    for spoilt in ({"label": 2}, {"label": "1"}, {"sentence": None}):
        file.write_text(json.dumps({"sst2": [ADVERSARIAL["sst2"][0] | spoilt]}), "utf-8")
        with pytest.raises(UserError, match="dev.json: sst2: .* is not sentence as text and a label below 2"):
            read_ood(f"advglue={file}", SST2)
    file.write_text('{"sst2": 3}', "utf-8")
    with pytest.raises(UserError, match="no list of examples under 'sst2'; keys: sst2"):
        read_ood(f"advglue={file}", SST2)


def test_the_file_of_another_glue_task(tmp_path):
    mrpc = tsv(tmp_path / "dev.tsv", "Quality|#1 ID|#2 ID|#1 String|#2 String", "1|7|8|He ran.|He was running.")
    cola = tsv(tmp_path / "cola.tsv", "gj04|0|*|They drank the pub dry dry.")
    assert read_ood(f"mrpc={mrpc}", QQP).labels == ["equivalent"]
    assert read_ood(f"mrpc={mrpc}", QQP).texts == [("He ran.", "He was running.")]
    assert read_ood(f"cola={cola}", SST2).labels == ["unacceptable"]


def test_own_files_with_a_label_map(tmp_path):
    file = tsv(tmp_path / "science.tsv", "premise|hypothesis|verdict", "a|b|yes", "c|d|no", "e|f|no")
    own = read_ood(str(file), RTE, {"yes": "entailment", "no": "not_entailment"}, label_column="verdict")
    assert own == OodSet(
        "science", [("a", "b"), ("c", "d"), ("e", "f")], ["entailment", "not_entailment", "not_entailment"]
    )
    columns = tsv(tmp_path / "x.tsv", "subject|body|label", "a|b|ham")
    mails = Task("classification", "classification", {"dev": PAIRS}, ("ham", "spam"))
    assert read_ood(f"other={columns}", mails, None, ("subject", "body")).texts == [("a", "b")]
    scores = tsv(tmp_path / "sick.tsv", "sentence1|sentence2|label", "a|b|4.5")
    assert read_ood(f"sick={scores}", glue("stsb")).labels == [4.5]


def test_names(tmp_path):
    odd = tsv(tmp_path / "a=b.tsv", "sentence1|sentence2|label")
    assert split_spec(str(odd)) == ("a=b", odd), "a file that is there is a path"
    assert split_spec("imdb=some/test.tsv") == ("imdb", Path("some/test.tsv"))
    assert split_spec("OOD/SciTail/test.tsv") == ("SciTail", Path("OOD/SciTail/test.tsv"))
    assert split_spec("mine.csv") == ("mine", Path("mine.csv"))
    assert [layout_of(n) for n in ("paws", "paws-wiki", "twitter-url-2", "pawsy", "imdb-revised")] == [
        "paws",
        "paws",
        "twitter-url",
        None,
        "imdb",
    ]
    assert {"hans", "scitail", "snli", "paws", "twitter-url", "imdb", "yelp", "amazon", "advglue", "mnli"} <= set(KNOWN)


def test_label_maps():
    words = ["entails=entailment, neutral = not_entailment", "mine:0=bad", "mine:1=good"]
    assert label_maps(words) == {
        "": {"entails": "entailment", "neutral": "not_entailment"},
        "mine": {"0": "bad", "1": "good"},
    }
    for wrong in ("entails", "=a", "a=", "a=b,,c=d", "mine:a"):
        with pytest.raises(UserError, match="write LABEL=CLASS"):
            label_maps([wrong])
    with pytest.raises(UserError, match="label 'a' is 'b' and 'c'"):
        label_maps(["a=b,a=c"])


def test_the_map_of_a_known_layout_can_be_changed(tmp_path):
    file = tsv(tmp_path / "s.tsv", "sentence1|sentence2|label", "a|b|entails", "c|d|unclear")
    with pytest.raises(
        UserError,
        match=r"s.tsv line 3: label 'unclear' is not one of entailment, entails, .*--ood-labels 'scitail:LABEL",
    ):
        read_ood(f"scitail={file}", RTE)
    assert read_ood(f"scitail={file}", RTE, {"unclear": "not_entailment"}).labels == ["entailment", "not_entailment"]


@pytest.mark.parametrize(
    ("spec", "task", "gold", "message"),
    [
        ("hans={p}/none.tsv", RTE, None, "none.tsv: no such file"),
        ("{p}/none.tsv", RTE, None, "none.tsv: no such file"),
        ("={p}/x.tsv", RTE, None, "write NAME=PATH, or a path; known layouts: cola, "),
        ("hans=", RTE, None, "write NAME=PATH"),
        ("hans={p}", RTE, None, "several files, q.tsv, v.tsv, x.tsv; give one of them"),
        ("hans={p}/empty", RTE, None, "no table in it"),
        ("hans={p}/x.tsv", RTE, {"yes": "entailment"}, "x.tsv: no column 'heuristic' (from --ood hans)"),
        (
            "imdb={p}/x.tsv",
            SST2,
            None,
            "looks for columns sentence or text or review, the file has sentence1, sentence2, label",
        ),
        ("mine={p}/q.tsv", SST2, None, "--ood mine looks for columns sentence or text or sentence1 and sentence2"),
        ("mine={p}/v.tsv", RTE, None, "no column 'label' (from --ood mine): known: sentence1, sentence2, votes"),
        ("mine={p}/x.tsv", RTE, {"yse": "entailment"}, "x.tsv has no label 'yse': did you mean 'yes'"),
        ("snli={p}/x.tsv", MNLI, {"no": "neutral"}, "x.tsv has no label 'no': known: yes"),
        ("snli={p}/nogold/snli.tsv", MNLI, None, "--ood snli: no row has a usable label"),
        ("advglue={p}/x.tsv", RTE, None, "x.tsv: not JSON"),
        ("advglue={p}/none.json", RTE, None, "none.json: no such file"),
        (
            "advglue={p}/none.json",
            RTE,
            {"0": "a"},
            "--ood-labels advglue: this layout already says what its labels mean",
        ),
        ("sick={p}/x.tsv", glue("stsb"), None, "x.tsv line 2: score 'yes' is not a finite number"),
    ],
)
def test_wrong_sets_are_refused(spec, task, gold, message, tmp_path):
    tsv(tmp_path / "x.tsv", "sentence1|sentence2|label", "a|b|yes")
    tsv(tmp_path / "q.tsv", "question|answer|label", "a|b|yes")
    tsv(tmp_path / "v.tsv", "sentence1|sentence2|votes", "a|b|3")
    for folder in ("empty", "nogold"):
        (tmp_path / folder).mkdir()
    tsv(tmp_path / "nogold" / "snli.tsv", "sentence1|sentence2|gold_label", "a|b|-")
    with pytest.raises(UserError) as error:
        read_ood(spec.format(p=tmp_path), task, gold)
    assert message in str(error.value)


def test_a_sample_of_a_set_is_the_same_every_time_and_keeps_its_parts():
    texts = [(f"text {i}",) for i in range(40)]
    whole = OodSet("x", texts, ["a", "b"] * 20, {"even": list(range(0, 40, 2)), "first": [0]})
    some = whole.sample(12)
    assert some == whole.sample(12)
    assert whole.sample(None) is whole.sample(40) is whole
    assert len(some.texts) == len(some.labels) == 12
    rows = [texts.index(text) for text in some.texts]
    assert rows == sorted(rows)
    assert some.labels == [whole.labels[i] for i in rows]
    assert [some.texts[i] for i in some.parts["even"]] == [texts[i] for i in rows if i % 2 == 0]
    assert ("first" in some.parts) == (0 in rows)
