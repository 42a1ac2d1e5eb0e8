"""The files of a folder by split, whatever their kind."""

from pathlib import Path

from layerstill.data.files import SUFFIXES, stem_of, suffix_of
from layerstill.errors import UserError

NOTHING = "no such file or folder"
STEMS = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}
"""What the file of a split is called, in upper or lower case."""
SAVED = ("dataset_info.json", "dataset_dict.json")
"""Files by which a folder of `Dataset.save_to_disk` is known."""


def find_files(
    path: Path, dev: Path | None, option: str = "--data", suffixes: tuple[str, ...] = SUFFIXES
) -> dict[str, Path]:
    """Own files by split, from a file or a folder; UserError that names `option` for what is missing."""
    if path.is_file():
        return {"train": path} if dev is None else {"train": path, "dev": dev}
    if not path.is_dir():
        raise UserError(
            f"{option} {path}: {'neither an ordinary file nor a folder' if path.exists() else _nothing(path)}"
        )
    there = sorted(
        (file for file in path.iterdir() if suffix_of(file) in suffixes),
        key=lambda file: (suffixes.index(suffix_of(file)), file.name),
    )
    files = {}
    for split, stems in STEMS.items():
        found = [file for stem in stems for file in there if stem_of(file) == stem]
        if len(found) > 1:
            raise UserError(
                f"{option} {path}: several files for split {split}: {', '.join(f.name for f in found)}; keep one"
            )
        if found:
            files[split] = found[0]
    if dev is not None:
        files["dev"] = dev
    if "train" not in files:
        looked = f"train{{{','.join(suffixes)}}}"
        raise UserError(f"{option} {path}: split train is missing, looked for {looked}{_way(path, there)}")
    return files


def _nothing(path: Path) -> str:
    """What to say of a path with nothing there; a name such as `imdb` may be meant for a data set of the hub."""
    if path.suffix or path.is_absolute():
        return NOTHING
    save = f"load_dataset({str(path)!r})['train'].to_parquet('train.parquet')"
    return f"{NOTHING}; if it is a data set of the hub, save its splits in a folder: {save}"


def _way(folder: Path, tables: list[Path]) -> str:
    """How to go on with a folder that has no file of training examples."""
    if any((folder / name).is_file() for name in SAVED):
        return "; this is a folder of save_to_disk: write each split with to_parquet('train.parquet') instead"
    names = ", ".join(file.name for file in tables[:5]) + (", ..." if len(tables) > 5 else "")
    return f"; there is {names}: rename it, or name the file itself and others with --dev" if names else ""
