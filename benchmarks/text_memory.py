"""Peak memory of distillation on running text by the size of the corpus.

    python benchmarks/text_memory.py TEXTS [--megabytes 10 200] [--record FILE]

TEXTS is a file or folder of plain text, of whose sentences corpora of these sizes are made, in another order each
time. Every corpus is packed and trained on by a process of its own, `layerstill distill --task text`, whose largest
resident memory is the figure. The teacher is a random BERT of two layers and width 64 with the tokens of
all-MiniLM-L6-v2, so that what the corpus takes is not lost in what the models take.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILE_BYTES = 5_000_000
SENTENCES = 20
"""Of a document."""


def main() -> None:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[10, 200])
    parser.add_argument("--record", type=Path)
    args = parser.parse_args()
    sentences = sentences_of(args.texts)
    rows = []
    print("| corpus, MB | blocks, MB | peak, MB | seconds |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_teacher(folder / "teacher")
        for megabytes in args.megabytes:
            corpus = folder / f"{megabytes:g}"
            write_corpus(corpus, sentences, megabytes)
            begun = time.monotonic()
            peak = peak_of(folder / "teacher", corpus, folder / f"out-{megabytes:g}", folder / f"blocks-{megabytes:g}")
            blocks = sum(path.stat().st_size for path in (folder / f"blocks-{megabytes:g}").rglob("*")) / 1e6
            rows.append({"corpus": megabytes, "blocks": round(blocks), "peak": round(peak)})
            rows[-1]["seconds"] = round(time.monotonic() - begun)
            print("| " + " | ".join(f"{value:g}" for value in rows[-1].values()) + " |", flush=True)
    if args.record:
        args.record.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def sentences_of(place: Path) -> list[str]:
    """The lines of all files, those with a few words."""
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    texts = (path.read_text("utf-8", errors="ignore") for path in files if path.is_file())
    return [line for text in texts for line in text.splitlines() if len(line.split()) > 3]


def save_teacher(folder: Path) -> None:
    """A small random model with a real tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from layerstill.demo_model import find_base_model

    tokenizer = AutoTokenizer.from_pretrained(find_base_model())
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_corpus(folder: Path, sentences: list[str], megabytes: float) -> None:
    """Files of documents until there are so many bytes."""
    folder.mkdir()
    chosen, left, number = random.Random(0), megabytes * 1e6, 0
    while left > 0:
        size, documents = min(left, FILE_BYTES), []
        written = 0
        while written < size:
            documents.append("\n".join(chosen.choices(sentences, k=SENTENCES)))
            written += len(documents[-1].encode()) + 2
        (folder / f"{number:04d}.txt").write_text("\n\n".join(documents) + "\n", "utf-8")
        left, number = left - written, number + 1


def peak_of(teacher: Path, corpus: Path, output: Path, blocks: Path) -> float:
    """Largest resident memory in MB of the process that packs a corpus and trains a few steps on it."""
    command = [sys.executable, "-m", "layerstill", "distill", teacher, "--task", "text", "--data", corpus]
    command += ["--student-layers", 1, "--max-steps", 20, "--cache", blocks, "--output", output, "--quiet"]
    script = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, command)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    scale = 1e6 if sys.platform == "darwin" else 1e3
    return int(done.stdout.split()[-1]) / scale


if __name__ == "__main__":
    main()
