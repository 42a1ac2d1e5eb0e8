"""Files that are written whole or not at all: a reader sees the old one or the new one, and so does a power cut."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, "utf-8")
    _put(temporary, path)


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """What `write_json` wrote."""
    return json.loads(path.read_text("utf-8"))


def write_tensors(path: Path, tensors: "dict[str, Tensor]") -> None:
    """Write safetensors atomically."""
    from safetensors.torch import save_file  # not above: an exported model runs without torch

    temporary = path.with_name(f".{path.name}.part")
    save_file({name: t.detach().contiguous().clone() for name, t in tensors.items()}, temporary)
    _put(temporary, path)


def _put(temporary: Path, path: Path) -> None:
    # Without the sync a power cut could leave the new name on an empty file.
    sync(temporary)
    os.replace(temporary, path)


def sync(path: Path) -> None:
    """Wait until a file, or the list of names of a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
