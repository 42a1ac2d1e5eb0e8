"""What a process that does run after run keeps of their data, so that a task is read and a split tokenised once.

Nothing is kept unless somebody says `keeping`. Everything is found by what it is made of, never by a name or a place.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

Made = TypeVar("Made")
MOST_BYTES = 1 << 29
"""Of all token ids that are kept: half a gigabyte, which is a million texts of 30 tokens."""
MOST_TASKS = 4


class Kept:
    """Tasks and encoded splits, the latest of them.

    Args:
        most_bytes: of encoded splits; those that were not used for the longest time go first.
        most_tasks: how many tasks.
    """

    def __init__(self, most_bytes: int = MOST_BYTES, most_tasks: int = MOST_TASKS) -> None:
        self.most_bytes = most_bytes
        self.most_tasks = most_tasks
        self._tasks: OrderedDict[str, Any] = OrderedDict()
        self._encoded: OrderedDict[str, Any] = OrderedDict()
        self._tokenizers: WeakKeyDictionary[Any, str] = WeakKeyDictionary()

    def task(self, key: str, make: Callable[[], Made]) -> Made:
        """The task of this key, made if it is not there."""
        found = self._tasks.pop(key, None) or make()
        self._tasks[key] = found
        while len(self._tasks) > self.most_tasks:
            self._tasks.popitem(last=False)
        return found

    def encoded(self, key: str, make: Callable[[], Any]) -> Any:
        """The `Encoded` of this key, made if it is not there; its dataset may be changed without harm."""
        found = self._encoded.pop(key, None) or make()
        self._encoded[key] = found
        while len(self._encoded) > 1 and self._bytes() > self.most_bytes:
            self._encoded.popitem(last=False)
        return replace(found, dataset=copy(found.dataset))

    def _bytes(self) -> int:
        return sum(encoded.dataset.data.nbytes for encoded in self._encoded.values())

    def says(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """What tells a fast tokenizer from others: everything that its token ids depend on."""
        if tokenizer not in self._tokenizers:
            whole = tokenizer.backend_tokenizer.to_str()  # type: ignore[attr-defined]
            # Truncation and padding stand first; every call sets them anew.
            self._tokenizers[tokenizer] = hashlib.sha256(whole[whole.find('"added_tokens"') :].encode()).hexdigest()
        more = tokenizer.model_input_names, tokenizer.truncation_side, tokenizer.unk_token_id, len(tokenizer)
        return repr((type(tokenizer).__name__, self._tokenizers[tokenizer], *more))


_KEPT: ContextVar[Kept | None] = ContextVar("layerstill kept", default=None)


@contextmanager
def keeping(kept: Kept) -> Iterator[None]:
    """Whatever is read and tokenised inside is kept, and taken from what is kept."""
    token = _KEPT.set(kept)
    try:
        yield
    finally:
        _KEPT.reset(token)


def task_once(said: Any, make: Callable[[], Made]) -> Made:
    """`make()`, or what it gave for the same plain data `said`."""
    kept = _KEPT.get()
    return make() if kept is None else kept.task(json.dumps(said, sort_keys=True), make)


def encoded_once(
    split: Any, tokenizer: PreTrainedTokenizerBase, max_length: int, per_token: bool, make: Callable[[], Made]
) -> Made:
    """`make()`, or what it gave for the same texts, labels, tokenizer and length."""
    kept = _KEPT.get()
    if kept is None or not tokenizer.is_fast:
        return make()
    digest = hashlib.sha256(json.dumps([split.texts, split.labels]).encode())
    digest.update(repr((kept.says(tokenizer), max_length, per_token)).encode())
    return kept.encoded(digest.hexdigest(), make)
