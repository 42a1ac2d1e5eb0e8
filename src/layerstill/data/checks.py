"""What a user should know of data before hours are spent on them: counted, reported, and left to the user."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from layerstill.data.label_map import as_option, names_in_data
from layerstill.data.tasks import Split, Task
from layerstill.metrics.multilabel import best_constant

Key = tuple[str, ...]


def data_counts(task: Task) -> dict[str, int]:
    """Counts of what is suspicious, by name; what was not found is not named.

    Texts are the same if they differ in upper and lower case or white space only.
    """
    keys = {name: [_key(texts) for texts in split.texts] for name, split in task.splits.items()}
    train = set(keys["train"])
    counts = {f"{name} in train": sum(key in train for key in keys[name]) for name in keys if name != "train"}
    counts["train contradicting"] = _contradicting(keys["train"], task.splits["train"])
    counts |= {f"{name} empty": sum(not all(key) for key in keys[name]) for name in keys}
    counts["classes without examples"] = len(task.head.absent(task.splits["train"].labels, len(task.labels)))
    return {name: count for name, count in counts.items() if count}


def data_notices(task: Task, counts: dict[str, int]) -> list[str]:
    """`data_counts` in words."""
    train = task.splits["train"]
    words = {
        f"{s} in train": f"{s} texts are in train too, so the {s} score looks better than it is" for s in task.splits
    }
    words |= {f"{s} empty": f"{s} texts are empty" for s in task.splits}
    words["train contradicting"] = "train texts appear with another label or score too, so one of the two is wrong"
    notices = []
    for name, count in counts.items():
        if name == "classes without examples":
            without = [task.labels[i] for i in task.head.absent(train.labels, len(task.labels))]
            what = "classes" if task.head.single else "labels"
            notices.append(f"train has no example of {count} of {len(task.labels)} {what}: {', '.join(without[:10])}")
        else:
            notices.append(f"{count} of {len(task.splits[name.split()[0]])} {words[name]}")
    return notices


def supplementary_notices(task: Task, texts: Sequence[Key]) -> list[str]:
    """A warning for dev texts that a stage would train on, though without their labels."""
    key = key_of(task)
    known = {key(text) for text in texts}
    dev = task.splits["dev"].texts
    count = sum(key(text) in known for text in dev)
    return [f"{count} of {len(dev)} dev texts are among the supplementary texts"] if count else []


def chance_notices(task: Task, metrics: dict[str, float], logits: Any) -> list[str]:
    """A warning for a model whose first dev score cannot be told from guessing: less than two standard errors above.

    `logits` on dev tell a model that guesses from one whose labels have changed places.
    """
    name, chance = task.metrics[0], guessing(task)
    value = metrics[name]
    if not chance.matches(value):
        if value <= chance.limit:
            return [
                f"dev has {len(task.splits['dev'])} examples, too few to tell a good teacher from one that guesses: "
                f"its {name} is {value:.4f}, that of {chance.how}"
            ]
        return []
    if swapped := _swapped(task, logits, chance.limit, "dev", "the teacher"):
        return [swapped]
    found = f"its {name} on dev, {value:.4f}, is not clearly above {chance.how} ({len(task.splits['dev'])} examples)"
    if task.head.rule:  # where a threshold decides, a good model can look like a bad one
        return [
            f"the teacher's decisions are at chance: {found}. {task.head.rule} Another threshold may suit it "
            "(layerstill evaluate --threshold auto); if none does, it is not fine-tuned on this task"
        ]
    return [
        f"the teacher is at chance: {found}; a student learns nothing from it. Was it fine-tuned on this task, with "
        "the same text columns, and is --max-length long enough?"
    ]


def swapped_notices(task: Task, split: str, metrics: dict[str, float], logits: Any) -> list[str]:
    """A warning for a model that scores as if it guessed on a split, and well if its classes get other names."""
    if not _can_be_swapped(task):
        return []
    chance = guessing(task, split)
    if not chance.matches(metrics[task.metrics[0]]):
        return []
    swapped = _swapped(task, logits, chance.limit, split, "the model")
    return [swapped] if swapped else []


@dataclass(frozen=True)
class Guessing:
    """What the best answer without looking at the texts scores on a split in the task's first metric."""

    score: float
    limit: float
    """Two standard errors above it: what is not higher cannot be told from it."""
    how: str
    """In words, with its score."""

    def matches(self, value: float) -> bool:
        """Whether a model that scores `value` may be guessing; where dev is too small to tell, only one that does."""
        return value <= (self.limit if self.limit < 1 else self.score)


def guessing(task: Task, split: str = "dev") -> Guessing:
    """What a model of this task must beat."""
    name, examples = task.metrics[0], len(task.splits[split])
    if name in {"accuracy", "accuracy_tokens"}:
        gold = np.concatenate([np.ravel(one) for one in task.gold(split)])
        counts = np.bincount(gold[gold >= 0], minlength=len(task.labels))
        share, examples = counts.max() / counts.sum(), counts.sum()
        how = f"always saying {task.labels[int(counts.argmax())]!r}, {share:.4f}"
    elif name == "f1_micro":
        share = best_constant(task.gold(split))
        how = f"giving every text the same labels, {share:.4f}"
    else:
        return Guessing(0.0, 2 / math.sqrt(examples), "guessing, 0")
    return Guessing(float(share), float(share + 2 * np.sqrt(share * (1 - share) / examples)), how)


def _can_be_swapped(task: Task) -> bool:
    return task.head.single and not task.head.per_token and bool(task.labels)


def _swapped(task: Task, logits: Any, limit: float, split: str, who: str) -> str:
    """What to do about a model that is right but for the names of its classes; empty if there is none such to see."""
    if not _can_be_swapped(task):
        return ""
    decided, gold = task.head.decide(logits), task.gold(split)
    known = gold >= 0
    table = np.zeros((len(task.labels), len(task.labels)), dtype=int)
    np.add.at(table, (gold[known], decided[known]), 1)
    rows, columns = linear_sum_assignment(-table)
    right = table[rows, columns].sum() / max(known.sum(), 1)
    moved = [(task.labels[i], task.labels[j]) for i, j in zip(rows, columns, strict=True) if i != j]
    if right <= limit or not moved:
        return ""
    said = ", ".join(f"{old!r} {new!r}" for old, new in moved[:5])
    named = tuple(task.labels[j] for j in columns)
    now = np.trace(table) / known.sum()
    option = as_option(names_in_data(task), named)
    way = f"If that is what it means: {option}" if option else "If that is what it means, give the data these names"
    return (
        f"labels have changed places: {who} scores {task.metrics[0]} {now:.4f} on {split}, and {right:.4f} if "
        f"it is taken to call {said}. {way}"
    )


def _key(texts: tuple[str, ...]) -> Key:
    return tuple(" ".join(text.casefold().split()) for text in texts)


def key_of(task: Task) -> Callable[[tuple[str, ...]], Key]:
    """By what two examples of a task are the same: their texts but for case and white space, words joined."""
    return _sentence if task.head.per_token else _key


def _sentence(words: tuple[str, ...]) -> Key:
    """The key of a sentence, whether it is given as words or as a text."""
    return _key((" ".join(words),))


def _contradicting(keys: list[Key], split: Split) -> int:
    labels = defaultdict(set)
    for key, label in zip(keys, split.labels, strict=True):
        labels[key].add(repr(label))
    times = Counter(keys)
    return sum(times[key] for key, different in labels.items() if len(different) > 1)
