"""What `layerstill compress` keeps of MiniLM teachers on nine tasks, with no option but the data's.

    python -m benchmarks.bars run --shared DATA --output runs/bars
    python -m benchmarks.bars table --output runs/bars

`DATA` holds the public sets (GLUE, TREC, Banking77, AG_News, GoEmotions, NER/WNUT-17). Every step is one command
of layerstill; what is finished is kept, so the script can be stopped and started again. `table` prints Markdown and
writes the records it was made from to benchmarks/results/bars.json, or to `--record FILE`. `--model FOLDER` fine-tunes
the teachers from that model, `--teacher-options` and `--options` add to what the commands get.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.bars.tasks import TASKS, prepare

RESULTS = Path(__file__).parents[1] / "results" / "bars.json"


def run(args: argparse.Namespace) -> None:
    """Fine-tune a teacher and compress it, task by task."""
    from layerstill.demo_model import find_base_model

    prepare(args.shared, args.output / "data")
    for name in args.tasks:
        place = {"data": args.output / "data", "shared": args.shared}
        options = [word.format(**place) for word in TASKS[name].options]
        teacher = args.output / "teachers" / name
        more = shlex.split(args.teacher_options)
        base = args.model or find_base_model()
        _call("finetune", base, *options, *TASKS[name].teacher, *more, "--output", teacher, "--quiet")
        for seed in args.seeds:
            folder = args.output / f"{name}-{seed}"
            spent = folder / "seconds.txt"  # of all calls together; unknown after an interruption
            before = float(spent.read_text("utf-8")) if spent.exists() else None if folder.exists() else 0.0
            begun = time.monotonic()
            how = ("--seed", seed, "--effort", args.effort, *shlex.split(args.options))
            _call("compress", teacher, *options, *how, "--output", folder)
            if before is not None:
                spent.write_text(f"{before + time.monotonic() - begun:.0f}\n", "utf-8")


def _call(*words: Any) -> None:
    done = subprocess.run([sys.executable, "-m", "layerstill", *map(str, words)], env=os.environ, check=False)
    if done.returncode not in (0, 1):  # 1: nothing fits the budget, which the table says as well
        raise SystemExit(done.returncode)


def table(args: argparse.Namespace) -> None:
    """Percent kept by every student in int8, how fast it is against the teacher in int8, and how long it all took."""
    records = {}
    for path in sorted(args.output.glob("*/compress.json")):
        record = json.loads(path.read_text("utf-8"))
        if "rows" in record:
            seconds = path.parent / "seconds.txt"
            wanted = ("task", "seed", "updates", "chosen", "trials", "metric", "examples", "rows", "ship", "threads")
            kept = {key: record[key] for key in wanted}
            kept["rows"] = [{key: value for key, value in row.items() if key != "path"} for row in record["rows"]]
            records[path.parent.name] = kept | {"seconds": int(seconds.read_text()) if seconds.exists() else None}
    args.record.parent.mkdir(exist_ok=True)
    args.record.write_text(json.dumps(records, indent=1) + "\n", "utf-8")
    print("\n".join(lines_of(records)))
    print(f"records: {args.record}", file=sys.stderr)


def lines_of(records: dict[str, Any]) -> list[str]:
    """The table in Markdown. Means are over tasks, of each the mean over its seeds."""
    named = (row["model"] for record in records.values() for row in record["rows"])
    models = [name for name in dict.fromkeys(named) if name != "teacher"]
    heads = [f"{model}: kept, in int8, speed-up" for model in models]
    lines = [f"| task-seed | teacher | its int8: kept, ms | {' | '.join(heads)} | updates | start, rate | seconds |"]
    lines.append("|---|---|---|" + "---|" * (len(heads) + 3))
    kept: dict[str, dict[str, list[float]]] = {model: {} for model in models}
    for name, record in records.items():
        rows = {(row["model"], row["form"]): row for row in record["rows"]}
        teacher, int8 = rows["teacher", "torch"], rows["teacher", "int8"]
        cells = [f"{100 * teacher['score']:.1f}", f"{int8['kept']:.1f}, {int8['p50_ms']:.1f}"]
        for model in models:
            if (model, "torch") not in rows:  # made before there was such a student
                cells.append("")
                continue
            torch, small = rows[model, "torch"], rows[model, "int8"]
            kept[model].setdefault(name.rpartition("-")[0], []).append(torch["kept"])
            cells.append(f"{torch['kept']:.1f}, {small['kept']:.1f}, {int8['p50_ms'] / small['p50_ms']:.1f}x")
        chosen = f"{record['chosen']['start']}, x{record['chosen']['rate']:g}"
        lines.append(f"| {name} | {' | '.join(cells)} | {record['updates']} | {chosen} | {record['seconds'] or ''} |")
    tasks = [[fmean(seeds) for seeds in by_task.values()] for by_task in kept.values()]
    means = [f"{fmean(values):.1f} (least {min(values):.1f})" for values in tasks]
    return [*lines, f"| mean kept | | | {' | '.join(means)} | | | |"]


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=["run", "table"])
    parser.add_argument("--shared", type=Path, help="folder of the public sets")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--effort", default="normal")
    parser.add_argument("--model", help="what teachers are fine-tuned from, instead of the demo's MiniLM-L6")
    parser.add_argument("--teacher-options", default="", help="more options of `finetune`, in one string")
    parser.add_argument("--options", default="", help="more options of `compress`, in one string")
    parser.add_argument("--record", type=Path, default=RESULTS, help="where `table` writes the records")
    args = parser.parse_args()
    {"run": run, "table": table}[args.act](args)


if __name__ == "__main__":
    main()
