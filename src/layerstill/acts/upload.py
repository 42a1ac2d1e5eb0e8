"""What of a finished run's folder is for others to see: the model and its card, without this machine's paths."""

import json
import os
import re
from fnmatch import fnmatch
from pathlib import Path, PureWindowsPath
from typing import Any

from layerstill.acts.export_folder import OWN, RECORD
from layerstill.atomic import read_json
from layerstill.errors import UserError
from layerstill.result import RESULT_FILE
from layerstill.training.model_files import INDEX, WEIGHTS, weight_files
from layerstill.training.records import RunFolder

CARD = "README.md"
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    INDEX,
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
)
"""What a model folder has besides its weights, as patterns of names."""
RECORDS = (CARD, RESULT_FILE, "recipe.yaml")
ONNX = "onnx"
TOLD = {CARD, RESULT_FILE, RECORD, "recipe.yaml", "run.py"}
"""What layerstill has written and may name any place; of a model's own files only some settings are places."""
SETTINGS = ("*_path", "*_file", "*_dir")
"""Keys of a model's own JSON files whose values may be places of this machine."""


def gathered(folder: Path) -> dict[str, Path | bytes]:
    """The files of a finished run for others, by their path in a repository; texts that named places here as bytes.

    An export in `onnx` goes with its model. A folder that only an export fills is one by itself. UserError for a folder
    that is neither, and for a run that is not complete.
    """
    if (folder / RECORD).is_file() and not (folder / RESULT_FILE).is_file():
        return _cleaned(folder, _export_in(folder, ""))
    run = RunFolder(folder, {}).finished if folder.is_dir() else None
    if run is None:
        raise UserError(f"{folder}: no finished run of layerstill in it, so nothing is uploaded")
    if not any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        raise UserError(f"{folder}: its run is finished, and its weights are gone; nothing is uploaded")
    files = {path.name: path for path in weight_files(folder)}
    for path in sorted(folder.iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in (*MODEL_FILES, *RECORDS)):
            files[path.name] = path
    if (folder / ONNX / RECORD).is_file():
        files |= _export_in(folder / ONNX, f"{ONNX}/")
    return _cleaned(folder, files)


def is_run(folder: Path) -> bool:
    """Whether a folder is one of a finished run."""
    return (folder / RESULT_FILE).is_file()


def _export_in(folder: Path, prefix: str) -> dict[str, Path]:
    return {f"{prefix}{name}": folder / name for name in sorted(OWN) if (folder / name).is_file()}


def written_here(name: str) -> bool:
    """Whether a file of a repository is one that an upload may have written there."""
    if name.startswith(f"{ONNX}/"):
        return name.removeprefix(f"{ONNX}/") in OWN
    patterns = (*MODEL_FILES, *RECORDS, *OWN, "model*.safetensors")
    return any(fnmatch(name, pattern) for pattern in patterns)


def _cleaned(folder: Path, files: dict[str, Path]) -> dict[str, Path | bytes]:
    if link := next((path for path in files.values() if path.is_symlink()), None):
        raise UserError(f"{link}: a symbolic link, which could lead to anything on this machine; nothing is uploaded")
    places = _places(folder)
    found: dict[str, Path | bytes] = {}
    for name, path in files.items():
        clean = None
        if path.name in TOLD:
            clean = without_places(path.read_text("utf-8"), places, path.suffix == ".json")
        elif path.name.endswith("config.json"):
            clean = without_own_places(path.read_text("utf-8"))
        found[name] = path if clean is None or clean == path.read_text("utf-8") else clean.encode()
    return found


def without_places(text: str, places: dict[str, str], is_json: bool) -> str:
    """A text of ours with every path that it names cut down to its last part.

    `places` are paths that are known and what stands for them; of JSON, every string that is a path here is one.
    """
    if is_json:
        data = json.loads(text)
        short = _shortened(data)
        text = text if short == data else json.dumps(short, indent=2, ensure_ascii=False) + "\n"
    for place, name in sorted(places.items(), key=lambda pair: -len(pair[0])):
        literal = name.replace("\\", r"\\")  # a backslash means something in a replacement
        text = re.sub(rf"{re.escape(place)}(?![\w.-])", literal, text)
    return text


def without_own_places(text: str) -> str:
    """A model's own settings without the places that some of them name; labels and tokens stay as they are."""
    data = json.loads(text)
    if not isinstance(data, dict):
        return text
    named = {key for key in data if any(fnmatch(key, pattern) for pattern in SETTINGS)}
    short = {key: _shortened(value) if key in named else value for key, value in data.items()}
    return text if short == data else json.dumps(short, indent=2, ensure_ascii=False) + "\n"


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_shortened(one) for one in value]
    if isinstance(value, str):
        found = re.match(r"([\w-]+=)?(?:file://)?", value)  # mnli=FOLDER
        assert found is not None
        rest = value[found.end() :]
        return (found[1] or "") + _last(rest) if _is_place(rest) else value
    return value


def _is_place(text: str) -> bool:
    """Whether a string is a path of one machine: one that leads out of where it is written, or begins with a folder
    that there is here. `/r/politics` may be the name of a class."""
    if "\n" in text or len(text) < 3:
        return False
    if re.match(r"[A-Za-z]:[\\/]", text) or text.startswith(("~/", "../")):
        return True
    parts = Path(text).parts
    return os.path.isabs(text) and len(parts) > 1 and Path(*parts[:2]).exists()


def _last(text: str) -> str:
    return PureWindowsPath(text).name or "model"


def _places(folder: Path) -> dict[str, str]:
    """Paths that a run's own records say, and those of this folder and of its user."""
    found = {str(folder.resolve()): folder.resolve().name, str(folder.absolute()): folder.absolute().name}
    for name in ("run.json", RESULT_FILE, RECORD):
        try:
            said = read_json(folder / name)
        except (OSError, ValueError):
            continue
        found |= {text: _last(text) for text in _strings(said) if _is_place(text)}
    home = str(Path.home())
    return found | ({home: "~"} if len(home) > 1 else {})


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for one in value.values() for text in _strings(one)]
    if isinstance(value, list):
        return [text for one in value for text in _strings(one)]
    return [value] if isinstance(value, str) else []
