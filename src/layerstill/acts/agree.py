"""What a teacher, a task and a recipe agree on before weights are read: the one preamble of distill, plan and cache."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from layerstill.data.checks import data_counts, data_notices, supplementary_notices
from layerstill.data.copies import Augment
from layerstill.data.encode import Encoded, encode, usable_length
from layerstill.data.extra import ExtraTexts, Sieve, Unlabelled, add_unlabelled
from layerstill.data.label_agreement import FittedSet, agree_on_labels, fit_all
from layerstill.data.ood import OodSet
from layerstill.data.probabilities import OPTION, Probabilities
from layerstill.data.regimes import other_regime
from layerstill.data.supplementary import Supplementary
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.families import depth_of, family_of
from layerstill.recipe import Recipe, Stage
from layerstill.students.vocabulary import Vocabulary, trim_vocabulary
from layerstill.training.arguments import Options
from layerstill.training.compiling import refuse_compiling
from layerstill.training.length import settled
from layerstill.training.misfits import refuse_misfits
from layerstill.training.models import (
    fingerprint,
    load_config,
    load_tokenizer,
    refuse_other_tokens,
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
    told: Recipe
    """As it was given."""
    recipe: Recipe
    """With a number in place of every `epochs: auto`."""
    student_layers: int
    options: Options
    init_from: str | None
    source: PretrainedConfig
    """Of the model that the student is cut from: the teacher's, or that of `init_from`."""
    teacher_tokenizer: PreTrainedTokenizerBase
    vocabulary: Vocabulary | None
    """The smaller one of the student, if the recipe asks for one."""
    ood: tuple[OodSet, ...]
    fitted: tuple[FittedSet, ...]
    """The sets `ood` in the classes of the task."""
    supplementary: Supplementary | None
    unlabelled: Unlabelled | None
    augment: Augment | None
    probabilities: Probabilities | None
    """In place of a teacher; `teacher` is then the model that the student is cut from."""
    counts: dict[str, int]
    """What is suspicious in the data, counted."""
    notices: list[str]
    """What the user should know before hours are spent."""
    extra: ExtraTexts | None = None
    """What joins the training examples; `joined_by` adds it."""

    def joined_by(self, extra: ExtraTexts | None) -> "Agreement":
        """The same with these texts among what is trained on, and in the student's vocabulary if it has its own."""
        if extra is None:
            return self
        more = [*(self.supplementary.texts if self.supplementary else ()), *extra.rows]
        vocabulary = _student_vocabulary(self.recipe, self.teacher_tokenizer, self.task, self.config, more)
        joined = replace(self, extra=extra, vocabulary=vocabulary)
        recipe, lengths = settled(self.told, joined.sizes)
        return replace(joined, recipe=recipe, extra=replace(extra, notices=(*extra.notices, *lengths)))

    @property
    def sizes(self) -> dict[str, int]:
        """How many examples a stage trains on, by its `data`."""
        sizes = {"task": len(self.task.splits["train"]) + (len(self.extra.rows) if self.extra else 0)}
        return sizes | ({"supplementary": len(self.supplementary.texts)} if self.supplementary else {})

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """What both models' texts are read with."""
        return self.vocabulary.tokenizer if self.vocabulary else self.teacher_tokenizer

    @property
    def tokens(self) -> list[int] | None:
        """The teacher's numbers of the student's tokens; None where both have the same."""
        return self.vocabulary.kept if self.vocabulary else None

    @cached_property
    def teacher_fingerprint(self) -> str:
        """Of the teacher's weights, configuration and tokenizer."""
        return fingerprint(self.teacher, self.config)

    @cached_property
    def augment_fingerprint(self) -> str | None:
        """Of the model that proposes words for copies, if one does."""
        if self.augment is None or self.augment.model is None:
            return None
        return fingerprint(self.augment.model, load_config(self.augment.model))

    def encoded(self, stage: Stage) -> Encoded:
        """What a stage trains on, as token ids; UserError for supplementary texts that nobody gave."""
        split = self.task.splits["train"]
        if self.extra is not None and stage.takes_unlabelled:
            split = self.extra.joined(self.task)
        if stage.data == "supplementary":
            self.recipe.agree_on_supplementary(self.supplementary is not None)
            assert self.supplementary is not None
            split = self.supplementary.split
        return encode(split, self.tokenizer, self.options.max_length, self.task.head)

    def settings(self, teacher_name: str) -> dict[str, Any]:
        """What `run.json` keeps of it."""
        found = settings_of(self.task, self.recipe, self.options, self.ood)
        ready = self.probabilities
        return found | {
            "teacher": None if ready else teacher_name,
            "teacher_fingerprint": None if ready else self.teacher_fingerprint,
            "student_layers": self.student_layers,
            "init_from": self.init_from,
            "init_from_fingerprint": self.init_from and fingerprint(self.init_from, self.source),
            "supplementary": self.supplementary and self.supplementary.fingerprint,
            **self._more_settings(),
            "data_checks": self.counts,
        }

    def _more_settings(self) -> dict[str, Any]:
        """What few runs have, so that those without it are called what they were."""
        found: dict[str, Any] = {}
        if self.unlabelled is not None:
            found["unlabelled"] = self.unlabelled.fingerprint
        if self.augment is not None:
            found["augment"] = self.augment.record() | {"model_fingerprint": self.augment_fingerprint}
            found["augment_model"] = self.augment.model
        if self.probabilities is not None:
            found["teacher_probabilities"] = self.probabilities.fingerprint(self.task)
        return found


@dataclass(frozen=True)
class More:
    """What a run may be given besides a teacher and a task."""

    unlabelled: Unlabelled | None = None
    augment: Augment | None = None
    probabilities: Probabilities | None = None

    def refuse(self, recipe: Recipe) -> None:
        """UserError for what the recipe has no use for, and for texts that nobody would label."""
        given = {"--unlabelled": self.unlabelled, "--augment": self.augment}
        for option in (name for name, value in given.items() if value is not None):
            recipe.refuse_unlabelled(option)
            if self.probabilities is not None:
                raise UserError(
                    f"{option}: {OPTION} speak of the training examples only, and a teacher must label these texts; "
                    "give a teacher, or leave one of the two out"
                )
        if self.probabilities is not None:
            recipe.refuse_beyond_logits(OPTION)


def agree(
    teacher: str,
    task: Task,
    recipe: Recipe,
    student_layers: int | None,
    options: Options = Options(),
    init_from: str | None = None,
    ood: Sequence[OodSet] = (),
    supplementary: Supplementary | None = None,
    more: More = More(),
) -> Agreement:
    """Bring together what `distill` is given; the arguments are the same, and `more` has its last ones.

    With probabilities in place of a teacher, `teacher` is the model of `init_from`. Nothing is written and no weights
    are read. UserError for the first thing that does not fit.
    """
    if supplementary is not None:
        recipe.agree_on_supplementary(True)
    task = task.with_dev()
    config = load_config(teacher, task.head)
    more.refuse(recipe)
    notices: list[str] = []
    if more.probabilities is None:
        require_head(teacher, config, task.head)
        task, notices = agree_on_labels(task, config, f"teacher {teacher}")
    else:
        more.probabilities.check(task)
        task.head.describe(config, task.labels)
        said = more.probabilities.agreement(task)
        notices += [*more.probabilities.notices, *([said] if said else [])]
    if more.unlabelled is not None:
        add_unlabelled(more.unlabelled, task, Sieve(task))  # refuses what cannot join, before a folder is made
    if supplementary is not None:
        supplementary.refuse_words(task)
    fitted = fit_all(ood, task)
    source = config if init_from is None else load_config(init_from, task.head)
    if student_layers is None:
        raise UserError(f"student_layers: say how many layers the student shall have, 1 to {depth_of(source)}")
    refuse_misfits(recipe, config, source, student_layers, options.seed, task.head)
    if options.compile:
        refuse_compiling(config)
    tokenizer = load_tokenizer(teacher, config)
    usable_length(options.max_length, tokenizer, config)
    if init_from is not None:
        refuse_other_tokens(init_from, source, config, tokenizer.get_vocab())
    vocabulary = _student_vocabulary(recipe, tokenizer, task, config, supplementary.texts if supplementary else ())
    sizes = {"task": len(task.splits["train"])}
    if supplementary is not None:
        sizes["supplementary"] = len(supplementary.texts)
    told, (recipe, lengths) = recipe, settled(recipe, sizes)
    counts = data_counts(task)
    notices += [*task.notices, *lengths]
    if supplementary is not None:
        notices += [*supplementary.notices, *supplementary_notices(task, supplementary.texts)]
    notices += [*data_notices(task, counts), *special_token_notices(teacher, config, tokenizer)]
    notices += [*other_regime(task, Path(teacher)), *(notice for ood_set in fitted for notice in ood_set.notices)]
    return Agreement(
        teacher=teacher,
        config=config,
        task=task,
        told=told,
        recipe=recipe,
        student_layers=student_layers,
        options=options,
        init_from=init_from,
        source=source,
        teacher_tokenizer=tokenizer,
        vocabulary=vocabulary,
        ood=tuple(ood),
        fitted=fitted,
        supplementary=supplementary,
        unlabelled=more.unlabelled,
        augment=more.augment,
        probabilities=more.probabilities,
        counts=counts,
        notices=notices,
    )


def _student_vocabulary(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    teacher: PretrainedConfig,
    more: Sequence[tuple[str, ...]],
) -> Vocabulary | None:
    """The smaller vocabulary that a recipe asks for, of all texts it trains on; None for the teacher's own."""
    size = recipe.student.vocabulary
    if size is None:
        return None
    texts = [*task.splits["train"].texts, *more]
    return trim_vocabulary(tokenizer, texts, size, family_of(teacher).position_offset)
