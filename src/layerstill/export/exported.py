"""What an export leaves: files, how each compares with the model in PyTorch, and whether it may replace it."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FP32, INT8 = "fp32", "int8"
FILES = {FP32: "model.onnx", INT8: "model.int8.onnx"}
"""Names of the files, by the numbers that their weights are kept in."""


@dataclass(frozen=True)
class ExportedFile:
    """One file of an export."""

    path: Path
    mb: float
    """Its size on disk, in 10⁶ bytes."""
    parity: dict[str, Any]
    """How it compares with the model in PyTorch on the same texts: see `export.parity`."""
    drop: float
    """Points (hundredths) of the main metric that it loses against PyTorch; negative where it gains."""
    fit: bool
    """Whether it may be used in place of the model."""
    kept_fp32: list[str] = field(default_factory=list)
    """Groups of layers that were not quantised, because the loss came from them."""
    reason: str = ""
    """Why it is not fit; empty where it is."""

    def to_data(self) -> dict[str, Any]:
        """Plain data; the path as its name in the folder."""
        return asdict(self) | {"path": self.path.name}


@dataclass(frozen=True)
class Export:
    """A folder that runs with `onnxruntime` and `tokenizers` alone."""

    folder: Path
    files: dict[str, ExportedFile]
    """`fp32`: model.onnx, and with int8 `int8`: model.int8.onnx."""
    record: dict[str, Any] = field(default_factory=dict)
    """The rest of `export.json`: where the model came from, texts, settings, versions."""

    @property
    def fit(self) -> bool:
        """Whether every file may be used in place of the model."""
        return all(file.fit for file in self.files.values())

    def to_data(self) -> dict[str, Any]:
        """What `export.json` holds."""
        return self.record | {"files": {name: file.to_data() for name, file in self.files.items()}}

    @classmethod
    def from_data(cls, folder: Path, data: dict[str, Any]) -> "Export":
        """The export in a folder, by its `export.json`."""
        files = {name: ExportedFile(**one | {"path": folder / one["path"]}) for name, one in data["files"].items()}
        return cls(folder, files, {name: value for name, value in data.items() if name != "files"})
