"""The model card: `README.md` of a student's folder, as the Hugging Face hub reads it."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from layerstill.atomic import write_text
from layerstill.heads import Head
from layerstill.recipe import Recipe
from layerstill.reporting.label_table import MOST, TITLES, columns_of, in_words, judged_by, worst_first
from layerstill.reporting.words import spec_words
from layerstill.result import Record, Result

log = logging.getLogger("layerstill")

CARD_MARK = "<!-- written by layerstill -->"
_NOT_PLAIN = re.compile(r"([\\`*_\[\]<>#|~&$]|:(?=//)|(?<=www)\.)")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def card_writer(recipe: Recipe, head: Head) -> Callable[[Result], None]:
    """What writes the card of a run with this recipe and head into the run's folder."""

    def write(result: Result) -> None:
        path = result.folder / "README.md"
        if path.is_file() and CARD_MARK not in path.read_text("utf-8", "replace"):
            log.warning("note: %s was not written by this run and stays as it is", path)
            return
        settings = json.loads((result.folder / "run.json").read_text("utf-8"))
        write_text(path, model_card(result.record, recipe, settings, head))

    return write


def model_card(result: Record, recipe: Recipe, settings: dict[str, Any], head: Head) -> str:
    """Markdown with YAML front matter.

    `settings` is the content of `run.json`, `head` is what the model is asked for. A pure function of
    these: no date and nothing that was measured by the clock, so that the same run gives the same card.
    """
    environment = Environment(
        loader=PackageLoader("layerstill.reporting"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown: every text passes through the filter `plain` or `code`
    )
    environment.filters |= {"plain": plain, "code": code}
    ready = result.teacher_probabilities is not None
    source = str(result.teacher or settings.get("model") or (settings.get("init_from") if ready else "") or "")
    return environment.get_template("model_card.md.j2").render(
        front=front_matter(result, source, recipe.needs_teacher, head),
        mark=CARD_MARK,
        result=result,
        distilled=recipe.needs_teacher,
        ready=ready,
        more_texts=_more_texts(result),
        cut=result.teacher is not None,
        source=source if is_hub_id(source) else Path(source).name,
        student=result.student,
        init=_init(result.student.init),
        stages=[(number, stage, objective_words(stage)) for number, stage in enumerate(recipe.to_data()["stages"], 1)],
        metrics=[(name, value, result.teacher_metrics.get(name)) for name, value in result.scores.items()],
        selected=result.selected,
        kind=head.word,
        rule=head.rule,
        by_label=[(name, list(map(in_words, row.values()))) for name, row in worst_first(result.by_label)[:MOST]],
        label_columns=[title for _, title in columns_of(result.by_label)],
        worst_by=TITLES.get(judged_by(result.by_label), judged_by(result.by_label)),
        more_labels=max(len(result.by_label) - MOST, 0),
        own_head=settings.get("head") and _named(settings["head"]),
        auto_class=f"AutoModel{head.architecture}",
        settings=settings,
        left_out=settings.get("left_out") or [],
        regime=_flat(result.regime),
        ood=list(result.ood.items()),
        recipe_yaml=recipe.to_yaml(),
    )


def _more_texts(result: Record) -> list[str]:
    """What joined the labelled examples, and who labelled them, in sentences."""
    found = []
    if texts := result.unlabelled:
        found.append(
            f"{texts.get('examples')} texts without labels joined the training examples; the teacher labelled them."
        )
    if copies := result.augmented:
        how = ", ".join(copies.get("methods") or [])
        by = f" by {Path(str(copies['model'])).name}" if copies.get("model") else ""
        found.append(
            f"{copies.get('examples')} copies of training examples with words changed ({how}{by}) joined them; "
            "the teacher labelled them."
        )
    if ready := result.teacher_probabilities:
        columns = ", ".join(ready.get("columns") or [])
        found.append(f"The teacher was no model but its probabilities, given with the training examples ({columns}).")
    if result.teachers:
        *each, mean = result.teachers
        scores = ", ".join(f"{Path(str(one['teacher'])).name} {one['weight']:.2f}" for one in each)
        metric = next((name for name in mean if name not in {"teacher", "weight"}), "")
        more = f"{len(each) - 1} more teacher{'s' * (len(each) > 2)}"
        found.append(
            f"Soft targets were the mean of the teacher and {more}, by their scores on dev (weights: {scores}). "
            f"Their mean scores {metric} {mean.get(metric, 0):.4f} on dev."
        )
    return found


def front_matter(result: Record, source: str, distilled: bool, head: Head) -> str:
    """The YAML block that the hub reads; what is not known (the licence, say) is left out.

    `source` is the teacher or the model that was fine-tuned. The scores are there as the hub's evaluation results.
    """
    data = ModelCardData(
        library_name="transformers",
        base_model=source if is_hub_id(source) else None,
        pipeline_tag=head.pipeline,
        tags=["layerstill", *(["knowledge-distillation"] if distilled else []), f"text-{head.word}"],
        model_name=f"{result.recipe} on {result.task}",
        eval_results=[*_evaluations(result.task, result.scores, head), *_out_of_domain(result, head)],
    )
    return data.to_yaml().rstrip("\n")


def _evaluations(data: str, scores: dict[str, float], head: Head, split: str | None = "dev") -> list[EvalResult]:
    """Scores on some data, in the hub's form."""
    return [
        EvalResult(
            task_type=head.pipeline,
            dataset_type=data,
            dataset_name=data,
            dataset_split=split,
            metric_type=name,
            metric_name=name,
            metric_value=value,
        )
        for name, value in scores.items()
    ]


def _out_of_domain(result: Record, head: Head) -> list[EvalResult]:
    found = {name: entry.get("metrics") or {} for name, entry in result.ood.items()}
    return [evaluation for name, scores in found.items() for evaluation in _evaluations(name, scores, head, None)]


def is_hub_id(name: str) -> bool:
    """Whether a model's name means the hub: it looks like an id, and no such folder is here."""
    return bool(_HUB_ID.fullmatch(name)) and ".." not in name and "--" not in name and not Path(name).exists()


def plain(value: Any) -> str:
    """Text from outside as plain Markdown text on one line: nothing in it is markup."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return _NOT_PLAIN.sub(r"\\\1", line)


def code(text: str) -> str:
    """A fence that the text cannot end: longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}yaml\n{text.rstrip()}\n{fence}"


def objective_words(stage: dict[str, Any]) -> list[tuple[str, str]]:
    """Each objective of a stage, as plain data, with its name and what it compares in words."""
    return [(name, _objective(spec)) for name, spec in stage["objectives"].items()]


def _objective(spec: dict[str, Any]) -> str:
    parts = ["the task's own loss on the gold labels" if spec["signal"] == "labels" else _named(spec["signal"])]
    if spec.get("target"):
        parts[0] += f" of the {_named(spec['target'])}"
    said = {"mapping": "layers mapped", "alignment": "widths aligned", "relate": "relations", "view": "input"}
    for word, before in said.items():
        if spec.get(word):
            parts.append(f"{before}: {_named(spec[word])}")
    if spec.get("distance"):
        parts.append(f"by {_named(spec['distance'])}")
    parts.append(f"weight {_named(spec.get('weight', 1))}")
    if spec.get("padding"):
        parts.append(f"padding {spec['padding']}")
    return ", ".join(parts)


def _named(value: Any) -> str:
    # A word from outside, `module:Class`, is code and stays as it is.
    return re.sub(r"\S+", lambda found: _spaced(found[0]), spec_words(value))


def _spaced(name: str) -> str:
    return name if ":" in name.strip("(),:") else name.replace("_", " ")


def _init(init: Any) -> str:
    """Which layers a student started with, in words."""
    if not isinstance(init, dict):
        return str(init)
    layers, source = init.get("layers"), init.get("from")
    which = f"layers {', '.join(map(str, layers))}" if isinstance(layers, list) else str(layers)
    if source == "teacher":
        return f"{which} of the teacher" if isinstance(layers, list) else which
    return f"{which} of {Path(str(source)).name}" if which != "random weights" else which


def _flat(data: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested plain data as pairs of a dotted path and a value."""
    pairs: list[tuple[str, Any]] = []
    for key, value in data.items():
        path = f"{before}{key}"
        pairs.extend(_flat(value, f"{path}.") if isinstance(value, dict) else [(path, value)])
    return pairs
