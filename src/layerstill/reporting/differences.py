"""What tells runs of one recipe apart where nobody named them: their settings, in words."""

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

from layerstill.reporting.naming import letter, looks_like_a_hash, tails
from layerstill.reporting.reading import get
from layerstill.reporting.runs import RunRecord, word

DETAILS = {
    "teacher_fingerprint": "teacher",
    "data_fingerprint": "data",
    "supplementary": "supplementary texts",
    "unlabelled": "unlabelled texts",
    "augment": "copies",
    "teacher_probabilities": "probabilities",
    "more_teacher_fingerprints": "more teachers",
    "max_steps": "max steps",
    "max_length": "max length",
    "precision": "precision",
}
"""Settings of `run.json` in which runs of one cell do not differ, and what they are called."""
MOST = 3
"""Settings in a name."""
_DROPPED = {"student", "stages", "objectives", "optimiser"}
"""Parts of a path that say where a setting stands rather than what it is."""


def suffixes(runs: Sequence[RunRecord], details: Sequence[dict[str, str]]) -> list[str]:
    """What is to be added to the name of each group, `runs` being the first of each, so that all names differ.

    `details` has the groups' `DETAILS` as text. Empty where there is nothing to tell.
    """
    parts: list[list[str]] = [[] for _ in runs]
    hashes = [run.checked.recipe_hash for run in runs]
    if len(set(hashes)) > 1:
        for own, said in zip(parts, _recipes(runs, hashes), strict=True):
            own += [said] if said else []
    for label in DETAILS.values():
        values = [own.get(label, "") for own in details]
        if len(set(values)) > 1:
            for own, said in zip(parts, _described(label, runs, values), strict=True):
                own.append(said)
    return [", ".join(own) for own in parts]


def _recipes(runs: Sequence[RunRecord], hashes: Sequence[str]) -> list[str]:
    """What of their recipes differs, in the fewest settings that tell all apart."""
    recipes = [get(run.read("run.json"), "recipe") for run in runs]
    if all(isinstance(recipe, dict) for recipe in recipes):
        flat = [_flat(recipe) for recipe in recipes]
        keys = list(dict.fromkeys(key for one in flat for key in one))
        differing = [key for key in keys if len({one.get(key) for one in flat}) > 1]
        chosen = _enough(flat, differing, len(set(hashes)))
        if chosen:
            lists = [recipe.get("stages") for recipe in recipes]
            stages = max((len(found) for found in lists if isinstance(found, list)), default=1)
            return [", ".join(_setting(key, one.get(key), stages) for key in chosen) for one in flat]
    return _lettered("setting", hashes)


def _enough(flat: Sequence[dict[str, str]], differing: Sequence[str], wanted: int) -> list[str]:
    """The settings that stand in names: all where they are few, else the first that tell apart; none if none do."""

    def kinds(keys: Sequence[str]) -> int:
        return len({tuple(one.get(key) for key in keys) for one in flat})

    if kinds(differing) < wanted:
        return []
    if len(differing) <= MOST:
        return list(differing)
    chosen: list[str] = []
    for key in differing:
        if kinds([*chosen, key]) > kinds(chosen):
            chosen.append(key)
    return chosen


def _flat(recipe: dict[str, Any]) -> dict[str, str]:
    """Settings by dotted path, as text; an objective also by itself, so that one that is missing can be named."""
    found: dict[str, str] = {}
    stages = recipe.get("stages")
    if isinstance(stages, list):
        found["stages"] = str(len(stages))

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if path[-2:-1] == ("objectives",):
            found[".".join(path)] = "there"
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, (*path, str(key)))
        elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
            for number, inner in enumerate(value):
                walk(inner, (*path, str(number)))
        elif value is not None:
            found[".".join(path)] = f"{value:.3g}" if isinstance(value, float) else word(value)

    for key, value in recipe.items():
        walk(value, (str(key),))
    return found


def _setting(key: str, value: str | None, stages: int) -> str:
    """A setting in words: `learning rate 0.0003`, `stage 2 attention weight 1`, `without attention`."""
    if key == "stages":
        return f"{value} stage{'s' * (value != '1')}"
    path = key.split(".")
    words = [part.replace("_", " ") for part in path if part not in _DROPPED and not part.isdigit()]
    stage = f"stage {int(path[1]) + 1} " if path[0] == "stages" and stages > 1 else ""
    if path[-2:-1] == ["objectives"]:
        return f"{stage}{'without' if value is None else 'with'} {words[-1]}"
    return f"{stage}{' '.join(words)} {value}" if value is not None else f"{stage}without {' '.join(words)}"


def _described(label: str, runs: Sequence[RunRecord], values: Sequence[str]) -> list[str]:
    """A detail's values in words that differ where the values do."""
    for describe in _WORDS.get(label, ()):
        said = describe(runs)
        pairs = set(zip(values, said, strict=True))
        plain = not any(map(looks_like_a_hash, said))
        if plain and all(said) and len(pairs) == len(set(values)) == len(set(said)):
            return [_absent(label, value) or f"{label} {text}" for value, text in zip(values, said, strict=True)]
    if label in _WORDS:
        return _lettered(label, values)
    return [_absent(label, value) or f"{label} {value}" for value in values]


def _absent(label: str, value: str) -> str:
    return f"without {label}" if value in ("None", "") else ""


def _lettered(label: str, values: Sequence[str]) -> list[str]:
    order = [value for value in dict.fromkeys(values) if not _absent(label, value)]
    return [_absent(label, value) or f"{label} {letter(order.index(value))}" for value in values]


def _settings(run: RunRecord) -> dict[str, Any]:
    found = run.read("run.json")
    return found if isinstance(found, dict) else {}


def _teachers(runs: Sequence[RunRecord]) -> list[str]:
    return tails([str(_settings(run).get("teacher") or run.checked.teacher or "") for run in runs])


def _sources(key: str) -> Callable[[Sequence[RunRecord]], list[str]]:
    def describe(runs: Sequence[RunRecord]) -> list[str]:
        return tails([str(get(run.result.get(key), "source") or "none") for run in runs])

    return describe


def _places(runs: Sequence[RunRecord]) -> list[str]:
    return tails([str(get(get(_settings(run).get("source"), "data"), "given") or "") for run in runs])


def _first_examples(runs: Sequence[RunRecord]) -> list[str]:
    counts = [get(_settings(run).get("source"), "train_examples") for run in runs]
    return ["whole" if count is None else f"first {count}" for count in counts]


def _copies(runs: Sequence[RunRecord]) -> list[str]:
    found = []
    for run in runs:
        model = _settings(run).get("augment_model")
        by = f" by {PurePath(str(model)).name}" if model else ""
        found.append(f"{get(_settings(run).get('augment'), 'copies')}{by}")
    return found


def _more_teachers(runs: Sequence[RunRecord]) -> list[str]:
    named = [_settings(run).get("more_teachers") or [] for run in runs]
    return [word(", ".join(PurePath(str(name)).name for name in names) or "none") for names in named]


def _columns(runs: Sequence[RunRecord]) -> list[str]:
    return [word(get(run.result.get("teacher_probabilities"), "columns") or "none") for run in runs]


_WORDS: dict[str, tuple[Callable[[Sequence[RunRecord]], list[str]], ...]] = {
    "teacher": (_teachers,),
    "data": (_places, _first_examples),
    "supplementary texts": (_sources("supplementary"),),
    "unlabelled texts": (_sources("unlabelled"),),
    "copies": (_copies,),
    "more teachers": (_more_teachers,),
    "probabilities": (_columns, _sources("teacher_probabilities")),
}
"""Of details that are fingerprints, what may be said in their place, the best first."""
