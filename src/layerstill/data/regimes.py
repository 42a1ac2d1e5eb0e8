"""Data regimes: fewer training examples, wrong labels, rare classes; dev and test sets stay as they are.

Few samples and label noise are those of CR-ILD (arXiv 2302.01530): its code shuffles and takes the first k, and
replaces each label with probability r by another class drawn uniformly.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from layerstill.data.tasks import Task
from layerstill.errors import UserError, nearest
from layerstill.randomness import generator
from layerstill.result import Record
from layerstill.schema import Number, Spec, problems

Rate = Annotated[Number, Field(ge=0, lt=1)]
Flips = dict[str, dict[str, float]]


class Regime(Spec):
    """What is done to the training examples: classes are made rare, then examples drawn, then labels made wrong.

    Every choice is a function of the seed and of the example alone: a larger draw contains the smaller one, a higher
    rate flips what a lower one flips, and a label is flipped or not whatever else is drawn.
    """

    few_samples: PositiveInt | None = None
    """Draw this many training examples."""
    stratified: bool = False
    """Draw them with the classes in their proportions instead of plainly at random."""
    keep: dict[str, Annotated[Number, Field(gt=0, le=1)]] = Field(default={})
    """Share of the training examples to keep, by name of the class; the others are kept whole."""
    long_tail: Annotated[Number, Field(ge=1)] | None = None
    """Ratio of the largest class to the smallest; the sizes between fall exponentially (arXiv 1901.05555)."""
    label_noise: Rate = 0.0
    """Probability that a training label is wrong."""
    noise: Literal["symmetric", "pairs"] = "symmetric"
    """A wrong label is any other class with equal probability, or always the next class (the first after the last)."""
    transitions: dict[str, dict[str, Rate]] = Field(default={})
    """Noise that depends on the class, instead of label_noise: `{from: {to: probability}}` by names of classes."""
    seed: NonNegativeInt | Literal["run"] = 0
    """Seed of what is drawn. Fixed, it gives teacher, students and repetitions the same data; `run` takes the run's."""

    @model_validator(mode="after")
    def _consistent(self) -> "Regime":
        if self.transitions and self.label_noise:
            raise ValueError("transitions say how often each class is wrong, so label_noise must be 0")
        if self.keep and self.long_tail:
            raise ValueError("keep and long_tail both set the sizes of classes; use one of them")
        for name, row in self.transitions.items():
            if name in row:
                raise ValueError(f"transitions.{name}: {name!r} to itself is not noise; give the wrong classes only")
            if (total := sum(row.values())) >= 1:
                raise ValueError(f"transitions.{name}: probabilities sum to {total:g}, which leaves no right label")
        return self

    @classmethod
    def from_data(cls, data: Any, where: str = "regime") -> "Regime":
        """Check plain data; UserError with the dotted path of everything that is wrong."""
        if not isinstance(data, dict):
            raise UserError(f"{where}: a regime is a mapping with {', '.join(cls.model_fields)}, got {data!r}")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise UserError(f"{where}: {problems(error)}") from None

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Regime":
        """The regime of a finished run from the block `regime` of its `result.json`; its seed is a number there."""
        return cls.from_data({key: value for key, value in record.items() if key in cls.model_fields})

    @property
    def noisy(self) -> bool:
        """Whether any label is made wrong."""
        return self.label_noise > 0 or any(p for row in self.transitions.values() for p in row.values())

    def apply(self, task: Task, seed: int) -> Task:
        """The task with its training examples changed; `seed` is the run's, used if the regime's is `run`.

        The new task has `regime`, the record of what was done, and under label noise `clean_labels`. UserError for
        what a task cannot have: noise where there are no classes, more examples than there are, a class without any.
        """
        if not (self.noisy or self.keep or self.long_tail or self.few_samples):
            return task
        if task.regime:
            raise UserError("regime: the task has one already; give all of its settings at once")
        self._refuse_misfits(task)
        seed = seed if self.seed == "run" else self.seed
        train = task.splits["train"]
        kept = self._kept(task, seed)
        chosen = self._drawn(task, kept, seed)
        clean = [train.labels[i] for i in chosen]
        labels = self._with_noise(task, seed, chosen) if self.noisy else clean
        split = train.take(chosen).relabelled(labels)
        changed = replace(
            task,
            splits={**task.splits, "train": split},
            regime=self._record(task, clean, labels, seed),
            clean_labels=[int(y) for y in clean] if self.noisy else None,
        )
        return replace(changed, notices=(*task.notices, *self._notices(changed)))

    def _refuse_misfits(self, task: Task) -> None:
        there = len(task.splits["train"])
        if self.few_samples and self.few_samples > there:
            raise UserError(f"regime few_samples {self.few_samples}: train of {task.name} has {there} examples")
        for name in ("label_noise", "transitions", "keep", "long_tail", "stratified"):
            if getattr(self, name):
                task.head.refuse_classes(f"regime {name}", task.name, "it can only have few_samples, drawn plainly")
                if missing := sum(label < 0 for label in task.splits["train"].labels):
                    raise UserError(
                        f"regime {name}: {missing} of {there} training examples of {task.name} have no label (-100); "
                        "take them out, or use few_samples, drawn plainly"
                    )
        named = {("keep", name) for name in self.keep} | {("transitions", name) for name in self.transitions}
        named |= {("transitions", to) for row in self.transitions.values() for to in row}
        for setting, name in sorted(named):
            if name not in task.labels:
                raise UserError(f"regime {setting}: unknown class {name!r}: {nearest(name, task.labels)}")

    def _kept(self, task: Task, seed: int) -> list[int]:
        """Numbers of the training examples that are left when classes have been made rare."""
        labels = task.splits["train"].labels
        if not (self.keep or self.long_tail):
            return list(range(len(labels)))
        there = Counter(labels)
        sizes = {y: round(n * self.keep.get(task.labels[int(y)], 1)) for y, n in there.items()}
        if self.long_tail:
            largest_first = sorted(there, key=lambda y: (-there[y], task.labels[int(y)]))
            steps = max(len(there) - 1, 1)
            for rank, y in enumerate(largest_first):
                wanted = there[largest_first[0]] * self.long_tail ** (-rank / steps)
                sizes[y] = round(wanted)
        return _first_of_each(labels, list(range(len(labels))), sizes, task, seed)

    def _drawn(self, task: Task, kept: list[int], seed: int) -> list[int]:
        """Numbers of the training examples that are drawn from the kept ones, in the order of the data."""
        labels = task.splits["train"].labels
        if self.few_samples is None:
            chosen = kept
        elif self.few_samples > len(kept):
            raise UserError(
                f"regime few_samples {self.few_samples}: {len(kept)} training examples are left by "
                f"{'keep' if self.keep else 'long_tail'}"
            )
        elif self.stratified:
            sizes = _in_proportion(Counter(labels[i] for i in kept), self.few_samples)
            chosen = _first_of_each(labels, kept, sizes, task, seed)
        else:
            order = list(range(len(labels)))
            generator(seed, "regime", "few samples").shuffle(order)
            left = set(kept)
            chosen = sorted([i for i in order if i in left][: self.few_samples])
        if task.head.single:
            how = f"{len(chosen)} of {len(labels)} training examples are left, and none"
            _refuse_vanished(task, labels, [labels[i] for i in chosen], how)
        return chosen

    def _flips(self, names: tuple[str, ...]) -> Flips:
        """Probability of each wrong label, by the name of the right one."""
        if self.transitions:
            return self.transitions
        if self.noise == "pairs":
            return {name: {names[(i + 1) % len(names)]: self.label_noise} for i, name in enumerate(names)}
        each = self.label_noise / (len(names) - 1)
        return {name: {other: each for other in names if other != name} for name in names}

    def _with_noise(self, task: Task, seed: int, chosen: list[int]) -> list[int]:
        clean = task.splits["train"].labels
        flips = self._flips(task.labels)
        rows = [[(task.labels.index(to), p) for to, p in flips.get(name, {}).items()] for name in task.labels]
        rng = generator(seed, "regime", "label noise")
        noisy = []
        for label in clean:
            whether, which = rng.random(), rng.random()  # always both, so that no draw depends on another
            row = rows[int(label)]
            total = sum(p for _, p in row)
            noisy.append(_pick(row, which * total) if whether < total else int(label))
        labels = [noisy[i] for i in chosen]
        _refuse_vanished(task, [clean[i] for i in chosen], labels, "label noise leaves no training label")
        return labels

    def _record(self, task: Task, clean: list, labels: list, seed: int) -> dict[str, Any]:
        train = task.splits["train"]
        record = self.model_dump(mode="json") | {
            "seed": seed,
            "examples": {"before": len(train), "after": len(labels)},
        }
        if task.head.single:
            stages = {"before": train.labels, "drawn": clean, "after": labels}
            record["classes"] = {
                stage: {name: some.count(i) for i, name in enumerate(task.labels)} for stage, some in stages.items()
            }
        if self.noisy:
            record["flipped_labels"] = sum(a != b for a, b in zip(clean, labels, strict=True))
            if self.noise == "pairs" and not self.transitions:
                record["pairs"] = {name: next(iter(row)) for name, row in self._flips(task.labels).items()}
        return record

    def _notices(self, task: Task) -> list[str]:
        record = task.regime
        counts, seed = record["examples"], record["seed"]
        notices = [f"regime: {counts['after']} of {counts['before']} training examples, seed {seed}"]
        if self.noisy:
            notices[0] += f"; {record['flipped_labels']} of their labels were made wrong"
            for name, row in self._flips(task.labels).items():
                if row and max(row.values()) >= 1 - sum(row.values()):
                    other = max(row, key=row.__getitem__)
                    notices.append(f"label noise calls {name!r} {other!r} at least as often as {name!r}")
                    break
        return notices


def other_regime(task: Task, teacher: Path) -> list[str]:
    """A note if the teacher's run folder says that it learnt from other training examples than the task has now.

    That may be meant, a clean teacher for noisy students, or not: subsets drawn with different seeds.
    """
    try:
        record = Record.read(teacher, "")
        if record is None or "regime" not in record.model_fields_set:
            return []  # not a run's folder, or one from before regimes
        there = Regime.from_record(record.regime).model_dump(mode="json")
    except (OSError, UserError):
        return []
    here = Regime.from_record(task.regime).model_dump(mode="json")
    if not (record.regime and task.regime):
        there.pop("seed")  # nothing was drawn with one of the two
    differs = [f"{name} {value} there and {here[name]} here" for name, value in there.items() if value != here[name]]
    return [f"the teacher learnt from other training examples: {', '.join(differs)}"] if differs else []


def _first_of_each(labels: list, among: list[int], sizes: dict, task: Task, seed: int) -> list[int]:
    """The first `sizes[class]` examples of each class in an order that is the class's own, in the order of the data."""
    left = set(among)
    members: dict[Any, list[int]] = {}
    for i, y in enumerate(labels):
        members.setdefault(y, []).append(i)
    chosen: list[int] = []
    for y, numbers in members.items():
        generator(seed, "regime", "class", task.labels[int(y)]).shuffle(numbers)
        chosen += [i for i in numbers if i in left][: sizes.get(y, 0)]
    return sorted(chosen)


def _in_proportion(there: Counter, wanted: int) -> dict[Any, int]:
    """Sizes of classes that add up to `wanted` in the proportions of `there`, by the largest remainders."""
    total = there.total()
    sizes = {y: wanted * n // total for y, n in there.items()}
    by_remainder = sorted(there, key=lambda y: (-(wanted * there[y] % total), -there[y], y))
    for y in by_remainder[: wanted - sum(sizes.values())]:
        sizes[y] += 1
    return sizes


def _pick(row: list[tuple[int, float]], at: float) -> int:
    """The class of the row in whose stretch of the summed probabilities `at` lies."""
    for label, probability in row[:-1]:
        if at < probability:
            return label
        at -= probability
    return row[-1][0]


def _refuse_vanished(task: Task, before: list, after: list, how: str) -> None:
    if gone := sorted(set(before) - set(after)):
        names = ", ".join(repr(task.labels[int(y)]) for y in gone[:10])
        raise UserError(
            f"regime: {how} of class {names}; take more examples, less noise, "
            "or draw from every class (--regime stratified=true)"
        )
