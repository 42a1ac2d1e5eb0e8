"""Names of classes as pandas and spreadsheets write them: `1.0` for 1, `TRUE` for True, blanks around a name."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

TRUTH = {"true": "True", "false": "False"}
ABSENT = ("none", "null", "na", "n/a", "#n/a", "<na>")
"""What some programs write where nothing is known, though a class may be called so."""


def is_missing(value: Any) -> bool:
    """Whether there is no label: null, an empty text or nan."""
    if isinstance(value, str):
        return not value.strip() or value.strip().lower() == "nan"
    return value is None or (isinstance(value, float) and math.isnan(value))


def way_out(value: Any, column: str) -> str:
    """What to do about a value that names no class."""
    if is_missing(value):
        return (
            f"it is missing: fill it in or leave the row out (pandas: df.dropna(subset=[{column!r}])); "
            "texts without labels are for --unlabelled, and those with any number of labels for --task multilabel"
        )
    if _are_probabilities(value):
        return (
            f"these look like probabilities of classes, which are for --teacher-probabilities {column}; --label-column "
            "is one class a row"
        )
    if isinstance(value, dict):
        answers = "answer_start" in value or "answers" in value
        return "layerstill does not do question answering" if answers else "use strings or whole numbers"
    if _is_infinite(value):
        return "it is read as an infinite number; if it is a name, write another one, such as 'infinite'"
    return (
        "use strings or whole numbers, --task multilabel for any number of labels per text, or --task regression "
        "for scores"
    )


def _are_probabilities(value: Any) -> bool:
    """Whether a list, or an object by label, holds two or more numbers that add up to 1."""
    values = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(values, list) or len(values) < 2:
        return False
    if any(isinstance(one, bool) or not isinstance(one, int | float) or not 0 <= one <= 1 for one in values):
        return False
    return abs(sum(values) - 1) < 0.02 and any(isinstance(one, float) for one in values)


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float | str) and str(value).strip().lower().lstrip("+-") in {"inf", "infinity"}


def names_of_classes(labels: Mapping[str, list]) -> tuple[dict[str, list], list[str]]:
    """Labels of all splits with one spelling for each class, and notices; other values stay as they are.

    Numbers such as `1.0` are read as 1 if every label of every split is whole, and words for true and false as `True`
    and `False` if there are no others and they are written in several ways.
    """
    stripped, notices = _stripped(labels)
    # A value that names no class is refused later, with its row; it is no reason to read the others differently.
    known = [v for values in stripped.values() for v in values if not (is_missing(v) or _is_infinite(v))]
    for read, what in ((_whole, "whole numbers"), (_truth, "True or False")):
        names = {str(value): read(value) for value in known if not isinstance(value, list | dict)}
        if not known or any(read(value) is None for value in known) or all(a == b for a, b in names.items()):
            continue
        if read is _truth and len(names) == len(set(names.values())):
            continue
        changed = next(written for written, name in names.items() if written != name)
        notices.append(f"labels such as {changed!r} are read as {names[changed]!r}, because all are {what}")
        return {split: _read(values, read) for split, values in stripped.items()}, notices
    if words := sorted({value for value in known if isinstance(value, str) and value.lower() in ABSENT}):
        way = "if it means that there is no label, leave its rows out"
        notices.append(f"label {words[0]!r} is taken as the name of a class; {way}")
    return stripped, notices


def _stripped(labels: Mapping[str, list]) -> tuple[dict[str, list], list[str]]:
    """Labels without the blanks around them, and a notice if there were any."""
    stripped = {s: [v.strip() if isinstance(v, str) and v.strip() else v for v in vs] for s, vs in labels.items()}
    pairs = ((v, w) for s, vs in labels.items() for v, w in zip(vs, stripped[s], strict=True) if isinstance(v, str))
    blank = next((v for v, w in pairs if v != w), None)
    return stripped, [f"labels have blanks around them ({blank!r}), which are removed"] if blank is not None else []


def _read(values: list, read: Callable[[Any], str | None]) -> list:
    return [value if is_missing(value) or _is_infinite(value) else read(value) for value in values]


def _whole(value: Any) -> str | None:
    """A whole number as it is written without a fraction; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else None
    found = re.fullmatch(r"(-?\d{1,18})(\.0+)?", str(value))
    if found is None:
        return None
    return str(int(found[1])) if found[2] else found[1]


def _truth(value: Any) -> str | None:
    """`True` or `False`; None for anything else."""
    return TRUTH.get(str(value).lower()) if isinstance(value, bool | str) else None
