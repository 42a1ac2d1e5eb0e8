"""Models that are ready to be asked about texts: in PyTorch, or a file of an exported folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from layerstill.acts.inputs import Model, model_at
from layerstill.acts.remembered import Remembered
from layerstill.data.encode import encode
from layerstill.data.source import TaskSource
from layerstill.data.tasks import Split
from layerstill.errors import UserError
from layerstill.evaluation.predict import predict_encoded
from layerstill.export.exported import FILES, FP32
from layerstill.export.runner import ABOUT
from layerstill.export.session import OnnxModel
from layerstill.heads import Classes, Head, head_of
from layerstill.heads.prediction import Prediction
from layerstill.training.models import adopt_padding, load_config, load_fine_tuned, load_tokenizer

Texts = Sequence[tuple[str, ...]]


class Predictor:
    """A model with its head, its labels and what it was trained with; a subclass says how logits are had.

    `cut` counts the texts so far that were longer than `max_length` tokens, `lost` the words that were cut off.
    """

    def __init__(
        self, name: str, head: Head, labels: Sequence[str], max_length: int, source: TaskSource | None, columns: int
    ) -> None:
        self.name, self.head, self.labels, self.max_length = name, head, tuple(labels), max_length
        self.source = source
        self.texts = 1 if head.per_token else columns or None
        """How many a row; None where nobody knows."""
        self.notices: list[str] = []
        self.cut = self.lost = 0

    def said(self, texts: Texts) -> list[Prediction]:
        """What the model says of each text; of words that were cut off, None."""
        asked = [i for i, text in enumerate(texts) if text or not self.head.per_token]
        some = [texts[i] for i in asked]
        found = dict(zip(asked, self._predicted(some) if some else [], strict=True))
        return [found.get(i, Prediction((), ())) for i in range(len(texts))]

    def _predicted(self, texts: Texts) -> list[Prediction]:
        found = self.head.predictions(self._logits(texts), self.labels)
        if not self.head.per_token:
            return found
        whole = []
        for words, one in zip(texts, found, strict=True):
            rest = (None,) * (len(words) - len(one.label))
            self.lost += len(rest)
            whole.append(Prediction(one.label + rest, one.probability + rest))
        return whole

    def _logits(self, texts: Texts) -> Any:
        raise TypeError(f"{type(self).__name__} does not say how it asks a model")

    def closing(self) -> list[str]:
        """Notices after the last text."""
        if not self.cut:
            return []
        words = f", so that {self.lost} words have no tag" if self.lost else ""
        return [f"{self.cut} {'text' if self.cut == 1 else 'texts'} had to be cut to {self.max_length} tokens{words}"]


class _InTorch(Predictor):
    def __init__(self, place: str, name: str, max_length: int | None, threshold: float | None, batch_size: int) -> None:
        run = Remembered.of(name)
        head = _at(run.head or head_of(load_config(place)) or Classes(), threshold)
        self._model = load_fine_tuned(place, head).eval()
        self._tokenizer = load_tokenizer(place, self._model.config)
        adopt_padding(self._model, self._tokenizer)
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._batch_size = batch_size
        length, notices = run.length(max_length, self._tokenizer, self._model.config)
        labels = [str(self._model.config.id2label[i]) for i in range(self._model.config.num_labels)]
        super().__init__(name, head, labels, length, run.source, len(run.source.text_columns) if run.source else 0)
        self.notices += notices

    def _logits(self, texts: Texts) -> Any:
        unknown = [self.head.unknown(words, len(self.labels)) for words in texts] if self.head.per_token else []
        encoded = encode(Split(list(texts), unknown), self._tokenizer, self.max_length, self.head)
        self.cut += encoded.truncated
        return predict_encoded(self._model, self._tokenizer, encoded, self.head, self._batch_size)


class _InOnnx(Predictor):
    def __init__(self, folder: Path, file: str, threshold: float | None, batch_size: int) -> None:
        self._onnx = OnnxModel(folder, file)
        self._onnx.head = _at(self._onnx.head, threshold)
        self._batch_size = batch_size
        columns = list(self._onnx.text_columns)
        source = TaskSource(kind=self._onnx.head.word, text_columns=columns) if columns else None
        super().__init__(str(folder), self._onnx.head, self._onnx.labels, self._onnx.max_length, source, len(columns))

    def _logits(self, texts: Texts) -> Any:
        encodings = self._onnx.encode(texts)
        self.cut += sum(bool(encoding.overflowing) for encoding in encodings)
        return self._onnx.logits_of(encodings, self._batch_size)


def _at(head: Head, threshold: float | None) -> Head:
    if threshold is None:
        return head
    try:
        return head.at(threshold)
    except ValidationError:
        raise UserError(f"--threshold {threshold:g}: use a number between 0 and 1") from None


def load_predictor(
    model: Model,
    file: str | None = None,
    max_length: int | None = None,
    threshold: float | None = None,
    batch_size: int = 64,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Predictor:
    """A model ready to be asked; the arguments are those of `predict`."""
    if batch_size < 1:
        raise UserError(f"batch_size {batch_size}: use a whole number above 0")
    if isinstance(model, str | Path) and _is_export(Path(model)):
        if max_length is not None:
            raise UserError(
                f"--max-length {max_length}: {model} is an export, whose longest text is fixed; "
                "leave it out, or export the model again"
            )
        return _InOnnx(Path(model), file or FILES[FP32], threshold, batch_size)
    if file is not None:
        beside = isinstance(model, str | Path) and _is_export(Path(model) / "onnx")
        way = f"give {Path(str(model)) / 'onnx'}" if beside else "export the model first"
        raise UserError(
            f"--file {file}: {model!s:.80} is not a folder that layerstill export wrote; {way}, or leave it out"
        )
    with model_at(model, tokenizer) as (place, name):
        return _InTorch(place, name, max_length, threshold, batch_size)


def _is_export(folder: Path) -> bool:
    """Whether a folder is an export's."""
    if not any(folder.glob("*.onnx")):
        return False
    try:
        return ABOUT in (folder / "config.json").read_text("utf-8")
    except (OSError, ValueError):
        return False
