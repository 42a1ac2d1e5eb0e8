"""The texts that join a run's training examples, gathered: read before, or made now and kept while the run goes on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from layerstill.acts.agree import Agreement
from layerstill.atomic import read_json, write_json
from layerstill.data.copies import Augment, OwnWords, make_copies
from layerstill.data.encode import usable_length
from layerstill.data.extra import ExtraTexts, Row, Sieve, add_unlabelled, left_out, together
from layerstill.data.replacement import Replacement
from layerstill.errors import UserError
from layerstill.training import processes
from layerstill.training.models import load_masked_lm
from layerstill.training.records import task_fingerprint

CANDIDATES = 15
"""A masked language model's best so many take the place of a word (TinyBERT's K)."""


def gather(agreed: Agreement, kept: Path | None = None, ask_models: bool = True) -> ExtraTexts | None:
    """What joins the training examples of `agreed`, or None.

    Copies are kept in the file `kept`, where a run that goes on finds them again: only the first of several processes
    makes them. Without `ask_models` no masked language model is loaded, and its copies are left out.
    """
    if agreed.unlabelled is None and agreed.augment is None:
        return None
    sieve = Sieve(agreed.task)
    parts = []
    if agreed.unlabelled is not None:
        parts.append(add_unlabelled(agreed.unlabelled, agreed.task, sieve))
    if agreed.augment is not None and (ask_models or agreed.augment.model is None):
        made = _copies(agreed, agreed.augment, kept)
        rows, left = sieve.new(made)
        train = len(agreed.task.splits["train"])
        if unchanged := agreed.augment.copies * train - len(made):
            left["as their example or another copy of it"] = unchanged
        record = agreed.augment.record() | {"model": agreed.augment.model, "examples": len(rows), "left_out": left}
        notice = f"--augment {agreed.augment.copies}: {len(rows)} copies of {train} training examples join them"
        parts.append(ExtraTexts(tuple(rows), augmented=record, notices=(notice + left_out(left),)))
    return together(parts)


def most(agreed: Agreement) -> int:
    """How many copies a plan counts besides what `gather` gives it: those of a model that it does not load."""
    augment = agreed.augment
    return augment.copies * len(agreed.task.splits["train"]) if augment is not None and augment.model else 0


def _copies(agreed: Agreement, augment: Augment, kept: Path | None) -> list[Row]:
    if kept is None:
        return _made(agreed, augment)
    key = _key(agreed, augment)
    if processes.is_first() and _read(kept, key) is None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, {"key": key, "rows": _made(agreed, augment)})
    processes.wait_for_all()
    rows = _read(kept, key)
    assert rows is not None
    return rows


def _read(kept: Path, key: str) -> list[Row] | None:
    """The copies of a file, if they are the ones that are asked for."""
    try:
        there: dict[str, Any] = read_json(kept)
        return [tuple(row) for row in there["rows"]] if there["key"] == key else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _key(agreed: Agreement, augment: Augment) -> str:
    told = [augment.record(), agreed.augment_fingerprint, task_fingerprint(agreed.task), agreed.options.seed]
    return hashlib.sha256(json.dumps([*told, agreed.options.max_length]).encode()).hexdigest()


def _made(agreed: Agreement, augment: Augment) -> list[Row]:
    texts = agreed.task.splits["train"].texts
    proposer = OwnWords(texts) if augment.model is None else _masked_lm(augment.model, agreed.options.max_length)
    return make_copies(texts, augment.how(agreed.options.seed), proposer, agreed.task.head.per_token)


def _masked_lm(name: str, max_length: int) -> Replacement:
    model, tokenizer = load_masked_lm(name)
    if tokenizer.mask_token_id is None:
        raise UserError(f"--augment-model {name}: its tokenizer has no mask token; give a masked language model")
    usable_length(max_length, tokenizer, model.config)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Replacement(model, tokenizer, CANDIDATES, max_length=max_length)
