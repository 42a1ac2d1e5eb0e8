"""Compare recipes on a GLUE task over seeds: one teacher, one initialisation, the same number of updates for all.

    python benchmarks/recipes_on_glue.py run --data GLUE --task mrpc --output runs/mrpc
    python benchmarks/recipes_on_glue.py table --output runs/mrpc

Every run is one `layerstill distill` command; finished ones are kept, so the script can be stopped and started again.
`table` prints the comparison in Markdown and writes the records it was made from to benchmarks/results.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RECIPES = ["finetune", "kd", "pkd", "tinybert", "att-kl", "rail-kd-l", "rail-kd-c", "cr-ild"]
TWO_STAGES = {"tinybert", "att-kl", "cr-ild"}
CONSISTENT = ["consistent attention", "consistent hidden states"]
ALL_STAGES = ["optimiser.schedule=linear", "optimiser.warmup=0.1", "optimiser.weight_decay=0.01"]


def command(args: argparse.Namespace, recipe: str, seed: int) -> list[str]:
    """The command of one run. All arms get `--epochs` in total, halved over two stages where there are two."""
    stages = 2 if recipe in TWO_STAGES else 1
    words = f"layerstill distill {args.output}/teacher --task {args.task} --data {args.data} --recipe {recipe}"
    words += f" --student-layers 3 --init {args.init} --epochs {args.epochs / stages:g} --batch-size 16"
    words += f" --learning-rate {args.learning_rate:g} --seed {seed} --output {args.output}/{recipe}-{seed} --json"
    if args.train_examples:
        words += f" --train-examples {args.train_examples}"
    if recipe == "cr-ild":  # by epochs the consistency weight would stay 0 in a stage of one epoch
        words += "".join(f" --set 'stages.0.objectives.{name}.weight.ramp.per=step'" for name in CONSISTENT)
    for stage in range(stages):
        words += "".join(f" --set stages.{stage}.{setting}" for setting in ALL_STAGES)
    return shlex.split(words)


def run(args: argparse.Namespace) -> None:
    """Fine-tune the teacher, then all runs, seed by seed, two at a time with one thread each."""
    from layerstill.demo import find_base_model

    words = (
        f"layerstill finetune {find_base_model()} --task {args.task} --data {args.data} --output {args.output}/teacher"
    )
    if args.train_examples:
        words += f" --train-examples {args.train_examples}"
    subprocess.run([*shlex.split(words), "--json"], check=True, stdout=subprocess.DEVNULL)
    jobs = [(recipe, seed) for seed in range(args.seeds) for recipe in RECIPES]
    with ThreadPoolExecutor(args.parallel) as pool:
        list(pool.map(lambda job: _one(args, *job), jobs))


def _one(args: argparse.Namespace, recipe: str, seed: int) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command(args, recipe, seed), env=environment, capture_output=True, text=True)
    line = done.stderr.strip().split("\n")[-1] if done.returncode else json.dumps(json.loads(done.stdout)["metrics"])
    print(f"{recipe} seed {seed}: {line}", flush=True)


def table(args: argparse.Namespace) -> None:
    """Mean, standard deviation and n of every metric on dev, and seconds."""
    records = [json.loads(p.read_text()) for p in sorted(args.output.glob("*/result.json"))]
    by_name = {p.parent.name: r for p, r in zip(sorted(args.output.glob("*/result.json")), records, strict=True)}
    teacher = by_name["teacher"]
    metrics = [name for name in teacher["metrics"] if name != "selected"]
    print(f"| recipe | {' | '.join(metrics)} | n | seconds | examples/s |")
    print(f"|---|{'---|' * (len(metrics) + 3)}")
    cells = " | ".join(f"{teacher['metrics'][m] * 100:.1f}" for m in metrics)
    seconds, rate = teacher["train"]["seconds"], teacher["train"]["examples_per_second"]
    print(f"| teacher (6 layers) | {cells} | 1 | {seconds:.0f} | {rate:.0f} |")
    kept = {"teacher": _record(teacher)}
    for recipe in RECIPES:
        runs = {name: r for name, r in by_name.items() if name.rsplit("-", 1)[0] == recipe}
        if not runs:
            continue
        kept |= {name: _record(r) for name, r in runs.items()}
        cells = " | ".join(_spread([r["metrics"][m] * 100 for r in runs.values()]) for m in metrics)
        seconds = statistics.mean(r["train"]["seconds"] for r in runs.values())
        rate = statistics.mean(r["train"]["examples_per_second"] for r in runs.values())
        print(f"| `{recipe}` | {cells} | {len(runs)} | {seconds:.0f} | {rate:.0f} |")
    target = Path(__file__).parent / "results" / f"recipes_on_{args.task}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    print(f"records: {target}", file=sys.stderr)


def _record(result: dict) -> dict:
    wanted = ("recipe", "recipe_hash", "task", "seed", "student", "metrics", "teacher_metrics", "train", "environment")
    record = {key: result[key] for key in wanted}
    record["student"] = result["student"] | {"init": result["student"]["init"]["layers"]}
    return record


def _spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=["run", "table"])
    parser.add_argument("--data", type=Path, help="GLUE folder")
    parser.add_argument("--task", default="mrpc")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=2, help="in total, for every recipe")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--init", default="first-k")
    parser.add_argument("--train-examples", type=int)
    parser.add_argument("--parallel", type=int, default=2)
    args = parser.parse_args()
    {"run": run, "table": table}[args.act](args)


if __name__ == "__main__":
    main()
