"""Scores of every class, label, type or target: the worst first, as a table on the terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

MOST = 12
"""Rows of a table; of more classes the worst are shown."""
Row = Mapping[str, float]
TITLES = {"f1": "F1"}


def judged_by(found: Mapping[str, Row]) -> str:
    """What says which is the worst: F1, or of scores the first column."""
    row = next(iter(found.values()), {})
    return "f1" if "f1" in row else next(iter(row), "")


def worst_first(found: Mapping[str, Row]) -> list[tuple[str, Row]]:
    """Names and rows, the lowest scores first; of equals those with more examples. Those without any come last."""
    by = judged_by(found)
    return sorted(found.items(), key=lambda entry: (not entry[1]["support"], entry[1][by], -entry[1]["support"]))


def columns_of(found: Mapping[str, Row]) -> list[tuple[str, str]]:
    """Keys and titles of the columns of a table, the support last."""
    row = next(iter(found.values()), {})
    return [(key, TITLES.get(key, key)) for key in row]


def print_by_label(found: Mapping[str, Row]) -> None:
    """A row for each of the worst, and how many more there are."""
    columns = columns_of(found)
    table = Table("label", *(title for _, title in columns), box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in worst_first(found)[:MOST]:
        table.add_row(name, *(in_words(row[key]) for key, _ in columns))
    console = Console(markup=False)
    console.print(table)
    if (more := len(found) - MOST) > 0:
        worst = TITLES.get(judged_by(found), judged_by(found))
        console.print(f"These have the lowest {worst}; {more} more are in the output of --json.", highlight=False)


def in_words(value: float) -> str:
    """A share in four digits, a number of examples as it is."""
    return str(value) if isinstance(value, int) else f"{value:.4f}"
