"""The act `cache`: filling a teacher cache ahead of the runs that read it."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from layerstill.acts.agree import Agreement, More, agree
from layerstill.acts.extra import gather
from layerstill.acts.inputs import Model, model_at, read_recipe, read_task, recipe_for
from layerstill.acts.start import Start
from layerstill.data.copies import Augment
from layerstill.data.extra import Unlabelled
from layerstill.data.ood import OodSet
from layerstill.data.supplementary import Supplementary
from layerstill.errors import UserError
from layerstill.families import recorder_of
from layerstill.knowledge.capture import Captured, CapturePlan
from layerstill.progress import our_bars_only, showing
from layerstill.recipe import Recipe
from layerstill.sizes import size_in_words
from layerstill.students.build import student_config
from layerstill.training.arguments import Options, arithmetic_of, dtype_of
from layerstill.training.cache_choice import cache_key, choose_cache
from layerstill.training.models import adopt_padding, load_fine_tuned, with_weights_in
from layerstill.training.module import bind_objectives
from layerstill.training.stages import note
from layerstill.training.teacher_cache import Teacher

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

    def __str__(self) -> str:
        what = f"{self.contents} of {self.examples} examples ({self.new} new)"
        return f"stage {self.stage}: {what}, {size_in_words(self.megabytes / 1e3)} in {self.folder}"

    def to_data(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"folder": str(self.folder)}


@our_bars_only()
def cache(
    teacher: Model,
    data: Any,
    recipe: str | Path | Recipe | None = None,
    student_layers: int | None = None,
    options: Options = Options(),
    init_from: str | Path | None = None,
    ood: Sequence[OodSet] = (),
    supplementary: Supplementary | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    labels: Any = None,
    student: str | Path | None = None,
    unlabelled: Unlabelled | None = None,
    augment: Augment | None = None,
) -> list[Filled]:
    """Compute what `teacher` gives away to `distill` with the same arguments, and keep it where `options.cache` says.

    Without `supplementary`, stages on such texts are left out. UserError if `options.cache` names no directory, or no
    stage can read its teacher from a cache; the log says why.
    """
    where = options.cache.where
    if where in {"auto", "off"}:
        raise UserError(f"--cache {where}: name a directory, such as ./{where}, which runs then share")
    named = None if recipe is None else read_recipe(recipe)
    more = More(unlabelled, augment)
    with showing(options.progress), model_at(teacher, tokenizer) as (place, _):
        start = Start.of(init_from, student)
        task = read_task(data, place, labels)
        agreed = agree(place, task, recipe_for(named, task), student_layers, options, start, ood, supplementary, more)
        agreed = agreed.joined_by(gather(agreed))
        note([*agreed.notices, *(agreed.extra.notices if agreed.extra else ())])
        return _fill(agreed)


def _fill(agreed: Agreement) -> list[Filled]:
    recipe, options, head = agreed.recipe, agreed.options, agreed.task.head
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ask = _asked(agreed, device)
    student = student_config(agreed.source, agreed.student_layers, recipe.student, options.seed)
    key = cache_key(agreed.teacher_fingerprint, agreed.tokens)
    arithmetic, own = arithmetic_of(options.precision), Path(options.cache.where)
    filled = []
    for number, stage in enumerate(recipe.stages, 1):
        if stage.data == "supplementary" and agreed.supplementary is None:
            log.info("stage %d: it trains on supplementary texts, which were not given, and is left out", number)
            continue
        train = agreed.encoded(stage).for_teacher
        objectives = bind_objectives(stage, student, agreed.config, head, options.seed)
        chosen = choose_cache(objectives, agreed.config, key, train, float("inf"), options.cache, own, arithmetic)
        if chosen is None:
            continue
        new = chosen.fill(train.dataset, ask, agreed.readers.teacher_collator(head), device)
        size = sum(path.stat().st_size for path in chosen.folder.glob("shard-*")) / 1e6
        different = len(set(train.dataset["content"]))
        filled.append(Filled(number, str(chosen.contents), chosen.folder, different, new, size))
    if not filled:
        raise UserError(
            f"recipe {recipe.name!r}: none of its stages can read its teacher from a cache; nothing was written"
        )
    return filled


def _asked(agreed: Agreement, device: torch.device) -> Teacher:
    """The teacher, loaded, as a cache asks it: in the numbers of the student's tokens."""
    model = load_fine_tuned(agreed.teacher, agreed.task.head)
    adopt_padding(model, agreed.teacher_tokenizer)
    recorder = recorder_of(with_weights_in(model, dtype_of(agreed.options.precision)).eval().to(device))
    kept = None if agreed.tokens is None else torch.tensor(agreed.tokens, device=device)

    @torch.no_grad()
    def ask(plan: CapturePlan, inputs: dict[str, Tensor], mask: Tensor) -> Captured:
        if kept is not None:
            inputs = {**inputs, "input_ids": kept[inputs["input_ids"]]}
        return recorder.run(plan, inputs, mask)

    return ask
