"""The versions that are stated: `make test-versions` really runs on the lowest that pyproject.toml allows."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS_OF_USERS = ("report", "ray", "export", "excel")


def lower_bounds() -> dict[str, str]:
    """What users install, by name: `"rich>=13.7"` gives rich: 13.7."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    needed = re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    lists = [needed[1], *(re.search(rf"^{extra} = \[(.*?)\]", text, re.MULTILINE)[1] for extra in EXTRAS_OF_USERS)]
    return dict(re.findall(r'"([\w-]+)>=([\w.]+)', " ".join(lists)))


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)==([\w.]+)$", (ROOT / name).read_text("utf-8"), re.MULTILINE))


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def test_the_lowest_versions_that_are_tested_are_the_lowest_that_are_allowed():
    lowest, tested = lower_bounds(), pins("constraints-lowest.txt")
    assert len(lowest) >= 15
    assert lowest.items() <= tested.items()


def test_the_versions_known_to_work_are_allowed():
    known, text = pins("constraints.txt"), (ROOT / "pyproject.toml").read_text("utf-8")
    for name, lowest in lower_bounds().items():
        if name in known:
            assert numbers(known[name]) >= numbers(lowest), name
    lowest, end = re.search(r'"transformers>=([\d.]+),<([\d.]+)"', text).groups()
    assert numbers(lowest) <= numbers(known["transformers"]) < numbers(end)


def test_make_test_versions_uses_both_ends():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "-c constraints-lowest.txt" in makefile
    recipe = re.search(r"^test-versions:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
    assert recipe.count("-m pytest") == 2
    assert ".venv-newest" in recipe
