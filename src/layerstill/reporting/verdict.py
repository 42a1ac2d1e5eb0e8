"""The verdict on a student: what it kept of its teacher, and the one change most likely to help."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from layerstill.training.length import EXAMPLES_SEEN
from layerstill.training.reach import ENOUGH

KEEPS = 0.98
"""Of the teacher's score: a student that has so much needs no change."""
HARDLY_FELL = 0.85
"""Of its first value: where every objective still has so much at the end, training has hardly begun."""
STILL_FALLING = 0.03
"""Of its first value, that the loss lost from its third quarter to its last. Runs of 176 updates, which five times as
many improved by nine points, lost 0.05 to 0.07; runs of 400 updates with 32 examples each lost less than 0.02."""
TOO_FAST = 1e-3
"""A loss that does not fall at this learning rate or a higher one is thrown about rather than left where it was."""
SLOW = 1e-4
"""A rate below this is raised where weights hardly moved: 250 updates at 2e-5 gave 59 %, and as many at 3e-4 68 %."""
SMALL_DATA = 5_000
"""Training examples below which more texts are the likelier help, once they have been learnt by heart."""
FEW_UPDATES = 50
"""Fewer go nowhere, whatever their rate."""
BY_HEART = 0.1
"""Of its first value: a loss that falls below has nothing left to learn from these texts."""


@dataclass(frozen=True)
class Facts:
    """What a verdict is made of."""

    metric: str
    student: float
    """Its score on dev."""
    teacher: float
    examples: int
    """Of dev."""
    layers: int
    teacher_layers: int
    parameters: int
    teacher_parameters: int
    times_as_fast: float
    """The teacher's operations for a text of mean length over the student's, in layers and attention."""
    steps: int
    """Optimiser steps of all stages."""
    examples_seen: int
    """Repetitions counted."""
    train_examples: int
    learning_rate: float
    """Of the last stage, its peak."""
    reach: float
    """The sum of all updates' learning rates."""
    losses: Sequence[float] = ()
    """The last stage's, in the order of training."""
    objectives: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Each of its objectives' values, likewise."""
    one_answer: str = ""
    """What the student says of nearly everything, as heads say it; empty if it does not."""
    teacher_guesses: bool = False
    """Whether the teacher's score cannot be told from guessing, so that a share of it says nothing."""
    stopped_early: bool = False
    """Whether `--max-steps` ended the training, so that more epochs would change nothing."""


def verdict(facts: Facts) -> list[str]:
    """Two sentences: what was kept, and what to change; before them a `WARNING` about a student with one answer."""
    warning = f"WARNING: the student says {facts.one_answer}: it has learnt one answer."
    return [*([warning] if facts.one_answer else []), kept_sentence(facts), change_sentence(facts)]


def kept_share(facts: Facts) -> float | None:
    """The student's score over the teacher's; None where a share says nothing, because the teacher has no score."""
    return facts.student / facts.teacher if facts.teacher > 0 else None


def kept_sentence(facts: Facts) -> str:
    """What was kept of the teacher, at what speed-up and size."""
    share = kept_share(facts)
    scores = f"{facts.student:.4f} of {facts.teacher:.4f} on {facts.examples:,} examples"
    kept = f"of the teacher's {facts.metric} ({scores})"
    kept = f"It keeps {100 * share:.1f} % {kept}" if share is not None else f"Nothing can be kept {kept}"
    and_it = ", " if share is not None else ". It "
    speed = f"is about {facts.times_as_fast:.1f} times as fast, by the operations of its layers"
    sizes = f"{facts.parameters / 1e6:.1f} of {facts.teacher_parameters / 1e6:.1f} million parameters"
    return f"{kept}{and_it}{speed}, and has {sizes} and {facts.layers} of {facts.teacher_layers} layers."


def change_sentence(facts: Facts) -> str:
    """The one change most likely to help: the first of the rules that applies."""
    rules = (_teacher_guesses, _needs_nothing, _rate_is_wrong, _too_short, _too_few_texts, _too_shallow)
    return next((said for rule in rules if (said := rule(facts))), _OTHERWISE)


_OTHERWISE = "What may still help: another seed, or --recipe best --learning-rate auto."


def _teacher_guesses(facts: Facts) -> str:
    if not facts.teacher_guesses:
        return ""
    return (
        "First find a better teacher, or find out why this one fails: its score on dev cannot be told from guessing, "
        "so the share that is kept says nothing."
    )


def _needs_nothing(facts: Facts) -> str:
    share = kept_share(facts)
    if facts.one_answer or share is None or share < KEEPS:
        return ""
    return "Nothing needs to change: it keeps the teacher."


def _rate_is_wrong(facts: Facts) -> str:
    hardly = _hardly_fell(facts)
    slow = facts.reach < ENOUGH and facts.learning_rate < SLOW
    if not hardly and not slow and not facts.one_answer:
        return ""
    if facts.steps < FEW_UPDATES and facts.learning_rate < TOO_FAST and _too_short(facts):
        return ""
    rate = _brief(facts.learning_rate)
    if hardly and facts.losses:
        what = f"the loss hardly left its start ({facts.losses[0]:.3g} to {facts.losses[-1]:.3g})"
    elif slow:
        what = f"a weight moves by {facts.reach:.2g} in all, and students need about {ENOUGH:g}"
    else:
        what = "it learnt one answer, which is what a wrong learning rate leads to"
    if facts.learning_rate >= TOO_FAST:
        way = f"--learning-rate auto, or a tenth ({_brief(facts.learning_rate / 10)})"
    else:
        way = f"--learning-rate auto, or 10 times as much ({_brief(facts.learning_rate * 10)})"
    if not hardly and not slow:
        way = "--learning-rate auto"
    return f"Most likely to help is another learning rate: at {rate} over {facts.steps:,} updates {what}; use {way}."


def _too_short(facts: Facts) -> str:
    falling = _still_falling(facts)
    few = facts.examples_seen < EXAMPLES_SEEN // 4
    if not falling and not few:
        return ""
    why = "the loss was still falling" if falling else f"{facts.examples_seen:,} examples seen are few"
    times = max(2, round(EXAMPLES_SEEN / max(facts.examples_seen, 1)))
    way = "leave --max-steps out, or give more" if facts.stopped_early else f"give {min(times, 5)} times the --epochs"
    return f"Most likely to help is a longer training: at the end of {facts.steps:,} updates {why}; {way}."


def _too_few_texts(facts: Facts) -> str:
    if facts.train_examples >= SMALL_DATA or not _by_heart(facts):
        return ""
    return (
        f"Most likely to help are more texts: the {facts.train_examples:,} training examples are learnt by heart; "
        "--unlabelled FILE adds texts that the teacher labels."
    )


def _too_shallow(facts: Facts) -> str:
    if facts.layers >= facts.teacher_layers:
        return ""
    return (
        f"Most likely to help is one more layer: --student-layers {facts.layers + 1}, for {facts.steps:,} updates at a "
        "learning rate that works left this gap."
    )


def _hardly_fell(facts: Facts) -> bool:
    """Whether no objective, or the loss if these are not known, fell by much."""
    values = [v for v in facts.objectives.values() if len(v) > 1 and v[0] > 0]
    values = values or [v for v in [facts.losses] if len(v) > 1 and v[0] > 0]
    return bool(values) and all(v[-1] > HARDLY_FELL * v[0] for v in values)


def _still_falling(facts: Facts) -> bool:
    losses = list(facts.losses)
    quarter = len(losses) // 4
    if quarter < 1 or losses[0] <= 0:
        return False
    third, last = losses[-2 * quarter : -quarter], losses[-quarter:]
    return (sum(third) - sum(last)) / quarter > STILL_FALLING * losses[0]


def _by_heart(facts: Facts) -> bool:
    """Whether any of the objectives, such as the error on gold labels, has nearly gone."""
    values = [v for v in facts.objectives.values() or [facts.losses] if len(v) > 1 and v[0] > 0]
    return any(v[-1] < BY_HEART * v[0] for v in values)


def _brief(rate: float) -> str:
    """A learning rate as one types it: 2e-5."""
    mantissa, exponent = f"{rate:.1e}".replace(".0e", "e").split("e")
    return f"{mantissa}e{int(exponent)}"
