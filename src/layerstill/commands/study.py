"""`layerstill study`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from layerstill.commands.common import setup
from layerstill.commands.options import Quiet

FAILED = 1


def study(
    file: Annotated[Path, typer.Argument(help="A study file; docs/studies.md explains the format.")],
    output: Annotated[Path, typer.Option(help="Folder of the study: its runs, teachers and records.jsonl.")],
    data: Annotated[Optional[Path], typer.Option(help="A folder in the official GLUE layout.")] = None,
    ood_data: Annotated[Optional[Path], typer.Option(help="Folder that the tasks' `ood` sets are found in.")] = None,
    jobs: Annotated[
        str,
        typer.Option(
            metavar="NUMBER|auto",
            help="How many runs at a time; they share the cores evenly. auto: as many as give the most steps a second.",
        ),
    ] = "1",
    quick: Annotated[bool, typer.Option("--quick", help="Run the small version, from the file's section `quick`.")] = (
        False
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs and the time they need; do nothing.")] = (
        False
    ),
    ray: Annotated[Optional[str], typer.Option(help="Run on a Ray cluster: its address, or `local`.")] = None,
    teachers: Annotated[Optional[Path], typer.Option(help="Folder of teachers that several studies share.")] = None,
    cache_budget: Annotated[float, typer.Option(help="Largest teacher cache in GB.")] = 4.0,
    keep_cache: Annotated[bool, typer.Option("--keep-cache", help="Keep the teacher caches on the disk.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the table as JSON on standard output.")] = False,
    quiet: Quiet = False,
) -> None:
    """Run a grid of recipes, tasks, initialisations, regimes and seeds; the same command does what is missing.

    Exit status 0: every run is finished; 1: some failed and are tried again the next time; 2: a mistake in the input.

    Example:
        layerstill study study.yaml --data glue --output runs --dry-run
    """
    setup(quiet or json_)
    from layerstill.acts.study import prepare
    from layerstill.reporting.study import cells, expected, print_cells, print_runs, spoken
    from layerstill.studies.power import what_it_can_see

    ready = prepare(file, output, data, ood_data, quick, teachers, cache_budget, keep_cache)
    title = ready.study.question or ready.study.name
    left, states = ready.run.left(), ready.run.states()
    done = sum(state == "finished" for _, _, state in states)
    at_once = ready.at_once(jobs, ray)
    time = spoken(expected(left, ready.folder.typical_seconds(), at_once.count))
    summary = f"{len(states)} runs, {done} finished; left: {_counted(left)}, {time}"
    summary = "\n".join([summary, *filter(None, [at_once.why]), *ready.notes()])
    if dry_run:
        rows = [(planned.coordinates, key, state) for planned, key, state in states]
        if json_:
            print(json.dumps([{"coordinates": c, "hash": k, "state": s} for c, k, s in rows], indent=2))
        else:
            print_runs(rows, title)
            print(summary)
            if seen := what_it_can_see(ready.run):
                print(seen)
        return
    records = _carry_out(ready, at_once, ray, not (quiet or json_), summary)
    compare = ready.study.compare
    rows_ = cells(records, compare.metric if compare else None)
    if json_:
        print(json.dumps(rows_, indent=2))
    else:
        print_cells(rows_, title)
        for note in [] if quiet else ready.run.tuning_notes():
            print(note, file=sys.stderr)
    if failed := [record for record in records if record["status"] == "failed"]:
        _complain(failed, len(records))
        raise typer.Exit(FAILED)


def _counted(left: Any) -> str:
    words = {"teacher": "teachers", "tuning": "tuning runs", "run": "runs"}
    return ", ".join(f"{left[kind]} {word}" for kind, word in words.items() if left[kind]) or "nothing"


def _carry_out(ready: Any, at_once: Any, ray: str | None, show: bool, summary: str) -> list[dict[str, Any]]:
    from layerstill.reporting.study import StudyProgress

    if show:
        print(summary, file=sys.stderr)
    with StudyProgress(sum(ready.run.left().values()), show) as progress:

        def tell(job: dict[str, Any], reply: Any) -> None:
            result = None if reply.error else ready.folder.result(job["folder"])
            what = f"failed: {reply.error}"
            if result is not None:
                what = ", ".join(f"{k} {v:.4f}" for k, v in result.scores.items()) + f" ({reply.seconds:.0f} s)"
            progress.done(job["label"], what)

        return ready.carry_out(at_once, ray, tell)


def _complain(failed: list[dict[str, Any]], count: int) -> None:
    print(f"{len(failed)} of {count} runs failed; the same command tries them again:", file=sys.stderr)
    for record in failed[:10]:
        where = ", ".join(f"{axis} {value}" for axis, value in record["coordinates"].items())
        print(f"  {where}: {record['error']}", file=sys.stderr)
    if len(failed) > 10:
        print(f"  and {len(failed) - 10} more in records.jsonl", file=sys.stderr)
