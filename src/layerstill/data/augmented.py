"""Augmented data as `--data` reads them: a file from a file, a folder from a folder, of which only train changes."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from layerstill.data.augmentation import Augmentation, Proposer, augmented_rows
from layerstill.data.columns import guess_texts, texts_of
from layerstill.data.files import Table, read_table, read_unquoted
from layerstill.data.folders import find_files
from layerstill.data.glue import GLUE, glue_files
from layerstill.data.writing import WRITTEN, TableWriter, appears_whole, refuse_existing
from layerstill.errors import UserError, nearest


@dataclass(frozen=True)
class Source:
    """What is augmented, and what is made of it."""

    table: Table
    """The training examples with all their columns."""
    columns: tuple[str, ...]
    """The one or two columns with texts."""
    target: Path
    """The file or folder to be made."""
    others: tuple[Path, ...] | None
    """Files that come along unchanged in a folder; None for a single file."""
    header: bool = True
    """Whether the file begins with the names of its columns."""


def read_source(data: Path, output: Path, task: str | None = None, columns: tuple[str, ...] = ()) -> Source:
    """Read training examples: an own file or folder, or a GLUE `task` from a folder in the official layout.

    A GLUE task becomes the folder `output/MRPC` (or what the task is called there), so that several fit in one
    `output`. UserError for data that cannot be read, and for an output that exists.
    """
    if task is None:
        files = find_files(data, None, "DATA")
        train = files.pop("train")
        if (kind := train.suffix.lower()) not in WRITTEN:
            raise UserError(f"{train}: copies are written to {', '.join(WRITTEN)}; save it as one of these first")
        if data.is_file() and output.suffix.lower() != kind:
            raise UserError(f"--output {output}: {data} is a {data.suffix} file; choose a name with that ending")
        refuse_existing(output)
        table = read_table(train)
        columns = columns or guess_texts(table, "label", "--text-columns")
        texts_of(table, columns, "--text-columns")
        return Source(table, columns, output, None if data.is_file() else tuple(files.values()))
    if task not in GLUE:
        raise UserError(f"--task {task}: {nearest(task, GLUE)}; your own files need no --task")
    if columns:
        raise UserError(f"--text-columns: the texts of task {task} are known; leave it out")
    spec, files = GLUE[task], glue_files(task, data, "DATA")
    refuse_existing(output / spec.folder)
    table = read_unquoted(files.pop("train"), spec.header, skip_ragged=task == "qqp")
    texts_of(table, spec.texts, f"task {task}")
    return Source(table, spec.texts, output / spec.folder, tuple(files.values()), spec.header is None)


def write_augmented(
    source: Source,
    augmentation: Augmentation,
    proposer: Proposer | None = None,
    advance: Callable[[int], None] = lambda read: None,
) -> int:
    """Write `source.target`, whole or not at all; how many rows its training examples are.

    `proposer` proposes words for the method `replace`; `advance` is told how many more examples are done.
    """
    written = 0
    with appears_whole(source.target) as part:
        file = part
        if source.others is not None:
            part.mkdir()
            file = part / source.table.path.name
            for other in source.others:
                shutil.copyfile(other, part / other.name)
        with TableWriter(file, source.table, source.table.path.suffix.lower(), source.header) as writer:
            for read, rows in augmented_rows(source.table, source.columns, augmentation, proposer):
                writer.write(rows)
                written += len(rows)
                advance(read)
    return written
