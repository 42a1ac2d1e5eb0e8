"""What layerstill's modules import: nothing that Windows lacks, and each room only those below it."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from tests.training.forks import ROOT

EVERY_MODULE = """
import importlib, pkgutil, sys
import datasets, filelock, psutil, torch, transformers  # what these need is their own affair
{block}
import layerstill
for module in pkgutil.walk_packages(layerstill.__path__, "layerstill."):
    if module.name.rpartition(".")[2] not in ("__main__", "ray"):
        importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("layerstill.")]))
"""


ROOMS = """
__main__ | cli | commands | demo | __init__ | acts | studies | reporting | export | training programs compression |
evaluation | recipe | students data | heads | metrics families | knowledge | result demo_model recipe_files | schema yaml_files | atomic progress |
names | randomness errors sizes
"""
"""From the top of the house to its ground; a room imports those to its right, and none of its own rank."""
RANK = {room: rank for rank, rooms in enumerate(ROOMS.split("|")) for room in rooms.split()}


FILES = sorted((ROOT / "src" / "layerstill").rglob("*.py"))
MODULES = {
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__"): path for path in FILES
}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "src" / "layerstill").parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[str]:
    """Modules of layerstill that a file imports, inside of functions too; a relative import begins with a dot."""
    found = []
    tree = ast.parse(path.read_text("utf-8"))
    for block in [b for b in tree.body if isinstance(b, ast.If) and ast.unparse(b.test) == "TYPE_CHECKING"]:
        tree.body.remove(block)  # names for annotations, which no running program imports
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = f"{'.' * node.level}{node.module or ''}"
            parts = [f"{module}.{alias.name}" for alias in node.names if alias.name != "__version__"]
            found += [part if part in MODULES else module for part in parts]
    return [name for name in found if name.split(".")[0] in ("", "layerstill")]


def upward(path: Path) -> list[str]:
    """The imports of a file that do not point down."""
    here, found = room_of(path), []
    for name in imports_of(path):
        there = [*name.split("."), "__init__"][1]
        own = there == here and here != "__init__"
        if name.startswith(".") or (not own and RANK[there] <= RANK[here]):
            found.append(f"{here} imports {name}")
    return found


def imported(block: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", EVERY_MODULE.format(block=block)], capture_output=True, text=True)


def test_every_module_can_be_imported_without_what_only_unix_has():
    done = imported('for name in ("fcntl", "resource", "pwd", "grp", "termios"): sys.modules[name] = None')
    assert done.returncode == 0, done.stderr
    files = [path for path in (ROOT / "src" / "layerstill").rglob("*.py") if path.stem not in ("__main__", "ray")]
    assert int(done.stdout) >= len(files) - 1


def test_imports_point_one_way():
    assert {room_of(path) for path in FILES} <= set(RANK), "a new room needs its place in ROOMS"
    assert [line for path in FILES for line in upward(path)] == []


def test_no_two_modules_import_each_other():
    TopologicalSorter({name: set(imports_of(path)) - {name} for name, path in MODULES.items()}).prepare()
