"""Readers: the tokenizers of a student and its teacher, and the batches that are made with them.

Where both have the same tokens, an example is encoded once. Where they do not, it is encoded twice: the teacher's
columns stand beside the student's, under names that begin with `teacher_`, and `content` is the hash of what the
teacher reads, so that a teacher cache knows the example whoever the student is.
"""

from dataclasses import dataclass, replace
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from layerstill.data.encode import Collator, Encoded, encode
from layerstill.data.tasks import Split
from layerstill.heads import Head

TEACHER = "teacher_"
"""How the names of the teacher's columns begin."""


@dataclass(frozen=True)
class Readers:
    """The tokenizers of a student and its teacher; a model without a teacher has its own twice."""

    student: PreTrainedTokenizerBase
    """Goes with the student: it is saved beside it, and the student is scored with it."""
    teacher: PreTrainedTokenizerBase
    """What the teacher reads with. Unless they are `apart`, the student trains on these tokens, too."""
    apart: bool = False
    """Whether their tokens are numbered differently, so that every example is encoded twice."""

    def encode(self, split: Split, max_length: int, head: Head) -> Encoded:
        """A split for training and for the scores on the way; at most `max_length` tokens of either kind.

        Where examples count differently there is a column `weights`, too.
        """
        found = encode(split, self.teacher, max_length, head)
        if self.apart:
            found = joined(encode(split, self.student, max_length, head), found)
        if weights := split.relative_weights(head):
            found = replace(found, dataset=found.dataset.add_column("weights", weights))
        return found

    def collator(self, head: Head) -> "Collator | PairCollator":
        """What makes batches of `encode`d examples."""
        theirs = Collator(self.teacher, head)
        return PairCollator(Collator(self.student, head), theirs) if self.apart else theirs

    def teacher_collator(self, head: Head) -> Collator:
        """What makes batches of `Encoded.for_teacher`."""
        return Collator(self.teacher, head)


def joined(ours: Encoded, theirs: Encoded) -> Encoded:
    """Two encodings of the same examples as one; of words that only one of them has kept, none is counted."""
    data: dict[str, Any] = ours.dataset.to_dict()
    other: dict[str, Any] = theirs.dataset.to_dict()
    if "counted" in data:
        pairs = [_common(*rows) for rows in zip(data["counted"], other["counted"], strict=True)]
        data["counted"], other["counted"] = map(list, zip(*pairs, strict=True))
    data["content"] = other["content"]
    columns = ("input_ids", "token_type_ids", "counted")
    data |= {f"{TEACHER}{name}": other[name] for name in columns if name in other}
    return replace(ours, dataset=datasets.Dataset.from_dict(data), teacher=theirs)


def _common(ours: list[int], theirs: list[int]) -> tuple[list[int], list[int]]:
    """The first pieces of words in two encodings of a sentence, without those of words that one of them has cut off."""
    words = min(sum(ours), sum(theirs))
    return _first(ours, words), _first(theirs, words)


def _first(counted: list[int], words: int) -> list[int]:
    kept, seen = [], 0
    for one in counted:
        seen += one
        kept.append(int(one and seen <= words))
    return kept


class PairCollator:
    """Pads the student's and the teacher's columns apart."""

    def __init__(self, student: Collator, teacher: Collator) -> None:
        self.student = student
        self.teacher = teacher

    def __call__(self, rows: list[dict]) -> dict:
        ours = [{name: value for name, value in row.items() if not name.startswith(TEACHER)} for row in rows]
        theirs = [{n.removeprefix(TEACHER): v for n, v in row.items() if n.startswith(TEACHER)} for row in rows]
        return self.student(ours) | {f"{TEACHER}{name}": values for name, values in self.teacher(theirs).items()}
