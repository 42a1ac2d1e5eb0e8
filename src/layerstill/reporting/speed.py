"""Latency by kind of model: runs that differ in their weights only take the same time, so one of them is measured."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layerstill.evaluation.latency import Speed
from layerstill.reporting.runs import RunRecord

LATENCY_FILE = "latency.json"
_SHAPE = (
    "model_type num_hidden_layers n_layers n_layer hidden_size dim n_embd intermediate_size hidden_dim "
    "num_attention_heads num_key_value_heads head_dim embedding_size vocab_size"
).split()


def kind_of(run: RunRecord) -> str | None:
    """What decides how fast a run's model is: its family and measures; None if it has no model."""
    return kind_in(run.read("config.json") if run.status == "finished" else None)


def kind_in(config: Any) -> str | None:
    """The same of the content of a `config.json`."""
    if not isinstance(config, dict):
        return None
    return ", ".join(f"{name} {config[name]}" for name in _SHAPE if config.get(name) is not None)


def one_of_each(runs: Sequence[RunRecord], teachers: Mapping[str, Path] = {}) -> dict[str, Path]:
    """A folder with a model for each kind of model that the runs have, and their teachers by name."""
    folders = [(kind_of(run), run.folder) for run in runs] + [(_kind_at(place), place) for place in teachers.values()]
    found: dict[str, Path] = {}
    for kind, folder in folders:
        if kind and folder and (folder / "model.safetensors").is_file():
            found.setdefault(kind, folder)
    return found


def known_latency(
    folder: Path, runs: Sequence[RunRecord], teachers: Mapping[str, Path] = {}
) -> tuple[dict[str, float], str]:
    """Milliseconds by a run's name, or a teacher's, from `latency.json`, and a sentence on how they were measured.

    Empty without the file.
    """
    try:
        data: Any = json.loads((folder / LATENCY_FILE).read_text("utf-8"))
        measured = {str(kind): float(ms) for kind, ms in data["milliseconds"].items()}
        threads = f", threads: {int(data['threads'])}" if "threads" in data else ""  # older files do not say
        texts = f"{int(data['texts'])} short texts"
        note = f"Latency: median for one of {texts} at a time, tokenisation included, CPU{threads}."
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return {}, ""
    kinds = {run.name: kind_of(run) for run in runs} | {name: _kind_at(place) for name, place in teachers.items()}
    return {name: measured[kind] for name, kind in kinds.items() if kind and kind in measured}, note


def _kind_at(place: Path) -> str | None:
    try:
        return kind_in(json.loads((place / "config.json").read_text("utf-8")))
    except (OSError, ValueError, RecursionError):
        return None


def speed_lines(speed: Speed) -> list[str]:
    """A measured speed in words: one text, batches, sizes."""
    sizes = {"on disk": speed.disk_mb, "in memory": speed.memory_mb}
    known = [f"{mb:,.1f} MB {where}" for where, mb in sizes.items() if mb is not None]
    threads = "1 thread" if speed.threads == 1 else f"{speed.threads} threads"
    return [
        f"one text on the CPU, {threads}: {speed.p50_ms:.2f} ms (median), {speed.p99_ms:.2f} ms (99th percentile)",
        f"batches of {speed.batch_size}: {speed.texts_per_second:,.1f} texts/s",
        *([f"weights: {', '.join(known)}"] if known else []),
    ]
