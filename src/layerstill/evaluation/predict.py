"""Run a model over a split: sorted by length so that little is padded, returned in the original order."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from layerstill.data.encode import Collator, Encoded, encode
from layerstill.data.tasks import Split, Task
from layerstill.errors import ObjectiveError
from layerstill.heads import Head
from layerstill.progress import Task as Work


class Batch(NamedTuple):
    """Some examples of a split as a model reads them."""

    places: list[int]
    """Where they stand in the split."""
    inputs: dict[str, Tensor]
    """What the model is called with, `attention_mask` `(B, N)` among it."""
    known: dict[str, Tensor]
    """What else the head reads: `labels` if the split has them, `counted` `(B, N)` where tokens have logits."""

    @property
    def whole(self) -> dict[str, Tensor]:
        """All of it, as heads read a batch."""
        return self.inputs | self.known


def stream_batches(
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    device: torch.device | str,
    head: Head,
    batch_size: int = 64,
) -> Iterator[Batch]:
    """A split batch by batch on a device, the longest texts first."""
    return _stream(encode(split, tokenizer, max_length, head), tokenizer, device, head, batch_size)


def _stream(
    encoded: Encoded, tokenizer: PreTrainedTokenizerBase, device: torch.device | str, head: Head, batch_size: int
) -> Iterator[Batch]:
    data = encoded.dataset
    order = np.argsort(data["length"], kind="stable")[::-1]
    collate = Collator(tokenizer, head)
    for start in range(0, len(order), batch_size):
        batch = collate([data[int(i)] for i in order[start : start + batch_size]])
        places = [int(i) for i in batch.pop("id")]
        del batch["content"]
        known = {name: batch.pop(name).to(device) for name in ("labels", "counted") if name in batch}
        yield Batch(places, {name: values.to(device) for name, values in batch.items()}, known)


def batches_of(
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    device: torch.device | str,
    head: Head,
    batch_size: int = 64,
) -> list[Batch]:
    """All of `stream_batches`, for splits that are read many times."""
    return list(stream_batches(split, tokenizer, max_length, device, head, batch_size))


@torch.no_grad()
def logits_of(model: PreTrainedModel, batches: Iterable[Batch], head: Head) -> Any:
    """Logits of every example in its place, as the head joins them (`(n, C)` for classes), in evaluation mode.

    ObjectiveError if one is not finite.
    """
    training = model.training
    model.eval()
    found: dict[int, np.ndarray] = {}
    for batch in batches:
        rows = head.rows(model(**batch.inputs).logits, batch.whole)
        found.update(zip(batch.places, rows, strict=True))
    model.train(training)
    # NaN has a largest element too, so a ruined model would get a score that looks like one.
    if broken := sum(not np.isfinite(row).all() for row in found.values()):
        raise ObjectiveError(
            f"the model's outputs are not finite for {broken} of {len(found)} texts, so it has no score; "
            "its training diverged: lower the learning rate"
        )
    return head.join([found[place] for place in range(len(found))])


def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    split: Split,
    max_length: int,
    head: Head,
    batch_size: int = 64,
) -> Any:
    """Logits of every example, in the order of the split, as the head joins them; ObjectiveError if one is infinite."""
    return predict_encoded(model, tokenizer, encode(split, tokenizer, max_length, head), head, batch_size)


def predict_encoded(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, encoded: Encoded, head: Head, batch_size: int = 64
) -> Any:
    """`predict` on a split that is token ids already."""
    with Work("scoring", len(encoded.dataset)) as work:
        batches = _stream(encoded, tokenizer, model.device, head, batch_size)
        return logits_of(model, _counted(batches, work), head)


def _counted(batches: Iterator[Batch], work: Work) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        work.advance(len(batch.places))


def evaluate_split(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, split: str, max_length: int
) -> tuple[dict[str, float], Any]:
    """The task's metrics on a split, and the logits they were computed from, as its head joins them."""
    logits = predict(model, tokenizer, task.splits[split], max_length, task.head)
    return task.score(logits, task.gold(split)), logits
