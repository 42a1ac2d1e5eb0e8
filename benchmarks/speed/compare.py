"""Examples per second of layerstill and TextBrewer on the same machine in one run, as ratios.

    make bench GLUE=path/to/glue

Every arm is a process of its own that trains the same three-layer student under the same six-layer teacher
(all-MiniLM-L6-v2 with a fresh head) on RTE pairs, batch 32, at most 128 tokens, other pairs and another order in every
round. The first steps are not timed: `--warmup` of TextBrewer's, of layerstill's a whole epoch over the same pairs.
Arms take turns (A B C A B C ...), so that a noisy machine is noisy for all. Ratios are formed within a round; the table
shows their median and range. TextBrewer runs in an environment of its own (`--textbrewer PYTHON`).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
WORKLOADS = {
    "hidden+attention": ["textbrewer padded", "textbrewer dynamic", "live", "cached", "slow", "alone", "alone frozen"],
    "rail": ["textbrewer dynamic", "live", "cached", "alone"],
    "logits": ["textbrewer dynamic", "live", "cached", "alone"],
    "last layer": ["textbrewer dynamic", "live", "cached", "alone"],
}
BARS = [
    ("hidden+attention", "live", "textbrewer dynamic", 3.0),
    ("hidden+attention", "live", "textbrewer padded", 4.0),
    ("hidden+attention", "cached", "textbrewer dynamic", 6.0),
    ("rail", "cached", "alone", 0.9),
]


def prepare(place: Path, glue: Path) -> None:
    """Teacher, student and tokenised pairs, the same for all arms."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    from layerstill import Task
    from layerstill.demo import find_base_model
    from layerstill.recipe import StudentSpec
    from layerstill.students.build import build_student

    set_seed(0)
    base = find_base_model()
    teacher = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    tokenizer = AutoTokenizer.from_pretrained(base)
    student = build_student(teacher, 3, StudentSpec(), seed=0)
    for name, model in (("teacher", teacher), ("student", student)):
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    split = Task.glue("rte", glue).splits["train"]
    rows = []
    for texts, label in zip(split.texts, split.labels, strict=True):
        row = tokenizer(*texts, truncation=True, max_length=128)
        rows.append({"input_ids": row["input_ids"], "token_type_ids": row["token_type_ids"], "label": label})
    (place / "rows.json").write_text(json.dumps(rows), "utf-8")


def run(place: Path, workload: str, arm: str, seed: int, args: argparse.Namespace, batch_size: int = 32) -> dict:
    """One timed training in a process of its own; SystemExit with the last line of its error if it fails."""
    job = {
        "workload": workload,
        "arm": arm,
        "seed": seed,
        "steps": args.steps,
        "batch_size": batch_size,
        "warmup": args.warmup,
        "max_length": 128,
        "rows": str(place / "rows.json"),
        "teacher": str(place / "teacher"),
        "student": str(place / "student"),
        "cache": str(place / "cache"),
    }
    peer = arm.startswith("textbrewer")
    python = args.textbrewer if peer else sys.executable
    kind = arm.split()[0]
    worker = HERE / f"{kind if kind in ('textbrewer', 'plain') else 'layerstill'}_worker.py"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([python, worker, json.dumps(job)], capture_output=True, text=True, env=environment)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise SystemExit(f"{workload}, {arm}: {said[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def accelerator() -> str:
    """Name of the GPU that layerstill's arms ran on, if there is one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def circumstances(args: argparse.Namespace) -> dict:
    """Where and with what a workload was measured."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
    words = (
        "import importlib.metadata as m; print(m.version('textbrewer'), m.version('torch'), m.version('transformers'))"
    )
    peer = subprocess.run([args.textbrewer, "-c", words], capture_output=True, text=True, check=True).stdout.split()
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "accelerator": accelerator(),
        "layerstill": {
            "commit": commit.stdout.strip(),
            "torch": version("torch"),
            "transformers": version("transformers"),
        },
        "peer": dict(zip(("textbrewer", "torch", "transformers"), peer, strict=True)),
        "steps": args.steps,
        "warmup": args.warmup,
    }


def processor() -> str:
    """Name of the processor, where the system tells it."""
    told = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in told.read_text().splitlines() if line.startswith("model name")]
        if told.is_file()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def ratios(rounds: list[dict], arm: str, other: str) -> list[float]:
    """Examples per second of one arm over another's, round by round."""
    return [r[arm]["examples_per_second"] / r[other]["examples_per_second"] for r in rounds]


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def report(records: dict[str, dict]) -> None:
    """Print tables of medians and ratios, and the bars."""
    results = {workload: record["rounds"] for workload, record in records.items()}
    for workload, rounds in results.items():
        columns = "examples/s | over textbrewer dynamic | over the student alone | share of peak | peak MB"
        print(f"\n| {workload} | {columns} |")
        print("|---|---|---|---|---|---|")
        for arm in rounds[0]:
            speed = spread([r[arm]["examples_per_second"] for r in rounds])
            peer, alone = (spread(ratios(rounds, arm, other)) for other in ("textbrewer dynamic", "alone"))
            memory = statistics.median(r[arm]["peak_mb"] for r in rounds)
            shares = [r[arm]["share_of_peak"] for r in rounds if "share_of_peak" in r[arm]]
            share = f"{statistics.median(shares):.0%}" if shares else "-"
            print(f"| {arm} | {speed} | {peer} | {alone} | {share} | {memory:.0f} |")
    print()
    for arm in ("alone", "alone frozen"):
        shares = [r[arm]["share_of_peak"] for rounds in results.values() for r in rounds if arm in r]
        if shares:
            verdict = "holds " if statistics.median(shares) >= 0.6 else "MISSED"
            print(f"{verdict} student {arm} at {spread(shares)} of the matmul peak, wanted 0.6")
    for workload, arm, other, wanted in BARS:
        if workload in results:
            found = statistics.median(ratios(results[workload], arm, other))
            print(
                f"{'holds ' if found >= wanted else 'MISSED'} {workload}: {arm} {found:.2f}x {other}, wanted {wanted}x"
            )


def plot(records: dict[str, dict], path: Path) -> None:
    """Bars of median examples per second with their range, a panel a workload, and the floor that operations set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(records), figsize=(4.2 * len(records), 3.6), squeeze=False)
    for panel, (workload, record) in zip(panels[0], records.items(), strict=True):
        rounds = record["rounds"]
        for place, arm in enumerate(rounds[0]):
            speeds = [r[arm]["examples_per_second"] for r in rounds]
            middle = statistics.median(speeds)
            error = [[middle - min(speeds)], [max(speeds) - middle]]
            panel.barh(place, middle, xerr=error, color="#b0672a" if arm.startswith("textbrewer") else "#2a6fb0")
            floors = [r[arm]["floor"] for r in rounds if "floor" in r[arm]]
            if floors:
                panel.plot([statistics.median(floors)] * 2, [place - 0.4, place + 0.4], color="black")
        panel.set_yticks(range(len(rounds[0])), list(rounds[0]))
        panel.invert_yaxis()
        panel.set_title(workload)
        panel.set_xlabel("examples/s (black: at the matmul peak)")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Prepare, alternate, report, write the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="GLUE folder with RTE")
    parser.add_argument("--show", action="store_true", help="print the tables of the records that are there")
    parser.add_argument("--textbrewer", default="textbrewer-env/bin/python", help="Python that has TextBrewer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="steps that are timed")
    parser.add_argument("--warmup", type=int, default=3, help="steps of TextBrewer that are not timed")
    parser.add_argument(
        "--workload", action="append", choices=list(WORKLOADS), help="only this one; the records of others stay"
    )
    parser.add_argument("--output", type=Path, default=HERE.parent / "results" / "speed.json")
    args = parser.parse_args()
    records: dict[str, dict] = {}
    if (args.workload or args.show) and args.output.is_file():
        records = json.loads(args.output.read_text("utf-8"))
    if args.show:
        report(records)
        return
    if args.data is None:
        parser.error("--data: the GLUE folder with RTE")
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place), args.data)
        for workload in args.workload or WORKLOADS:
            rounds = []
            for round_ in range(args.rounds):
                rounds.append({arm: run(Path(place), workload, arm, round_, args) for arm in WORKLOADS[workload]})
                figures = ", ".join(f"{arm} {f['examples_per_second']:.1f}" for arm, f in rounds[-1].items())
                print(f"{workload}, round {round_ + 1}: {figures}", file=sys.stderr, flush=True)
            records[workload] = {**circumstances(args), "rounds": rounds}
    report(records)
    args.output.parent.mkdir(exist_ok=True)
    args.output.write_text(json.dumps(records, indent=1) + "\n", "utf-8")
    plot(records, args.output.with_suffix(".svg"))
    print(f"\nrecords: {args.output}, plot beside it", file=sys.stderr)


if __name__ == "__main__":
    main()
