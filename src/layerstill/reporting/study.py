"""A study on the terminal: its runs before, its progress, its scores after."""

import statistics
import threading
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from layerstill import progress


def cells(records: list[dict[str, Any]], metric: str | None) -> list[dict[str, Any]]:
    """Mean, standard deviation and number over the seeds of every cell of the grid, in the records' order.

    `metric` is a name; without it, or where a task has no such metric, its first one is taken. The standard deviation
    is that of a sample (n - 1), None for one run.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        place = {axis: value for axis, value in record["coordinates"].items() if axis != "seed"}
        cell = found.setdefault(tuple(place.values()), {"coordinates": place, "scores": [], "teacher": [], "failed": 0})
        if record["status"] != "finished":
            cell["failed"] += 1
            continue
        scores = {name: value for name, value in record["result"]["metrics"].items() if name != "selected"}
        cell["metric"] = metric if metric in scores else next(iter(scores))
        cell["scores"].append(scores[cell["metric"]])
        cell["teacher"].append(record["result"]["teacher_metrics"].get(cell["metric"]))
    return [_summary(cell) for cell in found.values()]


def _summary(cell: dict[str, Any]) -> dict[str, Any]:
    scores, teacher = cell["scores"], [score for score in cell["teacher"] if score is not None]
    return {
        "coordinates": cell["coordinates"],
        "metric": cell.get("metric"),
        "mean": statistics.fmean(scores) if scores else None,
        "sd": statistics.stdev(scores) if len(scores) > 1 else None,
        "n": len(scores),
        "failed": cell["failed"],
        "teacher": statistics.fmean(teacher) if teacher else None,
    }


def print_cells(rows: list[dict[str, Any]], title: str) -> None:
    """The table of scores; axes with a single value are left out."""
    axes = [
        axis
        for axis in (rows[0]["coordinates"] if rows else ())
        if len({str(r["coordinates"][axis]) for r in rows}) > 1
    ]
    failed = any(row["failed"] for row in rows)
    table = Table(title=title, title_justify="left")
    for axis in axes:
        table.add_column(axis, overflow="fold")
    for column in ("metric", "mean", "sd", "n", *["failed"] * failed, "teacher"):
        table.add_column(column, justify="left" if column == "metric" else "right", min_width=len(column))
    for row in rows:
        counts = [str(row["n"]), *[str(row["failed"] or "")] * failed]
        numbers = [_score(row["mean"]), _score(row["sd"]), *counts, _score(row["teacher"])]
        table.add_row(*(str(row["coordinates"][axis]) for axis in axes), row["metric"] or "", *numbers)
    Console().print(table)


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def print_runs(states: list[tuple[dict[str, Any], str, str]], title: str) -> None:
    """The table of runs: coordinates, hash and state of each."""
    table = Table(title=title, title_justify="left")
    for column in (*(states[0][0] if states else ()), "run", "state"):
        table.add_column(column, overflow="fold")
    for coordinates, key, state in states:
        table.add_row(*map(str, coordinates.values()), key, state)
    Console().print(table)


def expected(left: dict[str, int], typical: dict[str, float], at_once: int) -> float | None:
    """Seconds that the jobs that are left will take, from the typical seconds of each kind; None if that is unknown.

    A kind that no finished job tells of is taken for as long as a run.
    """
    if "run" not in typical:
        return None
    return sum(number * typical.get(kind, typical["run"]) for kind, number in left.items()) / at_once


def spoken(seconds: float | None) -> str:
    """A duration in words."""
    return "unknown until a run is finished" if seconds is None else progress.spoken(seconds)


class StudyProgress:
    """A bar with the time left, and a line for every job that was done; a context.

    Without a terminal, a line every half minute says how far it is.
    """

    def __init__(self, jobs: int, show: bool) -> None:
        console = Console(stderr=True, quiet=not show)
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, disable=not (show and console.is_terminal))
        self._bar = self._progress.add_task("jobs", total=jobs)
        self._jobs, self._done, self._begun = jobs, 0, time.monotonic()
        self._over = threading.Event()
        self._beat = threading.Thread(target=self._say_now_and_then, daemon=True)
        self._beats = show and not console.is_terminal

    def __enter__(self) -> "StudyProgress":
        self._progress.__enter__()
        if self._beats:
            self._beat.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        if self._beats:
            self._beat.join()
        self._progress.__exit__(*error)

    def _say_now_and_then(self) -> None:
        while not self._over.wait(progress.EVERY):
            seconds = time.monotonic() - self._begun
            left = seconds / self._done * (self._jobs - self._done) if self._done else None
            ends = "" if left is None else f", {progress.spoken(left)} left"
            self._progress.console.print(
                f"{self._done} of {self._jobs} jobs done after {progress.spoken(seconds)}{ends}", highlight=False
            )

    def done(self, label: str, what: str) -> None:
        """One job more."""
        self._done += 1
        self._jobs = max(self._jobs, self._done)  # a grid that widens has more than were counted
        self._progress.update(self._bar, advance=1, total=self._jobs)
        self._progress.console.print(f"{label}: {what}", markup=False, highlight=False, soft_wrap=True)
