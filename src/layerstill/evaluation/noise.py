"""What a model made of wrong training labels: learnt by heart, seen through, or neither."""

from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from layerstill.data.tasks import Task
from layerstill.evaluation.predict import predict


def recall_of_noise(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, max_length: int
) -> dict[str, Any]:
    """`noise_shares` of a model on the training examples whose label was made wrong; `task` has clean labels."""
    train, clean = task.splits["train"], task.clean_labels
    assert clean is not None
    wrong = [i for i, (a, b) in enumerate(zip(train.labels, clean, strict=True)) if a != b]
    if not wrong:
        return noise_shares(np.array([]), np.array([]), np.array([]))
    split = train.take(wrong)
    predicted = task.head.decide(predict(model, tokenizer, split, max_length, task.head))
    return noise_shares(predicted, np.array(split.labels), np.array([clean[i] for i in wrong]))


def noise_shares(predicted: np.ndarray, noisy: np.ndarray, clean: np.ndarray) -> dict[str, Any]:
    """Of the labels that are wrong, the share that predictions reproduce ("memorised") and the share they put right.

    All of shape `(n,)`: predicted classes, labels as trained, labels as they were. Shares of nothing are None.
    """
    wrong = noisy != clean
    count = int(wrong.sum())

    def share(of: np.ndarray) -> float | None:
        return float((of & wrong).sum() / count) if count else None

    return {
        "wrong labels": count,
        "wrong labels reproduced": share(predicted == noisy),
        "clean labels predicted": share(predicted == clean),
    }
