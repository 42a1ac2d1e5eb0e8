"""Names that options take, tasks and recipes, known without importing what they stand for, which takes seconds."""

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from layerstill.errors import UserError, nearest

OWN_TASKS = ("classification", "regression", "multilabel", "tokens")
"""Kinds of task that own files have, which are the words of heads."""
GLUE_TASKS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
DEMO_TASK = "tickets"
TEXT_TASK = "text"
"""Running text, on which a student is distilled before there is a task."""
DEFAULT_TEXT_RECIPE = "text-att-mse"
"""The best of the objectives of How to Distill your BERT on running text (its Table 2)."""
ELSEWHERE = {
    "text-classification": "classification",
    "sequence-classification": "classification",
    "multi-label": "multilabel",
    "token-classification": "tokens",
    "tagging": "tokens",
    "ner": "tokens",
    "pos": "tokens",
    "sentence-similarity": "regression",
    "cross-encoder": "regression",
    "reranking": "regression",
    "fill-mask": TEXT_TASK,
    "masked-lm": TEXT_TASK,
}
"""What others call kinds of task."""
NOT_HERE = {
    "squad": "question answering",
    "qa": "question answering",
    "question-answering": "question answering",
    "extractive-qa": "question answering",
    "summarization": "writing text",
    "translation": "writing text",
    "text-generation": "writing text",
    "causal-lm": "writing text",
    "text2text-generation": "writing text",
    "multiple-choice": "multiple choice",
    "feature-extraction": "making embeddings",
    "embedding": "making embeddings",
    "embeddings": "making embeddings",
}
"""Kinds of task that there are elsewhere and not here."""


def task_names() -> list[str]:
    """What `--task` takes."""
    return [*OWN_TASKS, TEXT_TASK, DEMO_TASK, *GLUE_TASKS]


def nearest_task(name: str, others: Iterable[str] = ()) -> str:
    """Words that follow "unknown ...", as `nearest`, which know the names that kinds of task have elsewhere."""
    plain = name.casefold().replace("_", "-")
    every = [*others, *OWN_TASKS]
    if plain in NOT_HERE:
        return f"layerstill does not do {NOT_HERE[plain]}; known: {', '.join(every)}"
    return f"here it is called {ELSEWHERE[plain]!r}" if plain in ELSEWHERE else nearest(name, every)


def refuse_unknown_task(name: str) -> None:
    """UserError for what `--task` does not take."""
    if name not in task_names():
        raise UserError(f"unknown task {name!r}: {nearest_task(name, [*GLUE_TASKS, DEMO_TASK])}")


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with layerstill."""
    folder = resources.files("layerstill") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def default_recipe(paired: bool) -> str:
    """The recipe that is taken where none is named; `paired`: examples have two texts, which are compared."""
    return "best-pairs" if paired else "best"


def refuse_unknown_recipe(name: str) -> None:
    """UserError for what is neither the name of a shipped recipe nor like that of a file."""
    path = Path(name)
    if name not in shipped_recipes() and path.suffix not in {".yaml", ".yml"} and len(path.parts) < 2:
        raise UserError(f"unknown recipe {name!r}: {nearest(name, shipped_recipes())} (a file ends in .yaml)")
