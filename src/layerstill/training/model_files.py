"""The files of a model folder, looked at before anything is loaded from them. No pickle is ever opened."""

import json
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from layerstill.errors import UserError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
OTHER_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".ckpt", ".onnx", ".gguf", ".ot"}


def is_blank(name: str) -> bool:
    """Whether a local folder describes a model and holds no weights of any kind."""
    folder = Path(name)
    if not (folder / "config.json").is_file():
        return False
    return not any(path.suffix in OTHER_WEIGHTS or path.name == INDEX for path in folder.iterdir())


def refuse_folder(name: str, weights: bool = True) -> None:
    """UserError for a local folder that holds no model in safetensors, or for a path to nowhere.

    Without `weights` a configuration alone will do.
    """
    folder = Path(name)
    if not name.strip():
        raise UserError("model: the name is empty; give a folder or a hub id")
    if not folder.exists():
        if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise UserError(f"model {name}: no such folder")
        return
    if not (folder / "config.json").is_file():
        raise UserError(f"model {name}: no config.json in it; a model is a folder made by save_pretrained, or a hub id")
    if (folder / "adapter_config.json").is_file():
        raise UserError(
            f"model {name}: an adapter for another model (adapter_config.json), not a whole one; merge it "
            "(peft's merge_and_unload) and save the model"
        )
    if weights and not (folder / WEIGHTS).is_file() and not (folder / INDEX).is_file():
        pickles = [p.name for p in sorted(folder.glob("*.bin"))]
        hint = f"{pickles[0]} is a pickle, which is never loaded; " if pickles else ""
        raise UserError(
            f"model {name}: no model.safetensors; {hint}save it with save_pretrained(safe_serialization=True)"
        )
    _json_object(folder / "config.json")


def held_elements(name: str) -> int | None:
    """Elements in the weight files of a local folder, read from their headers; UserError for a damaged file."""
    folder, held = Path(name), 0
    if not folder.is_dir() or is_blank(name):
        return None
    for file in weight_files(folder):
        try:
            with safe_open(file, "pt") as weights:
                for key in weights.keys():  # noqa: SIM118 (it is no dictionary)
                    tensor = weights.get_slice(key)
                    if key.endswith((".weight", ".bias")) and not tensor.get_dtype().startswith(("F", "BF")):
                        raise UserError(
                            f"model {name}: {key} in {file.name} is {tensor.get_dtype()}; quantised weights "
                            f"cannot be trained or taught; save them in float32"
                        )
                    held += prod(tensor.get_shape())
        except UserError:
            raise
        except Exception as error:  # safetensors has an exception of its own for damaged files
            raise UserError(
                f"model {name}: {file.name} is damaged ({first_line(error)}); copy or save it again"
            ) from None
    return held


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights, all of them in the folder itself."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = _json_object(folder / INDEX)
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"model {folder}: {INDEX} has no weight_map; save the model again")
    files = []
    for shard in sorted({str(s) for s in shards.values()}):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise UserError(f"model {folder}: {INDEX} names {shard!r}, which is not a safetensors file of this folder")
        if not (folder / shard).is_file():
            raise UserError(f"model {folder}: {shard} is missing, which {INDEX} names; copy the model whole")
        files.append(folder / shard)
    return files


def _json_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"model {path.parent}: {path.name} is not JSON: {first_line(error)}") from None
    if not isinstance(data, dict):
        raise UserError(
            f"model {path.parent}: {path.name} holds a {type(data).__name__} where a JSON object is expected"
        )
    return data


def first_line(error: Exception) -> str:
    """What an exception says, in one line of bearable length."""
    lines = str(error).strip().split("\n")
    return " ".join(line.strip() for line in lines[: 1 + lines[0].endswith(":")])[:300]
