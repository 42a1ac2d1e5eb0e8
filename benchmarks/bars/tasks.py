"""The tasks: where their files are, what of them is used, and how their teachers are fine-tuned."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
TOPICS = {"1": "World", "2": "Sports", "3": "Business", "4": "Sci/Tech"}


@dataclass(frozen=True)
class BarTask:
    """One task of the table."""

    options: tuple[str, ...]
    """Of every command; `{data}` is the folder of prepared files, `{shared}` that of the public sets."""
    teacher: tuple[str, ...]
    """Of `layerstill finetune` besides."""


def finetuned(epochs: int, rate: str, batch: int = 32) -> tuple[str, ...]:
    """Options of fine-tuning."""
    return ("--epochs", str(epochs), "--learning-rate", rate, "--batch-size", str(batch))


def own(name: str, kind: str = "classification", *more: str) -> tuple[str, ...]:
    """Options of prepared files."""
    return ("--task", kind, "--data", f"{{data}}/{name}", *more)


TASKS = {
    "tickets": BarTask(("--task", "tickets", "--max-length", "96"), finetuned(8, "2e-4", 16)),
    "trec": BarTask(own("trec"), finetuned(3, "2e-4")),
    "mrpc": BarTask(("--task", "mrpc", "--data", "{shared}"), finetuned(4, "1e-4")),
    "sst2": BarTask(own("sst2"), finetuned(3, "1e-4")),
    "agnews": BarTask(own("agnews"), finetuned(2, "1e-4")),
    "banking": BarTask(own("banking"), finetuned(6, "2e-4")),
    "qnli": BarTask(own("qnli", "classification", "--text-columns", "question,sentence"), finetuned(3, "1e-4")),
    "goemotions": BarTask(own("goemotions", "multilabel"), finetuned(4, "2e-4")),
    "wnut": BarTask(("--task", "tokens", "--data", "{shared}/NER/WNUT-17"), finetuned(4, "2e-4")),
}


def prepare(shared: Path, data: Path) -> None:
    """Write the tasks' files below `data` from the public sets in `shared`, where they are not there already.

    Sets without a dev split are scored on their test split. Large ones are drawn from with seed 0: 10,000 examples to
    train on, 2,000 to score.
    """
    for name, split, rows in _read(shared):
        folder = data / name
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{split}.jsonl"
        if not file.exists():
            file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _read(shared: Path) -> Iterator[tuple[str, str, list[Row]]]:
    for source, split in (("train", "train"), ("test", "dev")):
        yield "trec", split, [{"text": r[2], "label": r[0]} for r in _lines(shared / f"TREC/{source}.tsv")]
        yield "banking", split, [{"text": r[0], "label": r[1]} for r in _lines(shared / f"Banking77/{source}.tsv")]
    for split, most in (("train", 10_000), ("dev", 2_000)):
        moods = ("negative", "positive")
        rows = [{"text": r[0].strip(), "label": moods[int(r[1])]} for r in _lines(shared / f"SST-2/{split}.tsv")]
        yield "sst2", split, _drawn(rows, most)
        rows = [{"question": r[1], "sentence": r[2], "label": r[3]} for r in _lines(shared / f"QNLI/{split}.tsv")]
        yield "qnli", split, _drawn(rows, most)
        emotions = (shared / "GoEmotions/emotions.txt").read_text("utf-8").split()
        read = _lines(shared / f"GoEmotions/{split}.tsv", header=False)
        rows = [{"text": r[0], "label": [emotions[int(i)] for i in r[1].split(",")]} for r in read]
        yield "goemotions", split, _drawn(rows, most)
    for source, split, most in (("train_20k", "train", 10_000), ("test", "dev", 2_000)):
        read = _lines(shared / f"AG_News/{source}.tsv")
        rows = [{"text": f"{r[1]} . {r[2]}", "label": TOPICS[r[0]]} for r in read]
        yield "agnews", split, _drawn(rows, most)


def _lines(path: Path, header: bool = True) -> list[list[str]]:
    """Fields of a file that is split at tabs and knows no quotes."""
    lines = [line.rstrip("\r").split("\t") for line in path.read_text("utf-8-sig").split("\n") if line]
    return lines[1:] if header else lines


def _drawn(rows: list[Row], most: int) -> list[Row]:
    return rows if len(rows) <= most else random.Random(0).sample(rows, most)
