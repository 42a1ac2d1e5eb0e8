"""Filling a teacher cache ahead of the runs that read it."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from layerstill.data.encode import Collator, encode, usable_length
from layerstill.data.label_agreement import agree_on_labels
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.families import recorder_of
from layerstill.knowledge.capture import Captured, CapturePlan
from layerstill.recipe import Recipe
from layerstill.students.build import student_config
from layerstill.training.arguments import Options, arithmetic_of, dtype_of
from layerstill.training.cache_choice import cache_key, choose_cache
from layerstill.training.models import (
    adopt_padding,
    fingerprint,
    load_config,
    load_fine_tuned,
    load_tokenizer,
    require_head,
    with_weights_in,
)
from layerstill.training.module import bind_objectives
from layerstill.training.run import refuse_misfits, student_vocabulary

log = logging.getLogger("layerstill")


@dataclass(frozen=True)
class Filled:
    """What one stage of a recipe finds in the cache."""

    stage: int
    contents: str
    folder: Path
    examples: int
    """Different ones, of the training data."""
    new: int
    """Of them computed by this call."""
    megabytes: float


def fill_cache(
    teacher: str, task: Task, recipe: Recipe, student_layers: int, options: Options = Options()
) -> list[Filled]:
    """Compute what `teacher` gives away to `distill` with the same arguments, and keep it where `options.cache` says.

    UserError if no stage can read its teacher from a cache; the log says why.
    """
    config = load_config(teacher, task.head)
    require_head(teacher, config, task.head)
    task, _ = agree_on_labels(task, config, f"teacher {teacher}")
    refuse_misfits(recipe, config, config, student_layers, options.seed, task.head)
    tokenizer = load_tokenizer(teacher, config)
    usable_length(options.max_length, tokenizer, config)
    vocabulary = student_vocabulary(recipe, tokenizer, task, config)
    model = load_fine_tuned(teacher, task.head)
    adopt_padding(model, tokenizer)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recorder, kept = recorder_of(with_weights_in(model, dtype_of(options.precision)).eval().to(device)), None
    if vocabulary is not None:
        tokenizer, kept = vocabulary.tokenizer, torch.tensor(vocabulary.kept, device=device)

    @torch.no_grad()
    def ask(plan: CapturePlan, inputs: dict[str, Tensor], mask: Tensor) -> Captured:
        if kept is not None:
            inputs = {**inputs, "input_ids": kept[inputs["input_ids"]]}
        return recorder.run(plan, inputs, mask)

    train = encode(task.splits["train"], tokenizer, options.max_length, task.head)
    student = student_config(config, student_layers, recipe.student, options.seed)
    key = cache_key(fingerprint(teacher, config), vocabulary.kept if vocabulary else None)
    arithmetic = arithmetic_of(options.precision)
    filled = []
    for number, stage in enumerate(recipe.stages, 1):
        if stage.data != "task":
            log.info("stage %d: its supplementary texts are not cached ahead", number)
            continue
        objectives = bind_objectives(stage, student, config, task.head, options.seed)
        own = Path(options.cache.where)
        cache = choose_cache(objectives, config, key, train, float("inf"), options.cache, own, arithmetic)
        if cache is None:
            continue
        new = cache.fill(train.dataset, ask, Collator(tokenizer, task.head), device, options.progress)
        size = sum(path.stat().st_size for path in cache.folder.glob("shard-*")) / 1e6
        different = len(set(train.dataset["content"]))
        filled.append(Filled(number, str(cache.contents), cache.folder, different, new, size))
    if not filled:
        raise UserError(
            f"recipe {recipe.name!r}: no stage of it can read its teacher from a cache; nothing was written"
        )
    return filled
