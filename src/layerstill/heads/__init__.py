"""Heads: what a model is asked for. One file a kind of output; everything that depends on it is answered there."""

from typing import Any

from pydantic import ValidationError

from layerstill.errors import UserError
from layerstill.heads.causal_lm import CausalLM
from layerstill.heads.classes import Classes
from layerstill.heads.head import Head
from layerstill.heads.masked_lm import MaskedLM
from layerstill.heads.multilabel import MultiLabel
from layerstill.heads.scores import Scores
from layerstill.heads.tokens import Tokens
from layerstill.names import nearest_task
from layerstill.schema import OneOf, problems, shown

HEADS: dict[str, type[Head]] = {
    "classification": Classes,
    "regression": Scores,
    "multilabel": MultiLabel,
    "tokens": Tokens,
}
"""Heads by the name that `--task` gives them."""

__all__ = [
    "HEADS",
    "Classes",
    "Head",
    "MultiLabel",
    "Scores",
    "Tokens",
    "head_named",
    "head_of",
    "head_said",
    "head_settings",
    "language_head_of",
]


def head_named(word: str | Head) -> Head:
    """The head of a word with its defaults, or a head as it is; UserError for an unknown word."""
    if isinstance(word, Head):
        return word
    if word not in HEADS:
        raise UserError(f"unknown kind of task {word!r}: {nearest_task(word)}")
    return HEADS[word]()


def head_settings(head: Head) -> Any:
    """A head as records keep it, `{"multilabel": {"threshold": 0.3}}`; None for a shipped one with its defaults."""
    said = OneOf("head", Head, HEADS).short(head)
    return None if said in list(HEADS) else said


def head_said(said: Any, where: str) -> Head:
    """The head that records keep so; UserError that begins with `where` for what is none."""
    if isinstance(said, dict) and len(said) == 1:
        ((word, settings),) = said.items()
        if word in HEADS and isinstance(settings, dict):
            try:
                return HEADS[word].model_validate(settings)
            except ValidationError as error:
                raise UserError(f"{where}: {problems(error)}") from None
    raise UserError(f"{where}: {shown(said)} is not one of {', '.join(HEADS)} with its settings")


LANGUAGE: tuple[type[Head], ...] = (MaskedLM, CausalLM)
"""Heads of running text, which no `--task` names: the teacher has one or the other."""


def language_head_of(config: Any) -> Head | None:
    """The language head that a model has, by its configuration; None if it has none."""
    return next((made for head in LANGUAGE if (made := head()).fits(config)), None)


def head_of(config: Any) -> Head | None:
    """The head that a model has, by its configuration; None if it has none that is known."""
    return next((made for head in HEADS.values() if (made := head()).fits(config)), None)
