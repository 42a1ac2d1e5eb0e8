"""The command line that makes a run again, as far as its records know."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from layerstill.data.copies import Augment
from layerstill.data.regimes import Regime
from layerstill.data.source import Place, TaskSource
from layerstill.errors import UserError
from layerstill.heads import HEADS
from layerstill.recipe import Recipe, foreign_words
from layerstill.reporting.reading import get
from layerstill.reporting.runs import RunRecord

BLANKS = {
    "DATA": "where the data are (--data)",
    "DEV": "the dev file",
    "FILE": "a file",
    "COLUMNS": "columns",
    "MODEL": "a model",
    "TASK": "the task",
}
"""What stands in a command where no record says the value."""
NOT_RECORDED = (
    "Commands are for a shell in the folder where this report was made. No record says --ood-labels, "
    "--supplementary-columns, --unlabelled-columns, --cache and --report-to."
)


@dataclass(frozen=True)
class Command:
    """A line for a POSIX shell, and what has to be known of it."""

    line: str
    blanks: tuple[str, ...] = ()
    """Words in it that stand for what no record says, one of `BLANKS` each: it cannot be run as it is."""
    remarks: tuple[str, ...] = ()
    """What the line cannot say, or says only in part."""

    @property
    def notes(self) -> list[str]:
        """Blanks and remarks as sentences."""
        return [*(f"{word} stands for {BLANKS[word]}, which no record says" for word in self.blanks), *self.remarks]


class _Blank(str):
    """A word of a command that stands for what no record says, perhaps after `NAME=`."""


def command_of(run: RunRecord) -> Command | None:
    """The command that makes a run again in a new folder; None without `run.json`."""
    settings = run.read("run.json")
    if not isinstance(settings, dict) or run.folder is None:
        return None
    distilled = "teacher" in settings
    remarks: list[str] = []
    ready = settings.get("teacher_probabilities")
    source = settings.get("teacher" if distilled else "model") or _Blank("MODEL")
    words: list[Any] = ["layerstill", "distill" if distilled else "finetune", *([] if ready else [source])]
    words += _task(run, settings, remarks)
    if distilled:
        words += ["--recipe", run.folder / "recipe.yaml"]
        for option in ("student_layers", "init_from", "student"):
            if settings.get(option):
                words += [f"--{option.replace('_', '-')}", settings[option]]
        if foreign := foreign_words(settings.get("recipe")):
            remarks.append(f"only in Python: Recipe.load(FILE, words=[...]) with {', '.join(foreign)}")
    else:
        words += _sets(settings.get("recipe"), remarks)
        rate = get(run.result.get("tuning"), "learning_rate")
        words += [] if rate is None else ["--learning-rate", rate]
    words += _head(settings, remarks)
    if settings.get("supplementary"):
        words += ["--supplementary", get(run.result.get("supplementary"), "source") or _Blank("FILE")]
    words += _more_texts(run, settings, remarks)
    words += _regime(settings.get("regime"))
    ood = settings.get("ood")
    for name in ood if isinstance(ood, dict) else ():
        words += ["--ood", _Blank(f"{name}=FILE")]
    for option in ("seed", "max_length", "max_steps", "precision"):
        if settings.get(option) is not None:
            words += [f"--{option.replace('_', '-')}", settings[option]]
    words += ["--compile"] if settings.get("compile") else []
    blanks = {word.rpartition("=")[2] for word in words if isinstance(word, _Blank)}
    line = shlex.join(map(str, (*words, "--output", _new_folder(run.folder))))
    return Command(line, tuple(sorted(blanks)), tuple(map(_one_line, remarks)))


def _new_folder(folder: Path) -> Path:
    """A folder beside the run's that is not there yet."""
    again = folder.with_name(f"{folder.name}-again") if folder.name else Path("again")
    number = 1
    while again.exists():
        number += 1
        again = folder.with_name(f"{folder.name}-again-{number}") if folder.name else Path(f"again-{number}")
    return again


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _task(run: RunRecord, settings: dict[str, Any], remarks: list[str]) -> list[Any]:
    """`--task` and what says where its data are."""
    if not run.coordinates and (source := _source_of(settings)) is not None:
        return _from_source(source, remarks)
    return _from_study(run, settings, remarks)


def _source_of(settings: dict[str, Any]) -> TaskSource | None:
    """What the data were read from, as the run wrote it down."""
    try:
        return TaskSource.model_validate(settings["source"])
    except (KeyError, ValidationError):
        return None


def _from_source(source: TaskSource, remarks: list[str]) -> list[Any]:
    words: list[Any] = ["--task", source.kind]
    if source.data is not None:
        words += ["--data", _path(source.data)]
    elif source.kind in HEADS:
        words += ["--data", _Blank("DATA")]
        remarks.append("the data were in memory")
    words += ["--dev", _path(source.dev)] if source.dev is not None else []
    if source.kind in HEADS:
        words += _listed("--text-columns", source.text_columns, remarks)
        words += ["--label-column", source.label_column] if source.label_column != "label" else []
        words += ["--weight-column", source.weight_column] if source.weight_column else []
    words += _mapped("--label-map", source.label_map, remarks)
    return words + (["--train-examples", source.train_examples] if source.train_examples else [])


def _path(place: Place) -> str:
    """As it was given if that leads there from here, else from the root."""
    given = Path(place.given)
    return place.given if given.exists() and place.is_at(given) else str(place.path)


def _listed(option: str, names: list[str], remarks: list[str]) -> list[str]:
    if any("," in name or name != name.strip() for name in names):
        remarks.append(f"only in Python: {option[2:].replace('-', ' ')} {json.dumps(names)}")
        return []
    return [option, ",".join(names)] if names else []


def _mapped(option: str, names: Mapping[str, str], remarks: list[str]) -> list[str]:
    if any(set(",=") & set(text) or text != text.strip() for pair in names.items() for text in pair):
        remarks.append(f"only in Python: {option[2:].replace('-', ' ')} {json.dumps(dict(names))}")
        return []
    return [option, ",".join(f"{old}={new}" for old, new in names.items())] if names else []


def _from_study(run: RunRecord, settings: dict[str, Any], remarks: list[str]) -> list[Any]:
    """A study's file gave its tasks names of their own, and says what they are; an older run has its name alone."""
    name = str(settings.get("task") or "")
    source = _study_task(run, name)
    kind = str(get(source, "kind") or name)
    words: list[Any] = ["--task", kind or _Blank("TASK")]
    words += [] if kind == "tickets" else ["--data", _Blank("DATA")]
    if kind in HEADS:
        columns, label = get(source, "text_columns"), get(source, "label_column")
        words += ["--dev", _Blank("DEV")] if get(source, "dev") else []
        words += _listed("--text-columns", list(map(str, columns)) if isinstance(columns, list) else [], remarks)
        words += ["--label-column", label] if label not in (None, "label") else []
        words += ["--weight-column", get(source, "weight_column")] if get(source, "weight_column") else []
    if sampled := [key for key in ("train_examples", "dev_examples", "ood_examples") if get(source, key)]:
        remarks.append(f"the study drew a sample ({', '.join(sampled)}), which layerstill study alone makes again")
    return words


def _study_task(run: RunRecord, name: str) -> Any:
    if not run.coordinates or run.folder is None:
        return None
    try:
        study = json.loads((run.folder.parent.parent / "study.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return get(get(get(study, "study"), "tasks"), name)


def _head(settings: dict[str, Any], remarks: list[str]) -> list[str]:
    """What a head has that is not its default: class weights, which are a file's, or what no option says."""
    head = settings.get("head")
    if not head:
        return []
    own = get(head, "classification")
    weights = get(own, "class_weights")
    if isinstance(own, dict) and isinstance(weights, list) and set(own) == {"class_weights"}:
        remarks.append(
            f"FILE after --class-weights holds a number for each class, in the model's order {json.dumps(weights)}"
        )
        return ["--class-weights", _Blank("FILE")]
    remarks.append(f"only in Python: a task with the head {json.dumps(head)}")
    return []


def _more_texts(run: RunRecord, settings: dict[str, Any], remarks: list[str]) -> list[Any]:
    words: list[Any] = []
    if settings.get("unlabelled"):
        words += ["--unlabelled", get(run.result.get("unlabelled"), "source") or _Blank("FILE")]
    if isinstance(augment := settings.get("augment"), dict):
        words += ["--augment", augment.get("copies")]
        words += ["--augment-model", settings["augment_model"]] if settings.get("augment_model") else []
        usual = Augment(1, settings.get("augment_model")).record()
        if any(augment.get(name) != usual[name] for name in ("methods", "probability")):
            remarks.append("only in Python: Augment with other methods or another probability")
    if settings.get("teacher_probabilities"):
        columns = get(run.result.get("teacher_probabilities"), "columns")
        named = ",".join(map(str, columns)) if isinstance(columns, list) and columns else _Blank("COLUMNS")
        words += ["--teacher-probabilities", named]
    if several := settings.get("more_teachers"):
        words += ["--more-teachers", ",".join(map(str, several))]
    return words


def _regime(record: Any) -> list[str]:
    """`--regime` for every setting that is not at its default."""
    default = Regime().model_dump(mode="json")
    given = {k: v for k, v in record.items() if v != default.get(k, v)} if isinstance(record, dict) else {}
    return [w for k, v in given.items() for w in ("--regime", f"{k}={v if isinstance(v, str) else json.dumps(v)}")]


def _sets(recipe: Any, remarks: list[str]) -> list[str]:
    """`--set` for what differs from the recipe `finetune`, which is all that the verb takes."""
    if not isinstance(recipe, dict):
        return []
    shipped = Recipe.load("finetune").model_dump(mode="json", exclude={"name"})
    sets = _differences(shipped, recipe)
    try:
        made = Recipe.load("finetune", tuple(sets)).model_dump(mode="json", exclude={"name"})
    except UserError:
        made = None
    if made != recipe:
        remarks.append("its recipe is not finetune, and the verb takes no other one")
        return []
    return [w for s in sets for w in ("--set", s)]


def _differences(there: Any, here: Any, path: str = "") -> list[str]:
    """`dotted.path=value` of everything in `here` that is not the same `there`."""
    if isinstance(there, dict) and isinstance(here, dict) and there.keys() == here.keys():
        pairs = [(str(k), there[k], here[k]) for k in here]
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(there, here, strict=True))]
    else:
        return [] if there == here else [f"{path}={json.dumps(here)}"]
    return [s for key, a, b in pairs for s in _differences(a, b, f"{path}.{key}" if path else key)]
