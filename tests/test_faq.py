"""docs/faq.md quotes messages: each is what the command line says in that situation, and the way out works."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.documents import ROOT, blocks
from tests.tiny import save_tiny

FAQ = (ROOT / "docs" / "faq.md").read_text("utf-8")
RUN = "--student-layers 1 --max-steps 1 --max-length 16 --output out"


def rows(labels: str, count: int = 12) -> str:
    words = labels.split()
    return "".join(f"good film {i},{words[i % len(words)]}\n" for i in range(count))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A teacher, the same with names for its labels and as a pickle, and files that lack something."""
    folder = tmp_path_factory.mktemp("faq")
    save_tiny(folder / "teacher", layers=2, names=["bad", "good"])
    shutil.copytree(folder / "teacher", folder / "sentiment")
    config = json.loads((folder / "sentiment" / "config.json").read_text("utf-8"))
    config |= {"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
    (folder / "sentiment" / "config.json").write_text(json.dumps(config), "utf-8")
    shutil.copytree(folder / "teacher", folder / "pickled")
    torch.save(load_file(folder / "pickled" / "model.safetensors"), folder / "pickled" / "pytorch_model.bin")
    (folder / "pickled" / "model.safetensors").unlink()
    (folder / "texts.csv").write_text("text,label\n" + rows("good bad"), "utf-8")
    (folder / "numbers.csv").write_text("text,label\n" + rows("0 1"), "utf-8")
    (folder / "missing.csv").write_text("text,label\n" + rows("good bad") + "great plot,\n", "utf-8")
    (folder / "latin.csv").write_bytes("text,label\ncafé,good\nthé,bad\n".encode("latin-1"))
    (folder / "team.csv").write_text("body,team\n" + rows("good bad"), "utf-8")
    return folder


MESSAGES = [
    ("finetune teacher --task classification --data latin.csv --output out", "not UTF-8 at byte"),
    ("finetune teacher --task classification --data team.csv --output out", "which columns are text?"),
    ("finetune teacher --task classification --data missing.csv --max-length 16 --output out", "label '' names no class; it is missing"),
    ("finetune teacher --task classification --data team.csv --text-columns body --output out", "no column 'label' (from --label-column)"),
    (f"distill sentiment --task classification --data numbers.csv {RUN}",
     "knows the labels NEGATIVE, POSITIVE, and the data have 0, 1"),
    (f"distill pickled --task classification --data texts.csv {RUN}",
     "no model.safetensors; pytorch_model.bin is a pickle, which is never loaded"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "message"), MESSAGES, ids=[message[:40] for _, message in MESSAGES])
def test_a_quoted_message_is_said_and_nothing_is_written(home, call, monkeypatch, command, message):
    monkeypatch.chdir(home)
    assert re.search(f"^### .*`{re.escape(message)}( \\.\\.\\.)?`", FAQ, re.MULTILINE)
    status, _, err = call(command)
    assert (status, message in err) == (2, True), err
    assert not (home / "out").exists()


def test_a_teacher_at_chance_and_a_rate_too_low_are_noted(home, call, tmp_path, monkeypatch):
    monkeypatch.chdir(home)
    status, _, err = call(
        f"distill teacher --task classification --data texts.csv {RUN}".replace(
            "--output out", f"--output {tmp_path}/s"
        )
    )
    assert status == 0, err
    assert "the teacher is at chance" in err
    assert "### `the teacher is at chance`" in FAQ
    quoted = re.search(r"### `(a learning rate of .*)`", FAQ).group(1)
    assert re.search(re.escape(quoted).replace(r"\.\.\.", ".*"), err)


def test_the_ways_out_work(home, call, tmp_path, monkeypatch):
    monkeypatch.chdir(home)
    into = RUN.replace("--output out", "--output " + str(tmp_path / "mapped"))
    named = f"distill sentiment --task classification --data numbers.csv --label-map 0=NEGATIVE,1=POSITIVE {into}"
    status, _, err = call(named)
    assert status == 0, err
    ((_, code),) = [block for block in blocks(FAQ) if block[0] == "python"]
    given: dict = {}
    exec(code, given)
    given["convert"](str(home / "pickled"), str(tmp_path / "converted"))
    into = RUN.replace("--output out", "--output " + str(tmp_path / "student"))
    status, _, err = call(f"distill {tmp_path}/converted --task classification --data texts.csv {into}")
    assert status == 0, err
    columns = "--text-columns body --label-column team"
    status, _, err = call(
        f"finetune teacher --task classification --data team.csv {columns} --max-steps 1 --max-length 16 --output {tmp_path}/own"
    )
    assert status == 0, err


def test_another_name_of_a_task_is_answered_with_ours(call):
    status, _, err = call("finetune model --task ner --data x.conll --output out")
    assert status == 2
    assert "'tokens'" in err
