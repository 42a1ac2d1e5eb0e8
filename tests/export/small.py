"""Tiny models, and data on which they are never wrong: what they say themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from layerstill.data.tasks import Split, Task
from layerstill.evaluation.predict import predict
from layerstill.heads import Head
from layerstill.training.models import adopt_padding, load_fine_tuned, load_tokenizer
from tests.tiny import SPECIAL, VOCABULARY, tiny_model, tiny_tokenizer

LENGTH = 24
NAMES = ("bad", "fine", "good")


def words_of(lengths: list[int], seed: int = 0) -> list[tuple[str, ...]]:
    """Random known words, so many in a row."""
    rng = np.random.default_rng(seed)
    return [tuple(str(w) for w in rng.choice(VOCABULARY[len(SPECIAL) :], length)) for length in lengths]


def every_length(pairs: bool = False) -> list[tuple[str, ...]]:
    """Texts from one word to more than a model reads, several of most lengths."""
    rows = words_of([*range(1, 40), *range(1, 20), *range(1, 12)])
    texts = [" ".join(row) for row in rows]
    return [(text, " ".join(rows[-i][:9])) for i, text in enumerate(texts, 1)] if pairs else [(t,) for t in texts]


def save_model(folder: Path, family: str, head: Head, types: bool | None = None, names=NAMES, **config: Any) -> Path:
    """A tiny model with this head, its outputs balanced so that it says everything sometimes."""
    outputs = head.outputs(names if head.named else ())
    model = tiny_model(family, head=head, labels=outputs, **config)
    balance(model, every_length())
    head.describe(model.config, names if head.named else ())
    model.config.problem_type = head.problem_type
    model.save_pretrained(folder)
    types = family in {"bert", "electra"} if types is None else types
    tiny_tokenizer(types).save_pretrained(folder)
    return folder


def said(folder: Path, texts: list[tuple[str, ...]], head: Head, length: int = LENGTH) -> Any:
    """Logits of a saved model in PyTorch."""
    model = load_fine_tuned(str(folder), head)
    tokenizer = load_tokenizer(str(folder), model.config)
    adopt_padding(model, tokenizer)
    labels = [[0] * len(text) for text in texts] if head.per_token else []
    return predict(model, tokenizer, Split(texts, labels), length, head)


def own_words(folder: Path, texts: list[tuple[str, ...]], head: Head, names=NAMES, length: int = LENGTH) -> Task:
    """A task on which the model is right whatever it says, as far as it reads."""
    decided = head.decide(said(folder, texts, head, length))
    if head.per_token:
        labels: list[Any] = [
            [*map(int, row), *[-100] * (len(t) - len(row))] for row, t in zip(decided, texts, strict=True)
        ]
    elif head.word == "multilabel":
        labels = [list(map(int, row)) for row in decided]
    else:
        labels = decided.tolist()
    split = Split(texts, labels)
    return Task("own", head, {"train": split, "dev": split}, names if head.named else ())


def balance(model: torch.nn.Module, texts: list[tuple[str, ...]]) -> None:
    """Scale the outputs, where they have biases, so that each logit is 0 on average and 1 in spread over the texts."""
    tokens = tiny_tokenizer(False)(
        [" ".join(t) for t in texts], padding=True, return_tensors="pt", truncation=True, max_length=LENGTH
    )
    outputs = list(model.parameters())[-2:]
    with torch.no_grad():
        logits = model(**tokens).logits
        if logits.ndim == 2 and outputs[1].shape == logits.shape[1:]:
            outputs[0] /= logits.std(0)[:, None]
            outputs[1].copy_((outputs[1] - logits.mean(0)) / logits.std(0))


def clear_texts(folder: Path, head: Head) -> list[tuple[str, ...]]:
    """The half of the texts on which a model of classes is surest."""
    texts = every_length()
    best = np.sort(said(folder, texts, head), -1)
    margins = best[:, -1] - best[:, -2]
    return [text for text, margin in zip(texts, margins, strict=True) if margin >= np.median(margins)]
