"""An exported file at work, from texts to raw outputs: `tokenizers`, `onnxruntime` and numpy, without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layerstill.atomic import read_json
from layerstill.errors import UserError
from layerstill.export.exported import FILES, FP32

ABOUT = "layerstill"
"""The part of `config.json` that says how texts are read and what outputs mean."""
LIBRARIES = ("onnxruntime", "onnx", "tokenizers")
"""What is imported when a file is first run."""
INSTALL = "pip install 'layerstill[export]'"


class OnnxRunner:
    """A file of an exported folder, ready to run texts.

    Args:
        folder: what `layerstill export` wrote.
        file: which of its models.
        threads: of one operation; None for what onnxruntime takes, all cores.

    UserError for a folder that is no export, or a file that is not there.
    """

    def __init__(self, folder: Path | str, file: str = FILES[FP32], threads: int | None = None) -> None:
        from tokenizers import Tokenizer

        self.folder, self.path = Path(folder), Path(folder) / file
        self.about = about_of(self.folder)
        if not self.path.is_file():
            there = ", ".join(path.name for path in sorted(self.folder.glob("*.onnx"))) or "none"
            raise UserError(f"{self.folder}: no {file} in it; there are: {there}")
        self.tags_words: bool = self.about["head"]["kind"] == "tokens"
        self.max_length: int = self.about["max_length"]
        self._unknown: str = self.about["unknown"]
        self._tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        padding = self._tokenizer.padding or {"pad_id": 0, "pad_type_id": 0}
        self._fill = {"input_ids": padding["pad_id"], "token_type_ids": padding["pad_type_id"], "attention_mask": 0}
        self._tokenizer.no_padding()
        self._session = session_of(self.path, threads)
        self._inputs = [one.name for one in self._session.get_inputs()]

    def __call__(self, texts: Sequence[tuple[str, ...]]) -> None:
        """Tokenise and run one batch: what a caller who asks for milliseconds wants timed."""
        self.run(self.padded(self.encode(texts)))

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """What the graph gives for a batch of inputs `(B, N)`, before its head reads it."""
        return self._session.run(None, inputs)[0]

    def encode(self, texts: Sequence[tuple[str, ...]]) -> list[Any]:
        """The texts as `tokenizers` encodes them, cut at the longest length, without padding."""
        if self.tags_words:
            return self._encode_words([[f" {w}" if i else w for i, w in enumerate(words)] for words in texts])
        return self._tokenizer.encode_batch([text if len(text) > 1 else text[0] for text in texts])

    def feeds(self, texts: Sequence[tuple[str, ...]]) -> list[dict[str, np.ndarray]]:
        """What the graph is given for each text alone."""
        return [self.padded([encoding]) for encoding in self.encode(texts)]

    def _encode_words(self, rows: list[list[str]]) -> list[Any]:
        """Each sentence as its words; one that the tokenizer makes nothing of is read as an unknown token."""
        encodings = self._tokenizer.encode_batch(rows, is_pretokenized=True)
        for i, (row, encoding) in enumerate(zip(rows, encodings, strict=True)):
            read = {w for part in (encoding, *encoding.overflowing) for w in part.word_ids}
            if bare := set(range(len(row))) - read:
                words = [self._unknown if w in bare else word for w, word in enumerate(row)]
                encodings[i] = self._tokenizer.encode(words, is_pretokenized=True)
        return encodings

    def padded(self, encodings: Sequence[Any]) -> dict[str, np.ndarray]:
        """Inputs of the graph by name, `(B, N)` each, padded on the right."""
        longest = max(len(encoding.ids) for encoding in encodings)
        columns = {"input_ids": "ids", "token_type_ids": "type_ids", "attention_mask": "attention_mask"}
        made = {}
        for name in self._inputs:
            values = np.full((len(encodings), longest), self._fill[name], dtype=np.int64)
            for row, encoding in zip(values, encodings, strict=True):
                row[: len(encoding.ids)] = getattr(encoding, columns[name])
            made[name] = values
        return made


def about_of(folder: Path) -> dict[str, Any]:
    """What `config.json` says of reading texts and of outputs; UserError if the folder is no export."""
    try:
        return read_json(folder / "config.json")[ABOUT]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder}: not a folder that layerstill export wrote; export the model first") from None


def session_of(path: Path, threads: int | None = None) -> Any:
    """A session of onnxruntime on the CPU; UserError where it is not installed or cannot read the file."""
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # what it warns of is how it optimises
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no class in common
        raise UserError(f"{path}: onnxruntime cannot run it: {str(error).splitlines()[0][:300]}") from None


def onnxruntime() -> Any:
    """The package; UserError with what to install where it is missing."""
    try:
        import onnx  # noqa: F401  (what makes files, and what runs them, come together)
        import onnxruntime
    except ImportError as error:
        raise UserError(f"export needs {error.name}, which is not installed: {INSTALL}") from None
    return onnxruntime
