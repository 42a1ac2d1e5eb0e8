"""Files that lose too much are named unfit, and the layers that are to blame for int8 stay in fp32."""

import onnx
import pytest
import torch

from layerstill import export
from layerstill.data.tasks import Split, Task
from layerstill.export.parity import drop_of, is_near, parity, worst_class
from layerstill.export.quantising import Quantiser, group_of
from layerstill.heads import Classes, Tokens
from layerstill.training.models import load_fine_tuned
from tests.export.small import LENGTH, NAMES, clear_texts, every_length, own_words, said, save_model
from tests.tiny import tiny_config

HUGE = 1e5
"""A weight beside which int8 has only zeros for all others."""


def spoil(folder, *modules: str):
    """Give products a huge weight for an input that is always 0: PyTorch says what it said, and int8 loses all."""
    model = load_fine_tuned(str(folder), Classes())
    norms = [name for name, module in model.named_modules() if isinstance(module, torch.nn.LayerNorm)]
    with torch.no_grad():
        for name in norms:
            norm = model.get_submodule(name)
            norm.weight[0] = norm.bias[0] = 0
    model.save_pretrained(folder)
    before = said(folder, every_length(), Classes())
    with torch.no_grad():
        for name in modules:
            weight = model.get_submodule(name).weight
            if "embeddings" in name:
                weight[4] = HUGE  # [MASK], which no text has
            else:
                weight[:, 0] = HUGE
    model.save_pretrained(folder)
    torch.testing.assert_close(said(folder, every_length(), Classes()), before)
    return folder


def clear_bert(folder, *modules: str):
    """Such a model of two layers, and texts on which it is sure."""
    spoil(save_model(folder, "bert", Classes(), layers=2), *modules)
    return folder, clear_texts(folder, Classes())


EVERYTHING = [
    "bert.embeddings.word_embeddings",
    *(f"bert.encoder.layer.{i}.attention.self.{part}" for i in (0, 1) for part in ("query", "key", "value")),
    *(f"bert.encoder.layer.{i}.intermediate.dense" for i in (0, 1)),
    "bert.pooler.dense",
]


def test_int8_that_holds_keeps_nothing_in_fp32(tmp_path):
    model, texts = clear_bert(tmp_path / "m")
    file = export(model, own_words(model, texts, Classes()), int8=True, max_drop=10, max_length=LENGTH).files["int8"]
    assert (file.fit, file.kept_fp32, file.reason) == (True, [], "")
    assert 0 < file.parity["max_logit_difference"] < 1
    kinds = [node.op_type for node in onnx.load(file.path).graph.node]
    assert kinds.count("MatMulInteger") == 2 * 6 + 2


@pytest.mark.parametrize(
    ("modules", "blamed"),
    [
        (["bert.encoder.layer.1.intermediate.dense"], "layer 2 feed-forward"),
        (["bert.encoder.layer.0.attention.self.value"], "layer 1 attention"),
        (["bert.embeddings.word_embeddings"], "embeddings"),
        (["bert.pooler.dense"], "head"),
    ],
)
def test_the_layers_to_blame_stay_in_fp32(modules, blamed, tmp_path):
    model, texts = clear_bert(tmp_path / "m", *modules)
    file = export(model, own_words(model, texts, Classes()), int8=True, max_drop=10, max_length=LENGTH).files["int8"]
    assert (file.fit, file.kept_fp32) == (True, [blamed])
    assert file.drop <= 10


def test_int8_that_is_lost_everywhere_is_unfit_and_written(tmp_path, call):
    model, texts = clear_bert(tmp_path / "m", *EVERYTHING)
    task = own_words(model, texts, Classes())
    found = export(model, task, int8=True, max_drop=1, max_length=LENGTH)
    file = found.files["int8"]
    assert not file.fit
    assert not found.fit
    assert file.drop > 1
    assert len(file.kept_fp32) <= 3, "half of six groups"
    assert f"more than --max-drop 1, though {', '.join(file.kept_fp32)} stay" in file.reason or not file.kept_fp32
    assert file.path.is_file()
    assert found.files["fp32"].fit
    rows = "\n".join(
        f'"{text}",{NAMES[label]}' for (text,), label in zip(texts, task.splits["dev"].labels, strict=True)
    )
    (tmp_path / "d.csv").write_text(f"text,label\n{rows}\n", "utf-8")
    words = f"export {model} --data {tmp_path}/d.csv --int8 --max-length {LENGTH} --output {tmp_path}/o"
    status, out, _ = call(words)
    assert status == 1
    assert "model.int8.onnx: UNFIT: accuracy falls from 100.00 to" in out
    assert (tmp_path / "o" / "model.int8.onnx").is_file()
    assert call(words)[0] == 1, "found again, it is as unfit"
    assert call(f"{words}2 --max-drop 100")[0] == 0


def test_static_ranges_hold_and_are_not_fixed_on_the_scored_texts(tmp_path, call):
    model, texts = clear_bert(tmp_path / "m")
    rows = own_words(model, texts, Classes()).splits["dev"].labels
    lines = [f'"{text}",{NAMES[label]}' for (text,), label in zip(texts, rows, strict=True)]
    (tmp_path / "d").mkdir()
    for split, some in (("train", lines[::2]), ("dev", lines[1::2])):
        (tmp_path / "d" / f"{split}.csv").write_text("text,label\n" + "\n".join(some) + "\n", "utf-8")
    words = f"export {model} --calibrate --max-drop 25 --max-length {LENGTH} --output {tmp_path}/o --data {tmp_path}/d"
    status, out, err = call(words)
    assert status == 0, out + err
    kinds = {node.op_type for node in onnx.load(tmp_path / "o" / "model.int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} < kinds
    assert "DynamicQuantizeLinear" not in kinds
    status, _, err = call(f"{words}2/train.csv".replace("/o --data", "/p --data").replace("/d2/", "/d/"))
    assert status == 2
    assert "ranges are fixed on texts of train" in err


@pytest.mark.parametrize(
    ("family", "name", "group"),
    [
        ("bert", "/model/bert/embeddings/word_embeddings/Gather", "embeddings"),
        ("bert", "/model/bert/encoder/layer.11/attention/output/dense/MatMul", "layer 12 attention"),
        ("bert", "/model/bert/encoder/layer.0/output/dense/MatMul", "layer 1 feed-forward"),
        ("bert", "/model/classifier/Gemm", "head"),
        ("mpnet", "/model/mpnet/encoder/relative_attention_bias/Gather", "embeddings"),
        ("albert", "/model/albert/encoder/albert_layer_groups.0/albert_layers.0/ffn/MatMul_3", "feed-forward of all layers"),
        ("llama", "/model/model/layers.2/self_attn/q_proj/MatMul", "layer 3 attention"),
        ("gpt2", "/model/transformer/h.0/mlp/c_fc/Gemm", "layer 1 feed-forward"),
    ],
)  # fmt: skip
def test_groups_of_operations(family, name, group):
    assert group_of(name, tiny_config(family)) == group


@pytest.mark.parametrize("family", ["albert", "distilbert", "modernbert", "deberta-v2", "gpt2", "opt", "gemma3_text"])
def test_every_family_has_its_layers_as_groups_and_keeps_what_it_is_told_to(family, tmp_path):
    model, texts = save_model(tmp_path / "m", family, Classes(), layers=2), every_length()
    folder = export(model, own_words(model, texts, Classes()), max_length=LENGTH).folder
    config = load_fine_tuned(str(model), Classes()).config
    quantiser = Quantiser(folder / "model.onnx", config)
    layers = [f"layer {i} {part}" for i in (1, 2) for part in ("attention", "feed-forward")]
    if family == "albert":
        layers = ["attention of all layers", "feed-forward of all layers"]
    assert {*quantiser.groups} == {"embeddings", *layers, "head"}
    quantiser.write(tmp_path / "none.onnx", quantiser.groups)
    left = {node.op_type for node in onnx.load(tmp_path / "none.onnx").graph.node}
    assert not left & {"MatMulInteger", "DynamicQuantizeLinear", "DequantizeLinear"}
    for group in quantiser.groups:
        quantiser.write(tmp_path / "one.onnx", [other for other in quantiser.groups if other != group])
        kinds = [node.op_type for node in onnx.load(tmp_path / "one.onnx").graph.node]
        assert kinds.count("MatMulInteger") + kinds.count("DequantizeLinear") > 0, group


def test_parity_says_which_class_lost_most():
    texts = [("x",)] * 40
    split = Split(texts, [0] * 20 + [1] * 15 + [2] * 5)
    task = Task("t", Classes(), {"dev": split}, NAMES)
    exact = torch.nn.functional.one_hot(torch.tensor(split.labels), 3).float().numpy()
    worse = exact.copy()
    worse[[0, 20, 21, 22, *range(35, 40)]] = [0, 0, 0]
    worse[[0, 20, 21, 22], 2] = worse[35:40, 0] = 0.5
    found = parity(task, "dev", exact, worse)
    assert found["worst_class"] == {"name": "fine", "lost": 20.0, "examples": 15}, "the third has too few examples"
    assert found["agreement"] == 31 / 40
    assert found["max_logit_difference"] == 1
    assert drop_of(found, "accuracy") == pytest.approx(22.5)
    assert not is_near(found)
    assert is_near(parity(task, "dev", 1000 * exact, 1000 * exact + 0.05))
    assert not is_near(parity(task, "dev", 1000 * exact, 1000 * exact + 0.2))
    few = Task("t", Classes(), {"dev": Split(texts[:4], [0, 1, 2, 0])}, NAMES)
    assert worst_class(few, "dev", exact[:4], exact[:4]) is None
    words = Split([("a", "b")] * 12, [[1, 0]] * 12)
    tagged = Task("t", Tokens(), {"dev": words}, ("O", "B-A", "B-B"))
    right = [torch.tensor([[0.0, 1, 0], [1, 0, 0]]).numpy()] * 12
    wrong = [*right[:6], *[row[::-1] for row in right[6:]]]
    assert worst_class(tagged, "dev", right, wrong) == {"name": "A", "lost": 50.0, "examples": 12}
