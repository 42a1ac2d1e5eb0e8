"""What an exported folder says, by the session of layerstill and by `run.py` where there is no torch."""

import json
import subprocess
import sys

import numpy as np
import pytest

from layerstill import Task, export
from layerstill.data.tasks import Split
from layerstill.errors import UserError
from layerstill.export.session import OnnxModel
from layerstill.heads import Classes, MultiLabel, Scores, Tokens
from layerstill.metrics.multilabel import log_odds
from tests.export.small import LENGTH, NAMES, every_length, own_words, said, save_model, words_of

ALONE = """
import runpy, sys
for name in ("torch", "transformers", "layerstill", "onnx", "datasets"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_alone(folder, *words: str, stdin: str = "") -> list[tuple[str, str]]:
    """What `run.py` prints where torch, transformers and layerstill cannot be imported: answer and text."""
    command = [sys.executable, "-c", ALONE, str(folder / "run.py"), *words]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [tuple(line.split("\t", 1)) for line in done.stdout.splitlines()]


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("pairs", [False, True], ids=["one text", "pairs"])
def test_classes(pairs, tmp_path):
    texts, head = every_length(pairs), Classes()
    model = save_model(tmp_path / "m", "bert", head)
    found = export(model, own_words(model, texts, head), tmp_path / "o", int8=True, max_drop=100, max_length=LENGTH)
    wanted = said(model, texts, head)
    np.testing.assert_allclose(OnnxModel(tmp_path / "o").logits(texts), wanted, atol=1e-4)
    lines = run_alone(tmp_path / "o", stdin="\n".join("\t".join(text) for text in texts))
    assert [text for _, text in lines] == ["\t".join(text) for text in texts]
    for (answer, _), logits in zip(lines, softmax(wanted), strict=True):
        assert answer == f"{NAMES[logits.argmax()]} {logits.max():.4f}"
    (answer, _), *_ = run_alone(tmp_path / "o", "model.int8.onnx", "\t".join(texts[0]))
    quantised = softmax(OnnxModel(tmp_path / "o", "model.int8.onnx").logits(texts[:1]))[0]
    assert answer == f"{NAMES[quantised.argmax()]} {quantised.max():.4f}"
    assert found.files["int8"].mb < found.files["fp32"].mb


def test_several_labels_at_a_threshold_of_their_own(tmp_path):
    texts, head = every_length(), MultiLabel(threshold=0.4)
    model = save_model(tmp_path / "m", "distilbert", head)
    export(model, own_words(model, texts, head), tmp_path / "o", max_length=LENGTH)
    wanted = said(model, texts, head)
    assert {*map(int, head.decide(wanted).sum(1))} > {1}, "some texts have more labels than others"
    assert OnnxModel(tmp_path / "o").head == head
    for (answer, _), row in zip(run_alone(tmp_path / "o", stdin="\n".join(t for (t,) in texts)), wanted, strict=True):
        given = [name for name, logit in zip(NAMES, row, strict=True) if logit >= log_odds(0.4)]
        assert [part.split(" ")[0] for part in answer.split(", ")] == (given or ["none"])


def test_scores(tmp_path):
    texts, head = every_length(pairs=True), Scores()
    model = save_model(tmp_path / "m", "roberta", head)
    found = export(model, own_words(model, texts, head), tmp_path / "o", max_length=LENGTH)
    assert found.files["fp32"].parity["agreement"] is None
    assert found.files["fp32"].parity["scores"]["pearson"] == pytest.approx(1)
    wanted = said(model, texts, head)[:, 0]
    lines = run_alone(tmp_path / "o", stdin="\n".join("\t".join(text) for text in texts))
    np.testing.assert_allclose([float(answer) for answer, _ in lines], wanted, atol=2e-4)


def test_tags_of_words(tmp_path):
    sentences, head, names = words_of(list(range(1, 20))), Tokens(), ("O", "B-A", "I-A")
    sentences[3] = ("good", "film-plot", "was")
    model = save_model(tmp_path / "m", "bert", head, names=names)
    export(model, own_words(model, sentences, head, names), tmp_path / "o", max_length=LENGTH)
    decided = head.decide(said(model, sentences, head))
    for (answer, _), words, tags in zip(
        run_alone(tmp_path / "o", *map(" ".join, sentences)), sentences, decided, strict=True
    ):
        assert answer.split(" ") == [f"{word}/{names[tag]}" for word, tag in zip(words, tags, strict=True)]


def test_labels_are_the_models_in_its_order_whatever_the_datas_is(tmp_path):
    texts, head = every_length(), Classes()
    model = save_model(tmp_path / "m", "bert", head)
    own = own_words(model, texts, head)
    named = Split(texts, [NAMES[label] for label in own.splits["dev"].labels])
    turned = Task("own", head, {"train": named, "dev": named}, NAMES[::-1])
    assert turned.splits["dev"].labels != own.splits["dev"].labels
    found = export(model, turned, max_length=LENGTH)
    assert found.files["fp32"].parity["torch_scores"]["accuracy"] == 1
    assert OnnxModel(found.folder).labels == NAMES
    assert json.loads((found.folder / "config.json").read_text())["id2label"] == dict(zip("012", NAMES, strict=True))


def test_what_is_cut_off_changes_nothing_and_what_is_not_does(tmp_path):
    texts, head = every_length(), Classes()
    model = save_model(tmp_path / "m", "bert", head)
    folder = export(model, own_words(model, texts, head), max_length=LENGTH).folder
    words = words_of([60])[0]
    exported = OnnxModel(folder)
    at = [" ".join(words[:n]) for n in (LENGTH - 3, LENGTH - 2, LENGTH - 1, 60)]
    logits = exported.logits([(text,) for text in at])
    np.testing.assert_array_equal(logits[1:], logits[1:2].repeat(3, 0))
    assert np.abs(logits[0] - logits[1]).max() > 1e-4
    assert len({answer for answer, _ in run_alone(folder, *at[1:])}) == 1


def test_a_folder_without_an_export_and_a_file_that_is_not_there(tmp_path):
    texts, head = every_length(), Classes()
    model = save_model(tmp_path / "m", "bert", head)
    with pytest.raises(UserError, match="not a folder that layerstill export wrote"):
        OnnxModel(model)
    folder = export(model, own_words(model, texts, head), max_length=LENGTH).folder
    with pytest.raises(UserError, match=r"no model.int8.onnx in it; there are: model.onnx"):
        OnnxModel(folder, "model.int8.onnx")
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match="onnxruntime cannot run it"):
        OnnxModel(folder)
