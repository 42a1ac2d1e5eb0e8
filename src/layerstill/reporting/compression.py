"""What `compress` found: one table for the terminal, the same in Markdown, and one page with a picture."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console
from rich.table import Table

from layerstill.compression.choice import Choice
from layerstill.compression.rows import FORMS, Row
from layerstill.reporting.plan import duration
from layerstill.reporting.summary import plain

COLUMNS = ("model", "form", "score", "kept", "95 % interval", "one text", "p99", "texts/s", "on disk", "in memory", "")
WIDE, ONLY_WIDE = 140, {"95 % interval", "p99", "texts/s", "in memory"}
"""Columns of a terminal that shows all of the table, and what narrower ones leave out; the files have it all."""
WIDTH, HEIGHT, LEFT, BELOW = 720, 360, 56, 44
"""Of the picture, in pixels, and the room for its axes."""


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
    table = Table(title=plain(title), title_justify="left")
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
    environment = Environment(
        loader=PackageLoader("layerstill.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("compression.html.j2").render(
        title=title,
        version=version("layerstill"),
        style=Markup((files("layerstill.reporting") / "templates" / "report.css").read_text("utf-8")),
        sentences=choice.sentences,
        how=how,
        columns=COLUMNS,
        rows=[(row == choice.row, cells_of(row, choice.row)) for row in rows],
        notes=notes_of(rows),
        picture=picture_of(rows, choice.row),
        size=(WIDTH, HEIGHT),
        trials=trials,
    )


def picture_of(rows: Sequence[Row], chosen: Row | None) -> dict[str, Any]:
    """Where everything stands in the picture: milliseconds to the right from 0, percent kept upwards, in pixels."""
    most = max(row.p50_ms for row in rows) * 1.1
    shares = [row.kept for row in rows if row.kept is not None]
    lowest, highest = min([*shares, 97.0]) - 1, max([*shares, 100.0]) + 1
    wide, high = WIDTH - LEFT - 90, HEIGHT - BELOW - 16

    def place(row: Row) -> tuple[float, float]:
        x = LEFT + wide * row.p50_ms / most
        return round(x, 1), round(16 + high * (highest - (row.kept or 0.0)) / (highest - lowest), 1)

    points: list[dict[str, Any]] = []
    for row in sorted((row for row in rows if row.kept is not None), key=lambda r: r.p50_ms):
        x, y = place(row)
        label = y + 4.0
        while any(abs(label - p["label"]) < 13 and abs(x - p["x"]) < 120 for p in points):
            label += 13  # labels of neighbours stand below each other
        point = {"x": x, "y": y, "label": label, "text": row.name}
        points.append(point | {"form": FORMS.index(row.form), "best": row == chosen})
    return {
        "points": points,
        "across": [{"x": round(LEFT + wide * ms / most, 1), "text": f"{ms:g}"} for ms in _ticks(0, most)],
        "up": [
            {"y": round(16 + high * (highest - p) / (highest - lowest), 1), "text": f"{p:g}"}
            for p in _ticks(lowest, highest)
        ],
        "left": LEFT,
        "bottom": HEIGHT - BELOW,
    }


def _ticks(low: float, high: float) -> list[float]:
    """Four to nine round numbers from `low` to `high`."""
    steps = (digit * 10.0**power for power in range(-2, 6) for digit in (1, 2, 5))
    step = next(step for step in steps if (high - low) / step <= 8)
    first = -(-low // step) * step
    return [round(first + i * step, 6) for i in range(int((high - first) / step) + 1)]
