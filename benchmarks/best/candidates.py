"""The candidates for the recipe `best`, as plain data; all but the controls differ from `last` in one thing.

Recipes of the package take part under their own names, trained as the candidates are."""

from collections.abc import Callable
from typing import Any

from layerstill.names import shipped_recipes
from layerstill.recipe import Recipe

BATCH = 16
LABELS = {"task": {"signal": "labels", "weight": 0.5}}
SOFT = {"soft targets": {"signal": "logits", "distance": {"kl": {"temperature": 2}}, "weight": 0.5}}
LIGHT = {"task": {"signal": "labels", "weight": 0.1}, "soft targets": {**SOFT["soft targets"], "weight": 0.9}}
"""Little of the labels, for data that are learnt by heart."""
EVERY_TO_LAST = {"explicit": {"pairs": {f"layer {k}": "layer 6" for k in (1, 2, 3)}}}


def hidden(mapping: Any = "last", weight: float = 10) -> dict[str, Any]:
    """Squared error of every token's hidden state."""
    return {"hidden states": {"signal": "hidden_states", "mapping": mapping, "distance": "mse", "weight": weight}}


def attention(mapping: Any = "last", distance: str = "kl", weight: float = 1) -> dict[str, Any]:
    """Divergence of attention distributions, or squared error of scores."""
    signal = {"attention": {"form": "scores" if distance == "mse" else "probabilities"}}
    return {"attention": {"signal": signal, "mapping": mapping, "distance": distance, "weight": weight}}


def relations(weight: float = 1) -> dict[str, Any]:
    """Relations between queries, between keys and between values of the last layer (MiniLMv2)."""
    return {
        name: {"signal": {"relation": {"of": f"{name}-{name}", "heads": 12}}, "mapping": "last", "distance": "kl",
               "weight": weight}
        for name in "QKV"
    }  # fmt: skip


SPREAD = {"explicit": {"layers": [2, 4, 6]}}
"""Evenly spread layers of a teacher of six."""


def joint(
    objectives: dict[str, Any], start: Any = SPREAD, rate: float = 3e-4, embeddings: str = "frozen", **stage: Any
) -> dict[str, Any]:
    """One stage."""
    student = {"initialisation": start, "embeddings": embeddings}
    return {"student": student, "stages": [_stage(objectives, rate, 1.0) | stage]}


def staged(
    first: dict[str, Any], second: dict[str, Any], share: float, start: Any = SPREAD, rate: float = 3e-4
) -> dict[str, Any]:
    """Two stages, the first with this share of the updates."""
    student = {"initialisation": start, "embeddings": "frozen"}
    return {"student": student, "stages": [_stage(first, rate, share), _stage(second, rate, 1 - share)]}


def _stage(objectives: dict[str, Any], rate: float, share: float) -> dict[str, Any]:
    optimiser = {"schedule": "linear", "warmup": 0.06, "weight_decay": 0.01}
    return {
        "epochs": share,
        "batch_size": BATCH,
        "learning_rate": rate,
        "objectives": objectives,
        "optimiser": optimiser,
    }


TERMS = hidden() | attention()
RANDOM = {"random": {"redraw": "step", "final_layer": "included"}}
CANDIDATES: dict[str, Callable[[], dict[str, Any]]] = {
    # controls
    "finetune": lambda: joint({"task": {"signal": "labels"}}),
    "kd": lambda: joint(LABELS | SOFT),
    "kd-first-k": lambda: joint(LABELS | SOFT, "first-k"),
    "kd-2e-5": lambda: joint(LABELS | SOFT, rate=2e-5),
    # which layers teach, and how they are compared
    "last": lambda: joint(LABELS | SOFT | TERMS),
    "uniform": lambda: joint(LABELS | SOFT | hidden("uniform") | attention()),
    "uniform-both": lambda: joint(LABELS | SOFT | hidden("uniform") | attention("uniform")),
    "to-last": lambda: joint(LABELS | SOFT | hidden(EVERY_TO_LAST) | attention()),
    "random": lambda: joint(LABELS | SOFT | hidden(RANDOM) | attention()),
    "hidden": lambda: joint(LABELS | SOFT | hidden()),
    "hidden-100": lambda: joint(LABELS | SOFT | hidden(weight=100) | attention()),
    "attention": lambda: joint(LABELS | SOFT | attention()),
    "scores": lambda: joint(LABELS | SOFT | hidden() | attention(distance="mse")),
    "relations": lambda: joint(LABELS | SOFT | hidden() | relations()),
    # stages, labels, consistency
    "no-labels": lambda: joint(SOFT | TERMS),
    "two-stage": lambda: staged(TERMS, LABELS | SOFT, 0.5),
    "two-stage-long": lambda: staged(TERMS, LABELS | SOFT, 0.75),
    "terms-first": lambda: staged(TERMS, LABELS | SOFT | TERMS, 0.4),
    "terms-first-long": lambda: staged(TERMS, LABELS | SOFT | TERMS, 0.75),
    "light-labels": lambda: joint(LIGHT | hidden(weight=50) | attention(weight=3)),
    "mixup": lambda: joint(SOFT | TERMS, view="mixup"),
    # the start and the rate
    "first-k": lambda: joint(LABELS | SOFT | TERMS, "first-k"),
    "first-k-two-stage-long": lambda: staged(TERMS, LABELS | SOFT, 0.75, "first-k"),
    "first-k-terms-first": lambda: staged(TERMS, LABELS | SOFT | TERMS, 0.4, "first-k"),
    "first-k-terms-first-long": lambda: staged(TERMS, LABELS | SOFT | TERMS, 0.75, "first-k"),
    "first-k-rate-1.5e-4": lambda: joint(LABELS | SOFT | TERMS, "first-k", 1.5e-4),
    "first-k-terms-first-long-rate-1.5e-4": lambda: staged(TERMS, LABELS | SOFT | TERMS, 0.75, "first-k", 1.5e-4),
    "first-k-light-labels": lambda: joint(LIGHT | hidden(weight=50) | attention(weight=3), "first-k"),
    "last-k": lambda: joint(LABELS | SOFT | TERMS, "last-k"),
    "trained-embeddings": lambda: joint(LABELS | SOFT | TERMS, embeddings="copied"),
    "rate-1e-4": lambda: joint(LABELS | SOFT | TERMS, rate=1e-4),
    "rate-6e-4": lambda: joint(LABELS | SOFT | TERMS, rate=6e-4),
    "rate-1e-3": lambda: joint(LABELS | SOFT | TERMS, rate=1e-3),
}


def published(name: str) -> dict[str, Any]:
    """A recipe that comes with the package, its stages sharing the updates as its epochs do, and everything that is not
    its own idea as the other candidates have it: start (`first-k-NAME`: the first layers), frozen embeddings, rate,
    batch and schedule."""
    start = "first-k" if name.startswith(FIRST) else SPREAD
    data = Recipe.load(name.removeprefix(FIRST)).to_data()
    epochs = [1.0 if stage["epochs"] == "auto" else float(stage["epochs"]) for stage in data["stages"]]
    changed = {"initialisation": start, "embeddings": "frozen"}
    stages = []
    for stage, own in zip(data["stages"], epochs, strict=True):
        common = _stage(stage["objectives"], 3e-4, own / sum(epochs))
        stages.append({**stage, **common})
    return {"student": data.get("student", {}) | changed, "stages": stages}


FIRST = "first-k-"
ALONE = [name for name in shipped_recipes() if name != "l-ild-supplementary" and not name.startswith("text-")]
"""Recipes of the package that need labelled examples and nothing else."""
PUBLISHED = [*ALONE, *(FIRST + name for name in ALONE)]
"""The same from either start."""
