"""What layerstill's modules import: nothing that Windows lacks, and each room only those below it."""

import subprocess
import sys

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


def imported(block: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", EVERY_MODULE.format(block=block)], capture_output=True, text=True)


def test_every_module_can_be_imported_without_what_only_unix_has():
    done = imported('for name in ("fcntl", "resource", "pwd", "grp", "termios"): sys.modules[name] = None')
    assert done.returncode == 0, done.stderr
    files = [path for path in (ROOT / "src" / "layerstill").rglob("*.py") if path.stem not in ("__main__", "ray")]
    assert int(done.stdout) >= len(files) - 1
