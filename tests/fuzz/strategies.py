"""What is thrown at the readers: recipes from the vocabulary itself, broken recipes, tables."""

import os
import types
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Le, Lt
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from layerstill.knowledge.alignment import ALIGNMENTS
from layerstill.knowledge.distances import DISTANCES
from layerstill.knowledge.mappings import MAPPINGS
from layerstill.knowledge.objective import Objective
from layerstill.knowledge.signals import SIGNALS
from layerstill.recipe import Optimiser, Stage
from layerstill.schema import OneOf
from layerstill.students.spec import StudentSpec

LONG = os.environ.get("LAYERSTILL_FUZZ") == "long"


def fuzz(examples: int, long: int) -> settings:
    """Settings for a bounded run that is the same every time, or with LAYERSTILL_FUZZ=long for a longer, fresh one."""
    return settings(
        max_examples=long if LONG else examples,
        derandomize=not LONG,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


NAMES = ["one", "two", "a longer name", "values", "größe"]
LAYERS = ["embeddings", "layer 1", "layer 2", "layer 3", "layer 4", "layer 9"]


def field(annotation: Any, metadata: tuple | list = ()) -> st.SearchStrategy:
    """Values for a field of a schema class, most of them allowed."""
    for entry in metadata:
        if isinstance(entry, OneOf):
            return choice(entry.choices, numbers=entry.noun == "weight")
    origin, parts = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return field(parts[0], annotation.__metadata__)
    if origin is Literal:
        return st.sampled_from(parts)
    if origin in (Union, types.UnionType):
        return st.one_of(*(field(part, metadata) for part in parts))
    if origin is dict:
        return st.dictionaries(st.sampled_from(LAYERS), st.sampled_from(LAYERS), min_size=1, max_size=3)
    if origin is list:
        return st.lists(st.integers(1, 4), min_size=1, max_size=3)
    if annotation is type(None):
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.integers(1, 12)
    if annotation is float:
        below_one = any(isinstance(m, Lt) or (isinstance(m, Le) and m.le == 1) for m in metadata)
        return st.sampled_from([0.1, 0.5, 0.9] if below_one else [0.25, "1/3", 1, 2.5, 40, 0, 1e-9, 1e9])
    return st.sampled_from(NAMES)


def spec(model: type) -> st.SearchStrategy[dict]:
    """Settings of a schema class as plain data: what is required, and some of the rest."""
    fields = {name: field(f.annotation, f.metadata) for name, f in model.model_fields.items()}
    required = {name: fields.pop(name) for name, f in model.model_fields.items() if f.is_required()}
    return st.fixed_dictionaries(required, optional=fields)


def choice(choices: dict[str, type], numbers: bool = False) -> st.SearchStrategy:
    """A word of the vocabulary: bare, or with settings."""
    words = [spec(model).map(lambda settings, name=name: {name: settings}) for name, model in choices.items()]
    bare = [n for n, m in choices.items() if not any(f.is_required() for f in m.model_fields.values())]
    values = [st.sampled_from([1, 0.5, "1/3", 3])] if numbers else [st.sampled_from(bare)]
    return st.one_of(*values, *words)


@st.composite
def objectives(draw: st.DrawFn) -> dict:
    """An objective whose parts mostly go together, with settings for some of the other fields."""
    signal = draw(choice(SIGNALS))
    name = signal if isinstance(signal, str) else next(iter(signal))
    rest = {n: f for n, f in Objective.model_fields.items() if n not in {"signal", "mapping", "distance", "alignment"}}
    data = {"signal": signal}
    data |= draw(st.fixed_dictionaries({}, optional={n: field(f.annotation, f.metadata) for n, f in rest.items()}))
    if SIGNALS[name].layered or draw(st.integers(0, 9)) == 0:
        data["mapping"] = draw(choice(MAPPINGS))
    if name != "labels" or draw(st.integers(0, 9)) == 0:
        data["distance"] = draw(choice(DISTANCES))
    if SIGNALS[name].vectors and draw(st.booleans()):
        data["alignment"] = draw(choice(ALIGNMENTS))
    return data


@st.composite
def recipes(draw: st.DrawFn, stages: int = 2) -> dict:
    """A recipe as plain data, mostly valid."""

    def stage() -> dict:
        data = draw(st.fixed_dictionaries({}, optional={"select": st.sampled_from(["last", "best"])}))
        data |= {"epochs": draw(st.sampled_from([1, 2, "1/2"])), "learning_rate": 1e-4}
        optional = {"optimiser": spec(Optimiser), "batch_size": st.sampled_from([4, 8]), "accumulation": st.just(2)}
        optional["evaluate"] = field(Stage.model_fields["evaluate"].annotation)
        data |= draw(st.fixed_dictionaries({}, optional=optional))
        names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
        return data | {"objectives": {name: draw(objectives()) for name in names}}

    data: dict = {"stages": [stage() for _ in range(draw(st.integers(1, stages)))]}
    if draw(st.booleans()):
        data["student"] = draw(spec(StudentSpec))
    return data


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([*SIGNALS, *MAPPINGS, *ALIGNMENTS, *DISTANCES, 10**400, "1/0", "9" * 400 + "/1", -1, 0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def broken_recipes(draw: st.DrawFn) -> Any:
    """A recipe with one to three places replaced, removed, added or renamed, at any depth."""
    data: Any = draw(recipes())
    for _ in range(draw(st.integers(1, 3))):
        here, way = data, []
        while isinstance(here, dict | list) and here and (not way or draw(st.integers(0, 4))):
            key = draw(st.sampled_from(sorted(here))) if isinstance(here, dict) else draw(st.integers(0, len(here) - 1))
            way.append((here, key))
            here = here[key]
        if not way:
            return draw(JUNK)
        parent, key = way[-1]
        act = draw(st.sampled_from(["replace", "remove", "add", "rename"]))
        if act == "replace" or isinstance(parent, list):
            parent[key] = draw(JUNK)
        elif act == "add":
            parent[draw(st.text(max_size=8))] = draw(JUNK)
        else:
            value = parent.pop(key)
            if act == "rename":
                parent[key[:-1]] = value
    return data


def table_texts(without: str) -> st.SearchStrategy[str]:
    """Any text but NUL, half surrogate pairs and the characters of `without`."""
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0" + without), max_size=20)
