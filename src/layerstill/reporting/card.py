"""The first thing a report says: which student, what is lost, what is gained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerstill.compression.choice import DEFAULT_DROP
from layerstill.errors import UserError
from layerstill.evaluation.comparison import Comparison
from layerstill.evaluation.rules import p_words, words
from layerstill.reporting.arms import Cell, compare_arms
from layerstill.reporting.forms import FORM_WORDS
from layerstill.reporting.models import Loss, Model


@dataclass(frozen=True)
class Fact:
    """A number that is read first, what it is called, and what belongs to it in small letters."""

    name: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Card:
    """The answer for one task."""

    title: str
    which: str
    """The model's name, and where it is."""
    mark: str
    path: str
    facts: tuple[Fact, ...]
    sentences: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """The card for a terminal."""
        named = f"{self.which} ({self.mark})" if self.mark else self.which
        facts = [f"{fact.name} {fact.value}" + (f" ({fact.detail})" if fact.detail else "") for fact in self.facts]
        place = [f"in {self.path}"] if self.path else []
        return [f"{self.title}: {named}", *(f"  {line}" for line in (*facts, *self.sentences, *place))]


def cards_of(models: Sequence[Model], rivals: Mapping[str, Comparison], margin: float) -> list[Card]:
    """A card for each task that has a student, or a teacher at least; `rivals` are those of `rivals_of`, judged
    with the page's margin."""
    tasks = _by_task(models)
    return [card for task, of in tasks.items() if (card := _card(task, of, rivals.get(task), margin)) is not None]


def rivals_of(models: Sequence[Model]) -> dict[str, Comparison]:
    """For the card of each task its student against the best of the others, where that can be compared."""
    found = {task: _runner_up(of) for task, of in _by_task(models).items()}
    return {task: comparison for task, comparison in found.items() if comparison is not None}


def _by_task(models: Sequence[Model]) -> dict[str, list[Model]]:
    """What the card of each task chooses from: models of whole data, where there are any."""
    made = {}
    for task in dict.fromkeys(model.task for model in models):
        of = [model for model in models if model.task == task]
        made[task] = [model for model in of if model.regime == "full"] or of
    return made


def _best(models: Sequence[Model]) -> tuple[Model, tuple[str, ...]] | None:
    """The model that is shipped or should be, and why."""
    shipped = [model for model in models if model.ship]
    students = [model for model in models if model.student]
    if not students and not shipped:
        return None
    return (shipped[0], shipped[0].verdict) if len(shipped) == 1 else _choice(students)


def _card(task: str, models: Sequence[Model], rival: Comparison | None, margin: float) -> Card | None:
    students = [model for model in models if model.student]
    chosen = _best(models)
    if chosen is None:
        return None
    best, why = chosen
    teacher = _teacher(models, best)
    facts = (_score_fact(best), _lost_fact(best), *_gains(best, teacher))
    sentences = [*why]
    if best.student:
        sentences += [f"{words(rival, margin=margin)}."] if rival is not None else []
        sentences += [*_quantised(models), *_caution(best, len(students))]
    if best.teaches and students:
        sentences += [_best_student(students)]
    named = best.name if best.form == "torch" else f"{best.name}, {FORM_WORDS[best.form]}"
    return Card(task, named, best.mark, best.path, tuple(fact for fact in facts if fact), tuple(sentences))


def _choice(students: Sequence[Model]) -> tuple[Model, tuple[str, ...]]:
    """The smallest student that loses little, else the best one, and the rule in words."""
    sound = [m for m in students if not _collapsed(m)] or students
    cheap = [m for m in sound if m.loss is not None and m.loss.points <= DEFAULT_DROP]
    if len(students) == 1:
        return students[0], ()
    if cheap:
        best = min(cheap, key=lambda m: (m.parameters or 0, -m.score.mean, m.name))
        return best, (f"It is the smallest of {len(students)} students that lose at most {DEFAULT_DROP:g} points.",)
    best = max(sound, key=lambda m: (m.score.mean, -(m.parameters or 0)))
    known = any(m.loss is not None for m in sound)
    also = f"; none loses as little as {DEFAULT_DROP:g} points" if known else "; no teacher to compare with is known"
    return best, (f"It scores highest of {len(students)} students{also}.",)


def _collapsed(model: Model) -> bool:
    """Whether a run of it warns that it says one thing of nearly everything."""
    runs = model.cell.runs if model.cell else ()
    return any(line.startswith("WARNING") for run in runs for line in run.checked.verdict)


def _best_student(students: Sequence[Model]) -> str:
    """What the best student would lose, where it is the teacher that is to be shipped."""
    best = max(students, key=lambda m: m.score.mean)
    lost = _lost_fact(best)
    return f"The best student is {best.name}: {100 * best.score.mean:.1f}, lost {lost.value} ({lost.detail})."


def _teacher(models: Sequence[Model], best: Model) -> Model | None:
    """The teacher in PyTorch whose score the model is held against."""
    if best.teaches and best.form == "torch":
        return None
    there = [m for m in models if m.teaches and m.form == "torch" and m.regime == best.regime]
    fitting = [m for m in there if best.teacher is None or abs(m.score.mean - best.teacher.mean) < 1e-6]
    return fitting[0] if fitting else None


def _score_fact(best: Model) -> Fact:
    spread = f" ± {100 * best.score.sd:.1f}" if best.score.sd is not None else ""
    whose = "teacher in PyTorch" if best.teaches else "teacher"
    detail = "" if best.teacher is None else f"{whose} {100 * best.teacher.mean:.1f}"
    runs = f"{best.score.n} seeds" if best.score.n > 1 else ""
    return Fact(best.metric, f"{100 * best.score.mean:.1f}{spread}", ", ".join(filter(None, (detail, runs))))


def _lost_fact(best: Model) -> Fact:
    loss = best.loss
    if loss is None:
        return Fact("lost", "unknown", "no record says what its teacher scores")
    points = f"{loss.points:.1f} points" if loss.points >= 0.05 else "nothing"
    parts = [f"{-loss.points:.1f} points more than the teacher"] if loss.points <= -0.05 else []
    parts += [] if loss.kept is None else [f"keeps {loss.kept:.1f} %"]
    return Fact("lost", points, "; ".join([*parts, *_sure(loss)]))


def _sure(loss: Loss) -> list[str]:
    """How sure a loss is."""
    comparison = loss.comparison
    if comparison is None:
        if loss.interval is not None:
            low, high = loss.interval
            return [f"95 % interval {low:.1f} to {high:.1f} %, paired over examples"]
        return [f"not tested: {loss.untested}"] if loss.untested else []
    examples = f"{comparison.test.pairs:,} examples"
    if comparison.interval.empty:
        return [f"the same on all {examples}"]
    low, high = -100 * comparison.interval.high, -100 * comparison.interval.low
    family = f" after Holm, {comparison.family} comparisons" if comparison.family > 1 else ""
    return [f"95 % interval {low:.1f} to {high:.1f}, {p_words(comparison.p_holm)}{family}, paired over {examples}"]


def _gains(best: Model, teacher: Model | None) -> list[Fact]:
    """Speed and size beside the teacher's, as far as they were measured."""
    facts = []
    if best.ms is not None and teacher is not None and teacher.ms is not None:
        measured = f"{best.ms:.1f} of {teacher.ms:.1f} ms a text"
        facts.append(Fact("gained", f"{_ratio(teacher.ms, best.ms)} times as fast", measured))
    elif best.layers and teacher is not None and teacher.layers:
        measured = "its speed was not measured" if best.ms is None else f"{best.ms:.1f} ms a text"
        facts.append(Fact("gained", f"{best.layers} of {teacher.layers} layers", measured))
    elif best.ms is not None:
        facts.append(Fact("speed", f"{best.ms:.1f} ms", "for one text"))
    elif best.layers:
        facts.append(Fact("layers", str(best.layers), "its speed was not measured"))
    parameters = "" if best.parameters is None else f"{best.parameters / 1e6:.1f} M parameters"
    if best.mb is not None and teacher is not None and teacher.mb is not None:
        value = f"{best.mb:.1f} MB"
        facts.append(Fact("size", value, f"of {teacher.mb:.1f} MB, {_ratio(teacher.mb, best.mb)} times smaller"))
    elif best.parameters is not None and teacher is not None and teacher.parameters is not None:
        facts.append(Fact("size", parameters, f"of {teacher.parameters / 1e6:.1f} M"))
    elif best.mb is not None:
        facts.append(Fact("size", f"{best.mb:.1f} MB", parameters))
    elif parameters:
        facts.append(Fact("size", parameters))
    return facts


def _ratio(theirs: float, ours: float) -> str:
    return f"{theirs / ours:.1f}" if ours > 0 else "–"


def _runner_up(models: Sequence[Model]) -> Comparison | None:
    """The comparison of a card's student with the best of the others, where it can be made."""
    chosen = _best(models)
    if chosen is None or not chosen[0].student:
        return None
    best = chosen[0]
    others = [m for m in models if m.student and m is not best]
    if not others or best.cell is None:
        return None
    second = max(others, key=lambda m: m.score.mean)
    assert second.cell is not None
    return compare_cells(best.name, second.name, best.cell, second.cell)


def compare_cells(a: str, b: str, one: Cell, other: Cell) -> Comparison | None:
    """Two students of one task, whatever their settings; None where that cannot be fair."""
    try:
        return compare_arms(a, b, {one.task: one}, {other.task: other})
    except UserError:
        return None


def _quantised(models: Sequence[Model]) -> list[str]:
    """What the quantised teacher does, which is always the first thing to beat."""
    found = next((m for m in models if m.teaches and m.form == "int8" and m.fit), None)
    if found is None:
        return []
    measures = [f"scores {100 * found.score.mean:.1f}"]
    measures += [] if found.ms is None else [f"takes {found.ms:.1f} ms a text"]
    measures += [] if found.mb is None else [f"has {found.mb:.1f} MB"]
    return [f"The quantised teacher {', '.join(measures)}."]


def _caution(best: Model, students: int) -> list[str]:
    """What one seed, and the choice among many, are worth."""
    said = []
    if best.score.n == 1:
        said.append("One seed: the interval is about other texts, not about training once more.")
    if students > 4:
        said.append(f"Chosen among {students} by the same dev examples, so expect a little less on new ones.")
    return said
