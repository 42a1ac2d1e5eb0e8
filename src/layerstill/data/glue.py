"""The tasks of GLUE: how their official files are laid out, and their splits from a folder or the hub."""

from dataclasses import dataclass
from pathlib import Path

from layerstill.data.columns import scores_of, texts_of
from layerstill.data.files import Table, read_unquoted
from layerstill.data.split import Split
from layerstill.errors import UserError
from layerstill.heads import Classes, Head, Scores


@dataclass(frozen=True)
class GlueTask:
    """How the official files of a GLUE task are laid out."""

    folder: str
    texts: tuple[str, ...]
    label: str
    labels: dict[str, str]
    """Label as written in the file: name of the class, in class order; empty for regression."""
    metrics: tuple[str, ...] = ("accuracy",)
    positive: str | None = None
    dev: str = "dev"
    header: tuple[str, ...] | None = None

    @property
    def head(self) -> Head:
        """Classes, or scores where there are no names."""
        return Classes() if self.labels else Scores()


def _named(*names: str) -> dict[str, str]:
    return {name: name for name in names}


GLUE: dict[str, GlueTask] = {
    "cola": GlueTask(
        "CoLA",
        ("sentence",),
        "label",
        {"0": "unacceptable", "1": "acceptable"},
        ("matthews_correlation", "accuracy"),
        header=("source", "label", "mark", "sentence"),
    ),
    "sst2": GlueTask("SST-2", ("sentence",), "label", {"0": "negative", "1": "positive"}),
    "mrpc": GlueTask(
        "MRPC",
        ("#1 String", "#2 String"),
        "Quality",
        {"0": "not_equivalent", "1": "equivalent"},
        ("accuracy", "f1"),
        positive="equivalent",
    ),
    "stsb": GlueTask("STS-B", ("sentence1", "sentence2"), "score", {}, ("pearson", "spearman")),
    "rte": GlueTask("RTE", ("sentence1", "sentence2"), "label", _named("entailment", "not_entailment")),
    "wnli": GlueTask("WNLI", ("sentence1", "sentence2"), "label", {"0": "not_entailment", "1": "entailment"}),
    "qnli": GlueTask("QNLI", ("question", "sentence"), "label", _named("entailment", "not_entailment")),
    "qqp": GlueTask(
        "QQP",
        ("question1", "question2"),
        "is_duplicate",
        {"0": "not_duplicate", "1": "duplicate"},
        ("accuracy", "f1"),
        positive="duplicate",
    ),
    "mnli": GlueTask(
        "MNLI",
        ("sentence1", "sentence2"),
        "gold_label",
        _named("entailment", "neutral", "contradiction"),
        dev="dev_matched",
    ),
}


def glue_files(name: str, path: Path, option: str = "--data") -> dict[str, Path]:
    """The files of a GLUE task's splits in a folder in the official layout; UserError for what is missing."""
    spec = GLUE[name]
    if not path.is_dir():
        what = "a file, and a GLUE task is read from a folder" if path.is_file() else "no such folder"
        raise UserError(f"{option} {path}: {what}")
    folder = path / spec.folder if (path / spec.folder).is_dir() else path
    files = {"train": folder / "train.tsv", "dev": folder / f"{spec.dev}.tsv"}
    for split, file in files.items():
        if not file.is_file():
            raise UserError(f"task {name}: split {split} is missing, looked for {file} (and for {path / spec.folder})")
    if name == "mnli" and (folder / "dev_mismatched.tsv").is_file():
        files["dev_mismatched"] = folder / "dev_mismatched.tsv"
    return files


def splits_from_folder(name: str, path: Path) -> dict[str, Split]:
    """The splits of a GLUE task in a folder in the official layout; UserError for what is missing or wrong."""
    spec = GLUE[name]
    splits = {}
    for split, file in glue_files(name, path).items():
        table = read_unquoted(file, spec.header, skip_ragged=name == "qqp")
        texts = texts_of(table, spec.texts, f"task {name}")
        written = table.column(spec.label, f"task {name}")
        splits[split] = Split(texts, scores_of(table, written) if not spec.labels else _numbers(table, written, spec))
    return splits


def _numbers(table: Table, written: list, spec: GlueTask) -> list[int]:
    number = {label: i for i, label in enumerate(spec.labels)}
    for line, label in zip(table.lines, written, strict=True):
        if label not in number:
            raise UserError(f"{table.path} line {line}: label {label!r} is not one of {', '.join(number)}")
    return [number[label] for label in written]


def splits_from_hub(name: str) -> dict[str, Split]:
    """The splits of a GLUE task on the hub, with the official dev split as `dev`; UserError without the hub."""
    import datasets

    spec = GLUE[name]
    try:
        data = datasets.load_dataset("nyu-mll/glue", name)
    except Exception as error:  # datasets raises many kinds for "no network"; all mean the same to the user
        raise UserError(
            f"task {name}: could not be loaded from the hub ({type(error).__name__}); give --data FOLDER"
        ) from None
    columns = {"mrpc": ("sentence1", "sentence2")}.get(name, spec.texts)
    splits = {}
    for split, there in {"train": "train", "dev": "validation_matched" if name == "mnli" else "validation"}.items():
        rows = data[there]
        splits[split] = Split(list(zip(*(rows[c] for c in columns), strict=True)), list(rows["label"]))
    return splits
