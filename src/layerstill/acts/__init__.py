"""What layerstill does, one file a verb, as Python calls it and as the command line does."""

from layerstill.acts.augment import augment
from layerstill.acts.cache import cache
from layerstill.acts.compress import compress
from layerstill.acts.diagnose import diagnose
from layerstill.acts.distill import distill
from layerstill.acts.distill_text import distill_text
from layerstill.acts.evaluate import evaluate
from layerstill.acts.export import export
from layerstill.acts.finetune import finetune
from layerstill.acts.plan import plan
from layerstill.acts.plan_text import plan_text
from layerstill.acts.predict import predict
from layerstill.acts.report import report
from layerstill.acts.study import study

__all__ = [
    "augment",
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
    "report",
    "study",
]
