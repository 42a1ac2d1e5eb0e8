"""Whether task, models and test sets speak of the same labels, and what is done where they do not quite.

A task takes over the order and the spelling of a model; the classes of a test set may be a model's under other names,
or can be made so by taking classes together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from shlex import quote

from transformers import PretrainedConfig

from layerstill.data.label_map import as_option, names_in_data
from layerstill.data.ood import OodSet
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError

SPELLINGS = {
    "entailment": ("entails", "entailed"),
    "not_entailment": ("non_entailment", "nonentailment", "not_entailed"),
    "equivalent": ("paraphrase", "duplicate"),
    "not_equivalent": ("not_paraphrase", "not_duplicate"),
    "positive": ("pos",),
    "negative": ("neg",),
}
"""Classes that go by several names. Upper case, hyphens and spaces do not matter."""
_MEANT = {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings}
TWO_WAY = {"neutral": "not_entailment", "contradiction": "not_entailment"}
"""Inference in three classes as inference in two."""


@dataclass(frozen=True)
class FittedSet:
    """A test set in the classes in which a model's predictions are scored on it."""

    name: str
    split: Split
    labels: tuple[str, ...]
    """Names of the scored classes; empty for scores."""
    of_class: tuple[int, ...]
    """For each class of the model, the scored class that a prediction of it counts as."""
    parts: dict[str, list[int]] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def agree_on_labels(task: Task, config: PretrainedConfig, who: str, subset: bool = False) -> tuple[Task, list[str]]:
    """The task with its outputs in the model's order, and notices; UserError if they are different ones.

    Upper and lower case are not told apart. `subset`: the data need not have all of the model's labels.
    """
    if not task.labels:
        if config.num_labels != (wanted := task.head.outputs(task.labels)):
            raise UserError(
                f"{who} gives {config.num_labels} scores, and task {task.name} has {wanted}; name a column for each, "
                "--label-column A,B"
            )
        return task, []
    theirs = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    task, notices = _in_their_case(task, theirs, who)
    if theirs == task.labels:
        return task, notices
    if task.head.named and (subset or task.head.some) and set(task.labels) < set(theirs):
        if not task.head.single:
            unused = [name for name in theirs if name not in task.labels]
            some = ", ".join(unused[:10]) + (f" and {len(unused) - 10} more" if len(unused) > 10 else "")
            notices.append(f"{who} also knows {some}, which no example has: giving them counts as wrong")
        return task.with_label_order(theirs), notices
    if len(theirs) != len(task.labels):
        raise UserError(
            f"{who} knows {len(theirs)} labels ({_some(theirs)}), and the data have {len(task.labels)} "
            f"({_some(task.labels)}); {_one_of_several(task, theirs) or _way_out(task.labels, theirs)}"
        )
    if all(name == f"LABEL_{i}" for i, name in enumerate(theirs)):
        # Its outputs are taken in the order of the data's own names, so a map that lets two of them change places
        # says that the outputs are the other way round.
        if set(own := names_in_data(task)) == set(task.labels):
            task = task.with_label_order(own)
        return task, [f"{who} does not name its labels; taking them in the order {', '.join(task.labels)}"]
    if set(theirs) == set(task.labels):
        notices.append(f"label order of {who} differs from the data's; using {', '.join(theirs)}")
        return task.with_label_order(theirs), notices
    raise UserError(
        f"{who} knows the labels {_some(theirs)}, and the data have {_some(task.labels)}; "
        f"{_way_out(task.labels, theirs)}"
    )


def _one_of_several(task: Task, theirs: Sequence[str]) -> str:
    """The way out where the column of one of the model's labels, of 0 and 1, was named; empty otherwise."""
    column = task.source.label_column if task.source else None
    if column not in theirs or not {name.casefold() for name in task.labels} <= {"0", "1", "true", "false"}:
        return ""
    columns = f"--label-column {quote(','.join(theirs))}"
    return (
        f"column {column!r} is one of the model's labels: with a column of 0 and 1 for each, it is --task multilabel "
        f"{columns}"
    )


def _way_out(labels: Sequence[str], theirs: Sequence[str]) -> str:
    new = [name for name in theirs if name not in labels]
    old = [name for name in labels if name not in theirs]
    if len(old) > len(new):
        return "fine-tune the teacher on this task"
    option = as_option(tuple(old[:3]), tuple(new[: len(old[:3])]))
    if option is None:
        return "give the data the model's names, or fine-tune the teacher on this task"
    more = " and so on" if len(old) > 3 else ""
    return f"say which is which (for example {option}{more}), or fine-tune the teacher on this task"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")


def _in_their_case(task: Task, theirs: tuple[str, ...], who: str) -> tuple[Task, list[str]]:
    """The task with label names that differ from the model's in upper and lower case only written as the model's."""
    folded = {name.casefold(): name for name in theirs}
    names = tuple(folded.get(name.casefold(), name) for name in task.labels)
    if names == task.labels or len(folded) < len(theirs) or len(set(names)) < len(names):
        return task, []
    positive = None if task.positive is None else folded.get(task.positive.casefold(), task.positive)
    notice = f"{who} writes its labels {', '.join(theirs)}; taking the data's {', '.join(task.labels)} as the same"
    return replace(task, labels=names, positive=positive), [notice]


def refuse_other_labels(student: PretrainedConfig, teacher: PretrainedConfig) -> None:
    """UserError unless both models give the same labels in the same order."""
    mine, theirs = student.id2label, teacher.id2label
    if mine != theirs:
        raise UserError(
            f"the student knows the labels {', '.join(map(str, mine.values()))}, the teacher "
            f"{', '.join(map(str, theirs.values()))}; agreement needs the same ones in the same order"
        )


def meaning(name: str) -> str:
    """One name for all spellings of a class."""
    plain = name.strip().casefold().replace("-", "_").replace(" ", "_")
    return _MEANT.get(plain, plain)


def fit_all(sets: Sequence[OodSet], task: Task) -> tuple[FittedSet, ...]:
    """Every set in the classes of the task; UserError for two of the same name."""
    names = [ood.name for ood in sets]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--ood {twice}: two sets have this name; tell them apart: {twice}-1=PATH, {twice}-2=PATH")
    return tuple(fit(ood, task) for ood in sets)


def fit(ood: OodSet, task: Task) -> FittedSet:
    """The set in the classes of the task, which are the model's; UserError if they do not meet.

    A model in three classes of inference is scored in two where the gold labels are: its prediction is taken first, and
    neutral and contradiction then count as not_entailment, as HANS' authors do (arXiv 1902.01007). For a model in two
    classes, gold labels in three are taken together likewise.
    """
    _refuse_other_shapes(ood, task)
    notices = []
    if ood.left_out:
        total = ood.left_out + len(ood.labels)
        notices.append(f"ood {ood.name}: {ood.left_out} of {total} rows have no usable gold label and are left out")
    if not task.head.named:
        scores = [float(score) for score in ood.labels]
        return FittedSet(ood.name, Split(ood.texts, scores), (), (), ood.parts, tuple(notices))
    names, of_class, of_gold = _scored_classes(ood, task)
    if len(names) < len(task.labels) or any(meaning(label) in TWO_WAY and label not in names for label in of_gold):
        notices.append(f"ood {ood.name}: scored as {' or '.join(names)}; neutral and contradiction are not_entailment")
    split = Split(ood.texts, [of_gold[str(label)] for label in ood.labels])
    if len(set(split.labels)) == 1:
        notices.append(f"ood {ood.name}: every example is {names[int(split.labels[0])]!r}")
    return FittedSet(ood.name, split, names, of_class, ood.parts, tuple(notices))


def _refuse_other_shapes(ood: OodSet, task: Task) -> None:
    gives, takes = len(ood.texts[0]), len(next(iter(task.splits.values())).texts[0])
    if gives != takes:
        words = ("one text", "two texts")
        raise UserError(
            f"--ood {ood.name}: its examples are {words[gives - 1]}, those of task {task.name} {words[takes - 1]}; "
            "leave this set out"
        )
    task.head.refuse_far_sets(f"--ood {ood.name}", task.name, task.labels)
    if not task.head.named and isinstance(ood.labels[0], str):
        raise UserError(
            f"--ood {ood.name}: it has classes, and task {task.name} has {task.head.gives}; leave this set out"
        )


def _scored_classes(ood: OodSet, task: Task) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, int]]:
    """Names of the scored classes, the scored class of each of the model's, and of each gold label."""
    gold = sorted({str(label) for label in ood.labels})
    every = tuple(range(len(task.labels)))
    if set(gold) <= set(task.labels):
        return task.labels, every, {label: task.labels.index(label) for label in gold}
    ours = [meaning(name) for name in task.labels]
    if len(set(ours)) == len(ours):  # else two of the model's classes cannot be told apart by meaning
        if {meaning(label) for label in gold} <= set(ours):
            return task.labels, every, {label: ours.index(meaning(label)) for label in gold}
        two = [TWO_WAY.get(name, name) for name in ours]
        wanted = {label: TWO_WAY.get(meaning(label), meaning(label)) for label in gold}
        if set(wanted.values()) <= set(two):
            names = tuple(dict.fromkeys(two))
            return names, tuple(names.index(name) for name in two), {g: names.index(m) for g, m in wanted.items()}
    raise UserError(
        f"--ood {ood.name}: its labels are {', '.join(gold[:10])}, the model's {', '.join(task.labels[:10])}; "
        f"say which is which with --ood-labels '{ood.name}:{gold[0]}={task.labels[0]},...', or leave this set out"
    )
