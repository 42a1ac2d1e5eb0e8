"""The report for a terminal: cells as tables, comparisons as sentences."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from layerstill.evaluation.rules import words
from layerstill.evaluation.statistics import summarise
from layerstill.reporting.arms import Cell, Findings, Setting
from layerstill.reporting.card import Card
from layerstill.reporting.figures import by
from layerstill.reporting.looks import Looks
from layerstill.reporting.overview import problem_table, run_names, shown
from layerstill.reporting.runs import RunRecord


def print_summary(
    runs: Sequence[RunRecord], found: Sequence[Cell], findings: Findings, cards: Sequence[Card] = ()
) -> None:
    """Print what the runs gave: which student, then means and comparisons for each setting, then what went wrong."""
    console = Console()
    for card in cards:
        for line in card.lines:
            console.print(plain(line), soft_wrap=True, highlight=False)
        console.print()
    sentences = by(findings.comparisons, lambda pair: pair[0])
    for setting, cells in by(found, lambda c: c.setting).items():
        console.print(_table(setting, cells))
        for _, comparison in sentences.get(setting, ()):
            console.print(plain(f"- {words(comparison, margin=findings.margin)}"), soft_wrap=True)
        console.print()
    if findings.left_out:
        console.print(plain(f"not compared: {findings.left_out[0]}"), soft_wrap=True)
        if len(findings.left_out) > 1:
            console.print(f"and {len(findings.left_out) - 1} more pairs")
    names = run_names(runs, found, Looks(found))
    for name, status, reason, _ in problem_table(runs, names).rows:
        console.print(plain(f"{status}: {name}: {reason}"), soft_wrap=True)


def _table(setting: Setting, cells: Sequence[Cell]) -> Table:
    table = Table(title=plain(f"{setting}: dev scores in percent, mean ± standard deviation"), title_justify="left")
    for name in ("task", "recipe", "n", "metric", "score", "teacher", "others", "selected"):
        table.add_column(name, justify="right" if name in ("n", "score", "teacher") else "left", overflow="fold")
    for cell in cells:
        teacher = [v for r in cell.runs if (v := r.checked.teacher_metrics.get(cell.metric)) is not None]
        others = ", ".join(f"{m} {shown(cell.summary(m))}" for m in cell.runs[0].metrics if m != cell.metric)
        above = f"{100 * summarise(teacher).mean:.1f}" if teacher else "–"
        arm = f"{cell.arm} (teacher)" if cell.is_teacher else cell.arm
        row = [cell.task, arm, cell.metric, shown(cell.summary()), above]
        texts = [plain(text) for text in (*row, others, cell.selected)]
        table.add_row(*texts[:2], str(len(cell.runs)), *texts[2:])
    return table


def plain(text: str) -> str:
    """Text from outside for a terminal: neither markup nor control characters."""
    return escape("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))
