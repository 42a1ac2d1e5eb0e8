"""The corpus: public plain text and the training texts of tasks, without any text that a task is scored on."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

TEXT = ("wikipedia-2018/train-00.txt", "wikipedia-2018/train-01.txt", "brown/brown.txt", "gutenberg/gutenberg.txt")
HELD_OUT = ("wikitext-2-raw/wiki.valid.raw",)
TABLES = {  # file: columns of text, from 0; whether there is a header
    "SST-2/train.tsv": ((0,), True),
    "MRPC/train.tsv": ((3, 4), True),
    "CoLA/train.tsv": ((3,), False),
    "RTE/train.tsv": ((1, 2), True),
    "QNLI/train.tsv": ((1, 2), True),
    "QQP/train.tsv": ((3, 4), True),
    "MNLI/train.tsv": ((8, 9), True),
    "TREC/train.tsv": ((2,), True),
    "AG_News/train_20k.tsv": ((1, 2), True),
    "Banking77/train.tsv": ((0,), True),
    "GoEmotions/train.tsv": ((0,), False),
    "OOD/IMDB/test.tsv": ((0,), True),
}
SCORED = {
    "SST-2/dev.tsv": ((0,), True),
    "MRPC/dev.tsv": ((3, 4), True),
    "CoLA/dev.tsv": ((3,), False),
    "RTE/dev.tsv": ((1, 2), True),
    "QNLI/dev.tsv": ((1, 2), True),
    "QQP/dev.tsv": ((3, 4), True),
    "MNLI/dev_matched.tsv": ((8, 9), True),
    "TREC/test.tsv": ((2,), True),
    "AG_News/test.tsv": ((1, 2), True),
    "Banking77/test.tsv": ((0,), True),
    "GoEmotions/dev.tsv": ((0,), False),
    "GoEmotions/test.tsv": ((0,), False),
}
SHORT = 4
"""Words of a text below which being equal says nothing."""


def write_corpus(shared: Path, folder: Path) -> dict[str, int]:
    """Write `corpus.jsonl` below `folder` from the sets in `shared`; counts of what went in and what was left out.

    A paragraph is left out if it is, or has as a sentence, a text that some task is scored on; texts that occur twice
    are kept once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scored = {key for file, how in SCORED.items() for text in rows_of(shared / file, *how) for key in keys_of(text)}
    counts = {"scored texts": len(scored), "texts": 0, "words": 0, "scored, left out": 0, "twice, left out": 0}
    seen: set[str] = set()
    with (folder / "corpus.jsonl.part").open("w", encoding="utf-8") as out:
        for document in documents_of(shared):
            kept = []
            for text in document:
                if not keys_of(text).isdisjoint(scored):
                    counts["scored, left out"] += 1
                elif (key := normal(text)) in seen:
                    counts["twice, left out"] += 1
                else:
                    seen.add(key)
                    kept.append(text)
            if kept:
                counts["texts"] += 1
                counts["words"] += sum(len(text.split()) for text in kept)
                out.write(json.dumps({"text": "\n".join(kept)}, ensure_ascii=False) + "\n")
    (folder / "corpus.jsonl.part").replace(folder / "corpus.jsonl")
    (folder / "corpus.json").write_text(json.dumps(counts, indent=1) + "\n", "utf-8")
    return counts


def documents_of(shared: Path) -> Iterator[list[str]]:
    """Articles and books as lists of paragraphs, then the tasks' texts one by one."""
    for file in TEXT:
        paragraphs: list[str] = []
        for line in (shared / "text" / file).read_text("utf-8").splitlines():
            if line.strip() and not re.fullmatch(r"\s*=+ .* =+\s*", line):
                paragraphs.append(line.strip())
            elif paragraphs:
                yield paragraphs
                paragraphs = []
        if paragraphs:
            yield paragraphs
    for file, how in TABLES.items():
        for text in rows_of(shared / file, *how):
            yield [text]


def rows_of(path: Path, columns: tuple[int, ...], header: bool) -> Iterator[str]:
    """The texts in some columns of a file that is split at tabs and knows no quotes."""
    for line in path.read_text("utf-8-sig").split("\n")[header:]:
        fields = line.rstrip("\r").split("\t")
        yield from (fields[i].strip() for i in columns if i < len(fields) and fields[i].strip())


def normal(text: str) -> str:
    """Letters and digits alone, in lower case: tokenised and natural text become the same."""
    return re.sub(r"[\W_]+", "", text.lower())


def keys_of(text: str) -> set[str]:
    """What a text and its sentences are recognised by."""
    sentences = re.split(r"(?<=[.!?])\s+", text)
    return {normal(part) for part in (text, *sentences) if len(part.split()) >= SHORT}
