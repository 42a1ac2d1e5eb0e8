"""The folder of an export: found again, refused where it is another model's, and put in its place whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layerstill.atomic import read_json
from layerstill.errors import UserError
from layerstill.export.exported import FILES, Export
from layerstill.training.lock import LOCK_FILE, FolderLock

RECORD = "export.json"
SOURCE = "source"
"""Key of the fingerprint of the exported model."""
OWN = {*FILES.values(), RECORD, "config.json", "run.py", "tokenizer.json"}
"""All that an export writes; a folder with anything else is somebody else's, and nothing in it is touched."""


def find_export(folder: Path, settings: dict[str, Any]) -> Export | None:
    """The export with these settings if the folder holds it whole; None where it is to be written, or anew.

    UserError for a folder with anything else than an export of the same model.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        data = read_json(folder / RECORD)
        there = Export.from_data(folder, data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"--output {folder}: it holds something other than an export; choose another folder") from None
    if (theirs := data.get(SOURCE)) != settings[SOURCE]:
        raise UserError(
            f"--output {folder}: it holds the export of another model ({data.get('model')}, {theirs}; this is "
            f"{settings['model']}, {settings[SOURCE]}); choose another folder"
        )
    if foreign := sorted({path.name for path in folder.iterdir()} - OWN):
        raise UserError(
            f"--output {folder}: {foreign[0]} in it does not belong to an export; move it away, or choose another"
        )
    whole = all(file.path.is_file() for file in there.files.values())
    return there if whole and all(data.get(key) == value for key, value in settings.items()) else None


def _refuse_foreign(folder: Path) -> None:
    """UserError for a folder that no interrupted export left behind; its files would be deleted."""
    there = {path.name for path in folder.iterdir() if path.suffix != ".onnx"} if folder.is_dir() else set()
    if foreign := sorted(there - OWN - {LOCK_FILE} - {f".{name}.part" for name in OWN}):
        raise UserError(f"{folder}: {foreign[0]} in it does not belong to an export; move the folder away")


@contextmanager
def built_beside(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of `folder` when all went well and vanishes when not.

    UserError while another process writes the same.
    """
    folder = folder.resolve()  # through a link the folder that it names, which stays one
    part, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("part", "old"))
    for path in (part, old):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise UserError(f"{path}: something is in the place where an export is built; remove it")
    part.mkdir(parents=True, exist_ok=True)
    _refuse_foreign(part)
    _refuse_foreign(old)
    lock = FolderLock(part)
    lock.take()
    try:
        for path in part.iterdir():  # of one that was killed
            if path != lock.path:
                path.unlink()
        yield part
        lock.release()
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(part, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        lock.release()
        shutil.rmtree(part, ignore_errors=True)
