"""What `compress` found: one table for the terminal, the same in Markdown, and one page with a picture."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.table import Table as TerminalTable

from layerstill.compression.choice import Choice, teacher_row
from layerstill.compression.rows import Row
from layerstill.reporting.card import Card, Fact
from layerstill.reporting.frame import asset, hash_of, page_environment
from layerstill.reporting.labels import Box, place
from layerstill.reporting.looks import TEACHER, Key
from layerstill.reporting.overview import Named
from layerstill.reporting.plan import duration
from layerstill.reporting.plots import Table
from layerstill.reporting.summary import plain

COLUMNS = ("model", "form", "score", "kept", "95 % interval", "one text", "p99", "texts/s", "on disk", "in memory", "")
WIDE, ONLY_WIDE = 140, {"95 % interval", "p99", "texts/s", "in memory"}
"""Columns of a terminal that shows all of the table, and what narrower ones leave out; the files have it all."""
SIZES = ((860, 420), (366, 340))
"""Width and height of the picture in pixels, for a desktop and for a phone."""
LEFT, BELOW, LETTERS = 48, 44, 12.0
"""Room for the axes of the picture, and the height of letters in it."""


def cells_of(row: Row, chosen: Row | None) -> list[str]:
    """A row of the table as text."""
    interval = "" if row.interval is None else f"{row.interval[0]:.1f} to {row.interval[1]:.1f}"
    remark = "<- this one" if row == chosen else ("" if row.fit else "unfit")
    return [
        row.model,
        row.form,
        f"{100 * row.score:.1f}",
        row.percent,
        interval,
        f"{row.p50_ms:.1f} ms",
        f"{row.p99_ms:.1f} ms",
        f"{row.texts_per_second:.0f}",
        f"{row.disk_mb:.1f} MB",
        "" if row.memory_mb is None else f"{row.memory_mb:.0f} MB",
        remark,
    ]


def print_rows(rows: Sequence[Row], choice: Choice, title: str, how: str) -> None:
    """The table, how it was measured, and what to ship, on standard output."""
    console = Console(width=None if Console().is_terminal else 150)
    shown = [i for i, name in enumerate(COLUMNS) if console.width >= WIDE or name not in ONLY_WIDE]
    table = TerminalTable(title=plain(title), title_justify="left")
    for number in shown:
        table.add_column(COLUMNS[number], justify="left" if number < 2 else "right", no_wrap=True)
    last = None
    for row in rows:
        if last is not None and row.model != last:
            table.add_section()
        last = row.model
        cells = cells_of(row, choice.row)
        table.add_row(*(plain(cells[i]) for i in shown), style="bold" if row == choice.row else None)
    console.print(table)
    console.print(plain(how), soft_wrap=True)
    for note in notes_of(rows):
        console.print(plain(note), soft_wrap=True)
    for sentence in choice.sentences:
        console.print(plain(sentence), soft_wrap=True)


def print_steps(steps: Sequence[Any], as_json: bool) -> None:
    """What will be done, each with its updates and the time that it takes here, and the sum."""
    known = [step.seconds for step in steps if step.seconds is not None]
    if as_json:
        found = [{"what": step.what, "updates": step.updates, "seconds": step.seconds} for step in steps]
        print(json.dumps({"steps": found, "seconds": sum(known) if len(known) == len(steps) else None}, indent=2))
        return
    for step in steps:
        updates = "" if step.updates is None else f", {step.updates:,} updates"
        time = "the models are too large to be tried here" if step.seconds is None else duration(step.seconds)
        print(f"{step.what}{updates}: {time}")
    print(f"in all about {duration(sum(known))} on this machine; nothing was trained or written")


def notes_of(rows: Sequence[Row]) -> list[str]:
    """What must be said of single rows: why a file is unfit, or what stayed in 32 bits."""
    return [f"{row.name}: {row.note}" for row in rows if row.note]


def markdown(rows: Sequence[Row], choice: Choice, title: str, how: str) -> str:
    """The same as Markdown, for the README of the folder."""
    lines = [f"# {title}", "", "\n\n".join(choice.sentences), "", f"| {' | '.join(COLUMNS[:-1])} | |"]
    lines.append("|" + "---|" * len(COLUMNS))
    lines += [f"| {' | '.join(cells_of(row, choice.row))} |" for row in rows]
    lines += ["", how, "", *(f"- {note}" for note in notes_of(rows))]
    return "\n".join(lines).rstrip() + "\n"


def page(rows: Sequence[Row], choice: Choice, title: str, how: str, trials: Sequence[dict[str, Any]]) -> str:
    """One HTML page that needs no network: what to ship, a picture of quality against time, the table, the trials."""
    environment = page_environment()
    script = asset("report.js")
    looks = _looks(rows)
    order = _by_importance(rows, choice.row)
    return environment.get_template("compression.html.j2").render(
        title=title,
        version=version("layerstill"),
        style=Markup(asset("report.css")),
        script=Markup(script),
        script_hash=hash_of(script),
        card=card_of(rows, choice),
        how=how,
        results=table_of(rows, choice.row),
        notes=notes_of(rows),
        pictures=[picture_of(order, choice.row, looks, *size) for size in SIZES],
        legend=[Key(row.name, *looks[row.name]) for row in rows if row.kept is not None],
        trials=Table(["candidate", "updates", "score"], [list(trial.values()) for trial in trials]),
    )


def card_of(rows: Sequence[Row], choice: Choice) -> Card:
    """Which model to ship, what is lost, what is gained."""
    row, teacher = choice.row, teacher_row(rows)
    if row is None or teacher is None:
        return Card("which model to ship", "none", "", "", (), choice.sentences)
    lost = 100 * (teacher.score - row.score)
    sure = f"keeps {row.percent}"
    if row.interval is not None:
        sure += f", 95 % interval {row.interval[0]:.1f} to {row.interval[1]:.1f} %, paired over examples"
    facts = (
        Fact("score", f"{100 * row.score:.1f}", f"teacher {100 * teacher.score:.1f}"),
        Fact("lost", f"{lost:.1f} points" if lost >= 0.05 else "nothing", sure),
        Fact(
            "gained",
            f"{teacher.p50_ms / row.p50_ms:.1f} times as fast",
            f"{row.p50_ms:.1f} of {teacher.p50_ms:.1f} ms a text",
        ),
        Fact("size", f"{row.disk_mb:.1f} MB", f"of {teacher.disk_mb:.1f} MB on disk"),
    )
    return Card("which model to ship", row.name, mark_of(row), row.path, facts, choice.sentences)


def mark_of(row: Row) -> str:
    """Whether a row is the teacher, quantised, or unfit."""
    kind = {"torch": "", "onnx": "", "int8": "quantised"}[row.form]
    named = f"{kind} {TEACHER}".strip() if row.teaches else kind
    return named if row.fit else f"unfit {named}".strip()


def table_of(rows: Sequence[Row], chosen: Row | None) -> Table:
    """The table with numbers as numbers, so that they can be sorted."""
    header = ["model", "score", "kept, %", "95 % interval", "ms", "p99, ms", "texts/s", "MB on disk", "MB in memory"]
    header.append("")
    found = []
    for row in rows:
        interval = None if row.interval is None else f"{row.interval[0]:.1f} to {row.interval[1]:.1f}"
        measures = [row.p50_ms, row.p99_ms, row.texts_per_second, row.disk_mb, row.memory_mb]
        last: Any = Named("ship this", "ship this") if row == chosen else ""
        found.append([Named(row.name, mark_of(row)), 100 * row.score, row.kept, interval, *measures, last])
    return Table(header, found)


def _looks(rows: Sequence[Row]) -> dict[str, tuple[int, str]]:
    """Look and kind of mark of every row, by its name: models differ in colour and shape, forms in the filling."""
    students = list(dict.fromkeys(row.model for row in rows if not row.teaches))
    kinds = {"torch": "", "onnx": "pale", "int8": "hollow"}
    return {
        row.name: (
            0 if row.teaches else students.index(row.model),
            f"{kinds[row.form]} {TEACHER if row.teaches else ''}".strip() or "point",
        )
        for row in rows
    }


def _by_importance(rows: Sequence[Row], chosen: Row | None) -> list[Row]:
    """Rows in the order in which their names get room in a picture."""
    return sorted(rows, key=lambda row: (row != chosen, not row.teaches, row.form != "int8", row.p50_ms))


def picture_of(
    rows: Sequence[Row], chosen: Row | None, looks: dict[str, tuple[int, str]], width: int, height: int
) -> dict[str, Any]:
    """Where everything stands in the picture: milliseconds to the right from 0, percent kept upwards, in pixels.

    A name that would hide a mark or another name is left to the legend; the first rows get room first.
    """
    most = max(row.p50_ms for row in rows) * 1.1
    shares = [row.kept for row in rows if row.kept is not None]
    lowest, highest = min([*shares, 97.0]) - 1, max([*shares, 100.0]) + 1
    wide, high = width - LEFT - 12, height - BELOW - 16

    def across(ms: float) -> float:
        return round(LEFT + wide * ms / most, 1)

    def up(kept: float) -> float:
        return round(16 + high * (highest - kept) / (highest - lowest), 1)

    known = [row for row in rows if row.kept is not None]
    spots = [(across(row.p50_ms), up(row.kept or 0.0)) for row in known]
    frame = Box(LEFT, 2, width, height - BELOW + 2)
    places = place(spots, [row.name for row in known], frame, LETTERS, 7.0)
    points = [
        {"x": x, "y": y, "key": Key(row.name, *looks[row.name]), "best": row == chosen, "label": label}
        for (x, y), row, label in zip(spots, known, places, strict=True)
    ]
    return {
        "width": width,
        "height": height,
        "points": points,
        "across": [{"x": across(ms), "text": f"{ms:g}"} for ms in _ticks(0, most)],
        "up": [{"y": up(p), "text": f"{p:g}"} for p in _ticks(lowest, highest)],
        "left": LEFT,
        "bottom": height - BELOW,
    }


def _ticks(low: float, high: float) -> list[float]:
    """Four to nine round numbers from `low` to `high`."""
    steps = (digit * 10.0**power for power in range(-2, 6) for digit in (1, 2, 5))
    step = next(step for step in steps if (high - low) / step <= 8)
    first = -(-low // step) * step
    return [round(first + i * step, 6) for i in range(int((high - first) / step) + 1)]
