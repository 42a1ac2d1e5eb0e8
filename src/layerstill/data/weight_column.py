"""A column of weights: what each training example counts in the loss on labels."""

from layerstill.data.columns import short
from layerstill.data.split import is_weight
from layerstill.data.table import Table
from layerstill.errors import UserError

OPTION = "--weight-column"


def weights_of(table: Table, column: str | None, others: tuple[str, ...] = ()) -> list[float]:
    """A column as numbers of 0 or more; empty without a column.

    `others` are the columns that hold something else. UserError with the line for what is none, and for a column of
    zeros.
    """
    if column is None:
        return []
    if column in others:
        raise UserError(f"{OPTION} {column}: this column holds the texts or the labels; name the one of the weights")
    weights = []
    for line, value in zip(table.lines, table.column(column, OPTION), strict=True):
        weight = _number(value)
        if weight is None:
            raise UserError(
                f"{table.where(line)}: weight {short(value)} in column {column!r} is not a number of 0 or more; "
                "correct it, or write 1 for an example that counts as usual and 0 for one that counts nothing"
            )
        weights.append(weight)
    if not any(weights):
        raise UserError(
            f"{table.path}: column {column!r} (from {OPTION}) is 0 in all of its {len(weights)} rows, so nothing would "
            "be learnt; give some of them a weight above 0, or leave the option out"
        )
    return weights


def _number(value: object) -> float | None:
    if isinstance(value, bool) or "_" in str(value):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever cannot be one raises
    except (TypeError, ValueError, OverflowError):
        return None
    return number if is_weight(number) else None
