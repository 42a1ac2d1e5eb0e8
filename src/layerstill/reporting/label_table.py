"""Precision, recall and F1 of every class, label or type: the worst first, as a table on the terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

MOST = 12
"""Rows of a table; of more classes the worst are shown."""
Row = Mapping[str, float]


def worst_first(found: Mapping[str, Row]) -> list[tuple[str, Row]]:
    """Names and scores by F1, the lowest first; of equals those with more examples. Those without any come last."""
    return sorted(found.items(), key=lambda entry: (not entry[1]["support"], entry[1]["f1"], -entry[1]["support"]))


def print_by_label(found: Mapping[str, Row]) -> None:
    """A row for each of the worst, and how many more there are."""
    table = Table("label", "precision", "recall", "F1", "support", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in worst_first(found)[:MOST]:
        shares = (f"{row[key]:.4f}" for key in ("precision", "recall", "f1"))
        table.add_row(name, *shares, str(row["support"]))
    console = Console(markup=False)
    console.print(table)
    if (more := len(found) - MOST) > 0:
        console.print(f"These have the lowest F1; {more} more are in the output of --json.", highlight=False)
