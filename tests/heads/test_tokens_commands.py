"""Tasks of tags from end to end: every verb, on the command line and in Python."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast

from layerstill.data.checks import supplementary_notices
from layerstill.data.encode import encode
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError
from layerstill.evaluation.predictions import load_predictions
from layerstill.heads import Tokens
from tests.tiny import TAGS, save_tiny, tagged_sentences, tiny_tokenizer, write_conll, write_csv

METRICS = ("f1_entities", "precision_entities", "recall_entities", "accuracy_tokens")
ROWS = {"train": 40, "dev": 20, "test": 20}


def write_jsonl(path, rows, seed):
    pairs = tagged_sentences(rows, seed)
    path.write_text("".join(json.dumps({"tokens": words, "tags": tags}) + "\n" for words, tags in pairs), "utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tags")
    save_tiny(folder / "teacher", names=TAGS, head=Tokens())
    save_tiny(folder / "classes")
    for form, suffix, write in (("columns", "conll", write_conll), ("lists", "jsonl", write_jsonl)):
        (folder / form).mkdir()
        for seed, (split, rows) in enumerate(ROWS.items()):
            write(folder / form / f"{split}.{suffix}", rows, seed)
    (folder / "extra.txt").write_text("the film was very good\n\nwe was a plot, but awful\nthe actor\n" * 3, "utf-8")
    return folder


def words(place, form="columns"):
    return f"--task tokens --data {place}/{form} --max-length 32"


SHORT = "--student-layers 2 --max-steps 3 --batch-size 8"


def distilled(place, call, output, extra="", form="columns", teacher="teacher"):
    status, out, err = call(f"distill {place}/{teacher} {words(place, form)} {SHORT} --output {output} --json {extra}")
    assert status == 0, err
    return json.loads(out)


def test_columns_and_lists_give_the_same_task_and_the_same_student(place, call, tmp_path):
    tasks = [Task.from_files("tokens", place / form) for form in ("columns", "lists")]
    assert tasks[0] == tasks[1]
    assert (tasks[0].labels, tasks[0].metrics) == (TAGS, METRICS)
    assert {name: len(split) for name, split in tasks[0].splits.items()} == ROWS
    runs = [distilled(place, call, tmp_path / form, "--recipe kd", form) for form in ("columns", "lists")]
    assert runs[0]["metrics"] == runs[1]["metrics"]
    weights = [load_file(tmp_path / form / "model.safetensors") for form in ("columns", "lists")]
    for name, tensor in weights[0].items():
        assert np.array_equal(tensor, weights[1][name]), name


def test_finetune_then_evaluate(place, call, tmp_path):
    training = "--epochs 12 --batch-size 8 --learning-rate 3e-3"
    status, out, err = call(f"finetune {place}/classes {words(place)} {training} --output {tmp_path}/t")
    assert status == 0, err
    assert "dev of tokens (last evaluation): f1_entities" in out
    record = json.loads((tmp_path / "t" / "result.json").read_text("utf-8"))
    model, report = AutoModelForTokenClassification.from_pretrained(tmp_path / "t", output_loading_info=True)
    assert not report["missing_keys"]
    assert tuple(model.config.id2label.values()) == TAGS
    status, out, err = call(f"evaluate {tmp_path}/t {words(place)} --json")
    assert status == 0, err
    found = json.loads(out)
    assert found["metrics"] == {name: record["metrics"][name] for name in METRICS}
    assert found["metrics"]["f1_entities"] > 0.5, "tags that follow from the words can be learnt"
    assert found["by_label"].keys() == record["by_label"].keys() == {"MOOD", "THING"}
    starts = sum(tag.startswith("B-") for _, tags in tagged_sentences(20, 1) for tag in tags)
    assert sum(row["support"] for row in found["by_label"].values()) == starts
    status, out, _ = call(f"evaluate {tmp_path}/t {words(place)} --split test")
    assert status == 0
    assert "test of tokens, 20 examples: f1_entities" in out
    assert "THING" in out


@pytest.mark.parametrize("recipe", ["kd", "hid-seq", "att-kl", "rail-kd-l", "cr-ild", "tinybert", "finetune"])
def test_distil_plan_and_cache(recipe, place, call, tmp_path):
    record = distilled(place, call, tmp_path / "live", f"--recipe {recipe} --cache off")
    assert list(record["by_label"]) == ["MOOD", "THING"]
    if recipe != "finetune":
        assert tuple(record["teacher_metrics"]) == METRICS
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "live").eval()
    assert tuple(model.config.id2label.values()) == TAGS
    card = (tmp_path / "live" / "README.md").read_text("utf-8")
    assert "pipeline_tag: token-classification" in card
    assert "AutoModelForTokenClassification" in card
    status, _, err = call(f"plan {place}/teacher {words(place)} {SHORT} --recipe {recipe}")
    assert status == 0, err
    if recipe == "finetune":
        return
    where = tmp_path / "shared"
    status, _, err = call(f"cache {place}/teacher {words(place)} --student-layers 2 --recipe {recipe} --cache {where}")
    assert status == 0, err
    cached = distilled(place, call, tmp_path / "cached", f"--recipe {recipe} --cache {where}")
    for name, value in record["metrics"].items():
        assert cached["metrics"][name] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-6))


def test_the_best_of_several_evaluations_is_kept(place, call, tmp_path):
    best = "--set stages.0.select=best --set stages.0.evaluate=epoch"
    words_ = f"{place}/classes {words(place)} --epochs 3 --batch-size 8 --learning-rate 3e-3"
    status, out, err = call(f"finetune {words_} {best} --output {tmp_path}/t --json")
    assert status == 0, err
    metrics = json.loads(out)["metrics"]
    assert metrics["selected"] == "best of 3"
    log = [json.loads(line) for line in (tmp_path / "t" / "metrics.jsonl").read_text("utf-8").splitlines()]
    seen = [entry["dev"]["f1_entities"] for entry in log if "dev" in entry]
    assert metrics["f1_entities"] == pytest.approx(max(seen)), "padded tags are scored as whole sentences are"


def test_predictions_have_a_row_a_word_and_what_each_sentence_adds(place, call, tmp_path):
    record = distilled(place, call, tmp_path / "s", "--recipe kd")
    tensors = load_file(tmp_path / "s" / "predictions.safetensors")
    sentences = tagged_sentences(20, 1)
    assert tensors["lengths"].tolist() == [len(tags) for _, tags in sentences]
    assert tensors["logits"].shape == (len(tensors["labels"]), 5)
    assert [TAGS[tag] for tag in tensors["labels"]] == [tag for _, tags in sentences for tag in tags]
    for metric in METRICS:
        adds = load_predictions(tmp_path / "s").contributions(metric)
        assert adds.mean() == pytest.approx(record["metrics"][metric])


def test_long_sentences_are_cut_counted_and_their_words_are_missed(place, call, tmp_path):
    status, out, err = call(f"evaluate {place}/teacher --task tokens --data {place}/columns --max-length 6 --json")
    assert status == 0, err
    short = json.loads(out)["metrics"]
    whole = json.loads(call(f"evaluate {place}/teacher {words(place)} --json")[1])["metrics"]
    assert short["accuracy_tokens"] < whole["accuracy_tokens"]
    status, _, err = call(
        f"distill {place}/teacher --task tokens --data {place}/columns --max-length 6 {SHORT} --output {tmp_path}/s"
    )
    assert status == 0, err
    assert "train texts had to be cut to 6 tokens" in err
    assert "words with their labels\n" in err
    tensors = load_file(tmp_path / "s" / "predictions.safetensors")
    assert tensors["lengths"].sum() == len(tensors["logits"]) < len(tensors["labels"]) == tensors["words"].sum()


def test_words_that_are_no_token_are_read_as_unknown():
    split = Split([("good", "\ufeff", "film"), ("\u200b",)], [[0, 1, 2], [3]])
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer()
    encoded = encode(split, tokenizer, 16, Tokens())
    assert encoded.dataset["labels"][0] == [-100, 0, 1, 2, -100]
    assert encoded.dataset["input_ids"][0][2] == tokenizer.unk_token_id
    assert encoded.dataset["labels"][1] == [-100, 3, -100]
    assert (encoded.bare_words, encoded.lost_words) == (2, 0)
    assert encoded.notices("dev", 16)[0].startswith(
        "2 words of the dev texts hold no character that the tokenizer keeps"
    )


def test_words_of_byte_level_tokenizers_are_read_as_in_running_text():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(["the good film and the bad film"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="!")
    encoded = encode(Split([("the", "bad", "film")], [[0, 1, 2]]), tokenizer, 16, Tokens())
    assert encoded.dataset["input_ids"][0] == tokenizer("the bad film")["input_ids"]
    assert [tag for tag in encoded.dataset["labels"][0] if tag >= 0] == [0, 1, 2]


def unlabelled(folder):
    """A recipe that learns from texts without labels alone."""
    (folder / "unlabelled.yaml").write_text(
        "stages:\n- {data: supplementary, epochs: 2, batch_size: 4, learning_rate: 1e-3, objectives: "
        "{soft targets: {signal: logits, distance: kl}, "
        "states: {signal: hidden_states, mapping: uniform, distance: mse}}}\n",
        "utf-8",
    )
    return folder / "unlabelled.yaml"


@pytest.mark.parametrize("form", ["text", "columns", "lists"])
def test_unlabelled_texts_teach_through_soft_targets(form, place, call, tmp_path):
    source = {"text": "extra.txt", "columns": "columns/test.conll", "lists": "lists/test.jsonl"}[form]
    recipe = unlabelled(tmp_path)
    record = distilled(place, call, tmp_path / "s", f"--recipe {recipe} --supplementary {place}/{source}")
    assert record["supplementary"]["examples"] == (9 if form == "text" else 20)
    assert record["train"]["steps"] == 3


def test_unlabelled_words_are_no_texts(place, call, tmp_path):
    recipe = unlabelled(tmp_path)
    write_csv(tmp_path / "train.csv", 12)
    write_csv(tmp_path / "dev.csv", 6)
    status, _, err = call(
        f"distill {place}/classes --task classification --data {tmp_path} --max-length 32 {SHORT} --recipe {recipe} "
        f"--supplementary {place}/columns/test.conll --output {tmp_path}/x"
    )
    assert status == 2
    assert "holds sentences as lists of words, and task classification takes texts" in err


def test_resumed_and_finished_runs_stay(place, call, tmp_path):
    first = distilled(place, call, tmp_path / "s", "--recipe kd")
    assert distilled(place, call, tmp_path / "s", "--recipe kd") == first


def test_diagnose_does_all_of_it(place, call, tmp_path):
    distilled(place, call, tmp_path / "s", "--recipe kd")
    status, out, err = call(f"diagnose {tmp_path}/s --task tokens --data {place}/columns --examples 20 --json")
    assert status == 0, err
    found = json.loads(out)
    assert set(found) == set("gap agreement weight_noise slice_1d slice_2d hessian cka made_with".split())
    assert 0 <= found["agreement"]["dev"]["teacher"] <= 1
    assert all(math.isfinite(value) for value in found["slice_1d"]["dev"])
    assert math.isfinite(found["hessian"]["trace"])


def test_a_study_and_its_report(place, call, tmp_path):
    file = tmp_path / "study.yaml"
    base = {"model": str(place / "classes"), "task": "names", "recipe": "kd", "student_layers": 2, "max_length": 32}
    study = {
        "name": "tags",
        "base": {**base, "total_steps": 4, "batch_size": 8},
        "teacher": {"max_steps": 12, "learning_rate": 3e-3},
        "tasks": {"names": {"kind": "tokens", "data": str(place / "columns")}},
        "axes": {"recipe": ["kd", "finetune"], "seed": [0, 1]},
    }
    file.write_text(yaml.safe_dump(study), "utf-8")
    status, _, err = call(f"study {file} --output {tmp_path}/out --json")
    assert status == 0, err
    status, _, err = call(f"report {tmp_path}/out --output {tmp_path}/r.html")
    assert status == 0, err
    assert "f1_entities" in (tmp_path / "r.html").read_text("utf-8")


def test_few_samples_work_and_regimes_of_classes_are_refused_in_one_sentence(place, call, tmp_path):
    record = distilled(place, call, tmp_path / "s", "--recipe kd --few-samples 24")
    assert record["regime"]["examples"] == {"before": 40, "after": 24}
    for regime in ("--label-noise 0.1", "--regime long_tail=3", "--regime keep.O=0.5",
                   "--few-samples 8 --regime stratified=true"):  # fmt: skip
        status, _, err = call(f"distill {place}/teacher {words(place)} {SHORT} {regime} --output {tmp_path}/x")
        assert status == 2
        assert "it is about classes, and task tokens has a tag per word" in err


def test_out_of_domain_sets_are_refused_in_one_sentence(place, call, tmp_path):
    status, _, err = call(f"evaluate {place}/teacher {words(place)} --ood far={place}/columns/test.conll")
    assert status == 2
    assert "task tokens has a tag per word; leave this set out" in err


def outside(place, folder, names):
    """A teacher with these outputs, drawn from those of `place/teacher` by name; others get small weights."""
    model = AutoModelForTokenClassification.from_pretrained(
        place / "teacher", num_labels=len(names), ignore_mismatched_sizes=True
    )
    old = AutoModelForTokenClassification.from_pretrained(place / "teacher").classifier
    with torch.no_grad():
        for i, name in enumerate(names):
            if name in TAGS:
                model.classifier.weight[i] = old.weight[TAGS.index(name)]
                model.classifier.bias[i] = old.bias[TAGS.index(name)]
            else:
                model.classifier.bias[i] = -1e4
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: i for i, name in enumerate(names)}
    shutil.copytree(place / "teacher", folder)
    model.save_pretrained(folder)
    return folder


def test_a_teacher_from_outside_agrees_by_names_whatever_their_order(place, call, tmp_path):
    turned = outside(place, tmp_path / "turned", ("B-THING", "O", "I-MOOD", "B-MOOD", "I-THING"))
    scored = [json.loads(call(f"evaluate {t} {words(place)} --json")[1]) for t in (place / "teacher", turned)]
    assert scored[0]["metrics"] == scored[1]["metrics"]
    assert scored[0]["by_label"] == scored[1]["by_label"]
    assert "label order of model" in call(f"evaluate {turned} {words(place)}")[2]


def test_a_teacher_from_outside_may_know_more_tags_than_the_data_have(place, call, tmp_path):
    names = ("B-PLACE", "I-PLACE", *TAGS)
    larger = outside(place, tmp_path / "larger", names)
    status, _, err = call(f"distill {larger} {words(place)} {SHORT} --recipe kd --output {tmp_path}/s")
    assert status == 0, err
    assert "also knows B-PLACE, I-PLACE" in err
    assert tuple(AutoModelForTokenClassification.from_pretrained(tmp_path / "s").config.id2label.values()) == names
    assert (
        json.loads((tmp_path / "s" / "result.json").read_text())["teacher_metrics"]["accuracy_tokens"]
        == (json.loads(call(f"evaluate {place}/teacher {words(place)} --json")[1])["metrics"]["accuracy_tokens"])
    )


def test_a_teacher_of_other_tags_is_told(place, call, tmp_path):
    other = outside(place, tmp_path / "other", ("O", "B-MOOD", "I-MOOD", "B-PER", "I-PER"))
    for verb in (f"distill {other} {SHORT} --output {tmp_path}/x", f"plan {other} {SHORT}", f"evaluate {other}"):
        status, _, err = call(f"{verb} {words(place)}")
        assert status == 2
        assert "knows the labels O, B-MOOD, I-MOOD, B-PER, I-PER, and the data have O, B-MOOD, I-MOOD, B-THING" in err


def test_a_model_of_another_head_is_refused_both_ways(place, call, tmp_path):
    status, _, err = call(f"distill {place}/classes {words(place)} {SHORT} --output {tmp_path}/x")
    assert status == 2
    assert "its head gives one class per text" in err
    write_csv(tmp_path / "train.csv", 12)
    status, _, err = call(f"evaluate {place}/teacher --task classification --data {tmp_path}/train.csv")
    assert status == 2
    assert "use --task tokens" in err


def test_parts_of_speech_have_accuracy_alone(place, call, tmp_path):
    (tmp_path / "d").mkdir()
    for split, rows in (("train", 40), ("dev", 20)):
        text = write_conll(tmp_path / "d" / f"{split}.tsv", rows).read_text("utf-8")
        (tmp_path / "d" / f"{split}.tsv").write_text(text.replace("B-", "N").replace("I-", "V"), "utf-8")
    status, out, err = call(
        f"finetune {place}/classes --task tokens --data {tmp_path}/d --max-length 32 --max-steps 2 --output {tmp_path}/t --json"
    )
    assert status == 0, err
    record = json.loads(out)
    assert set(record["metrics"]) == {"accuracy_tokens", "selected"}


def test_a_tenth_is_held_out_of_a_single_file(place):
    task = Task.from_files("tokens", place / "columns" / "train.conll")
    assert (len(task.splits["train"]), len(task.splits["dev"])) == (36, 4)
    assert "held out 4 of 40" in task.notices[0]
    with pytest.raises(UserError, match=r"split train is missing, looked for train\{.conll,.iob"):
        Task.from_files("tokens", place)


def test_a_task_made_in_python_has_the_heads_metrics():
    split = Split([("good", "film")], [[1, 3]])
    assert Task("mine", "tokens", {"train": split, "dev": split}, TAGS).metrics == METRICS


@pytest.mark.parametrize("name", ["ner", "NER", "token-classification", "token_classification"])
def test_other_names_of_the_task_are_understood_as_a_hint(name, place, call):
    status, _, err = call(f"evaluate {place}/teacher --task {name} --data {place}/columns/dev.conll")
    assert status == 2
    assert f"unknown task {name!r}: here it is called 'tokens'" in err


def test_a_single_file_is_evaluated_whole_even_if_it_lacks_a_tag(place, call, tmp_path):
    (tmp_path / "new.conll").write_text("very B-MOOD\ngood I-MOOD\n\na O\nfilm O\n", "utf-8")
    status, out, err = call(f"evaluate {place}/teacher --task tokens --data {tmp_path}/new.conll --max-length 32")
    assert status == 0, err
    assert "2 examples" in out


def test_a_family_without_this_head_is_refused_in_a_line(place, call, tmp_path):
    save_tiny(tmp_path / "opt", "opt")
    status, _, err = call(f"finetune {tmp_path}/opt {words(place)} --output {tmp_path}/t")
    assert status == 2
    assert "transformers has no AutoModelForTokenClassification of family 'opt'; use a model of another family" in err


def test_dev_sentences_among_unlabelled_texts_are_told(place):
    task = Task.from_files("tokens", place / "columns")
    texts = [(" ".join(task.splits["dev"].texts[0]),), task.splits["dev"].texts[1], ("nothing of this",)]
    assert supplementary_notices(task, texts) == ["2 of 20 dev texts are among the supplementary texts"]


def test_lists_of_words_in_another_task_are_pointed_here(place):
    with pytest.raises(UserError, match="where text is expected; words with a tag each are for --task tokens"):
        Task.from_files("classification", place / "lists", text_columns=("tokens",), label_column="tags")
