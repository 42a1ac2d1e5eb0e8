"""Try candidates for the recipe `best`: students of a teacher, the same number of updates for all.

    python -m benchmarks.best run --teacher runs/trec --task classification --data trec --output runs/best/trec
    python -m benchmarks.best table runs/best/*

Finished runs are kept, so the command can be stopped and given again. `table` prints what each candidate keeps of its
teacher, in percent, and with `--record FILE` writes the scores to a file.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.best.candidates import CANDIDATES, PUBLISHED, published


def run(args: argparse.Namespace) -> None:
    """Every candidate at every budget and seed, the cheapest budget first."""
    from layerstill import acts
    from layerstill.data.glue import GLUE
    from layerstill.data.tasks import Task
    from layerstill.training.arguments import Options
    from layerstill.training.cache_choice import CacheOptions

    if args.task == "tickets":
        task = _with_all_of_dev(Task.demo())
    elif args.task in GLUE:
        task = Task.glue(args.task, args.data)
    else:
        task = Task.from_files(args.task, args.data, text_columns=tuple(args.text_columns))
    for updates in args.updates:
        for seed in args.seeds:
            for name in args.candidates or CANDIDATES:
                folder = args.output / f"{name}-{args.layers}-{updates}-{seed}"
                recipe = recipe_of(name, updates, len(task.splits["train"]))
                cache = CacheOptions(str(args.output / "cache"), 20.0)
                options = Options(seed=seed, max_length=args.max_length, progress=False, cache=cache)
                done = acts.distill(str(args.teacher), task, recipe, args.layers, folder, options)
                (folder / "model.safetensors").unlink(missing_ok=True)
                print(folder.name, done.record.scores, round(done.record.train.seconds or 0), flush=True)


def _with_all_of_dev(task: Any) -> Any:
    """Dev and test as one: 120 messages alone say little."""
    dev, test = task.splits["dev"], task.splits["test"]
    both = type(dev)([*dev.texts, *test.texts], [*dev.labels, *test.labels])
    return replace(task, splits={"train": task.splits["train"], "dev": both})


def recipe_of(name: str, updates: int, examples: int) -> Any:
    """A candidate whose stages take `updates` steps in all."""
    from layerstill.recipe import Recipe

    data = CANDIDATES[name]() if name in CANDIDATES else published(name)
    for stage in data["stages"]:  # half a step short, so that rounding up ends at the number
        steps = -(-examples // stage["batch_size"])
        stage["epochs"] = (round(stage["epochs"] * updates) - 0.5) / steps
    return Recipe.from_data({"name": name, **data})


def table(args: argparse.Namespace) -> None:
    """Print the table of finished runs, and keep the scores that it was made from."""
    records = []
    for path in sorted(p for folder in args.folders for p in folder.glob("*/result.json")):
        record = json.loads(path.read_text("utf-8"))
        metric = next(iter(record["metrics"]))
        name, layers, updates, seed = path.parent.name.rsplit("-", 3)
        task = path.parent.parent.name
        score, teacher = record["metrics"][metric], record["teacher_metrics"].get(metric)
        who = {"task": task, "candidate": name, "layers": int(layers), "updates": int(updates), "seed": int(seed)}
        seconds, batch = record["train"]["seconds"], round(record["train"]["examples"] / record["train"]["steps"])
        told = {"batch": batch, "metric": metric, "score": score, "teacher": teacher, "seconds": seconds}
        records.append(who | told)
    print("\n".join(lines_of(records)))
    if args.record:
        args.record.write_text(json.dumps(records, indent=1) + "\n", "utf-8")


def lines_of(records: list[dict[str, Any]]) -> list[str]:
    """In Markdown the mean share of the teacher's score, in percent, by candidate, budget and task."""
    kept: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    teachers = {r["task"]: r["teacher"] for r in records if r["teacher"]}
    for r in records:
        budget = f"{r['layers']} layers, {r['updates']} x {r['batch']}"
        kept[budget, r["candidate"]][r["task"]].append(100 * r["score"] / teachers[r["task"]])
    tasks = sorted(teachers)
    lines = [f"| layers, updates x batch | candidate | {' | '.join(tasks)} |", f"|---|---|{'---|' * len(tasks)}"]
    rows = [(budget, name, {t: fmean(v) for t, v in by_task.items()}) for (budget, name), by_task in kept.items()]
    for budget, name, by_task in sorted(rows, key=lambda row: (row[0], -fmean(row[2].values()))):
        cells = " | ".join(f"{by_task[t]:.1f}" if t in by_task else "" for t in tasks)
        lines.append(f"| {budget} | `{name}` | {cells} |")
    return lines


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    acts = parser.add_subparsers(required=True)
    runs = acts.add_parser("run")
    runs.add_argument("--teacher", type=Path, required=True)
    runs.add_argument("--task", required=True)
    runs.add_argument("--data", type=Path)
    runs.add_argument("--text-columns", nargs="*", default=[])
    runs.add_argument("--max-length", type=int, default=128)
    runs.add_argument("--layers", type=int, default=3)
    runs.add_argument("--updates", type=int, nargs="+", default=[400, 1500])
    runs.add_argument("--seeds", type=int, nargs="+", default=[0])
    runs.add_argument("--candidates", nargs="*", choices=[*CANDIDATES, *PUBLISHED])
    runs.add_argument("--output", type=Path, required=True)
    runs.set_defaults(act=run)
    tables = acts.add_parser("table")
    tables.add_argument("folders", type=Path, nargs="+")
    tables.add_argument("--record", type=Path)
    tables.set_defaults(act=table)
    args = parser.parse_args()
    args.act(args)


if __name__ == "__main__":
    main()
