"""What goes to the hub: the model and its card whole, nothing of this machine, and nothing before it is finished."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from layerstill import Options, UserError, distill, export, finetune
from layerstill.acts.push import refuse_unready
from layerstill.acts.upload import gathered, without_places
from tests.tiny import save_tiny, write_csv
from tests.training.forks import ROOT


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload needs; keeps what it is sent."""

    @property
    def _home(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def do_GET(self):
        if self.path.startswith("/api/whoami"):
            return self._answer(
                {"name": "me", "type": "user"}, 200 if "right" in self.headers["authorization"] else 401
            )
        if self.server.private is None:
            self.send_response(404)
            self.send_header("x-error-code", "RepoNotFound")
            self.send_header("content-length", "0")
            return self.end_headers()
        if "/resolve/" in self.path:
            return self._content(True)
        siblings = [{"rfilename": name} for name in self.server.files]
        return self._answer({"id": "me/small", "private": self.server.private, "siblings": siblings, "sha": "0" * 40})

    def do_HEAD(self):
        self._content(False)

    def _content(self, body: bool):
        content = self.server.files.get(self.path.partition("/resolve/main/")[2])
        if content is None:
            self.send_response(404)
            self.send_header("x-error-code", "EntryNotFound")
            self.send_header("content-length", "0")
            return self.end_headers()
        self.send_response(200)
        self.send_header("x-repo-commit", "0" * 40)
        self.send_header("etag", hashlib.sha256(content).hexdigest())
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        return self.wfile.write(content) if body else None

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.startswith("/api/repos/create"):
            if self.server.private is not None:
                return self._answer({"error": "exists", "url": f"{self._home}/me/small"}, 409)
            asked = json.loads(body)
            self.server.private = asked.get("private", asked.get("visibility") == "private")
            return self._answer({"url": f"{self._home}/me/small"})
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            return self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]}
            )
        assert "/commit/" in self.path, self.path
        self.server.commits += 1
        for line in body.splitlines():
            one = json.loads(line)
            if one["key"] == "file":
                self.server.files[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
            if one["key"] == "deletedFile":
                del self.server.files[one["value"]["path"]]
        return self._answer({"commitUrl": f"{self._home}/me/small/commit/{'0' * 40}", "commitOid": "0" * 40})

    def _answer(self, data, status=200):
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.private, server.commits = {}, None, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("push")
    save_tiny(folder / "m", layers=2)
    (folder / "d").mkdir()
    for split, seed in (("train", 0), ("dev", 1)):
        write_csv(folder / "d" / f"{split}.csv", rows=30, seed=seed)
    options = Options(max_steps=1, max_length=8, progress=False)
    teacher = finetune(folder / "m", folder / "d", folder / "teacher", options=options)
    made = distill(teacher.folder, folder / "d", "kd", 1, folder / "student", options)
    export(made.folder, max_drop=100)
    return folder


def command(words: str, hub, token="right") -> subprocess.CompletedProcess:
    address = f"http://127.0.0.1:{hub.server_address[1]}"
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "PYTHONPATH": str(ROOT / "src")}
    environment |= {"HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "HF_HOME": "/nonexistent"}
    return subprocess.run(
        [sys.executable, "-m", "layerstill", *words.split()], capture_output=True, text=True, env=environment
    )


def test_an_export_goes_up_with_its_run_in_one_commit_and_privately(place, hub):
    words = f"export {place}/student --max-drop 100 --push-to-hub me/small"
    done = command(words, hub)
    assert done.returncode == 0, done.stderr
    assert re.search(r"/me/small: \d+ files, [\d.]+ MB, private$", done.stderr.strip())
    assert hub.private is True
    assert hub.commits == 1
    assert set(hub.files) == {
        "README.md", "config.json", "model.safetensors", "recipe.yaml", "result.json", "tokenizer.json",
        "tokenizer_config.json", "onnx/config.json", "onnx/export.json", "onnx/model.onnx", "onnx/run.py",
        "onnx/tokenizer.json",
    }  # fmt: skip
    assert hub.files["model.safetensors"] == (place / "student" / "model.safetensors").read_bytes()
    assert b"written by layerstill" in hub.files["README.md"]
    for name, content in hub.files.items():
        assert str(place).encode() not in content, name
        assert str(ROOT).encode() not in content, name
    assert json.loads(hub.files["result.json"])["teacher"] == "teacher"
    assert command(words, hub).returncode == 0  # our own repository is brought up to date
    hub.files |= {"model-00001-of-00002.safetensors": b"old", "vocab.txt": b"old", "notes.txt": b"mine"}
    done = command(words, hub)
    assert done.returncode == 0
    assert "removed of the earlier upload: model-00001-of-00002.safetensors, vocab.txt" in done.stderr
    assert "notes.txt" in hub.files
    assert not {"vocab.txt", "model-00001-of-00002.safetensors"} & set(hub.files), "an earlier model's"
    hub.private = False
    done = command(words, hub)
    assert done.returncode == 2
    assert "this repository is public; add --public" in done.stderr
    assert command(f"{words} --public", hub).returncode == 0
    hub.private, hub.files = True, {"app.py": b"mine"}
    done = command(words, hub)
    assert done.returncode == 2
    assert "--push-to-hub me/small: the repository holds something else (app.py) and no earlier upload" in done.stderr
    assert hub.files == {"app.py": b"mine"}


NAMES_ONLY = {
    "a model of some other tool": {"result.json": b'{"accuracy": 0.9}', "recipe.yaml": b"eggs", "vocab.txt": b"mine"},
    "a broken record": {"result.json": b"{", "recipe.yaml": b"", "model.safetensors": b"mine"},
    "another export": {"export.json": b'{"environment": {"torch": "2.9"}}', "model.onnx": b"mine"},
    "a card alone": {"README.md": b"<!-- written by layerstill -->"},
}


ALIKE = ("a broken record", "another export")


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] * (k in ALIKE)) for k in NAMES_ONLY])
def test_a_repository_is_ours_by_what_its_files_say_and_not_by_their_names(kind, place, hub):
    hub.private, hub.files = True, dict(NAMES_ONLY[kind])
    done = command(f"export {place}/student --max-drop 100 --push-to-hub me/small", hub)
    assert (done.returncode, hub.commits) == (2, 0)
    assert "holds something else" in done.stderr
    assert "no earlier upload of layerstill" in done.stderr
    assert hub.files == NAMES_ONLY[kind]


@pytest.mark.slow
def test_a_card_that_a_person_wrote_stays(place, hub):
    words = f"export {place}/student --max-drop 100 --push-to-hub me/small"
    assert command(words, hub).returncode == 0
    hub.files["README.md"] = b"# My own words"
    for line in (words, f"export {place}/student --max-drop 100 --output {place}/alone --push-to-hub me/small"):
        done = command(line, hub)
        assert done.returncode == 0, done.stderr
        assert "private, README.md there was edited and stays as it is" in done.stderr
        assert hub.files["README.md"] == b"# My own words"


def test_a_run_is_uploaded_when_it_is_finished_and_can_be_public(place, hub):
    words = f"finetune {place}/m --task classification --data {place}/d --max-steps 1 --max-length 8 --quiet"
    done = command(f"{words} --output {place}/again --push-to-hub me/small --public", hub)
    assert done.returncode == 0, done.stderr
    assert "public" in done.stderr
    assert hub.private is False
    assert {"model.safetensors", "README.md", "result.json"} <= set(hub.files)
    assert "run.json" not in hub.files


def test_what_would_fail_is_said_before_anything_is_done(place, hub):
    words = f"finetune {place}/m --task classification --data {place}/d --output {place}/none --push-to-hub"
    done = command(f"{words} me/small", hub, token="wrong")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert (
        "--push-to-hub me/small: the hub does not know the token; run `hf auth login`; nothing was uploaded"
        in done.stderr
    )
    done = command(f"{words} small", hub)
    assert "--push-to-hub small: say whose it is, USER/NAME" in done.stderr
    hub.shutdown()
    hub.server_close()
    done = command(f"{words} me/small", hub)
    assert done.returncode == 2
    assert "the hub cannot be reached" in done.stderr
    assert not (place / "none").exists()


def test_offline_and_without_a_token(monkeypatch):
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        refuse_unready("me/small")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("layerstill.acts.push.get_token", lambda: None)
    with pytest.raises(UserError, match="no token of the hub is known here; run `hf auth login`"):
        refuse_unready("me/small")
    with pytest.raises(UserError, match="not the name of a repository"):
        refuse_unready("me/sm all")


def test_nothing_of_an_unfinished_run_is_gathered(place, tmp_path):
    import shutil

    shutil.copytree(place / "student", tmp_path / "s")
    (tmp_path / "s" / "secret.txt").write_text("mine", "utf-8")
    assert "secret.txt" not in gathered(tmp_path / "s")
    (tmp_path / "s" / "tokenizer_notes.json").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="symbolic link"):
        gathered(tmp_path / "s")
    (tmp_path / "s" / "tokenizer_notes.json").unlink()
    (tmp_path / "s" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="its weights are gone"):
        gathered(tmp_path / "s")
    (tmp_path / "s" / "result.json").unlink()
    with pytest.raises(UserError, match="no finished run"):
        gathered(tmp_path / "s")
    assert set(gathered(tmp_path / "s" / "onnx")) >= {"model.onnx", "export.json"}


def test_paths_become_names():
    said = {"a": "/usr/me/data/x.csv", "b": ["C:\\Users\\me\\m", "~/m"], "c": "org/model", "d": "1/2 / 3"}
    said |= {"e": "mnli=/usr/glue", "f": "file:///usr/me/x", "g": "/r/politics"}
    found = json.loads(without_places(json.dumps(said), {}, True))
    expected = {"a": "x.csv", "b": ["m", "m"], "c": "org/model", "d": "1/2 / 3"}
    assert found == expected | {"e": "mnli=glue", "f": "x", "g": "/r/politics"}
    card = without_places("made from /usr/me/teacher, see /usr/me/teacher-2", {"/usr/me/teacher": "teacher"}, False)
    assert card == "made from teacher, see /usr/me/teacher-2"


def test_labels_and_tokens_that_look_like_paths_stay_what_they_are(place, tmp_path):
    import shutil

    folder = tmp_path / "s"
    shutil.copytree(place / "student", folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"id2label": {"0": "/usr/share", "1": "/etc/hosts", "2": "x"}, "_name_or_path": "/usr/me/teacher"}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    tokenizer = (folder / "tokenizer.json").read_text("utf-8").replace('"film"', '"/usr/film"')
    (folder / "tokenizer.json").write_text(tokenizer, "utf-8")
    files = gathered(folder)
    assert json.loads(files["config.json"]) == config | {"_name_or_path": "teacher"}
    assert files["tokenizer.json"] == folder / "tokenizer.json"
