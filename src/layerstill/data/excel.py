"""The first sheet of an Excel workbook as a table of texts, as if it had been saved as CSV."""

import io
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

from layerstill.data.delimited import from_rows
from layerstill.data.table import Table
from layerstill.errors import UserError

ZIP = b"PK\x03\x04"


def read_excel(path: Path, raw: bytes) -> Table:
    """The first sheet with anything in it; UserError without openpyxl, and for a ZIP archive that is no workbook."""
    if "xl/workbook.xml" not in (names := _names(raw)):
        what = "an OpenDocument file; save it as .xlsx or as CSV" if "mimetype" in names else "a ZIP archive; unpack it"
        raise UserError(f"{path}: {what if names else 'not a readable Excel file: the ZIP archive in it is damaged'}")
    try:
        import openpyxl
    except ImportError:
        raise UserError(
            f"{path}: Excel files need openpyxl: pip install 'layerstill[excel]', or save the file as 'CSV UTF-8' in "
            "Excel"
        ) from None
    try:
        book = openpyxl.load_workbook(io.BytesIO(raw), read_only=True, data_only=True)
        sheets = {sheet.title: list(sheet.iter_rows(values_only=True)) for sheet in book.worksheets}
    except Exception as error:  # openpyxl lets errors of ZIP, XML and its own classes through
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a readable Excel file: {reason}") from None
    filled = {title: rows for title, rows in sheets.items() if any(cell is not None for row in rows for cell in row)}
    title, rows = next(iter(filled.items()), ("", []))
    fields = [(number, [_text(cell) for cell in row]) for number, row in enumerate(rows, 1) if row]
    first = next((i for i, (_, row) in enumerate(fields) if any(row)), 0)
    others = [name for name in filled if name != title]
    notice = f"{path}: read from its sheet {title!r}; {', '.join(map(repr, others))} is not read"
    return from_rows(path, fields[first:], ",", "row", (notice,) if others else ())


def _names(raw: bytes) -> list[str]:
    try:
        return zipfile.ZipFile(io.BytesIO(raw)).namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return []


def _text(cell: Any) -> str:
    """A cell as CSV would have it."""
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return cell.isoformat() if isinstance(cell, date) else str(cell)
