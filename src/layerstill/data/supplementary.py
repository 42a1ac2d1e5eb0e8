"""Supplementary texts: what a stage may train on besides the task, without labels."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from layerstill.data import conll
from layerstill.data.columns import guess_texts, texts_of
from layerstill.data.files import SUFFIXES, read_lines, read_table, suffix_of
from layerstill.data.glue import GLUE
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError, nearest


@dataclass(frozen=True)
class Supplementary:
    """Texts, or pairs of texts, for the stages of a recipe that say `data: supplementary`."""

    option: ClassVar[str] = "--supplementary"
    """What names them on the command line, for messages."""
    source: str
    """What the option was given."""
    texts: list[tuple[str, ...]]
    notices: tuple[str, ...] = ()
    """What the user should know about how the data were read."""
    words: bool = False
    """Whether an example's texts are the words of a sentence."""

    def refuse_words(self, task: Task) -> None:
        """UserError for words where the task takes texts."""
        if self.words and not task.head.per_token:
            raise UserError(
                f"{self.option} {self.source}: it holds sentences as lists of words, and task {task.name} takes "
                f"texts; give texts, one per line (.txt) or in a column ({' '.join(SUFFIXES)})"
            )

    @property
    def split(self) -> Split:
        """The texts as a split without labels."""
        return Split(self.texts, [])

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of every text."""
        return hashlib.sha256(json.dumps(self.texts, ensure_ascii=False).encode()).hexdigest()[:12]

    def record(self) -> dict[str, Any]:
        """The `supplementary` block of `result.json`."""
        return {"source": self.source, "examples": len(self.texts), "fingerprint": self.fingerprint}


Texts = TypeVar("Texts", bound=Supplementary)


def read_supplementary(source: str, columns: tuple[str, ...] = ()) -> Supplementary:
    """Read what `--supplementary` names; labels are dropped. See `read_texts`."""
    return read_texts(source, columns, Supplementary)


def read_texts(source: str, columns: tuple[str, ...], kind: type[Texts]) -> Texts:
    """Read texts without their labels, as this kind of them.

    Args:
        source: a file of texts or pairs (`.csv .tsv .jsonl .json .parquet .xlsx`), a `.txt` with one text per line,
            or `mnli=FOLDER`: the training texts of a GLUE task. For tasks whose words have tags also sentences:
            `.conll` and its kin with the words in the first column, or a table with a column `tokens` or `words` of
            lists.
        columns: one or two text columns of a table.

    UserError for a file that cannot be read, with the line, and for columns that are not there.
    """
    option = f"{kind.option}-columns"
    name, equals, folder = source.partition("=")
    path = Path(source)
    if equals and (name in GLUE or not path.exists()):
        return _glue(source, name, folder, columns, kind)
    if path.is_dir():
        raise UserError(
            f"{kind.option} {source}: a folder; give a file ({' '.join(SUFFIXES)} .txt), or NAME={source} for the "
            f"training texts of a GLUE task: {', '.join(GLUE)}"
        )
    if suffix_of(path) == ".txt":
        if columns:
            raise UserError(f"{option}: a .txt file has no columns, each line is a text; leave it out for {source}")
        table = read_lines(path)
        return kind(source, texts_of(table, ("text",), option), table.notices)
    if suffix_of(path) in conll.COLUMN_SUFFIXES and suffix_of(path) not in SUFFIXES:
        if columns:
            raise UserError(f"{option}: the words of {source} are its first column; leave it out")
        return kind(source, conll.read_words(path), words=True)
    table = read_table(path)
    if lists := conll.column_of_words(table, columns):
        sentences = [words for words in conll.words_of(table, lists, option) if words]
        return kind(source, sentences, table.notices, words=True)
    texts = texts_of(table, columns or guess_texts(table, "", option), option)
    return kind(source, texts, table.notices)


def _glue(source: str, name: str, folder: str, columns: tuple[str, ...], kind: type[Texts]) -> Texts:
    if name not in GLUE:
        raise UserError(f"{kind.option} {source}: no such file, and no GLUE task {name!r}: {nearest(name, GLUE)}")
    if not folder:
        raise UserError(f"{kind.option} {source}: write {name}=FOLDER, the folder in the GLUE layout")
    if columns:
        raise UserError(f"{kind.option}-columns: the texts of a GLUE task are known; leave it out for {source}")
    try:
        return kind(source, Task.glue(name, folder).splits["train"].texts)
    except UserError as error:
        raise UserError(f"{kind.option} {source}: {str(error).removeprefix(f'--data {folder}: ')}") from None
