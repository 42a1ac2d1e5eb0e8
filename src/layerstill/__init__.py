"""layerstill: compress transformer language models by distilling what happens inside them.

>>> from layerstill import Task, distill
>>> task = Task.glue("mrpc", "glue")                                    # doctest: +SKIP
>>> result = distill("teacher", task, "rail-kd-l", 3, "student")        # doctest: +SKIP
>>> result.metrics["accuracy"]                                          # doctest: +SKIP
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerstill.acts import (
        augment,
        cache,
        compress,
        diagnose,
        distill,
        distill_text,
        evaluate,
        export,
        finetune,
        plan,
        plan_text,
        predict,
        report,
        study,
    )
    from layerstill.acts.push import push_to_hub
    from layerstill.data.copies import Augment
    from layerstill.data.extra import Unlabelled, read_unlabelled
    from layerstill.data.probabilities import Probabilities, read_probabilities
    from layerstill.data.regimes import Regime
    from layerstill.data.supplementary import Supplementary, read_supplementary
    from layerstill.data.tasks import Split, Task
    from layerstill.data.text.packing import Corpus
    from layerstill.errors import ObjectiveError, UserError
    from layerstill.heads.prediction import Prediction
    from layerstill.recipe import Recipe, Stage
    from layerstill.result import Result
    from layerstill.students.build import build_student
    from layerstill.training.arguments import Options
    from layerstill.training.module import DistillationModule
    from layerstill.training.trainer import DistillationTrainer

__version__ = "0.1.0"

__all__ = [
    "Augment",
    "Corpus",
    "DistillationModule",
    "DistillationTrainer",
    "ObjectiveError",
    "Options",
    "Prediction",
    "Probabilities",
    "Recipe",
    "Regime",
    "Result",
    "Split",
    "Stage",
    "Supplementary",
    "Task",
    "Unlabelled",
    "UserError",
    "augment",
    "build_student",
    "cache",
    "compress",
    "diagnose",
    "distill",
    "distill_text",
    "evaluate",
    "export",
    "finetune",
    "plan",
    "plan_text",
    "predict",
    "push_to_hub",
    "read_probabilities",
    "read_supplementary",
    "read_unlabelled",
    "report",
    "study",
]
_HOMES = {
    "acts": "augment cache compress diagnose distill distill_text evaluate export finetune plan plan_text predict "
    "report study",
    "acts.push": "push_to_hub",
    "data.copies": "Augment",
    "data.extra": "Unlabelled read_unlabelled",
    "data.probabilities": "Probabilities read_probabilities",
    "data.regimes": "Regime",
    "data.supplementary": "Supplementary read_supplementary",
    "data.tasks": "Split Task",
    "data.text.packing": "Corpus",
    "errors": "ObjectiveError UserError",
    "heads.prediction": "Prediction",
    "recipe": "Recipe Stage",
    "result": "Result",
    "students.build": "build_student",
    "training.arguments": "Options",
    "training.module": "DistillationModule",
    "training.trainer": "DistillationTrainer",
}
"""The modules that public names come from. They are imported when a name is first asked for, as torch takes seconds."""
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """A package whose public names stay what they are, whatever is imported from the folders below it."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the folder `export` would put it in the place of the function of that name.
        if name in _HOME and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
