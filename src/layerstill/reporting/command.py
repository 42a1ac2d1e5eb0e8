"""The command line that makes a run again, as far as its records know."""

import json
import shlex
from typing import Any

from layerstill.data.copies import Augment
from layerstill.data.regimes import Regime
from layerstill.errors import UserError
from layerstill.heads import HEADS
from layerstill.recipe import Recipe, foreign_words
from layerstill.reporting.figures import get
from layerstill.reporting.runs import RunRecord

NOT_RECORDED = (
    "In the commands, DATA stands for where the data are, DEV and FILE for files, and NEW for a new folder. No record "
    "says them, nor --dev, --text-columns, --label-column, --weight-column and --train-examples (outside studies), "
    "--ood-labels, --supplementary-columns, --unlabelled-columns, --cache and --report-to."
)


def command_of(run: RunRecord) -> str | None:
    """The command in one line, a shell comment at its end where it cannot say everything; None without `run.json`."""
    settings = run.read("run.json")
    if not isinstance(settings, dict) or run.folder is None:
        return None
    distilled = "teacher" in settings
    source = str(settings.get("teacher" if distilled else "model", "MODEL"))
    remarks: list[str] = []
    ready = settings.get("teacher_probabilities")
    words: list[Any] = ["layerstill", "distill" if distilled else "finetune", *([] if ready else [source])]
    words += _task(run, settings, remarks)
    if distilled:
        words += ["--recipe", str(run.folder / "recipe.yaml"), "--student-layers", settings.get("student_layers")]
        words += ["--init-from", settings["init_from"]] if settings.get("init_from") else []
        words += ["--student", settings["student"]] if settings.get("student") else []
        if foreign := foreign_words(settings.get("recipe")):
            remarks.append(f"only in Python: Recipe.load(FILE, words=[...]) with {', '.join(foreign)}")
    else:
        words += _sets(settings.get("recipe"), remarks)
    if settings.get("head"):
        remarks.append(f"only in Python: a task with the head {json.dumps(settings['head'])}")
    if settings.get("supplementary"):
        words += ["--supplementary", get(run.result.get("supplementary"), "source") or "FILE"]
    words += _more_texts(run, settings, remarks)
    words += _regime(settings.get("regime"))
    ood = settings.get("ood")
    for name in ood if isinstance(ood, dict) else ():
        words += ["--ood", f"{name}=FILE"]
    for option in ("seed", "max_length", "max_steps", "precision"):
        if settings.get(option) is not None:
            words += [f"--{option.replace('_', '-')}", settings[option]]
    words += ["--compile"] if settings.get("compile") else []
    line = shlex.join(str(w) for w in [*words, "--output", "NEW"])
    return f"{line}  # {'; '.join(remarks)}" if remarks else line


def _task(run: RunRecord, settings: dict[str, Any], remarks: list[str]) -> list[Any]:
    """`--task` and what belongs to it; a study's file gave its tasks names of their own, and says what they are."""
    name = str(settings.get("task", "TASK"))
    source = _study_task(run, name)
    kind = str(get(source, "kind") or name)
    words: list[Any] = ["--task", kind, *([] if kind == "tickets" else ["--data", "DATA"])]
    if kind in HEADS:
        columns, label = get(source, "text_columns"), get(source, "label_column")
        words += ["--dev", "DEV"] if get(source, "dev") else []
        words += ["--text-columns", ",".join(map(str, columns))] if isinstance(columns, list) and columns else []
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


def _more_texts(run: RunRecord, settings: dict[str, Any], remarks: list[str]) -> list[Any]:
    words: list[Any] = []
    if settings.get("unlabelled"):
        words += ["--unlabelled", get(run.result.get("unlabelled"), "source") or "FILE"]
    if isinstance(augment := settings.get("augment"), dict):
        words += ["--augment", augment.get("copies")]
        words += ["--augment-model", settings["augment_model"]] if settings.get("augment_model") else []
        usual = Augment(1, settings.get("augment_model")).record()
        if any(augment.get(name) != usual[name] for name in ("methods", "probability")):
            remarks.append("only in Python: Augment with other methods or another probability")
    if settings.get("teacher_probabilities"):
        columns = get(run.result.get("teacher_probabilities"), "columns")
        named = ",".join(map(str, columns)) if isinstance(columns, list) and columns else "COLUMNS"
        words += ["--teacher-probabilities", named]
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
