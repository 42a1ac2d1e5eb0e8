"""Write tables row by row, whole or not at all, in the kinds of file that `read_table` reads."""

import csv
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layerstill.data.files import ORIGIN, Table
from layerstill.errors import UserError


@contextmanager
def appears_whole(path: Path) -> Iterator[Path]:
    """A place to make a file or folder that becomes `path` when it is finished; nothing stays of one that is not.

    UserError if `path` is there already.
    """
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    _remove(part)
    try:
        yield part
        for file in [part] if part.is_file() else part.iterdir():
            _sync(file)
        refuse_existing(path)
        os.replace(part, path)
    finally:
        _remove(part)


def refuse_existing(path: Path) -> None:
    """UserError if there is anything at `path`."""
    if path.exists() or path.is_symlink():
        raise UserError(f"--output {path}: it exists already and is not overwritten; choose another name")


def _sync(file: Path) -> None:
    # Without it a power cut could leave the new name on an empty file.
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


WRITTEN = (".tsv", ".csv", ".jsonl", ".parquet")
"""The kinds of file that are written."""


class TableWriter:
    """Writes rows with the columns of `like` and the column `origin` to `path`, a context.

    `suffix` says which kind of file it is; `header` whether the names of the columns come first in a TSV file.
    """

    def __init__(self, path: Path, like: Table, suffix: str, header: bool = True) -> None:
        self.names = [*like.columns, ORIGIN]
        self.suffix = suffix
        if suffix == ".parquet":
            import pyarrow
            import pyarrow.parquet

            schema = pyarrow.parquet.read_schema(like.path).append(pyarrow.field(ORIGIN, pyarrow.int64()))
            self._parquet = pyarrow.parquet.ParquetWriter(path, schema)
            return
        self._file = path.open("w", encoding="utf-8", newline="")
        self._quoted = suffix == ".csv" or like.quoted
        self._csv = csv.writer(self._file, lineterminator="\n", delimiter="," if suffix == ".csv" else "\t")
        if suffix == ".csv" or (suffix == ".tsv" and header):
            self._write_fields([self.names])

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, *error: object) -> None:
        if self.suffix == ".parquet":
            self._parquet.close()
        else:
            self._file.close()

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows."""
        if self.suffix == ".parquet":
            import pyarrow

            self._parquet.write_table(pyarrow.Table.from_pylist(list(rows), self._parquet.schema))
        elif self.suffix == ".jsonl":
            self._file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            self._write_fields([[row[name] for name in self.names] for row in rows])

    def _write_fields(self, rows: list[list[Any]]) -> None:
        if self._quoted:
            self._csv.writerows(rows)
        else:
            self._file.writelines("\t".join(map(str, row)) + "\n" for row in rows)
