"""Out-of-domain test sets: known layouts and own files, read as texts with the names of their gold classes."""

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from layerstill.data.class_names import names_of_classes
from layerstill.data.columns import scores_of, short, texts_of
from layerstill.data.files import Table, is_table_file, read_json, read_table, read_text, read_unquoted, suffix_of
from layerstill.data.glue import GLUE
from layerstill.data.tasks import Task
from layerstill.errors import UserError, nearest
from layerstill.randomness import generator

Gold = Mapping[str, str | None]
"""Label as written in a file: name of the class, or None for a row that has no usable label and is left out."""


@dataclass(frozen=True)
class OodSet:
    """A test set as it was read: one or two texts each, and the name of the gold class, or a score."""

    name: str
    texts: list[tuple[str, ...]]
    labels: list[str] | list[float]
    parts: dict[str, list[int]] = field(default_factory=dict)
    """Numbers of the examples that belong to a part which is scored by itself."""
    left_out: int = 0
    """Rows of the file without a usable gold label."""

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of every text and label."""
        return hashlib.sha256(json.dumps([self.texts, self.labels]).encode()).hexdigest()[:12]

    def sample(self, examples: int | None) -> "OodSet":
        """So many of the examples, drawn the same every time, in their order; all of them without a number."""
        if examples is None or examples >= len(self.texts):
            return self
        chosen = sorted(generator(0, "sample of a test set", self.name).sample(range(len(self.texts)), examples))
        place = {row: i for i, row in enumerate(chosen)}
        parts = {name: [place[row] for row in rows if row in place] for name, rows in self.parts.items()}
        return replace(
            self,
            texts=[self.texts[i] for i in chosen],
            labels=[self.labels[i] for i in chosen],  # type: ignore[arg-type]  # all names or all scores, as before
            parts={name: rows for name, rows in parts.items() if rows},
        )


@dataclass(frozen=True)
class Layout:
    """How the files of a known set are laid out; of several columns, the first that is there counts."""

    texts: tuple[tuple[str, ...], ...]
    labels: dict[str, Gold]
    """By the name of the column that holds them."""
    header: tuple[str, ...] = ()
    """Names of the columns in files that have no header line."""
    parts: str | None = None
    """A column whose values are parts, scored whole and for each gold class."""


PAIR = (("sentence1", "sentence2"), ("premise", "hypothesis"))
REVIEW = (("sentence",), ("text",), ("review",))
TWO_WAY: Gold = {
    "entailment": "entailment",
    "entails": "entailment",
    "not_entailment": "not_entailment",
    "non-entailment": "not_entailment",
    "neutral": "not_entailment",
}
THREE_WAY: Gold = {"entailment": "entailment", "neutral": "neutral", "contradiction": "contradiction", "-": None}
PARAPHRASE: Gold = {"0": "not_paraphrase", "1": "paraphrase"}
SENTIMENT: Gold = {"0": "negative", "1": "positive", "negative": "negative", "positive": "positive"}
STARS: Gold = {"1": "negative", "2": "negative", "3": None, "4": "positive", "5": "positive"}
VOTES: Gold = {f"({n}, 6)": None if n == 3 else "paraphrase" if n > 3 else "not_paraphrase" for n in range(7)}

LAYOUTS: dict[str, Layout] = {
    name: Layout((spec.texts,), {spec.label: dict(spec.labels)}, spec.header or ())
    for name, spec in GLUE.items()
    if spec.labels
} | {
    "hans": Layout(PAIR, {"gold_label": TWO_WAY, "label": TWO_WAY}, parts="heuristic"),
    "scitail": Layout(PAIR, {"gold_label": TWO_WAY, "label": TWO_WAY}, ("premise", "hypothesis", "label")),
    "snli": Layout(PAIR, {"gold_label": THREE_WAY, "label": THREE_WAY}),
    "paws": Layout(PAIR, {"label": PARAPHRASE}),
    "twitter-url": Layout(PAIR, {"label": PARAPHRASE, "votes": VOTES}, ("sentence1", "sentence2", "votes", "url")),
    "imdb": Layout(REVIEW, {"label": SENTIMENT, "sentiment": SENTIMENT}),
    "yelp": Layout(REVIEW, {"label": SENTIMENT, "stars": STARS}),
    "amazon": Layout(REVIEW, {"label": SENTIMENT, "stars": STARS}),
}
"""Sets by name. A name may go on after a hyphen, `imdb-revised`, to tell several sets of one layout apart."""

ADVGLUE = {
    "sst2": (("sentence",), ("negative", "positive")),
    "qqp": (("question1", "question2"), ("not_duplicate", "duplicate")),
    "mnli": (("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
    "mnli-mm": (("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
    "qnli": (("question", "sentence"), ("entailment", "not_entailment")),
    "rte": (("sentence1", "sentence2"), ("entailment", "not_entailment")),
}
"""Tasks of AdvGLUE's `dev.json`: text fields and the classes that its numbers stand for (arXiv 2111.02840)."""
KNOWN = (*LAYOUTS, "advglue")


def read_ood(
    spec: str,
    task: Task,
    gold: dict[str, str] | None = None,
    text_columns: tuple[str, ...] = (),
    label_column: str = "label",
) -> OodSet:
    """The set of `NAME=PATH`, NAME being a known layout or whatever the set shall be called, or of a bare path.

    `gold` renames the labels of the file: label as written, name of a class. Columns are those of own files.
    UserError for what cannot be read, with file and line.
    """
    name, path = split_spec(spec)
    task.head.refuse_far_sets(f"--ood {name}", task.name, task.labels)
    layout = layout_of(name)
    if layout is None:
        return _read_own(name, path, task, gold or {}, text_columns, label_column)
    folders = _class_folders(path) if layout == "imdb" else {}
    if gold and (folders or layout == "advglue"):
        raise UserError(f"--ood-labels {name}: this layout already says what its labels mean")
    if layout == "advglue":
        return _read_advglue(name, path, task)
    return _read_folders(name, folders) if folders else _read_layout(name, path, layout, gold or {})


def split_spec(spec: str) -> tuple[str, Path]:
    """Name and path of `NAME=PATH`; a bare path is called after the file, or its folder if that is `test` or `dev`."""
    name, equals, path = spec.partition("=")
    if not equals or Path(spec).exists():
        bare = Path(spec)
        folder = bare.resolve().parent.name if bare.stem in {"train", "dev", "test", "validation"} else ""
        return folder or bare.stem, bare
    if not name or not path or not name.isprintable():
        raise UserError(f"--ood {spec}: write NAME=PATH, or a path; known layouts: {', '.join(KNOWN)}")
    return name, Path(path)


def layout_of(name: str) -> str | None:
    """The known layout that a name stands for: `paws` for `paws` and `paws-wiki`; None for an own file's."""
    return next((known for known in KNOWN if name == known or name.startswith(f"{known}-")), None)


def label_maps(words: list[str]) -> dict[str, dict[str, str]]:
    """The maps of `[NAME:]LABEL=CLASS,...`, by name of the set; "" for every own file."""
    maps: dict[str, dict[str, str]] = {}
    for word in words:
        name, colon, pairs = word.partition(":")
        if not colon or "=" in name:
            name, pairs = "", word
        for pair in pairs.split(","):
            label, equals, to = (part.strip() for part in pair.partition("="))
            if not (label and equals and to):
                raise UserError(f"--ood-labels {word}: write LABEL=CLASS,..., or NAME:LABEL=CLASS,... for one set")
            if maps.setdefault(name, {}).setdefault(label, to) != to:
                raise UserError(f"--ood-labels {word}: label {label!r} is {maps[name][label]!r} and {to!r}")
    return maps


def _read_layout(name: str, path: Path, known_as: str, gold: dict[str, str]) -> OodSet:
    file, layout = _the_file(name, path), LAYOUTS[known_as]
    if suffix_of(file) in {".tsv", ".txt"}:  # the official files have no quoting
        named = not layout.header or _has_header(file, layout)
        table = read_unquoted(file, None if named else layout.header)
    else:
        table = read_table(file)
    columns = _first_there(table, layout.texts, name)
    label_column = _first_there(table, tuple((column,) for column in layout.labels), name)[0]
    texts = texts_of(table, columns, f"--ood {name}")
    if known_as == "paws":
        texts = [tuple(map(_without_bytes_mark, pair)) for pair in texts]
    written = [str(value) for value in table.columns[label_column]]
    _refuse_unused(gold, written, file)
    known = {**layout.labels[label_column], **gold}
    labels = [known.get(label, "") for label in written]
    if "" in labels:
        at = labels.index("")
        raise UserError(
            f"{file} line {table.lines[at]}: label {short(written[at])} is not one of {', '.join(known)}; "
            f"correct it, or say what it means with --ood-labels '{name}:LABEL=CLASS,...'"
        )
    groups = table.column(layout.parts, f"--ood {name}") if layout.parts else None
    return _made(name, texts, labels, groups)


def _made(name: str, texts: list, labels: list, groups: list | None = None) -> OodSet:
    """A set of the rows that have a label; parts are the groups, and each class within a group."""
    there = [i for i, label in enumerate(labels) if label is not None]
    if not there:
        raise UserError(f"--ood {name}: no row has a usable label")
    parts: dict[str, list[int]] = {}
    if groups is not None:
        for number, i in enumerate(there):
            parts.setdefault(str(groups[i]), []).append(number)
            parts.setdefault(f"{groups[i]}: {labels[i]}", []).append(number)
    chosen = [labels[i] for i in there]
    return OodSet(name, [texts[i] for i in there], chosen, dict(sorted(parts.items())), len(labels) - len(there))


def _read_own(
    name: str,
    path: Path,
    task: Task,
    gold: dict[str, str],
    text_columns: tuple[str, ...],
    label_column: str,
) -> OodSet:
    table = read_table(_the_file(name, path))
    usual = (("text",), ("sentence1", "sentence2"), ("sentence",), ("premise", "hypothesis"), ("question", "sentence"))
    of_task = (GLUE[task.name].texts,) if task.name in GLUE else ()
    columns = text_columns or _first_there(table, (*of_task, *usual), name)
    texts = texts_of(table, columns, f"--ood {name}")
    written = table.column(label_column, f"--ood {name}")
    if task.head.single:
        written = names_of_classes({name: written})[0][name]
    if not task.head.named:
        return OodSet(name, texts, scores_of(table, written))
    labels = [str(label) for label in written]
    _refuse_unused(gold, labels, table.path)
    return _made(name, texts, [gold.get(label, label) for label in labels])


def _refuse_unused(gold: dict[str, str], labels: list[str], file: Path) -> None:
    for label in gold:
        if label not in labels:
            there = sorted(set(labels))[:20]
            raise UserError(f"--ood-labels: {file} has no label {label!r}: {nearest(label, there)}")


def _read_advglue(name: str, path: Path, task: Task) -> OodSet:
    file = path / "dev.json" if path.is_dir() else path
    data = read_json(file)
    wanted = name.removeprefix("advglue").removeprefix("-")
    key = wanted if wanted in ADVGLUE else task.name
    if key not in ADVGLUE:
        raise UserError(f"--ood {name}: AdvGLUE has {', '.join(ADVGLUE)}, not {key}; name one: advglue-sst2=PATH")
    keys = ("mnli", "mnli-mm") if wanted not in ADVGLUE and key == "mnli" else (key,)
    texts: list[tuple[str, ...]] = []
    labels: list[str] = []
    parts: dict[str, list[int]] = {}
    for part in keys:
        columns, classes = ADVGLUE[part]
        for row in _rows(file, data, part):
            fields, label = [row.get(c) for c in columns], row.get("label", -1)
            if not all(isinstance(f, str) for f in fields) or label not in range(len(classes)):
                fields_wanted = f"{' and '.join(columns)} as text and a label below {len(classes)}"
                raise UserError(f"{file}: {part}: {short(row)} is not {fields_wanted}")
            parts.setdefault(part, []).append(len(texts))
            texts.append(tuple(map(str, fields)))
            labels.append(classes[int(label)])
    return OodSet(name, texts, labels, parts if len(parts) > 1 else {})


def _rows(file: Path, data: dict, key: str) -> Iterator[dict]:
    rows = data.get(key)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{file}: no list of examples under {key!r}; keys: {', '.join(data)}")
    return iter(rows)


def _class_folders(path: Path) -> dict[str, Path]:
    """The folders of aclImdb's test reviews, below the path or below its `test`."""
    for place in (path, path / "test"):
        folders = {"negative": place / "neg", "positive": place / "pos"}
        if all(folder.is_dir() for folder in folders.values()):
            return folders
    return {}


def _read_folders(name: str, folders: dict[str, Path]) -> OodSet:
    files = [
        (label, file) for label, folder in folders.items() for file in sorted(folder.glob("*.txt")) if file.is_file()
    ]
    return _made(name, [(read_text(file),) for _, file in files], [label for label, _ in files])


def _the_file(name: str, path: Path) -> Path:
    if not path.is_dir():
        return path
    files = sorted(f for f in path.iterdir() if (is_table_file(f) or suffix_of(f) == ".txt") and f.is_file())
    if len(files) != 1:
        what = f"several files, {', '.join(f.name for f in files)}; give one of them" if files else "no table in it"
        raise UserError(f"--ood {name}={path}: {what}")
    return files[0]


def _has_header(file: Path, layout: Layout) -> bool:
    if not file.is_file():
        return True  # read_table says what is wrong
    fields = read_text(file).split("\n", 1)[0].split("\t")
    return any(column in fields for column in layout.labels)


def _first_there(table: Table, choices: tuple[tuple[str, ...], ...], name: str) -> tuple[str, ...]:
    for columns in choices:
        if all(c in table.columns for c in columns):
            return columns
    wanted = " or ".join(" and ".join(columns) for columns in choices)
    raise UserError(
        f"{table.path}: --ood {name} looks for columns {wanted}, the file has {', '.join(table.columns)}; "
        f"rename them, or use the name of a known layout: {', '.join(KNOWN)}"
    )


def _without_bytes_mark(text: str) -> str:
    """`b'...'`, as PAWS-QQP is often found written, as the text it stands for."""
    if not re.fullmatch(r"b'.*'|b\".*\"", text, re.DOTALL):
        return text
    try:
        return ast.literal_eval(text).decode()
    except (SyntaxError, ValueError):  # UnicodeDecodeError is a ValueError
        return text
