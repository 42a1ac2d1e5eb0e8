"""Sentences whose words have tags: CoNLL columns, or tables with a list of words and a list of tags a row.

    EU      B-ORG               {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]}
    rejects O

Tags of entities are IOB2 afterwards: `O`, `B-TYPE` at the first word of an entity, `I-TYPE` at its others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from layerstill.data.columns import not_text, short
from layerstill.data.files import Table, read_table, read_text, suffix_of
from layerstill.data.iob import as_iob2, has_entities
from layerstill.data.weight_column import OPTION, weights_of
from layerstill.errors import UserError

COLUMN_SUFFIXES = (".conll", ".iob", ".iob2", ".bio", ".txt", ".tsv")
"""Files with a word per line and empty lines between sentences."""
TABLE_SUFFIXES = (".jsonl", ".parquet", ".json", ".ndjson")
"""Files with a sentence a row."""
SUFFIXES = COLUMN_SUFFIXES + TABLE_SUFFIXES
WORDS = ("tokens", "words")
TAGS = ("tags", "ner_tags", "labels")
DOCUMENT = "-DOCSTART-"
USUAL = "label"
"""The default of `--label-column`, which no file of tags has."""


@dataclass(frozen=True)
class Sentences:
    """Words and tags of the sentences of a file, and where each word stands in it."""

    path: Path
    words: list[tuple[str, ...]]
    tags: list[list[str]]
    lines: list[list[int]]
    """The line of every word; in a table, the row's."""
    table: Table | None = None
    """The rows that they stand in, where the file is a table."""
    notices: tuple[str, ...] = ()

    def where(self, sentence: int, word: int) -> str:
        """Where a word stands, for messages."""
        line = f"{self.path} line {self.lines[sentence][word]}"
        return line if suffix_of(self.path) in COLUMN_SUFFIXES else f"{line}, word {word + 1}"

    @property
    def names(self) -> tuple[str, ...]:
        """Every tag once: `O` first, then by type, `B-` before `I-`."""
        found = {tag for sentence in self.tags for tag in sentence}
        return order_of_tags(found)


def order_of_tags(tags: set[str]) -> tuple[str, ...]:
    """Tags in the order of a model's outputs: `O` first, then by type, `B-` before `I-`."""
    return tuple(sorted(tags, key=lambda tag: (tag != "O", tag[2:] if tag[1:2] == "-" else tag, tag)))


def read_tagged(path: Path, word_column: str | None = None, tag_column: str | None = None) -> Sentences:
    """Read tagged sentences by the file's suffix.

    Args:
        path: `.conll .iob .iob2 .bio .txt .tsv`, its columns separated by tabs or white space, or `.jsonl .parquet`.
        word_column: which column holds the words: its number from 1 in a file of columns, else its name. By default the
            first, or `tokens` or `words`.
        tag_column: the same of the tags; by default the last, or `tags`, `ner_tags` or `labels`.

    UserError with file and line for what cannot be read, and for tags that are not IOB2 and cannot be made so.
    """
    if suffix_of(path) in TABLE_SUFFIXES:
        sentences = _from_table(read_table(path), word_column, tag_column)
    elif suffix_of(path) in COLUMN_SUFFIXES:
        sentences = _from_columns(path, word_column, tag_column)
    else:
        raise UserError(f"{path}: unknown kind of file {path.suffix!r}; use one of {', '.join(SUFFIXES)}")
    return _in_iob2(sentences)


def tagged_table(table: Table, word_column: str | None = None, tag_column: str | None = None) -> Sentences:
    """Tagged sentences of a table with a list of words and a list of tags a row, as `read_tagged`."""
    return _in_iob2(_from_table(table, word_column, tag_column))


def _in_iob2(sentences: Sentences) -> Sentences:
    tags, notices = as_iob2(sentences.tags, sentences.where, str(sentences.path))
    return replace(sentences, tags=tags, notices=(*sentences.notices, *notices))


def column_of_words(table: Table, columns: Sequence[str]) -> str | None:
    """The one column, asked for or of a usual name, that holds a list of words in every row; None without one."""
    wanted = columns or [name for name in WORDS if name in table.columns]
    lists = [name for name in wanted if all(isinstance(value, list) for value in table.columns.get(name, [None]))]
    return lists[0] if len(wanted) == len(lists) == 1 else None


def words_of(table: Table, column: str | None, option: str) -> list[tuple[str, ...]]:
    """A column of lists as the words of sentences; `option` is what asked for it. Empty lists stay."""
    name = _named(table, column, WORDS, option)
    sentences = []
    for line, value in zip(table.lines, table.column(name, option), strict=True):
        if not isinstance(value, list):
            raise UserError(
                f"{table.path} line {line}: column {name!r} holds {short(value)} where a list of words is expected"
            )
        for number, word in enumerate(value, 1):
            _refuse_no_word(word, f"{table.path} line {line}, word {number}")
        sentences.append(tuple(value))
    return sentences


def _refuse_no_word(word: object, where: str) -> None:
    if not isinstance(word, str):
        raise UserError(f"{where}: {short(word)} where a word is expected")
    if not word.strip():
        raise UserError(f"{where}: {short(word)} is not a word; remove it and its tag")
    if problem := not_text(word):
        raise UserError(f"{where}: it holds {problem}")


def _named(table: Table, column: str | None, usual: Sequence[str], option: str) -> str:
    if column is not None:
        return column
    found = next((name for name in usual if name in table.columns), None)
    if found is None:
        raise UserError(
            f"{table.path}: no column {' or '.join(usual)}; say which one with {option} NAME; "
            f"columns: {', '.join(table.columns)}"
        )
    return found


def _from_table(table: Table, word_column: str | None, tag_column: str | None) -> Sentences:
    words = words_of(table, word_column, "--text-columns")
    name = _named(table, tag_column, TAGS, "--label-column")
    tags = table.column(name, "--label-column")
    for line, sentence, row in zip(table.lines, words, tags, strict=True):
        where = f"{table.path} line {line}"
        if not isinstance(row, list):
            raise UserError(f"{where}: column {name!r} holds {short(row)} where a list of tags is expected")
        if len(row) != len(sentence):
            raise UserError(f"{where}: {len(sentence)} words and {len(row)} tags; each word needs one")
        for number, tag in enumerate(row, 1):
            if isinstance(tag, int) and not isinstance(tag, bool):
                raise UserError(
                    f"{where}, word {number}: tag {tag} is a number; write the names of tags, such as B-PER, "
                    "because numbers mean nothing to another file or model"
                )
            if not isinstance(tag, str) or not tag.strip():
                raise UserError(f"{where}, word {number}: {short(tag)} where the name of a tag is expected")
    kept = [i for i, sentence in enumerate(words) if sentence]
    if not kept:
        raise UserError(f"{table.path}: no words in it")
    left = len(words) - len(kept)
    return Sentences(
        table.path,
        [words[i] for i in kept],
        [[tag.strip() for tag in tags[i]] for i in kept],
        [[table.lines[i]] * len(words[i]) for i in kept],
        table.take(kept),
        (*table.notices, *([f"{table.path}: {left} rows without words are left out"] if left else [])),
    )


Row = tuple[int, list[str]]
"""A line that holds a word: its number from 1 and its fields."""


def _from_columns(path: Path, word_column: str | None, tag_column: str | None) -> Sentences:
    sentences = _sentences(path, fewest=2)
    width = len(sentences[0][0][1])
    word_at = _number(path, word_column, "--text-columns", 1, width) - 1
    tag_at = _number(path, tag_column, "--label-column", width, width) - 1
    if word_at == tag_at:
        raise UserError(f"{path}: column {word_at + 1} is both word and tag; set --text-columns and --label-column")
    for number, fields in chain.from_iterable(sentences):
        _refuse_no_word(fields[word_at], f"{path} line {number}")
        if not fields[tag_at].strip():
            raise UserError(f"{path} line {number}: word {short(fields[word_at])} has no tag")
    return Sentences(
        path,
        [tuple(fields[word_at] for _, fields in rows) for rows in sentences],
        [[fields[tag_at].strip() for _, fields in rows] for rows in sentences],
        [[number for number, _ in rows] for rows in sentences],
    )


def _sentences(path: Path, fewest: int) -> list[list[Row]]:
    """The sentences of a file of so many columns or more; UserError if there are none."""
    if not path.is_file():
        raise UserError(f"{path}: {'not an ordinary file' if path.exists() else 'no such file'}")
    try:
        lines = read_text(path).split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    sentences: list[list[Row]] = []
    last = 0
    for number, fields in _rows(path, lines, fewest):
        between = lines[last : number - 1]
        if not sentences or any(not line.strip() or line.startswith(DOCUMENT) for line in between):
            sentences.append([])
        sentences[-1].append((number, fields))
        last = number
    if not sentences:
        raise UserError(f"{path}: no words in it")
    return sentences


def _rows(path: Path, lines: list[str], fewest: int) -> list[Row]:
    """The lines that hold a word, all with the same number of fields."""
    full = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and not line.startswith(DOCUMENT)]
    first = next(((n, line) for n, line in full if not line.startswith("#")), None)
    if first is None:
        return []
    tabs = "\t" in first[1]

    def split(line: str) -> list[str]:
        # Blanks alone: other spaces of Unicode are part of a word.
        return line.split("\t") if tabs else [part for part in line.split(" ") if part]

    width = len(split(first[1]))
    if width < fewest:
        raise UserError(
            f"{path} line {first[0]}: a single column, {short(first[1])}; a line holds a word and its tag, separated "
            "by a tab or by spaces"
        )
    known = {split(line)[-1] for _, line in full if not line.startswith("#")}
    rows = []
    for number, line in full:
        fields = split(line)
        if line.startswith("#") and (len(fields) != width or not (tabs or fields[-1] in known)):
            continue  # a comment; "#" is a word too where columns and tag are those of a word
        if len(fields) != width:
            raise UserError(f"{path} line {number}: {len(fields)} columns where line {first[0]} has {width}")
        rows.append((number, fields))
    return rows


def _number(path: Path, column: str | None, option: str, usual: int, width: int) -> int:
    if column is None:
        return usual
    if not column.isdecimal() or not 1 <= int(column) <= width:
        raise UserError(
            f"{option} {column}: the columns of {path} are numbered 1 to {width}; give one of these numbers"
        )
    return int(column)


@dataclass(frozen=True)
class TaggedSplits:
    """Sentences of several files with their tags as numbers, by split."""

    words: dict[str, list[tuple[str, ...]]]
    tags: dict[str, list[list[int]]]
    names: tuple[str, ...]
    """The tags of all splits, in order."""
    notices: tuple[str, ...] = ()
    weights: list[float] = field(default_factory=list)
    """Of the sentences of train; empty without any."""


def read_splits(
    files: Mapping[str, Path],
    text_columns: Sequence[str] = (),
    label_column: str = USUAL,
    weight_column: str | None = None,
) -> TaggedSplits:
    """Read tagged files by split, `train` among them; UserError with file and line for what is wrong.

    The columns are the options of these names: see `read_tagged`.
    """
    if len(text_columns) > 1:
        raise UserError(f"--text-columns: sentences have one column of words, got {', '.join(text_columns)}")
    tag_column = None if label_column == USUAL else label_column
    read = {split: read_tagged(path, next(iter(text_columns), None), tag_column) for split, path in files.items()}
    return together(read, weight_column)


def together(read: Mapping[str, Sentences], weight_column: str | None = None) -> TaggedSplits:
    """Sentences by split, `train` among them, with their tags as numbers; UserError if they teach nothing.

    `weight_column` is a column of the table that train is.
    """
    notices = [notice for sentences in read.values() for notice in sentences.notices]
    names = order_of_tags({name for sentences in read.values() for name in sentences.names})
    train = read["train"]
    if len(names) < 2:
        raise UserError(f"{train.path}: every word has the tag {names[0]!r}; there is nothing to learn")
    entities = has_entities(names)
    for split, sentences in read.items():
        if entities and not has_entities(sentences.names):
            raise UserError(
                f"{sentences.path}: its tags are {', '.join(sentences.names[:5])} and name no entity, so "
                + ("there is nothing to learn" if split == "train" else "it cannot be scored")
            )
    number = {name: i for i, name in enumerate(names)}
    tags = {s: [[number[tag] for tag in row] for row in sentences.tags] for s, sentences in read.items()}
    words = {s: sentences.words for s, sentences in read.items()}
    return TaggedSplits(words, tags, names, tuple(notices), _weights(train, weight_column))


def _weights(train: Sentences, column: str | None) -> list[float]:
    if column is not None and train.table is None:
        raise UserError(
            f"{OPTION} {column}: {train.path} has a word per line, so no column of it is about a sentence; write the "
            'sentences as JSON lines, {"tokens": [...], "tags": [...], "' + column + '": 2}, or leave it out'
        )
    return [] if train.table is None else weights_of(train.table, column)


def read_words(path: Path) -> list[tuple[str, ...]]:
    """The sentences of a file of columns, whose first holds the words; UserError if there are none."""
    sentences = _sentences(path, fewest=1)
    for number, fields in chain.from_iterable(sentences):
        _refuse_no_word(fields[0], f"{path} line {number}")
    return [tuple(fields[0] for _, fields in rows) for rows in sentences]
