"""Input that is wrong: one line with what, where, both values and the way out; status 2; nothing written."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import save_tiny, write_csv


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A good teacher and good data, made once and copied for each case."""
    folder = tmp_path_factory.mktemp("made")
    save_tiny(folder / "teacher", width=32, layers=2)
    (folder / "data").mkdir()
    write_csv(folder / "data" / "train.csv", rows=12)
    write_csv(folder / "data" / "dev.csv", rows=6, seed=1)
    return folder


@pytest.fixture
def place(made, tmp_path):
    """A copy of them as `teacher` and `data`, to be spoilt."""
    shutil.copytree(made, tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def call(call, monkeypatch, place):
    """The command line, in the folder `place`."""
    monkeypatch.chdir(place)
    return call


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every path below a folder with what it holds."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
        found[str(path.relative_to(folder))] = path.read_bytes() if kind == "file" and path.is_file() else kind
    return found


@pytest.fixture
def refused(call, place):
    """Run a command that must be refused with all of these words in one line, leaving every file as it is."""

    def check(words: str | list[str], *decisive: str) -> str:
        before = contents(place)
        status, out, err = call(words)
        assert status == 2, (status, out, err)
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert len(err) < 1500
        for word in decisive:
            assert word in err, err
        assert contents(place) == before
        return err

    return check


DISTILL = (
    "distill teacher --task classification --data data --student-layers 1 --max-length 32 --max-steps 1 --output out"
)
GOOD = "text,label\ngood film,good\nbad film,bad\nfine film,fine\n"


def jsonl(*rows: dict) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(**columns: list) -> bytes:
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


TRAIN = [
    ("a ragged row", "csv", GOOD + "a film, good\nx,y,z\n", ["train.csv line 6: 3 fields where the header has 2"]),
    (
        "an unclosed quote",
        "csv",
        GOOD.replace("bad film", '"bad film') + "one,good\n",
        ["train.csv line 3: a quote is opened here and never closed", "close it"],
    ),
    (
        "an unclosed quote after a whole one",
        "csv",
        GOOD + '"a\nb","c\nd,bad\n',
        ["train.csv line 6: a quote is opened"],
    ),
    (
        "a quote that swallows rows",
        "csv",
        GOOD.replace("bad film", '"bad film') + 'the "x" b,good\n',
        ["train.csv line 3: a quote is opened here and closed in line 5", "double the quotes"],
    ),
    ("an empty file", "csv", "", ["train.csv: no rows"]),
    ("a header only", "csv", "text,label\n", ["train.csv: no rows"]),
    (
        "one class",
        "csv",
        "text,label\na,good\nb,good\n",
        ["'label' holds a single class, 'good'; there is nothing to learn"],
    ),
    (
        "latin-1",
        "csv",
        GOOD.replace("fine f", "finé f").encode("latin-1"),
        ["train.csv line 4: not UTF-8 at byte 42; convert the file to UTF-8"],
    ),
    ("half of UTF-16", "csv", GOOD.encode("utf-16")[:-1], ["not UTF-16 at byte", "although it begins as such"]),
    (
        "UTF-16 without a mark",
        "csv",
        GOOD.encode("utf-16-le"),
        ["train.csv line 1: a NUL byte at byte 1", "convert it to UTF-8"],
    ),
    (
        "a NUL byte",
        "tsv",
        GOOD.replace(",", "\t").replace("bad f", "b\0d f"),
        ["train.tsv line 3: a NUL byte at byte 27"],
    ),
    (
        "a NUL in JSON",
        "jsonl",
        jsonl({"text": "a", "label": "bad"}, {"text": "b\0", "label": "good"}),
        ["train.jsonl line 2: column 'text' holds a NUL"],
    ),
    (
        "half a surrogate pair",
        "jsonl",
        jsonl({"text": "a", "label": "bad"}, {"text": "b\ud800", "label": "good"}),
        ["train.jsonl line 2", r"half of a surrogate pair, '\ud800'"],
    ),
    (
        "a fraction as label",
        "csv",
        GOOD.replace(",bad", ",0.5"),
        ["train.csv line 3: label '0.5' names no class", "--task regression"],
    ),
    (
        "a number with exponent as label",
        "csv",
        GOOD.replace(",bad", ",1e-3"),
        ["train.csv line 3: label '1e-3' names no class"],
    ),
    ("nan as label", "csv", GOOD.replace(",bad", ",nan"), ["train.csv line 3: label 'nan' names no class"]),
    ("an empty label", "csv", GOOD.replace(",bad", ","), ["train.csv line 3: label '' names no class"]),
    ("a blank label", "csv", GOOD.replace(",bad", ", "), ["train.csv line 3: label ' ' names no class"]),
    (
        "texts and labels swapped",
        "csv",
        "label,text\n" + "".join(f"a long text {i},{'good bad fine'.split()[i % 3]}\n" for i in range(9)),
        ["'label' holds 9 different labels for 3 different texts in text", "swapped", "--label-column"],
    ),
    (
        "texts and labels swapped in a large file",
        "csv",
        "label,text\n" + "".join(f"a long text {i},{'good bad fine'.split()[i % 3]}\n" for i in range(60)),
        ["60 different labels in 60 rows; if it is the text column"],
    ),
    ("no text at all", "csv", "text,label\n,good\n  ,bad\n,fine\n", ["column 'text' is empty in all of its 3 rows"]),
    (
        "a column twice",
        "csv",
        "text,label,text\na,good,b\n",
        ["line 1: a column name appears twice: text, label, text"],
    ),
    (
        "semicolons in texts",
        "csv",
        GOOD.replace(",", ";") + "so; so;good\n",
        ["line 1: a single column, 'text;label'", "separated by commas here, and not by semicolons: line 5: 3 fields"],
    ),
    (
        "commas in a tsv",
        "tsv",
        GOOD + "so, so,good\n",
        ["train.tsv line 1: a single column, 'text,label'", "separated by tabs here, and not by commas: line 5"],
    ),
    (
        "no header",
        "csv",
        GOOD.partition("\n")[2] + "good,good\n",
        ["which columns are text?", "line 1 looks like data"],
    ),
    (
        "not JSON",
        "jsonl",
        b'{"text": "a", "label": "good"}\n{"text": "b"',
        ["train.jsonl line 2: not JSON", "at column"],
    ),
    ("a JSON list", "json", b'["a", "good"]\n', ["train.json row 1: a JSON object is expected, got str"]),
    (
        "a JSON key twice",
        "jsonl",
        b'{"text": "a", "text": "b", "label": "good"}\n',
        ["line 1: key 'text' appears twice"],
    ),
    (
        "other JSON keys",
        "jsonl",
        jsonl({"text": "a", "label": "good"}, {"texts": "b", "label": "bad"}),
        ["line 2: column 'text' holds None where text is expected: it is missing"],
    ),
    (
        "a null text",
        "jsonl",
        jsonl({"text": None, "label": "good"}),
        ["line 1: column 'text' holds None where text is expected"],
    ),
    (
        "a number as text",
        "jsonl",
        jsonl({"text": 3, "label": "good"}),
        ["line 1: column 'text' holds 3 where text is expected"],
    ),
    ("a list as label", "jsonl", jsonl({"text": "a", "label": ["good"]}), ["line 1: label ['good'] names no class"]),
    (
        "JSON too deep",
        "jsonl",
        b'{"text": "a", "label": ' + b"[" * 100_000 + b"\n",
        ["train.jsonl line 1", "nested too deeply"],
    ),
    (
        "a number of 5,000 digits",
        "jsonl",
        b'{"text": "a", "label": ' + b"9" * 5000 + b"}\n",
        ["train.jsonl line 1: Exceeds the limit"],
    ),
    (
        "a damaged parquet",
        "parquet",
        parquet(text=["a", "b"], label=["good", "bad"])[:-9],
        ["train.parquet: not a readable Parquet file"],
    ),
    ("a text named parquet", "parquet", GOOD, ["train.parquet: not a readable Parquet file"]),
    (
        "nested parquet texts",
        "parquet",
        parquet(text=[["a"], ["b"]], label=["good", "bad"]),
        ["line 1: column 'text' holds ['a'] where text is expected"],
    ),
    (
        "bytes as labels",
        "parquet",
        parquet(text=["a", "b"], label=[b"good", b"bad"]),
        ["line 1: label b'good' names no class"],
    ),
    ("null labels", "parquet", parquet(text=["a", "b"], label=["good", None]), ["line 2: label None names no class"]),
]


@pytest.mark.parametrize(("kind", "content", "decisive"), [c[1:] for c in TRAIN], ids=[c[0] for c in TRAIN])
def test_training_data(kind, content, decisive, place, refused):
    (place / "data" / "train.csv").unlink()
    (place / "data" / f"train.{kind}").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(DISTILL, *decisive)


OTHER_DATA = [
    ("a label unseen in train", "dev.csv", "text,label\na,good\nb,nope\n", "", ["dev.csv line 3: label 'nope' is not in train, which has bad, fine, good", "correct the label"]),
    ("a score that is none", "train.csv", "text,label\na,1\nb,two\n", "--task regression", ["train.csv line 3: score 'two' is not a finite number"]),
    ("an infinite score", "train.csv", "text,label\na,1\nb,-inf\n", "--task regression", ["line 3: score '-inf' is not a finite number"]),
    ("a score with underscores", "train.csv", "text,label\na,1\nb,1_000\n", "--task regression", ["line 3: score '1_000' is not a finite number"]),
    ("a score beyond floats", "train.jsonl", '{"text": "a", "label": ' + "9" * 400 + "}\n", "--task regression", ["line 1: score 9999", "is not a finite number"]),
    ("true as score", "train.jsonl", '{"text": "a", "label": true}\n', "--task regression", ["line 1: score True is not a finite number"]),
    ("the text as label column", "dev.csv", GOOD, "--text-columns text --label-column text", ["column 'text' is both text and label"]),
    ("a column named twice", "dev.csv", GOOD, "--text-columns text,text", ["column 'text' is named twice"]),
    ("an empty column name", "dev.csv", GOOD, "--text-columns ''", ["no column ''", "known: text, label"]),
    ("a folder as dev file", "x.csv", GOOD, "--data data/x.csv --dev data", ["data: not an ordinary file"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "extra", "decisive"), [c[1:] for c in OTHER_DATA], ids=[c[0] for c in OTHER_DATA]
)
def test_data_and_options(name, text, extra, decisive, place, refused):
    if name.startswith("train"):
        (place / "data" / "train.csv").unlink()
    (place / "data" / name).write_text(text, "utf-8")
    refused(f"{DISTILL} {extra}", *decisive)


def test_files_that_are_none(place, refused):
    os.mkfifo(place / "pipe.csv")
    for path in ("pipe.csv", "/dev/zero"):  # reading either would never end
        refused(f"{DISTILL} --data {path}", f"--data {path}: neither an ordinary file nor a folder")
    (place / "data" / "train.csv").unlink()
    os.mkfifo(place / "data" / "train.csv")
    refused(DISTILL, "data/train.csv: not an ordinary file")
    refused([*shlex.split(DISTILL), "--data", "x" * 300], "File name too long")
    os.mkfifo(place / "pipe.yaml")
    refused("recipes check pipe.yaml", "recipe file pipe.yaml: not an ordinary file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("path", ["data/train.csv", "teacher/config.json", "teacher/model.safetensors"])
def test_files_that_may_not_be_read(path, place, call):
    (place / path).chmod(0)
    status, _, err = call(DISTILL)
    assert status == 2
    assert "Permission denied" in err
    assert not (place / "out").exists()


def config(**changes):
    def change(folder: Path) -> None:
        data = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps(data | changes), "utf-8")

    return change


def tensors(change_them):
    def change(folder: Path) -> None:
        weights = change_them(load_file(folder / "model.safetensors"))
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return change


def file(name: str, content: bytes | str):
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def half(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def sharded(*shards: str):
    def change(folder: Path) -> None:
        shutil.move(folder / "model.safetensors", folder.parent / "elsewhere.safetensors")
        names = {f"tensor {i}": shard for i, shard in enumerate(shards)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}), "utf-8")

    return change


def tokenizer(name: str, change_it):
    def change(folder: Path) -> None:
        data = json.loads((folder / name).read_text("utf-8"))
        change_it(data)
        (folder / name).write_text(json.dumps(data), "utf-8")

    return change


def nan_in(weights: dict) -> dict:
    weights["classifier.weight"][0, 0] = float("nan")
    return weights


def without_pad(data: dict) -> None:
    del data["pad_token"]


def token_beyond(data: dict) -> None:
    words = data["model"]["vocab"]
    words["zebra"] = 500
    del words["we"]


def foreign(weights: dict) -> dict:
    return {f"other.{name}": tensor for name, tensor in weights.items()}


FOREIGN_CODE = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}
MODELS = [
    ("a pickle", pickled, ["no model.safetensors; pytorch_model.bin is a pickle, which is never loaded; save it with"]),
    ("half a file", half, ["model.safetensors is damaged", "copy or save it again"]),
    ("an empty file", file("model.safetensors", b""), ["model.safetensors is damaged"]),
    (
        "a header of exabytes",
        file("model.safetensors", (2**62).to_bytes(8, "little") + b"{}"),
        ["model.safetensors is damaged"],
    ),
    (
        "foreign keys only",
        tensors(foreign),
        ["41 weights are missing or of another size than its config.json says", "they would be random"],
    ),
    (
        "weights of integers",
        tensors(lambda w: {n: t.to(torch.int32) for n, t in w.items()}),
        ["in model.safetensors is I32", "save them in float32"],
    ),
    ("nan among the weights", tensors(nan_in), ["classifier.weight holds numbers that are not finite"]),
    (
        "an index that leaves the folder",
        sharded("../elsewhere.safetensors"),
        ["names '../elsewhere.safetensors', which is not a safetensors file of this folder"],
    ),
    ("an index of a pickle", sharded("weights.bin"), ["names 'weights.bin', which is not a safetensors file"]),
    (
        "an index of what is not there",
        sharded("model-1.safetensors"),
        ["model-1.safetensors is missing, which model.safetensors.index.json names"],
    ),
    (
        "an adapter",
        file("adapter_config.json", '{"base_model_name_or_path": "../elsewhere"}'),
        ["an adapter for another model", "merge it"],
    ),
    (
        "wider weights than the configuration",
        config(intermediate_size=24),
        [
            "6 weights are missing or of another size than its config.json says, for example bert.encoder.layer.0.intermediate"
        ],
    ),
    ("more layers than weights", config(num_hidden_layers=3), ["16 weights are missing"]),
    (
        "fewer layers than weights",
        config(num_hidden_layers=1),
        ["more layers than the 1 of config.json, for example bert.encoder.layer.1."],
    ),
    (
        "layers without end",
        config(num_hidden_layers=10**9),
        ["config.json asks for 1000000000 layers; 1 to 1000 are possible"],
    ),
    (
        "sizes without end",
        config(vocab_size=10**12),
        ["describes 32", "parameters and its weights hold", "do not belong together"],
    ),
    ("negative sizes", config(hidden_size=-32), ["config.json describes no model", "negative dimension -32"]),
    ("no heads", config(num_attention_heads=0), ["config.json describes no model (ZeroDivisionError"]),
    ("a size that is a word", config(intermediate_size="big"), ["intermediate_size", "expected int, got str"]),
    ("an unknown activation", config(hidden_act="explode"), ["config.json describes no model (KeyError: 'explode')"]),
    ("a configuration that is not JSON", file("config.json", "{"), ["config.json is not JSON"]),
    (
        "a configuration that is a list",
        file("config.json", "[1]"),
        ["config.json holds a list where a JSON object is expected"],
    ),
    (
        "a configuration that is too deep",
        file("config.json", "[" * 100_000),
        ["config.json is not JSON: maximum recursion depth"],
    ),
    ("a configuration of nothing", file("config.json", "{}"), ["config.json cannot be used", "model_type"]),
    (
        "an unproven family",
        file("config.json", '{"model_type": "t5"}'),
        ["model family 't5' is not supported; supported: bert"],
    ),
    (
        "code of its own",
        config(model_type="evil", auto_map=FOREIGN_CODE),
        ["it asks for code of its own, which is never run"],
    ),
    (
        "labels with gaps",
        config(id2label={"0": "bad", "2": "fine", "5": "good"}),
        ["id2label numbers its labels 0, 2, 5; they must be numbered 0 to 2"],
    ),
    (
        "a label twice",
        config(id2label={"0": "bad", "1": "bad", "2": "good"}),
        ["id2label names a label twice: bad, bad, good"],
    ),
    ("labels in a list", config(id2label=["bad", "fine", "good"]), ["config.json cannot be used"]),
    (
        "other labels",
        config(id2label={"0": "no", "1": "perhaps", "2": "yes"}),
        ["knows the labels no, perhaps, yes, and the data have bad, fine, good", "--label-map bad=no,"],
    ),
    (
        "another number of labels",
        config(id2label={"0": "bad", "1": "good"}),
        ["knows 2 labels (bad, good), and the data have 3 (bad, fine, good)"],
    ),
    (
        "many labels per text",
        config(problem_type="multi_label_classification"),
        ["problem_type multi_label_classification"],
    ),
    ("an architecture of numbers", config(architectures=[1]), ["architectures is [1], not a list of names"]),
    (
        "padding beyond the embeddings",
        config(pad_token_id=99),
        ["token 99 is padding and that there are 25 tokens; correct pad_token_id"],
    ),
    (
        "padding of another tokenizer",
        config(pad_token_id=3),
        ["config.json says that token 3 is padding, the tokenizer pads with 0 ('[PAD]')"],
    ),
    (
        "no padding token",
        tokenizer("tokenizer_config.json", without_pad),
        ["it has no padding token", '"pad_token": "[PAD]"'],
    ),
    ("a tokenizer that is not JSON", file("tokenizer.json", "{"), ["tokenizer of teacher: cannot be read"]),
    ("a tokenizer of nothing", file("tokenizer.json", "[]"), ["tokenizer of teacher: cannot be read"]),
    (
        "tokens beyond the embeddings",
        tokenizer("tokenizer.json", token_beyond),
        ["knows 25 tokens, numbered up to 500, and its embeddings 25; the tokenizer belongs to another model"],
    ),
    (
        "texts of no length",
        tokenizer("tokenizer_config.json", lambda d: d.update(model_max_length=0)),
        ["the model allows 0 tokens, too few", "model_max_length (0)"],
    ),
    (
        "a length that is a word",
        tokenizer("tokenizer_config.json", lambda d: d.update(model_max_length="x")),
        ["model_max_length is 'x', not a number"],
    ),
]


@pytest.mark.parametrize(("change", "decisive"), [c[1:] for c in MODELS], ids=[c[0] for c in MODELS])
def test_models(change, decisive, place, refused):
    change(place / "teacher")
    refused(DISTILL, *decisive)


def test_a_model_is_refused_wherever_it_is_given(place, refused):
    shutil.copytree(place / "teacher", place / "parent")
    config(intermediate_size=24)(place / "parent")
    random = "6 weights are missing or of another size than its config.json says"
    refused("finetune parent --task classification --data data --max-length 32 --output out", random)
    refused(f"{DISTILL} --init-from parent", random)
    refused("evaluate parent --task classification --data data --max-length 32", random)
    config(pad_token_id=3)(place / "parent")
    refused("plan parent --task classification --data data --student-layers 1 --max-length 32", "pads with 0")


NAMES = ["no/such", "../x", "a/../b", "a b", "~/x", "-x", "ünï/✓", "http://example.com/x", ""]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_models_that_are_not_there(name, refused):
    words = shlex.split(DISTILL)[2:]
    refused(
        ["distill", *words, "--", name], f"model {name}" if name else "the name is empty; give a folder or a hub id"
    )


K = "stages:\n- epochs: 1\n  learning_rate: 1e-4\n  objectives:\n    task: {signal: labels}\n"
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
RECIPES = [
    ("a billion laughs", LAUGHS, ["bad.yaml line 2: aliases (*name) are not allowed in recipes; write the value out"]),
    ("a cycle", "&a\nstages: [*a]\n", ["bad.yaml line 2: aliases"]),
    ("too deep", "[" * 20_000, ["bad.yaml: nested too deeply"]),
    ("too large", K + "#" * 200_000, ["bad.yaml: larger than 100,000 bytes"]),
    (
        "code",
        "stages: !!python/object/apply:os.system ['touch owned']\n",
        ["bad.yaml line 1", "python/object/apply:os.system"],
    ),
    ("a name of code", "stages: !!python/name:os.system\n", ["bad.yaml line 1", "python/name:os.system"]),
    ("a tag of another toolkit", "stages: !import_call {key: os.system}\n", ["line 1", "!import_call"]),
    ("a tag that does not fit", K.replace("1e-4", "!!int x"), ["bad.yaml: a value is not what its tag says"]),
    ("a date", "stages: 2020-99-99\n", ["stages: Input should be a valid list, got '2020-99-99'"]),
    ("a number of 5,000 digits", K.replace("1e-4", "9" * 5000), ["a number too long"]),
    (
        "a fraction beyond floats",
        K.replace("1e-4", "9" * 400 + "/1"),
        ["stages.0.learning_rate: Input should be a valid number"],
    ),
    ("a key that is a number", K.replace("task:", "7:"), ["bad.yaml line 5: key 7 is not text; put it in quotes"]),
    ("a key twice", K + "stages: []\n", ["bad.yaml line 6: key 'stages' appears twice"]),
    ("an unknown key at the top", "stagse: []\n", ["top level: unknown key 'stagse': did you mean 'stages'"]),
    ("an unknown key in a stage", K + "  epoch: 3\n", ["stages.0: unknown key 'epoch': did you mean 'epochs'"]),
    (
        "an unknown key in a setting",
        K.replace("{signal: labels}", "{signal: logits, distance: {kl: {temprature: 2}}}"),
        ["stages.0.objectives.task.distance.kl: unknown key 'temprature': did you mean 'temperature'"],
    ),
    (
        "an unknown word",
        K.replace("labels", "lables"),
        ["stages.0.objectives.task.signal: unknown signal 'lables': did you mean 'labels'"],
    ),
    ("many mistakes", K + "".join(f"- x{i}: 1\n" for i in range(40)), ["stages.1: unknown key 'x0'", "and 35 more"]),
    (
        "negative epochs",
        K.replace("epochs: 1", "epochs: -1"),
        ["stages.0.epochs: Input should be greater than 0, got -1"],
    ),
    (
        "epochs without end",
        K.replace("epochs: 1", "epochs: 1e18"),
        ["stages.0.epochs: Input should be less than or equal to 1000000"],
    ),
    ("nan", K.replace("1e-4", ".nan"), ["stages.0.learning_rate: must be a finite number"]),
    ("infinity", K.replace("1e-4", "1e999"), ["stages.0.learning_rate: must be a finite number"]),
    (
        "a truth as number",
        K.replace("epochs: 1", "epochs: yes"),
        ["stages.0.epochs: Input should be a valid number, got True"],
    ),
    ("an endless batch", K + f"  batch_size: {10**30}\n", ["stages.0.batch_size"]),
    (
        "a path as objective",
        K.replace("task:", "../../x:"),
        ["objective name '../../x' must not be empty and must not contain '.' or '/'"],
    ),
    (
        "an escape sequence as objective",
        K.replace("task:", '"\\e[31m":'),
        ["objective name", "100 printable characters"],
    ),
    ("a path as name", "name: ../../etc/passwd\n" + K, ["name: recipe name '../../etc/passwd' must be", "without '/'"]),
    ("UTF-16", K.encode("utf-16"), ["bad.yaml line 1: not UTF-8 at byte 0"]),
    ("a control character", K + "# \a\n", ["bad.yaml", "#x0007"]),
    ("nothing", "", ["a recipe is a mapping with the key 'stages', got NoneType"]),
    ("two documents", K + "---\n" + K, ["bad.yaml line 6", "another document"]),
]


@pytest.mark.parametrize(("text", "decisive"), [c[1:] for c in RECIPES], ids=[c[0] for c in RECIPES])
def test_recipes(text, decisive, place, refused):
    (place / "bad.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused("recipes check bad.yaml", *decisive)


OPTIONS = [
    ("--student-layers 0", ["--student-layers 0: the teacher has 2 layers; choose 1 to 2"]),
    ("--student-layers 99999999999999999999", ["the teacher has 2 layers; choose 1 to 2"]),
    ("--max-steps 0", ["--max-steps"]),
    ("--max-length 3", ["--max-length"]),
    ("--max-length 65", ["--max-length 65: the model allows 64 tokens; use 64 or less"]),
    ("--seed -1", ["--seed"]),
    ("--seed 2147483648", ["--seed", "2147483647"]),
    ("--epochs nan", ["stages.0.epochs: must be a finite number"]),
    ("--epochs 0", ["stages.0.epochs: Input should be greater than 0, got 0.0"]),
    ("--batch-size 0", ["stages.0.batch_size: Input should be greater than 0, got 0"]),
    ("--learning-rate -1", ["stages.0.learning_rate: Input should be greater than 0, got -1.0"]),
    ("--train-examples 0", ["--train-examples"]),
    ("--init 1,9 --student-layers 2", ["initialisation names layer 9, but the source has 2 layers"]),
    (f"--init {'9' * 5000}", ["unknown initialisation"]),
    ("--recipe ../../x", ["recipe file ../../x: No such file or directory"]),
    ("--recipe ./kd", ["unknown recipe './kd': did you mean 'kd'"]),
    ("--report-to ../../x", ["--report-to ../../x: no such tracker"]),
    ("--precision fp8", ["'fp8' is not one of"]),
    ("--set stages.0.objectives.task=" + "[" * 20_000, ["--set stages.0.objectives.task: nested too deeply"]),
    ("--set 'stages.0.epochs=&a [*a]'", ["--set stages.0.epochs line 1: aliases"]),
    ("--set stages.0.epochs=!!python/name:os", ["--set stages.0.epochs line 1", "python/name:os"]),
    ("--set stages.٣.epochs=1", ["--set stages.٣.epochs: there is no stages.٣"]),
    ("--set __class__.x=1", ["unknown key '__class__'"]),
    ("--output data/train.csv", ["--output data/train.csv: a file, not a folder"]),
    ("--output data", ["--output data: not empty and not a run of layerstill; choose a new folder"]),
    ("--output /dev/null/x", ["--output /dev/null/x: cannot be written: Not a directory"]),
    ("--task mrpc --data teacher", ["split train is missing"]),
]


@pytest.mark.parametrize(("extra", "decisive"), OPTIONS, ids=[extra[:60] for extra, _ in OPTIONS])
def test_options(extra, decisive, refused):
    err = refused(f"{DISTILL} {extra}", *decisive)
    assert "\x1b" not in err


def test_what_a_name_holds_is_shown_and_not_obeyed(refused):
    refused([*shlex.split(DISTILL), "--data", "\x1b[31mred\x07"], r"--data \x1b[31mred\x07: no such file")


@pytest.mark.parametrize("victim", ["metrics.jsonl", "model.safetensors", ".run.json.part", "checkpoints"])
def test_links_in_the_output_folder_are_not_followed(victim, place, call, refused, monkeypatch):
    assert call(DISTILL)[0] == 0
    (place / "out" / "result.json").unlink()
    target = place / "precious"
    target.mkdir() if victim == "checkpoints" else target.write_text("precious", "utf-8")
    (place / "out" / victim).unlink(missing_ok=True)
    (place / "out" / victim).symlink_to(target)
    refused(DISTILL, f"--output out: {victim} in it is a symbolic link to {target}", "remove the link")


def test_a_loss_that_is_not_finite_names_the_objective_and_keeps_the_checkpoint(place, call):
    words = DISTILL.replace("--max-steps 1", "--epochs 3 --batch-size 12 --recipe kd")
    spoilt = "--set stages.0.learning_rate=1e38 --set stages.0.optimiser.clip=0 --set stages.0.optimiser.warmup=0.9"
    status, out, err = call(f"{words} {spoilt}")
    assert status == 2
    assert out == ""
    line = err.strip().split("\n")[-1]
    assert re.match(r"error: objective/(soft targets|task) became (nan|inf) at step \d+", line)
    assert "Lower the learning rate" in line
    kept = list((place / "out" / "checkpoints").rglob("model.safetensors"))
    assert kept
    assert all(torch.isfinite(t).all() for path in kept for t in load_file(path).values())
    assert not (place / "out" / "result.json").exists()
    assert not (place / "out" / "model.safetensors").exists()


def test_a_student_that_its_last_step_ruins_is_not_saved(place, call):
    words = DISTILL.replace("--max-steps 1", "--epochs 2 --batch-size 12 --recipe kd")
    status, out, err = call(f"{words} --set stages.0.learning_rate=1e38 --set stages.0.optimiser.clip=0")
    assert status == 2
    assert out == ""
    assert re.search(r"error: the student's \S+ is not finite at step 2; the last checkpoint is kept", err)
    assert not (place / "out" / "model.safetensors").exists()
    assert not (place / "out" / "result.json").exists()


@pytest.mark.parametrize(
    ("words", "decisive"),
    [
        ("recipes check bad.yaml", "bad.yaml line 1: could not determine a constructor"),
        (f"{DISTILL} --student-layers 9", "the teacher has 2 layers; choose 1 to 2"),
    ],
)
def test_in_a_process_of_its_own(words, decisive, place):
    (place / "bad.yaml").write_text("stages: !!python/name:os.system\n", "utf-8")
    before = contents(place)
    done = subprocess.run(
        [sys.executable, "-m", "layerstill", *shlex.split(words)], capture_output=True, text=True, cwd=place
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert decisive in done.stderr
    assert contents(place) == before


PLAN = "plan teacher --task classification --data data --recipe kd --student-layers 1 --max-length 32"
NOTES = [
    (
        "a quote that takes rows along",
        "train.csv",
        GOOD + "one,good\ntwo,bad\nthree,fine\n" + '"a,good\nb",good\n',
        ["train.csv line 8: the text in quotes that begins here takes up 2 lines that look like rows", "(1 of 7 rows)"],
    ),
    (
        "texts in train and dev",
        "dev.csv",
        "text,label\nGood  FILM,good\nbad,bad\n",
        ["1 of 2 dev texts are in train too"],
    ),
    (
        "contradicting labels",
        "train.csv",
        GOOD + "good film,bad\nfine film,fine\n",
        ["2 of 5 train texts appear with another label"],
    ),
    ("empty texts", "train.csv", GOOD + " ,good\n", ["1 of 4 train texts are empty"]),
    (
        "labels in two cases",
        "train.csv",
        GOOD + "so so,Fine\n",
        ["labels Fine, fine differ only in upper and lower case"],
    ),
]


@pytest.mark.parametrize(("name", "text", "notes"), [c[1:] for c in NOTES], ids=[c[0] for c in NOTES])
def test_what_is_odd_but_not_wrong_is_said(name, text, notes, place, call):
    (place / "data" / "train.csv").write_text(GOOD, "utf-8")
    (place / "data" / name).write_text(text, "utf-8")
    if "Fine" in text:
        config(id2label={0: "Fine", 1: "bad", 2: "fine", 3: "good"})(place / "teacher")
    status, _, err = call(PLAN)
    assert status == 0, err
    assert all(line.startswith("note: ") for line in err.strip().split("\n"))
    for note in notes:
        assert note in err
    assert call(f"{PLAN} --quiet")[2] == ""


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf" + GOOD.encode(), GOOD.replace("\n", "\r\n").encode(), GOOD.replace("\n", "\r").encode(),
     GOOD.encode() + b"\n\n\n", GOOD.replace("good film", "film " * 40_000).encode()],
    ids=["byte order mark", "CRLF", "CR", "blank lines", "a text of 200,000 characters"],
)  # fmt: skip
def test_harmless_oddities_are_read(content, place, call):
    (place / "data" / "train.csv").write_bytes(content)
    status, _, err = call(f"{PLAN} --learning-rate 0.01")
    assert (status, err) == (0, "")


def test_truncation_a_foreign_tensor_and_a_teacher_at_chance_are_reported_and_recorded(place, call):
    extra = {"text": "good " * 60, "label": "good"}
    (place / "data" / "train.csv").write_text(GOOD + f"{extra['text']},good\n", "utf-8")
    (place / "data" / "dev.csv").write_text("text,label\n" + f"{extra['text']},good\nbad,bad\n" * 3, "utf-8")
    tensors(lambda w: w | {"cls.old_head": torch.zeros(2)})(place / "teacher")
    (place / "teacher" / "pytorch_model.bin").write_bytes(b"never opened")
    status, _, err = call(DISTILL)
    assert status == 0, err
    for note in (
        "1 of 4 train texts had to be cut to 32 tokens",
        "3 of 6 dev texts had to be cut to 32 tokens",
        "3 of 6 dev texts are in train too",
        "1 tensors do not belong to it and are left out, for example cls.old_head",
        "the teacher is at chance: its accuracy on dev, 0.",
        "always saying 'bad', 0.5000",
    ):
        assert note in err
    assert json.loads((place / "out" / "run.json").read_text("utf-8"))["data_checks"] == {"dev in train": 3}
