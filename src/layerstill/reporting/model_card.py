"""The model card: `README.md` of a student's folder, as the Hugging Face hub reads it."""

import re
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from layerstill.heads import Head
from layerstill.recipe import Recipe

CARD_MARK = "<!-- written by layerstill -->"
_NOT_PLAIN = re.compile(r"([\\`*_\[\]<>#|~&$]|:(?=//)|(?<=www)\.)")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def model_card(result: dict[str, Any], recipe: Recipe, settings: dict[str, Any], head: Head) -> str:
    """Markdown with YAML front matter.

    `result` is `result.json`, `settings` is `run.json`, `head` what the model is asked for. A pure function of
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
    source = str(result["teacher"] or settings.get("model") or "")
    metrics = dict(result["metrics"])
    selected = metrics.pop("selected", "last")
    student = result["student"]
    return environment.get_template("model_card.md.j2").render(
        front=front_matter(source, recipe.needs_teacher, head),
        mark=CARD_MARK,
        result=result,
        distilled=recipe.needs_teacher,
        cut=result["teacher"] is not None,
        source=source if is_hub_id(source) else Path(source).name,
        student=student,
        init=_init(student["init"]),
        stages=[(number, stage, objective_words(stage)) for number, stage in enumerate(recipe.to_data()["stages"], 1)],
        metrics=[(name, value, result["teacher_metrics"].get(name)) for name, value in metrics.items()],
        selected=selected,
        kind=head.word,
        auto_class=f"AutoModel{head.architecture}",
        settings=settings,
        regime=_flat(result.get("regime") or {}),
        ood=[(name, found) for name, found in (result.get("ood") or {}).items()],
        recipe_yaml=recipe.to_yaml(),
    )


def front_matter(source: str, distilled: bool, head: Head) -> str:
    """The YAML block that the hub reads; what is not known (the licence, say) is left out."""
    data: dict[str, Any] = {"library_name": "transformers"}
    if is_hub_id(source):
        data["base_model"] = source
    data["pipeline_tag"] = head.pipeline
    data["tags"] = ["layerstill", *(["knowledge-distillation"] if distilled else []), f"text-{head.word}"]
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip("\n")


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
    for word, before in (("mapping", "layers mapped"), ("alignment", "widths aligned"), ("view", "input")):
        if spec.get(word):
            parts.append(f"{before}: {_named(spec[word])}")
    if spec.get("distance"):
        parts.append(f"by {_named(spec['distance'])}")
    parts.append(f"weight {_named(spec.get('weight', 1))}")
    if spec.get("padding"):
        parts.append(f"padding {spec['padding']}")
    return ", ".join(parts)


def _named(value: Any) -> str:
    """`{"kl": {"temperature": 2}}` as `kl (temperature 2)`."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, dict):
        return str(value).replace("_", " ")
    ((name, settings),) = value.items()
    return f"{name} ({', '.join(f'{key} {_named_setting(v)}' for key, v in settings.items())})".replace("_", " ")


def _named_setting(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {v}" for key, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
