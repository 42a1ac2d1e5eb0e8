"""The time that `plan` foresees beside the time that the run takes.

    python benchmarks/plan_times.py JOBS [--record FILE]
    python benchmarks/plan_times.py --show FILE

JOBS is a text file with a job a line: a name, a colon, and the arguments of `layerstill distill` without `--output`.
Variables of the environment are put in; blank lines and those that begin with # do not count. Every job is planned and
then run, each by a process of its own, and nothing else should be at work on the machine. `taken` is the wall clock of
the whole command. The record also has training alone, as `plan` foresees it and `result.json` has it.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Measure each job and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", type=Path, nargs="?")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--show", type=Path)
    args = parser.parse_args()
    if args.show is None and args.jobs is None:
        parser.error("name a file of jobs, or --show a record")
    if args.show:
        rows = json.loads(args.show.read_text("utf-8"))["rows"]
    else:
        rows = [measured(name, arguments) for name, arguments in jobs_of(args.jobs.read_text("utf-8"))]
    print("\n".join(lines_of(rows)))
    if args.record and not args.show:
        record = {"cores": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS"), "rows": rows}
        args.record.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def jobs_of(text: str) -> list[tuple[str, list[str]]]:
    """Names and arguments."""
    text = os.path.expandvars(text)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    return [(name.strip(), shlex.split(rest)) for name, _, rest in (line.partition(":") for line in lines)]


def measured(name: str, arguments: list[str]) -> dict[str, Any]:
    """One job: seconds foreseen and taken, of the whole run and of training alone."""
    foreseen = json.loads(said_by("plan", *arguments, "--json", "--quiet"))
    if foreseen["seconds"] is None:
        raise SystemExit(f"{name}: plan could not measure here: {foreseen['not_measured']}")
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        said_by("distill", *arguments, "--output", f"{folder}/run", "--quiet")
        taken = time.monotonic() - begun
        train = json.loads((Path(folder) / "run" / "result.json").read_text("utf-8"))["train"]
    return {
        "job": name,
        "steps": train["steps"],
        "foreseen": foreseen["seconds"]["total"],
        "taken": round(taken, 2),
        "training foreseen": foreseen["seconds"]["training"],
        "training taken": train["seconds"],
    }


def said_by(verb: str, *arguments: str) -> str:
    """Standard output of `layerstill VERB`; ends the benchmark with its message if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "layerstill", verb, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def lines_of(rows: list[dict[str, Any]]) -> list[str]:
    """In Markdown."""
    lines = ["| run | updates | foreseen, s | taken, s | taken / foreseen |", "|---|---|---|---|---|"]
    for row in rows:
        ratio = row["taken"] / row["foreseen"]
        lines.append(f"| {row['job']} | {row['steps']:,} | {row['foreseen']:.0f} | {row['taken']:.0f} | {ratio:.2f} |")
    return lines


if __name__ == "__main__":
    main()
