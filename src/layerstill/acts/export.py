"""The act `export`."""

import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from layerstill.acts.export_folder import RECORD, SOURCE, built_beside, find_export
from layerstill.acts.given import task_for
from layerstill.acts.inputs import Model, has_no_splits, model_at
from layerstill.acts.remembered import Remembered
from layerstill.atomic import read_json, write_json
from layerstill.data.encode import encode
from layerstill.data.label_agreement import agree_on_labels
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError, nearest
from layerstill.evaluation.agreement import sample_of
from layerstill.evaluation.predict import evaluate_split, stream_batches
from layerstill.export.blame import quantise_within
from layerstill.export.exported import FILES, FP32, INT8, Export, ExportedFile
from layerstill.export.graph import stretched, write_graph
from layerstill.export.package import write_package
from layerstill.export.parity import NEAR, drop_of, is_near, parity
from layerstill.export.quantising import Quantiser
from layerstill.export.runner import onnxruntime
from layerstill.export.session import OnnxModel
from layerstill.progress import Task as Work
from layerstill.progress import our_bars_only
from layerstill.training.models import adopt_padding, fingerprint, load_fine_tuned, load_tokenizer
from layerstill.training.records import environment, task_fingerprint
from layerstill.training.stages import note

log = logging.getLogger("layerstill")

FORMATS = ("onnx",)
CALIBRATION_TEXTS = 300


@dataclass(frozen=True)
class _Source:
    """The model in PyTorch, and the texts that it is compared on."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    task: Task
    split: str
    max_length: int
    max_drop: float

    @property
    def config(self) -> PretrainedConfig:
        return self.model.config

    @property
    def texts(self) -> list[tuple[str, ...]]:
        return self.task.splits[self.split].texts

    def inputs(self) -> dict[str, Tensor]:
        """What the model reads, `(2, max_length)` each, for tracing."""
        first = Split(self.texts[:1], self.task.splits[self.split].labels[:1])
        batch = next(stream_batches(first, self.tokenizer, self.max_length, "cpu", self.task.head))
        return stretched(batch.inputs, self.tokenizer.pad_token_id, self.max_length)


@our_bars_only()
def export(
    model: Model,
    data: Any = None,
    output: str | Path | None = None,
    format: str = "onnx",
    int8: bool = False,
    calibrate: bool = False,
    max_drop: float = 1.0,
    split: str = "dev",
    max_length: int | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    labels: Any = None,
) -> Export:
    """Write a model as files that run with `onnxruntime` and `tokenizers` alone, each held against the model itself.

    The folder is written whole or not at all; the same export is found again, that of another model is refused. A file
    that is not fit is written, too: look at `.fit`, and at `.files["int8"].reason`.

    Args:
        model: a fine-tuned folder, a hub id, or a loaded model.
        data: as in `evaluate`; parity is measured on its texts. Without it what the model's run was trained on.
        output: the folder; without it `onnx` in the model's.
        format: `onnx`.
        int8: also a file in int8. Where it loses too much, the layers to blame stay in fp32, at most half of them.
        calibrate: fix the ranges of int8 activations ahead, on texts of train, instead of text by text; with it comes
            `int8`.
        max_drop: most points (hundredths) of the main metric that a file may lose and be fit.
        split: whose texts files are compared on.
        max_length: longest text in tokens; without it what the model was trained with, else 128 or what it allows.
        tokenizer: of a loaded model; without it the one where the model was loaded from.
        labels: of a list of texts.

    UserError without data, and for a model that cannot be written in this format.
    """
    if format not in FORMATS:
        raise UserError(f"--format {format}: {nearest(format, FORMATS)}")
    if not 0 <= max_drop <= 100:
        raise UserError(f"--max-drop {max_drop}: points of the main metric, a number from 0 to 100")
    onnxruntime()  # before an hour is spent
    versions = {package: version(package) for package in ("onnx", "onnxruntime")}
    with model_at(model, tokenizer) as (place, name):
        target = _target(model, output)
        source = _read(place, name, data, split, max_length, max_drop, labels)
        if calibrate and source.task.splits["train"] == source.task.splits[split]:
            raise UserError(
                f"--calibrate: ranges are fixed on texts of train, which are the texts of {split} that the file "
                f"is scored on; give a folder with both"
            )
        numbers = "static" if calibrate else "dynamic" if int8 else None
        settings: dict[str, Any] = {
            "model": name,
            SOURCE: fingerprint(place, source.config),
            "format": format,
            "task": source.task.name,
            "data_fingerprint": task_fingerprint(source.task),
            "head": source.task.head.record(),
            "split": split,
            "max_length": source.max_length,
            "max_drop": max_drop,
            "int8": numbers,
        }
    if (found := find_export(target, settings)) is not None:
        log.info("%s: this export is already there", target)
        return found
    with built_beside(target) as part, Work("export", 3 if numbers else 2) as work:
        files = _write(source, part, numbers, work)
        made = Export(part, files, settings | {"environment": environment() | versions})
        write_json(part / RECORD, made.to_data())
    return Export.from_data(target, read_json(target / RECORD))


def _target(model: Model, output: str | Path | None) -> Path:
    if output is not None:
        return Path(output)
    if isinstance(model, PreTrainedModel) or not Path(model).is_dir():
        raise UserError(
            f"--output: model {model if isinstance(model, str) else ''} is not in a folder; say where to write"
        )
    return Path(model) / "onnx"


def _read(
    place: str, name: str, data: Any, split: str, max_length: int | None, max_drop: float, labels: Any
) -> _Source:
    run = Remembered.of(name)
    task = task_for(run, place, data, labels, whole=split == "dev" and has_no_splits(data))
    if split not in task.splits:
        raise UserError(f"--split {split}: {nearest(split, task.splits)}")
    task.refuse_unscored(split)
    model = load_fine_tuned(place, task.head).eval()
    tokenizer = load_tokenizer(place, model.config)
    adopt_padding(model, tokenizer)
    task, notices = agree_on_labels(task, model.config, f"model {name}", subset=True)
    max_length, lengths = run.length(max_length, tokenizer, model.config)
    note([*notices, *task.notices, *lengths])
    note(encode(task.splits[split], tokenizer, max_length, task.head).notices(split, max_length))
    return _Source(model, tokenizer, task, split, max_length, max_drop)


def _write(source: _Source, folder: Path, int8: str | None, work: Work) -> dict[str, ExportedFile]:
    """Write all files of the folder but its record, and compare them."""
    task, split = source.task, source.split
    work.say(now="asking PyTorch")
    _, logits = evaluate_split(source.model, source.tokenizer, task, split, source.max_length)
    work.advance()
    work.say(now=FILES[FP32])
    write_package(folder, task, source.config, source.tokenizer, source.max_length)
    path = folder / FILES[FP32]
    write_graph(source.model, source.inputs(), path)
    files = {FP32: _compared(source, path, logits)}
    work.advance()
    work.say(now=FILES[INT8])
    if int8 is None:
        return files
    feeds = None
    if int8 == "static":
        some = sample_of(task.splits["train"], CALIBRATION_TEXTS, 0, "calibration")
        feeds = OnnxModel(folder).feeds(some.texts)
    target = folder / FILES[INT8]
    quantiser = Quantiser(path, source.config, feeds)
    files[INT8] = quantise_within(quantiser, folder, source.texts, lambda kept: _compared(source, target, logits, kept))
    return files


def _compared(source: _Source, path: Path, torch_logits: Any, kept: list[str] | None = None) -> ExportedFile:
    """A file as the record has it; `kept` for one in int8."""
    task, metric = source.task, source.task.metrics[0]
    found = parity(task, source.split, torch_logits, OnnxModel(path.parent, path.name).logits(source.texts))
    drop, reason = drop_of(found, metric), ""
    if not drop <= source.max_drop:
        before, after = (100 * found[key][metric] for key in ("torch_scores", "scores"))
        reason = f"{metric} falls from {before:.2f} to {after:.2f}, more than --max-drop {source.max_drop:g}"
        reason += f", though {', '.join(kept)} stay in fp32" if kept else ""
    elif kept is None and not is_near(found):
        reason = (
            f"a logit differs by {found['max_logit_difference']:.2g} from PyTorch's, which are up to "
            f"{found['largest_logit']:.2g}; more than {NEAR:g} of that is not rounding"
        )
    return ExportedFile(path, round(path.stat().st_size / 1e6, 2), found, drop, not reason, list(kept or ()), reason)
