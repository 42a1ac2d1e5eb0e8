"""How often a student says what its teacher says, right or wrong."""

from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from layerstill.data.label_agreement import refuse_other_labels
from layerstill.data.tasks import Split
from layerstill.errors import UserError
from layerstill.evaluation.predict import predict
from layerstill.heads import Head
from layerstill.randomness import generator

SCORES_DIFFER = "scores are never quite equal, so no share of equal ones says anything"


class Reader(NamedTuple):
    """A model with the tokenizer it reads texts by, which need not be its teacher's."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int

    def predict(self, split: Split, head: Head) -> Any:
        """Logits in the order of the split, as the head joins them: `(n, C)` for classes."""
        return predict(self.model, self.tokenizer, split, self.max_length, head)


def sample_of(split: Split, examples: int, seed: int, name: str) -> Split:
    """At most `examples` examples of the split called `name`, in its order; the same for the same seed and name."""
    if len(split) <= examples:
        return split
    rows = sorted(generator(seed, "sample", name).sample(range(len(split)), examples))
    return split.take(rows)


def agreement(first: Any, second: Any, head: Head) -> float:
    """Share of labels that two models' logits, joined by the head and outputs in the same order, decide alike."""
    if not head.named:
        raise UserError(f"agreement: {SCORES_DIFFER}")
    pairs = zip(map(np.ravel, head.decide(first)), map(np.ravel, head.decide(second)), strict=True)
    # Of a sentence that was cut, tokenizers of unlike vocabularies leave unlike numbers of words.
    alike = [one[: len(other)] == other[: len(one)] for one, other in pairs]
    return float(np.concatenate(alike).mean())


def agreement_with_teacher(student: Reader, teacher: Reader, split: Split, head: Head) -> dict[str, float]:
    """`teacher`: share of labels decided alike (Stanton et al., arXiv 2106.05945), and how many `examples`.

    Each model reads the texts with its own tokenizer. UserError for models whose labels are not the same.
    """
    refuse_other_labels(student.model.config, teacher.model.config)
    share = agreement(student.predict(split, head), teacher.predict(split, head), head)
    return {"teacher": share, "examples": len(split)}
