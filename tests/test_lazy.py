"""What `import layerstill` loads: the names are there at once, what they need comes when one is asked for."""

import ast
import subprocess
import sys

from tests.training.forks import ROOT

HEAVY = """accelerate datasets jinja2 matplotlib numpy onnx onnxruntime pandas psutil pyarrow pydantic ray safetensors
scipy sklearn tokenizers torch tqdm transformers yaml""".split()


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_heavy():
    loaded = python("import sys, layerstill; layerstill.UserError; layerstill.__version__; print(*sys.modules)").split()
    assert set(loaded).isdisjoint(HEAVY)
    assert len(loaded) < 120


def test_every_public_name_is_there_and_comes_from_where_the_type_checker_reads_it():
    import layerstill

    tree = ast.parse((ROOT / "src/layerstill/__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    read = {alias.name: line.module for line in block.body if isinstance(line, ast.ImportFrom) for alias in line.names}
    assert read == {name: f"layerstill.{home}" for name, home in layerstill._HOME.items()}
    assert sorted(read) == sorted(layerstill.__all__)
    for name in layerstill.__all__:
        assert getattr(layerstill, name) is not None
        assert name in dir(layerstill)
    assert not hasattr(layerstill, "distil")


def test_the_function_export_is_not_hidden_by_the_folder_of_that_name():
    for first in (
        "import layerstill.export.package",
        "import layerstill.acts",
        "pass",
    ):
        out = python(
            f"{first}\nimport layerstill\nfrom layerstill import export\nprint(export is layerstill.export, type(export))"
        )
        assert out == "True <class 'function'>", first


def test_an_exported_file_is_run_without_torch():
    """So weighing one takes a third of a second and not six."""
    code = """
import sys
from importlib import import_module
for library in import_module("layerstill.export.runner").LIBRARIES:
    import_module(library)
print(*sys.modules)
"""
    assert set(python(code).split()).isdisjoint({"torch", "transformers", "datasets"})
