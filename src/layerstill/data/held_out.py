"""A dev split held out of the training examples, the same one every time."""

from collections import Counter
from typing import Any

from layerstill.data.split import Split
from layerstill.errors import UserError
from layerstill.heads import Head


def hold_a_tenth_out(splits: dict[str, Split], head: Head) -> tuple[dict[str, Split], str]:
    """`splits` with a tenth of `train` as `dev`, and what to tell the user; UserError where train has too little."""
    from sklearn.model_selection import train_test_split

    train = splits["train"]
    if len(train) < 10 * head.fewest:
        raise UserError(
            f"split dev is missing, and {len(train)} training rows are too few to hold a tenth out; give --dev"
        )
    classes = None
    if head.single:
        rarest = min(Counter(train.labels).values())
        classes = train.labels if rarest >= 2 and len(train) >= 20 * len(set(train.labels)) else None
    keep, held = train_test_split(range(len(train)), test_size=0.1, random_state=0, stratify=classes)
    if head.single:
        keep, held = _without_last_ones(train.labels, keep, held)
    if not held:
        raise UserError(
            f"split dev is missing, and the {len(train)} training rows have too few examples of each class to hold "
            "some out; give --dev"
        )
    parts = {"train": train.take(sorted(keep)), "dev": train.take(sorted(held)).unweighted()}
    notice = f"no dev split given: held out {len(held)} of {len(train)} training rows (the same every time)"
    return {**splits, **parts}, notice


def _without_last_ones(labels: list[Any], keep: list[int], held: list[int]) -> tuple[list[int], list[int]]:
    """Rows to train on and rows held out, where no class has all of its examples among these."""
    there, back = {labels[i] for i in keep}, set()
    for i in sorted(held):
        if labels[i] not in there:
            there.add(labels[i])
            back.add(i)
    return [*keep, *back], [i for i in held if i not in back]
