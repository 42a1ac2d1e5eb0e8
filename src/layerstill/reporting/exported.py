"""What an export says of its files."""

from rich.console import Console
from rich.table import Table

from layerstill.export.exported import Export, ExportedFile


def print_export(found: Export) -> None:
    """A row for every file, and a line for what is to be known of one."""
    metric = next(iter(next(iter(found.files.values())).parity["scores"]))
    table = Table("file", "MB", metric, "drop", "agrees", "worst class", "", box=None, pad_edge=False)
    for column in table.columns[1:5]:
        column.justify = "right"
    first = next(iter(found.files.values())).parity
    table.add_row("PyTorch", "", f"{100 * first['torch_scores'][metric]:.2f}", "", "", "", "")
    for file in found.files.values():
        table.add_row(*_row(file, metric))
    Console(markup=False).print(table)
    split, longest = found.record["split"], found.record["max_length"]
    print(f"{first['examples']} texts of {split}, at most {longest} tokens; {found.folder}")
    for file in found.files.values():
        if file.kept_fp32:
            print(f"{file.path.name}: in fp32 stay {', '.join(file.kept_fp32)}")
        if not file.fit:
            print(f"{file.path.name}: UNFIT: {file.reason}")


def _row(file: ExportedFile, metric: str) -> tuple[str, ...]:
    agreement, worst = file.parity["agreement"], file.parity["worst_class"]
    return (
        file.path.name,
        f"{file.mb:.1f}",
        f"{100 * file.parity['scores'][metric]:.2f}",
        f"{file.drop:.2f}",
        "" if agreement is None else f"{100 * agreement:.1f} %",
        "" if worst is None else f"{worst['name']} -{worst['lost']:.1f}" if worst["lost"] > 0 else "none",
        "fit" if file.fit else "UNFIT",
    )
