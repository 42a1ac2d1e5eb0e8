"""Tables of Parquet files."""

import io
from pathlib import Path

from layerstill.data.table import Table
from layerstill.errors import UserError

MAGIC = b"PAR1"


def read_parquet(path: Path, raw: bytes | None = None) -> Table:
    """A Parquet file, or its bytes if it lies packed in another; UserError for a damaged one."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path if raw is None else io.BytesIO(raw)).read()
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # ValueError: names that are not UTF-8
        raise UserError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
    if len(set(table.column_names)) < len(table.column_names):
        raise UserError(f"{path}: a column name appears twice: {', '.join(table.column_names)}")
    try:
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise UserError(f"{path}: a column cannot be read: {str(error).splitlines()[0]}") from None
    return Table(path, columns, list(range(1, table.num_rows + 1)))
