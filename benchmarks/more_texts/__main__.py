"""What more input adds: texts without labels, copies of the training texts, and soft labels that are there already.

    python -m benchmarks.more_texts run --data FOLDER --output runs/more_texts
    python -m benchmarks.more_texts table --output runs/more_texts

`FOLDER` holds the prepared tasks of `python -m benchmarks.bars`. A quarter of each task's training texts has labels: a
teacher is fine-tuned on them, and students of 3 layers learn from them with `best`, alone and with more input, in the
same number of updates. The other three quarters are texts without labels. `kd` and `probabilities` are a pair: `kd`
with the teacher, and with what `layerstill predict --probabilities` wrote of it.

What is finished is kept, so the script can be stopped and started again. `table` prints Markdown and writes the records
that it was made from to benchmarks/results/more_texts.json.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from layerstill.atomic import read_json, write_json

RESULTS = Path(__file__).parents[1] / "results" / "more_texts.json"
TASKS = {"trec": ("3", "2e-4"), "sst2": ("3", "1e-4"), "banking": ("20", "2e-4")}
"""Epochs and learning rate of a teacher."""
SHARE = 4
ARMS = ("quarter", "unlabelled", "augment", "unlabelled and augment", "kd", "probabilities")


def prepare(task: str, given: Path, folder: Path) -> None:
    """Every fourth training example with its label in train.jsonl, the texts of the others in unlabelled.txt."""
    if (folder / "unlabelled.txt").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = (given / task / "train.jsonl").read_text("utf-8").splitlines()
    others = [json.loads(row)["text"] for i, row in enumerate(rows) if i % SHARE]
    (folder / "train.jsonl").write_text("".join(f"{row}\n" for row in rows[::SHARE]), "utf-8")
    (folder / "dev.jsonl").write_bytes((given / task / "dev.jsonl").read_bytes())
    (folder / "unlabelled.txt").write_text("".join(f"{' '.join(text.split())}\n" for text in others), "utf-8")


def with_column(folder: Path, teacher: Path, data: Path) -> Path:
    """The data again, whose training examples have what the teacher says of them in a column `probabilities`."""
    folder.mkdir(parents=True, exist_ok=True)
    said = folder / "train.jsonl"
    if not said.exists():
        _call("predict", teacher, "--data", data / "train.jsonl", "--probabilities", "--output", said)
    (folder / "dev.jsonl").write_bytes((data / "dev.jsonl").read_bytes())
    return folder


def run(args: argparse.Namespace) -> None:
    """Teachers and students, task by task."""
    from layerstill.demo_model import find_base_model

    for task in args.tasks:
        home = args.output / task
        data, teacher = home / "data", home / "teacher"
        prepare(task, args.data, data)
        epochs, rate = TASKS[task]
        of_task = ["--task", "classification", "--data", data]
        how = ["--epochs", epochs, "--learning-rate", rate, "--batch-size", "32"]
        _call("finetune", find_base_model(), *of_task, *how, "--output", teacher, "--quiet")
        unlabelled, augment = ["--unlabelled", data / "unlabelled.txt"], ["--augment", "4"]
        more = {"unlabelled": unlabelled, "augment": augment, "unlabelled and augment": [*unlabelled, *augment]}
        length = ["--student-layers", "3", "--epochs", "1000", "--max-steps", args.updates, "--quiet"]
        for arm in (arm for arm in ARMS if not (home / arm / "result.json").exists()):
            recipe = ["--recipe", "kd" if arm in ("kd", "probabilities") else "best", "--output", home / arm]
            source: list[Any] = [teacher, *of_task]
            if arm in ("kd", "probabilities"):
                recipe += ["--learning-rate", "3e-4"]
            if arm == "probabilities":
                ready = with_column(home / "columns", teacher, data)
                source = ["--task", "classification", "--data", ready, "--init-from", teacher]
                source += ["--teacher-probabilities", "probabilities"]
            _call("distill", *source, *more.get(arm, []), *length, *recipe)


def _call(*words: Any) -> None:
    subprocess.run([sys.executable, "-m", "layerstill", *map(str, words)], env=os.environ, check=True)


def table(args: argparse.Namespace) -> None:
    """Scores of teachers and students."""
    records: dict[str, Any] = read_json(RESULTS) if RESULTS.exists() else {}
    for task in args.tasks:
        for arm in (arm for arm in ARMS if (args.output / task / arm / "result.json").exists()):
            record = json.loads((args.output / task / arm / "result.json").read_text("utf-8"))
            joined = {key: record[key]["examples"] for key in ("unlabelled", "augmented") if record[key]}
            scores = {key: record[key] for key in ("metrics", "teacher_metrics")}
            records.setdefault(task, {})[arm] = scores | {"texts that join": joined}
    write_json(RESULTS, records)
    print("\n".join(lines_of(records)))


def lines_of(records: dict[str, Any]) -> list[str]:
    """The table in Markdown."""
    lines = [f"| task | teacher | {' | '.join(ARMS)} |", "|---|---|" + "---|" * len(ARMS)]
    for task, arms in records.items():
        teacher = arms["quarter"]["teacher_metrics"]["accuracy"]
        cells = [f"{100 * arms[arm]['metrics']['accuracy']:.1f}" if arm in arms else "" for arm in ARMS]
        lines.append(f"| {task} | {100 * teacher:.1f} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=["run", "table"])
    parser.add_argument("--data", type=Path, help="folder of the prepared tasks")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--updates", type=int, default=1000)
    args = parser.parse_args()
    {"run": run, "table": table}[args.act](args)


if __name__ == "__main__":
    main()
