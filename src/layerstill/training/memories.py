"""What training knows of its examples, for distances that remember every one of them."""

from collections.abc import Sequence
from typing import Any

import psutil
import torch

from layerstill.errors import UserError
from layerstill.heads import Head
from layerstill.knowledge.bound_objective import BoundObjective
from layerstill.knowledge.gathering import gather_numbers
from layerstill.knowledge.memory import Examples, Numbered, bytes_of
from layerstill.knowledge.objective import Objective
from layerstill.recipe import Stage
from layerstill.sizes import size_in_words


def examples_of(labels: Sequence[Any] | None, count: int, head: Head) -> Examples:
    """So many training examples with their classes, by their labels if they have any."""
    return Examples(head.kinds(labels) if labels else [None] * count)


def numbered(batch: dict[str, Any], head: Head, step: int | None) -> Numbered:
    """Which examples a batch has, those of all processes if it is trained on in optimiser step `step`.

    UserError for a batch whose examples have no numbers. An evaluation, without `step`, is each process's own.
    """
    if "id" not in batch:
        raise UserError(
            "an objective remembers every training example, and the batch does not say which it has: give `id`, the "
            "number of each, from 0, among DistillationModule's `examples`"
        )
    numbers, rows = [int(number) for number in batch["id"]], len(batch["id"])
    if step is None:
        labels = batch.get("labels")
        return Numbered(numbers, [None] * rows if labels is None else head.kinds(labels.tolist()), None)
    idle = batch.get("idle", False)
    numbers = gather_numbers([-1] * rows if idle else numbers, batch["attention_mask"].device)
    return Numbered(numbers, [None] * len(numbers), step)


def give_memories(objectives: Sequence[BoundObjective], examples: Examples | None) -> None:
    """Make the memories of the objectives that have one; UserError where the training examples are not known, or cannot
    be told apart."""
    for o in objectives:
        if not o.spec.remembers:
            continue
        if examples is None:
            raise UserError(
                f"objective {o.name!r} remembers every training example: give DistillationModule `examples`, and every "
                "batch `id`; or use distance: infonce, which compares the examples of a batch"
            )
        _notice(o.name, o.spec, examples)
        o.remember(examples)


def memory_bytes(objectives: Sequence[BoundObjective], examples: int) -> int:
    """What the memories of built objectives take with so many examples."""
    return sum(bytes_of(examples, o.width) for o in objectives if o.spec.remembers and o.width is not None)


def refuse_large_memories(objectives: Sequence[BoundObjective], examples: int) -> None:
    """UserError for memories of so many examples that are larger than what is free here."""
    needs = memory_bytes(objectives, examples)
    if not needs:
        return
    free = psutil.virtual_memory().available
    if torch.cuda.is_available():
        free = min(free, torch.cuda.mem_get_info()[0])
    if needs > free:
        names = ", ".join(repr(o.name) for o in objectives if o.spec.remembers)
        raise UserError(
            f"objective {names}: what it remembers of {examples:,} training examples takes "
            f"{size_in_words(needs / 1e9)}, and {size_in_words(free / 1e9)} are free here; use distance: infonce, or a "
            "smaller width of its maps"
        )


def memory_notices(stage: Stage, examples: Examples) -> list[str]:
    """What is to be known of the memories that a stage has of these examples, a line each; UserError where none can
    be."""
    said = [_notice(name, o, examples) for name, o in stage.objectives.items() if o.remembers]
    return [line for line in said if line]


def _notice(name: str, objective: Objective, examples: Examples) -> str:
    assert objective.distance is not None
    try:
        said = objective.distance.memory_notice(examples)
    except UserError as error:
        raise UserError(f"objective {name!r}: {error}") from None
    return f"objective {name!r}: {said}" if said else ""
