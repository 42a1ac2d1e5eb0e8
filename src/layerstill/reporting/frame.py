"""What every page has in common: its templates, how values become text, the assets that are written into it."""

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from layerstill.reporting.overview import Named, shown, sort_key
from layerstill.reporting.plots import Table


def page_environment() -> Environment:
    """What templates of pages are rendered with: everything is escaped, nothing may be missing."""
    environment = Environment(
        loader=PackageLoader("layerstill.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "sort_key": sort_key, "named": _named, "filters": _filters}
    return environment


_FILTERED = ("task", "recipe", "student", "start", "data", "status")
_FEW_ROWS = 15
"""Up to so many rows are seen at a glance, without a filter."""


def _filters(table: Table) -> list[tuple[int, str]]:
    """Columns by whose values a table is filtered, with their numbers; none where it is short."""
    if len(table.rows) <= _FEW_ROWS:
        return []
    return [
        (number, head)
        for number, head in enumerate(table.header)
        if head in _FILTERED and len({str(row[number]) for row in table.rows} - {""}) > 1
    ]


def _named(value: Any) -> tuple[str, str]:
    """A value's text and its mark."""
    return (value.name, value.mark) if isinstance(value, Named) else (shown(value), "")


def asset(name: str) -> str:
    """A file that comes with the templates."""
    return (files("layerstill.reporting") / "templates" / name).read_text("utf-8")


def hash_of(script: str) -> str:
    """The hash by which a page allows this script and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
