"""Heads: what a model is asked for. One file a kind of output; everything that depends on it is answered there."""

from layerstill.heads.classes import Classes
from layerstill.heads.head import Head
from layerstill.heads.multilabel import MultiLabel
from layerstill.heads.scores import Scores
from layerstill.heads.tokens import Tokens

HEADS: dict[str, type[Head]] = {
    "classification": Classes,
    "regression": Scores,
    "multilabel": MultiLabel,
    "tokens": Tokens,
}
"""Heads by the name that `--task` gives them."""

__all__ = ["HEADS", "Classes", "Head", "MultiLabel", "Scores", "Tokens"]
