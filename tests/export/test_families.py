"""Every family that is trained, with every head it has: the file says what PyTorch says, whatever stands beside a text."""

import numpy as np
import pytest

from layerstill import export
from layerstill.export.parity import NEAR
from layerstill.export.session import OnnxModel
from layerstill.heads import Classes, Tokens
from tests.export.small import LENGTH, every_length, own_words, said, save_model, words_of
from tests.tiny import FAMILIES

TAGGERS = [family for family in FAMILIES if family not in {"gemma3_text", "opt"}]  # transformers has none of these


@pytest.mark.parametrize("family", FAMILIES)
def test_classes_of_texts_of_every_length(family, tmp_path):
    texts, head = every_length(), Classes()
    model = save_model(tmp_path / "m", family, head)
    found = export(model, own_words(model, texts, head), max_length=LENGTH)
    assert found.folder == model / "onnx"
    file = found.files["fp32"]
    assert file.fit, file.reason
    assert file.parity["max_logit_difference"] < NEAR
    exported = OnnxModel(found.folder)
    together, alone = exported.logits(texts), exported.logits(texts, batch_size=1)
    wanted = said(model, texts, head)
    assert wanted.std(0).min() > 1e-3, "the texts have to matter"
    np.testing.assert_allclose(together, wanted, atol=NEAR)
    np.testing.assert_allclose(alone, wanted, atol=NEAR)  # no padding, or much


@pytest.mark.parametrize("family", TAGGERS)
def test_tags_of_sentences_of_every_length(family, tmp_path):
    sentences, head = words_of([*range(1, 40), 3, 3]), Tokens()
    sentences[5] = ("good", "film-plot", "was")  # the second is three pieces
    sentences[6] = ("good", "\xa0", "film")  # the tokenizer makes nothing of the second
    model = save_model(tmp_path / "m", family, head, names=("O", "B-A", "I-A"))
    task = own_words(model, sentences, head, names=("O", "B-A", "I-A"))
    found = export(model, task, max_length=LENGTH)
    assert found.files["fp32"].fit
    exported, wanted = OnnxModel(found.folder), said(model, sentences, head)
    for batch_size in (1, 64):
        rows = exported.logits(sentences, batch_size)
        assert [len(row) for row in rows] == [len(row) for row in wanted]
        assert all(np.abs(a - b).max() < NEAR for a, b in zip(rows, wanted, strict=True))
    assert len(rows[5]) == len(rows[6]) == 3
    assert len(rows[38]) < 39


@pytest.mark.parametrize("family", ["modernbert", "qwen3", "gemma3_text"])
def test_windows_of_attention_longer_than_short_texts_and_shorter_than_long_ones(family, tmp_path):
    texts, head = every_length(), Classes()
    window = {"local_attention": 20} if family == "modernbert" else {"sliding_window": 10}
    model = save_model(tmp_path / "m", family, head, **window)
    found = export(model, own_words(model, texts, head), max_length=LENGTH)
    np.testing.assert_allclose(OnnxModel(found.folder).logits(texts), said(model, texts, head), atol=NEAR)
    narrower = {"local_attention": 4} if family == "modernbert" else {"sliding_window": 2}
    other = save_model(tmp_path / "n", family, head, **narrower)
    assert np.abs(said(other, texts, head) - said(model, texts, head)).max() > NEAR, "the window has to matter"
