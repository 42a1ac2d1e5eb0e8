"""Precision, recall and F1 of every label, as a table on the terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table


def print_by_label(found: Mapping[str, Mapping[str, float]]) -> None:
    """A row for every label, in the order of the model's outputs."""
    table = Table("label", "precision", "recall", "F1", "support", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in found.items():
        shares = (f"{row[key]:.4f}" for key in ("precision", "recall", "f1"))
        table.add_row(name, *shares, str(row["support"]))
    Console(markup=False).print(table)
