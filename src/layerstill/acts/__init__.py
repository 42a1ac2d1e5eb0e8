"""What layerstill does, one file a verb, as Python calls it and as the command line does."""

from layerstill.acts.distill import distill
from layerstill.acts.finetune import finetune

__all__ = ["distill", "finetune"]
