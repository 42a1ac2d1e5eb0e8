"""layerstill: compress transformer language models by distilling what happens inside them.

>>> from layerstill import Task, distill
>>> task = Task.glue("mrpc", "glue")                                    # doctest: +SKIP
>>> result = distill("teacher", task, "rail-kd-l", 3, "student")        # doctest: +SKIP
>>> result.metrics["accuracy"]                                          # doctest: +SKIP
"""

from layerstill.acts import (
    augment,
    cache,
    compress,
    diagnose,
    distill,
    evaluate,
    export,
    finetune,
    plan,
    predict,
    report,
    study,
)
from layerstill.data.copies import Augment
from layerstill.data.extra import Unlabelled, read_unlabelled
from layerstill.data.probabilities import Probabilities, read_probabilities
from layerstill.data.regimes import Regime
from layerstill.data.supplementary import Supplementary, read_supplementary
from layerstill.data.tasks import Split, Task
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
    "evaluate",
    "export",
    "finetune",
    "plan",
    "predict",
    "read_probabilities",
    "read_supplementary",
    "read_unlabelled",
    "report",
    "study",
]
