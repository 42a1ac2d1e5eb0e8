"""Students of MiniLM-L6 distilled on running text, then fine-tuned on tasks, beside the same student without that.

    python -m benchmarks.agnostic corpus --shared DATA --output runs/agnostic
    python -m benchmarks.agnostic distil --output runs/agnostic --max-tokens 5e6
    python -m benchmarks.agnostic finetune --shared DATA --output runs/agnostic
    python -m benchmarks.agnostic table --output runs/agnostic

Every step is a command of layerstill; what is finished is kept, so each can be stopped and given again.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.agnostic.corpus import write_corpus
from benchmarks.bars.tasks import prepare

RESULTS = Path(__file__).parents[1] / "results" / "agnostic.json"
STUDY = Path(__file__).parent / "study.yaml"
RECIPES = ("text-hid-seq", "text-att-mse", "text-att-kl", "text-att-kl+val-kl", "text-minilmv2")
STARTS = {"layers": "1,2,3", "random": "random"}


def corpus(args: argparse.Namespace) -> None:
    """Write the corpus and say what is in it."""
    print(json.dumps(write_corpus(args.shared, args.output)))


def distil(args: argparse.Namespace) -> None:
    """One student for each recipe and start, of equally many tokens."""
    from layerstill.demo_model import find_base_model

    for start in args.starts:
        for recipe in args.recipes:
            _call(
                *("distill", find_base_model(), "--task", "text", "--data", args.output / "corpus.jsonl"),
                *("--recipe", recipe, "--student-layers", 3, "--init", STARTS[start], "--learning-rate", args.rate),
                *(
                    "--set",
                    f"stages.0.batch_size={args.batch}",
                    "--max-tokens",
                    args.max_tokens,
                    "--cache",
                    args.output / "blocks",
                    "--quiet",
                ),
                *("--output", args.output / "students" / f"{recipe}-{start}"),
            )


def finetune(args: argparse.Namespace) -> None:
    """The study of study.yaml beside this file; a copy of it finds data and students beside itself."""
    prepare(args.shared, args.output / "data")
    (args.output / STUDY.name).write_text(STUDY.read_text("utf-8"), "utf-8")
    study = args.output / STUDY.name
    _call("study", study, "--data", args.shared, "--output", args.output / "study", "--jobs", args.jobs)


def _call(*words: Any) -> None:
    done = subprocess.run([sys.executable, "-m", "layerstill", *map(str, words)], env=os.environ, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def table(args: argparse.Namespace) -> None:
    """Print the table and keep the figures that it was made from."""
    found: dict[str, Any] = {"corpus": json.loads((args.output / "corpus.json").read_text("utf-8"))}
    found["students"] = {}
    for path in sorted(args.output.glob("students/*/result.json")):
        record = json.loads(path.read_text("utf-8"))
        train = record["train"]
        found["students"][path.parent.name] = {
            "steps": train["steps"],
            "seconds": train["seconds"],
            "tokens": train.get("tokens"),
            "loss": next(iter(record["metrics"].values())),
        }
    lines = (args.output / "study" / "records.jsonl").read_text("utf-8").splitlines()
    found["runs"] = [_run(json.loads(line)) for line in lines]
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print("\n".join(lines_of(found)))


def _run(record: dict[str, Any]) -> dict[str, Any]:
    where = record["coordinates"]
    return {
        "task": where["task"],
        "start": Path(where["init_from"]).name,
        "seed": where["seed"],
        "score": next(iter(record["result"]["metrics"].values())),
        "teacher": next(iter(record["result"]["teacher_metrics"].values()), None),
    }


def lines_of(found: dict[str, Any]) -> list[str]:
    """In Markdown: rows are starts, columns tasks; means over seeds, in percent, and the spread of the average."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in found["runs"]:
        scores[run["start"]][run["task"]].append(100 * run["score"])
    tasks = list(dict.fromkeys(run["task"] for run in found["runs"]))
    lines = [f"| start | {' | '.join(tasks)} | average |", f"|---|{'---|' * (len(tasks) + 1)}"]
    ordered = sorted(scores.items(), key=lambda item: -fmean(fmean(v) for v in item[1].values()))
    for start, by_task in ordered:
        cells = [f"{fmean(by_task[task]):.1f}" if by_task[task] else "" for task in tasks]
        by_seed = [fmean(values) for values in zip(*by_task.values(), strict=True)]
        spread = f" ± {stdev(by_seed):.1f}" if len(by_seed) > 1 else ""
        lines.append(f"| `{start}` | {' | '.join(cells)} | {fmean(by_seed):.1f}{spread} |")
    return lines


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    acts = parser.add_subparsers(required=True)
    for act in (corpus, distil, finetune, table):
        one = acts.add_parser(act.__name__, help=act.__doc__)
        one.add_argument("--output", type=Path, required=True)
        one.set_defaults(act=act)
        if act in (corpus, finetune):
            one.add_argument("--shared", type=Path, required=True)
        if act is distil:
            one.add_argument("--max-tokens", default="5e6")
            one.add_argument("--rate", default="5e-4")
            one.add_argument("--batch", type=int, default=32)
            one.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
            one.add_argument("--starts", nargs="+", default=list(STARTS), choices=list(STARTS))
        if act is finetune:
            one.add_argument("--jobs", default="1")
    args = parser.parse_args()
    args.act(args)


if __name__ == "__main__":
    main()
