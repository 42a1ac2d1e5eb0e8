"""What SECURITY.md promises: no pickle, no foreign code, no network in tests, writes below the output folder only."""

import ast
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from layerstill.acts import distill
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.heads import Classes
from layerstill.recipe import Recipe
from layerstill.training.arguments import Options
from layerstill.training.models import load_config, load_fine_tuned
from tests.tiny import save_tiny, write_csv

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {
    "torch.load", "torch.save", "torch.hub.load", "np.load", "numpy.load", "pandas.read_pickle",
    "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "os.system", "os.popen",
}  # fmt: skip
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(tree: ast.AST) -> list[str]:
    """What a source file does that it must not do."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in FORBIDDEN_MODULES]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
            found.append(str(node.module))
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in FORBIDDEN_CALLS or name in FORBIDDEN_NAMES:
            found.append(name)
        for keyword in node.keywords:
            off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if keyword.arg in {"trust_remote_code", "allow_pickle", "shell"} and not off:
                found.append(f"{name}({keyword.arg}=...)")
        if name == "yaml.load" and not any(k.arg == "Loader" and dotted(k.value) == "_Loader" for k in node.keywords):
            found.append("yaml.load with another loader")
        if name.endswith(".from_pretrained"):
            given = {k.arg for k in node.keywords}
            if "trust_remote_code" not in given or ("Model" in name and "use_safetensors" not in given):
                found.append(f"{name} without trust_remote_code=False and use_safetensors=True")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_no_source_loads_pickles_or_runs_what_it_reads(path):
    assert offences(ast.parse(path.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from joblib import load", "torch.load(p)", "eval(x)", "yaml.load(t, Loader=yaml.Loader)",
     "AutoConfig.from_pretrained(n)", "AutoConfig.from_pretrained(n, trust_remote_code=x)",
     "AutoModel.from_pretrained(n, trust_remote_code=False)", "np.load(p, allow_pickle=True)", "run(c, shell=True)"],
)  # fmt: skip
def test_the_scan_sees_what_it_should(code):
    assert offences(ast.parse(code))


def test_the_yaml_loader_makes_plain_data_only():
    from layerstill.yaml_files import _Loader

    made = {tag for tag in _Loader.yaml_constructors if tag is not None}
    assert made == {f"tag:yaml.org,2002:{w}" for w in "null bool int float str seq map".split()}
    assert not _Loader.yaml_multi_constructors


class Bomb:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


def test_a_pickle_is_never_opened_and_code_beside_a_model_never_run(tmp_path):
    teacher = save_tiny(tmp_path / "teacher", width=32, layers=2)
    witness = tmp_path / "witness"
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin"):
        torch.save({"x": Bomb(witness)}, teacher / name)
    evil = f"import os\nos.mkdir({str(witness)!r})\nclass C: pass\n"
    for name in ("evil.py", "modeling_bert.py", "__init__.py", "conftest.py"):
        (teacher / name).write_text(evil, "utf-8")
    config = json.loads((teacher / "config.json").read_text("utf-8"))
    foreign = {"AutoConfig": "evil.C", "AutoModelForSequenceClassification": "evil.C", "AutoTokenizer": "evil.C"}
    (teacher / "config.json").write_text(json.dumps(config | {"auto_map": foreign}), "utf-8")
    opened: list[str] = []
    armed = True
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if armed and event == "open" else None)
    assert load_fine_tuned(str(teacher), Classes()).config.model_type == "bert"
    armed = False
    assert str(teacher / "config.json") in opened
    assert not [name for name in opened if name.startswith(str(teacher)) and name.endswith((".bin", ".pt", ".py"))]
    assert not witness.exists()
    (teacher / "config.json").write_text(json.dumps(config | {"auto_map": foreign, "model_type": "evil"}), "utf-8")
    with pytest.raises(UserError, match="code of its own, which is never run"):
        load_config(str(teacher))
    (teacher / "config.json").write_text(json.dumps(config), "utf-8")
    (teacher / "model.safetensors").unlink()
    with pytest.raises(UserError, match="is a pickle, which is never loaded"):
        load_fine_tuned(str(teacher), Classes())
    assert not witness.exists()
    torch.load(teacher / "optimizer.pt", weights_only=False)
    assert witness.exists(), "the pickle was harmless, so this test showed nothing"


def test_tests_have_no_network():
    with pytest.raises(OSError, match="tests do not use the network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()[:2]):
        pass
    assert os.environ["HF_HUB_OFFLINE"] == "1"


WATCH = """
import os, sys
written = []
def look(event, args):
    if event == "open":
        path, mode, flags = args
        if isinstance(path, int):
            return
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND) if flags else "r" not in (mode or "r")
        if writes:
            written.append(path)
    elif event in ("os.mkdir", "os.remove", "os.rmdir"):
        folder = os.readlink(f"/proc/self/fd/{args[-1]}") if args[-1] >= 0 else ""  # shutil.rmtree names open folders
        written.append(os.path.join(folder, os.fsdecode(args[0])))
    elif event in ("os.truncate", "os.symlink", "os.link"):
        path = args[0] if event == "os.truncate" else args[1]
        written.append(os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else path)
    elif event == "os.rename":
        written.extend(args[:2])
    elif event in ("shutil.rmtree", "socket.connect", "subprocess.Popen", "os.system"):
        written.append(args[0] if event == "shutil.rmtree" else f"{event} {args}")
sys.addaudithook(look)
sys.argv = ["layerstill", *sys.argv[1:]]
from layerstill.cli import main
try:
    main()
finally:
    import json
    found = [os.path.abspath(os.fsdecode(p)) if not str(p).startswith(("socket", "subprocess", "os.system")) else p for p in written]
    print(json.dumps(found))
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open folders are named by /proc")
def test_a_run_writes_below_its_output_folder_only(tmp_path):
    save_tiny(tmp_path / "teacher", width=32, layers=4)
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "train.csv", rows=12)
    write_csv(tmp_path / "data" / "dev.csv", rows=6, seed=1)
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    words = (
        "distill teacher --task classification --data data --recipe tinybert --student-layers 2 --max-length 32 "
        "--epochs 2 --batch-size 8 --output out --quiet"
    )
    before = set(tmp_path.rglob("*"))
    environment = os.environ | {"HOME": str(home), "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(scratch / "inductor")  # torch makes it whenever it is imported
    environment.pop("HF_HOME", None)
    done = subprocess.run(
        [sys.executable, "-c", WATCH, *shlex.split(words)],
        capture_output=True, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout.strip().split("\n")[-1])
    assert str(tmp_path / "out" / "run.json") in written or any(p.startswith(str(tmp_path / "out")) for p in written)
    allowed = (f"{tmp_path / 'out'}/", f"{scratch}/", "/dev/null")
    strangers = sorted({p for p in written if not p.startswith(allowed) and p != str(tmp_path / "out")})
    assert [p for p in strangers if not p.startswith(f"{home}/.cache/")] == []
    left = set(tmp_path.rglob("*")) - before
    kept = (tmp_path / "out", home / ".cache", scratch / "inductor")
    assert not [p for p in left if not any(p.is_relative_to(folder) for folder in kept)]
    kinds = {p.suffix for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert kinds <= {".json", ".jsonl", ".md", ".safetensors", ".yaml"}


def test_a_checkpoint_is_resumed_without_pickle(tmp_path):
    teacher = save_tiny(tmp_path / "teacher", width=32, layers=2)
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "train.csv", rows=12)
    write_csv(tmp_path / "data" / "dev.csv", rows=6, seed=1)
    task = Task.from_files("classification", tmp_path / "data")
    recipe = Recipe.load("kd", ("stages.0.epochs=3", "stages.0.learning_rate=1e38", "stages.0.optimiser.clip=0"))
    with pytest.raises(UserError, match="is not finite at step"):
        distill(str(teacher), task, recipe, 1, tmp_path / "out", Options(max_length=32, progress=False))
    kept = [p for p in (tmp_path / "out" / "checkpoints").rglob("*") if p.is_file()]
    assert {p.suffix for p in kept} <= {".json", ".safetensors", ".jinja", ".txt"}, kept
    for folder in {p.parent for p in kept}:
        torch.save({"x": Bomb(tmp_path / "witness")}, folder / "optimizer.pt")
        torch.save({"x": Bomb(tmp_path / "witness")}, folder / "rng_state.pth")
    with pytest.raises(UserError, match="optimizer.pt in it is a pickle, which is never loaded"):
        distill(str(teacher), task, recipe, 1, tmp_path / "out", Options(max_length=32, progress=False))
    assert not (tmp_path / "witness").exists()


def test_security_md_names_what_is_tested():
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    for words in ("pickle", "trust_remote_code", "symbolic link", "YAML", "Report", "make audit"):
        assert words in text, words
    assert shutil.which("make") is None or "audit:" in (ROOT / "Makefile").read_text("utf-8")
