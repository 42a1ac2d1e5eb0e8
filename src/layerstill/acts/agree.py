"""What a teacher, a task and a recipe agree on before weights are read: the one preamble of distill, plan and cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from layerstill.acts.start import Start, as_student_reads
from layerstill.data.checks import data_counts, data_notices, supplementary_notices
from layerstill.data.encode import Encoded, usable_length
from layerstill.data.label_agreement import FittedSet, agree_on_labels, fit_all
from layerstill.data.ood import OodSet
from layerstill.data.readers import Readers
from layerstill.data.regimes import other_regime
from layerstill.data.supplementary import Supplementary
from layerstill.data.tasks import Task
from layerstill.families import family_of
from layerstill.recipe import Recipe
from layerstill.students.vocabulary import Vocabulary, trim_vocabulary
from layerstill.training.arguments import Options
from layerstill.training.compiling import refuse_compiling
from layerstill.training.left_out import without_token_terms
from layerstill.training.misfits import fit, refuse_misfits
from layerstill.training.models import (
    fingerprint,
    load_config,
    load_tokenizer,
    require_head,
    special_token_notices,
)
from layerstill.training.records import settings_of


@dataclass(frozen=True)
class Agreement:
    """A recipe bound to a teacher, to the data and to the model that students are cut from."""

    teacher: str
    config: PretrainedConfig
    task: Task
    """With its outputs in the teacher's order."""
    recipe: Recipe
    """Without what cannot be compared, if the tokenizers differ."""
    left_out: list[str]
    """What that is, a line each."""
    student_layers: int
    options: Options
    start: Start
    """What the student is made of."""
    source: PretrainedConfig
    """The configuration of that."""
    teacher_tokenizer: PreTrainedTokenizerBase
    readers: Readers
    """How both models read texts while the student trains."""
    vocabulary: Vocabulary | None
    """The smaller one of the student, if the recipe asks for one."""
    ood: tuple[OodSet, ...]
    fitted: tuple[FittedSet, ...]
    """The sets `ood` in the classes of the task."""
    supplementary: Supplementary | None
    counts: dict[str, int]
    """What is suspicious in the data, counted."""
    notices: list[str]
    """What the user should know before hours are spent."""

    @property
    def tokens(self) -> list[int] | None:
        """The teacher's numbers of the tokens that it is given, if they are a smaller vocabulary's."""
        return self.vocabulary.kept if self.vocabulary and not self.readers.apart else None

    @cached_property
    def teacher_fingerprint(self) -> str:
        """Of the teacher's weights, configuration and tokenizer."""
        return fingerprint(self.teacher, self.config)

    def encoded(self, data: str) -> Encoded:
        """What a stage with this `data` trains on, as token ids; UserError for supplementary texts that nobody gave."""
        split = self.task.splits["train"]
        if data == "supplementary":
            self.recipe.agree_on_supplementary(self.supplementary is not None)
            assert self.supplementary is not None
            split = self.supplementary.split
        return self.readers.encode(split, self.options.max_length, self.task.head)

    def settings(self, teacher_name: str) -> dict[str, Any]:
        """What `run.json` keeps of it."""
        found = settings_of(self.task, self.recipe, self.options, self.ood)
        return found | {
            "teacher": teacher_name,
            "teacher_fingerprint": self.teacher_fingerprint,
            "student_layers": self.student_layers,
            **self.start.settings(self.source),
            **({"left_out": self.left_out} if self.left_out else {}),
            "supplementary": self.supplementary and self.supplementary.fingerprint,
            "data_checks": self.counts,
        }


def agree(
    teacher: str,
    task: Task,
    recipe: Recipe,
    student_layers: int | None,
    options: Options = Options(),
    start: Start = Start(),
    ood: Sequence[OodSet] = (),
    supplementary: Supplementary | None = None,
) -> Agreement:
    """Bring together what `distill` is given; the arguments are the same.

    Nothing is written and no weights are read. UserError for the first thing that does not fit.
    """
    if supplementary is not None:
        recipe.agree_on_supplementary(True)
    task = task.with_dev()
    config = load_config(teacher, task.head)
    require_head(teacher, config, task.head)
    task, notices = agree_on_labels(task, config, f"teacher {teacher}")
    if supplementary is not None:
        supplementary.refuse_words(task)
    fitted = fit_all(ood, task)
    source = start.config(config, task)
    depth = start.depth(student_layers, source)
    tokenizer = load_tokenizer(teacher, config)
    usable_length(options.max_length, tokenizer, config)
    readers = start.readers(tokenizer, config, source, options.max_length)
    models = config, source, depth, options.seed, task.head
    left_out: list[str] = []
    if readers.apart:
        recipe, left_out = without_token_terms(recipe, task.head, str(start.student), lambda r: fit(r, *models))
    refuse_misfits(recipe, *models, start.whose)
    for model in (config, source) if options.compile else ():
        refuse_compiling(model)
    vocabulary = _student_vocabulary(recipe, readers, task, (config, source), supplementary)
    if vocabulary is not None:
        own = vocabulary.tokenizer
        shared = Readers(as_student_reads(own, config, source), own)
        readers = Readers(own, tokenizer, apart=True) if readers.apart else shared
    counts = data_counts(task)
    notices += start.notices(source, readers) + left_out
    notices += task.notices
    if supplementary is not None:
        notices += [*supplementary.notices, *supplementary_notices(task, supplementary.texts)]
    notices += [*data_notices(task, counts), *special_token_notices(teacher, config, tokenizer)]
    notices += [*other_regime(task, Path(teacher)), *(notice for ood_set in fitted for notice in ood_set.notices)]
    return Agreement(
        teacher=teacher,
        config=config,
        task=task,
        recipe=recipe,
        left_out=left_out,
        student_layers=depth,
        options=options,
        start=start,
        source=source,
        teacher_tokenizer=tokenizer,
        readers=readers,
        vocabulary=vocabulary,
        ood=tuple(ood),
        fitted=fitted,
        supplementary=supplementary,
        counts=counts,
        notices=notices,
    )


def _student_vocabulary(
    recipe: Recipe,
    readers: Readers,
    task: Task,
    models: tuple[PretrainedConfig, ...],
    supplementary: Supplementary | None,
) -> Vocabulary | None:
    """The smaller vocabulary that a recipe asks for, of all texts it trains on; None if it asks for none."""
    size = recipe.student.vocabulary
    if size is None:
        return None
    texts = [*task.splits["train"].texts, *(supplementary.texts if supplementary else ())]
    whole = readers.student if readers.apart else readers.teacher
    return trim_vocabulary(whole, texts, size, any(family_of(config).position_offset for config in models))
