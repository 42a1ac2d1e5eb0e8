"""YAML files and `dotted.path=value` settings, read strictly: what recipes, studies and regimes are written in."""

import re
from pathlib import Path
from typing import Any

import yaml

from layerstill.errors import UserError, nearest

MOST_BYTES = 100_000


def read_yaml_file(path: Path, noun: str) -> Any:
    """Plain data from a YAML file, read as strictly as recipes are; `noun` says in errors what the file is."""
    return parse_yaml(read_text_file(path, noun), f"{noun} file {path}")


def read_settings(words: list[str], option: str, noun: str) -> dict[str, Any]:
    """Plain data from YAML files and `dotted.path=value` strings in their order, for an option that takes both."""
    data: dict[str, Any] = {}
    for word in words:
        if "=" in word:
            override(data, word, option)
            continue
        if Path(word).suffix not in {".yaml", ".yml"}:
            raise UserError(f"{option} {word}: write setting=value, or give a file that ends in .yaml")
        loaded = parse_yaml(read_text_file(Path(word), noun), f"{noun} file {word}")
        if not isinstance(loaded, dict):
            raise UserError(f"{noun} file {word}: a {noun} is a mapping, got {type(loaded).__name__}")
        data |= loaded
    return data


def read_text_file(path: Path, noun: str = "recipe") -> str:
    """The text of a small file in UTF-8; UserError if it is missing, large or in another encoding."""
    if path.exists() and not path.is_file():
        raise UserError(f"{noun} file {path}: not an ordinary file")
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{noun} file {path}: {error.strerror}") from None
    if len(raw) > MOST_BYTES:
        raise UserError(f"{noun} file {path}: larger than {MOST_BYTES:,} bytes; a {noun} fits on a screen")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{noun} file {path} line {line}: not UTF-8 at byte {error.start}; convert the file to UTF-8"
        ) from None


class _Loader(yaml.SafeLoader):
    """Plain YAML: `2e-5` is a number, keys are text and there once, and nothing refers to anything else."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        # An alias makes one thing of two places, so that --set would change both, and a few can stand for billions.
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not allowed in recipes; write the value out", mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"key {key!r} is not text; put it in quotes"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_WORDS = ("null", "bool", "int", "float", "str", "seq", "map")
_Loader.yaml_constructors = {
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix("tag:yaml.org,2002:") in _WORDS
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag in _Loader.yaml_constructors]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_FLOAT = re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
for _first in "-+0123456789.":
    _Loader.yaml_implicit_resolvers.setdefault(_first, []).append(("tag:yaml.org,2002:float", _FLOAT))


def parse_yaml(text: str, where: str) -> Any:
    """Plain data from YAML text; UserError with the line, after `where`, for anything that is not plain."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{where}{line}: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply; a recipe has fewer than ten levels") from None
    except (ValueError, KeyError) as error:  # `!!int x`, or a number of thousands of digits
        raise UserError(f"{where}: a value is not what its tag says or a number too long: {error}") from None


def override(data: Any, setting: str, option: str = "--set", removes: str | None = None) -> None:
    """Apply `dotted.path=value` to plain data; a `name` on the way is opened to `{name: {}}`.

    `null` takes an entry out of a mapping that is called `removes`.
    """
    path, equals, text = setting.partition("=")
    if not equals or not path:
        raise UserError(f"{option} {setting}: write dotted.path=value, for example stages.0.epochs=3")
    *way, last = path.split(".")
    here = data
    for i, key in enumerate(way):
        step = _step(here, key, f"{option} {path}")
        if isinstance(here, list):
            if not 0 <= (step if isinstance(step, int) else -1) < len(here):
                raise UserError(
                    f"{option} {path}: there is no {'.'.join(way[: i + 1])}; {len(here)} entries, counted from 0"
                )
        elif step not in here:
            here[step] = {}
        following = [*way[i + 1 :], last][0]
        if isinstance(here[step], str) and here[step] == following:
            here[step] = {following: {}}
        elif here[step] is None:
            here[step] = {}
        here = here[step]
    step = _step(here, last, f"{option} {path}")
    if isinstance(here, list) and not 0 <= (step if isinstance(step, int) else -1) < len(here):
        raise UserError(f"{option} {path}: there is no entry {last}; {len(here)} entries, counted from 0")
    value = parse_yaml(text, f"{option} {path}")
    if value is None and removes is not None and way[-1:] == [removes] and isinstance(here, dict):
        if step not in here:
            raise UserError(f"{option} {path}: there is no {last!r} to leave out: {nearest(last, here)}")
        del here[step]
    else:
        here[step] = value


def _step(here: Any, key: str, where: str) -> Any:
    if isinstance(here, list):
        return int(key) if key.isdecimal() else key
    if not isinstance(here, dict):
        raise UserError(f"{where}: {key!r} cannot be set inside {here!r}")
    return key
