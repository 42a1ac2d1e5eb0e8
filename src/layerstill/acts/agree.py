"""What a teacher, a task and a recipe agree on before weights are read: the one preamble of distill, plan and cache."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from layerstill.acts.remembered import Remembered
from layerstill.acts.start import Start, as_student_reads
from layerstill.data.checks import data_counts, data_notices, supplementary_notices
from layerstill.data.copies import Augment
from layerstill.data.encode import Encoded, usable_length
from layerstill.data.extra import ExtraTexts, Sieve, Unlabelled, add_unlabelled
from layerstill.data.label_agreement import FittedSet, agree_on_labels, fit_all
from layerstill.data.ood import OodSet
from layerstill.data.probabilities import OPTION, Probabilities
from layerstill.data.readers import Readers
from layerstill.data.regimes import other_regime
from layerstill.data.supplementary import Supplementary
from layerstill.data.tasks import Split, Task
from layerstill.errors import UserError
from layerstill.families import family_of
from layerstill.recipe import Recipe, Stage
from layerstill.students.vocabulary import Vocabulary, trim_vocabulary
from layerstill.training.arguments import Options
from layerstill.training.compiling import refuse_compiling
from layerstill.training.left_out import without_token_terms
from layerstill.training.length import settled
from layerstill.training.memories import examples_of, memory_notices
from layerstill.training.misfits import fit, refuse_misfits
from layerstill.training.models import (
    fingerprint,
    load_config,
    load_tokenizer,
    require_head,
    special_token_notices,
)
from layerstill.training.records import settings_of
from layerstill.training.teachers import OPTION as MORE_TEACHERS
from layerstill.training.teachers import MoreTeachers


@dataclass(frozen=True)
class Agreement:
    """A recipe bound to a teacher, to the data and to the model that students are cut from."""

    teacher: str
    config: PretrainedConfig
    task: Task
    """With its outputs in the teacher's order."""
    told: Recipe
    """As it was given, without what two tokenizers cannot compare."""
    recipe: Recipe
    """The same with a number in place of every `epochs: auto`."""
    left_out: list[str]
    """What two tokenizers cannot compare, a line each."""
    student_layers: int
    options: Options
    start: Start
    """What the student is made of."""
    source: PretrainedConfig
    """The configuration of that."""
    teacher_tokenizer: PreTrainedTokenizerBase
    whole_readers: Readers
    """How both models read texts with all of their tokens."""
    readers: Readers
    """How they do it while the student trains, which may have a smaller vocabulary."""
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
    more_teachers: MoreTeachers | None
    """What else gives soft targets."""
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
        models = self.config, self.source
        vocabulary, readers = _student_vocabulary(self.recipe, self.whole_readers, self.task, models, more)
        joined = replace(self, extra=extra, vocabulary=vocabulary, readers=readers)
        recipe, lengths = settled(self.told, joined.sizes)
        return replace(joined, recipe=recipe, extra=replace(extra, notices=(*extra.notices, *lengths)))

    @property
    def sizes(self) -> dict[str, int]:
        """How many examples a stage trains on, by its `data`."""
        sizes = {"task": len(self.task.splits["train"]) + (len(self.extra.rows) if self.extra else 0)}
        return sizes | ({"supplementary": len(self.supplementary.texts)} if self.supplementary else {})

    @property
    def tokens(self) -> list[int] | None:
        """The teacher's numbers of the tokens that it is given, if they are a smaller vocabulary's."""
        return self.vocabulary.kept if self.vocabulary and not self.readers.apart else None

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

    def split(self, stage: Stage) -> Split:
        """What a stage trains on; UserError for supplementary texts that nobody gave."""
        if stage.data == "supplementary":
            self.recipe.agree_on_supplementary(self.supplementary is not None)
            assert self.supplementary is not None
            return self.supplementary.split
        if self.extra is not None and stage.takes_unlabelled:
            return self.extra.joined(self.task)
        return self.task.splits["train"]

    def memory_notices(self) -> list[str]:
        """What is to be known of what objectives remember of the training examples; UserError where nothing can be."""
        remembering = [s for s in self.recipe.stages if any(o.remembers for o in s.objectives.values())]
        splits, head = [(stage, self.split(stage)) for stage in remembering], self.task.head
        return [line for stage, s in splits for line in memory_notices(stage, examples_of(s.labels, len(s), head))]

    def encoded(self, stage: Stage) -> Encoded:
        """The same as token ids."""
        return self.readers.encode(self.split(stage), self.options.max_length, self.task.head)

    def settings(self, teacher_name: str) -> dict[str, Any]:
        """What `run.json` keeps of it."""
        found = settings_of(self.task, self.recipe, self.options, self.ood)
        ready = self.probabilities
        return found | {
            "teacher": None if ready else teacher_name,
            "teacher_fingerprint": None if ready else self.teacher_fingerprint,
            "student_layers": self.student_layers,
            **self.start.settings(self.source),
            **({"left_out": self.left_out} if self.left_out else {}),
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
        return found | (self.more_teachers.settings() if self.more_teachers else {})


@dataclass(frozen=True)
class More:
    """What a run may be given besides a teacher and a task."""

    unlabelled: Unlabelled | None = None
    augment: Augment | None = None
    probabilities: Probabilities | None = None
    teachers: MoreTeachers | None = None

    def refuse(self, recipe: Recipe) -> None:
        """UserError for what the recipe has no use for, and for texts that nobody would label."""
        given = {"--unlabelled": self.unlabelled, "--augment": self.augment}
        for option in (name for name, value in given.items() if value is not None):
            recipe.refuse_unlabelled(option)
            if self.probabilities is not None:
                raise UserError(
                    f"{option}: {OPTION} are about the training examples only, and a teacher must label these texts; "
                    "give a teacher, or leave one of the two out"
                )
        if self.probabilities is not None:
            recipe.refuse_beyond_logits(OPTION)
        if self.teachers is not None:
            if self.probabilities is not None:
                raise UserError(f"{MORE_TEACHERS}: {OPTION} take the place of all teachers; leave one of the two out")
            recipe.refuse_without_soft_targets(MORE_TEACHERS)


def agree(
    teacher: str,
    task: Task,
    recipe: Recipe,
    student_layers: int | None,
    options: Options = Options(),
    start: Start = Start(),
    ood: Sequence[OodSet] = (),
    supplementary: Supplementary | None = None,
    more: More = More(),
) -> Agreement:
    """Bring together what `distill` is given; the arguments are the same, and `more` has its last ones.

    With probabilities in place of a teacher, `teacher` is the model of `start`. Nothing is written and no weights
    are read. UserError for the first thing that does not fit.
    """
    if supplementary is not None:
        recipe.agree_on_supplementary(True)
    task = task.with_dev()
    config = load_config(teacher, task.head, weights=more.probabilities is None or not start.fresh)
    more.refuse(recipe)
    notices: list[str] = []
    if more.probabilities is None:
        require_head(teacher, config, task.head)
        task, notices = agree_on_labels(task, config, f"teacher {teacher}")
        if more.teachers is not None:
            notices += more.teachers.check(teacher, task, options.max_length)
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
    source = start.config(config, task)
    recipe, trained = start.taught_by(recipe)
    depth = start.depth(student_layers, source)
    tokenizer = load_tokenizer(teacher, config)
    usable_length(options.max_length, tokenizer, config)
    readers = start.readers(tokenizer, config, source, options.max_length)
    models = config, source, depth, options.seed, task.head
    left_out: list[str] = []
    if readers.apart:
        recipe, left_out = without_token_terms(recipe, task.head, str(start.student), lambda r: fit(r, *models))
        more.refuse(recipe)
    sizes = {"task": len(task.splits["train"])}
    if supplementary is not None:
        sizes["supplementary"] = len(supplementary.texts)
    refuse_misfits(recipe, *models, start.whose, sizes)
    for model in (config, source) if options.compile else ():
        refuse_compiling(model)
    texts = supplementary.texts if supplementary else ()
    vocabulary, used = _student_vocabulary(recipe, readers, task, (config, source), texts)
    if vocabulary is not None:
        own = readers.student if readers.apart else readers.teacher
        notices.append(vocabulary.notice(own, task.splits["dev"].texts))
    told, (recipe, lengths) = recipe, settled(recipe, sizes)
    counts = data_counts(task)
    notices += [*start.notices(source, readers), *trained, *left_out, *task.notices, *lengths]
    if supplementary is not None:
        notices += [*supplementary.notices, *supplementary_notices(task, supplementary.texts)]
    notices += [*data_notices(task, counts), *special_token_notices(teacher, config, tokenizer)]
    notices += Remembered.of(teacher).other_length(options.max_length, "the teacher")
    notices += [*other_regime(task, Path(teacher)), *(notice for ood_set in fitted for notice in ood_set.notices)]
    agreed = Agreement(
        teacher=teacher,
        config=config,
        task=task,
        told=told,
        recipe=recipe,
        left_out=left_out,
        student_layers=depth,
        options=options,
        start=start,
        source=source,
        teacher_tokenizer=tokenizer,
        whole_readers=readers,
        readers=used,
        vocabulary=vocabulary,
        ood=tuple(ood),
        fitted=fitted,
        supplementary=supplementary,
        unlabelled=more.unlabelled,
        augment=more.augment,
        probabilities=more.probabilities,
        more_teachers=more.teachers,
        counts=counts,
        notices=notices,
    )
    agreed.memory_notices()  # refuses examples that cannot be told apart
    return agreed


def _student_vocabulary(
    recipe: Recipe,
    readers: Readers,
    task: Task,
    models: tuple[PretrainedConfig, PretrainedConfig],
    more: Sequence[tuple[str, ...]],
) -> tuple[Vocabulary | None, Readers]:
    """The smaller vocabulary that a recipe asks for, of all texts it trains on, and how both models read with it.

    `models` are the teacher and what the student is made of. None and the same readers if it asks for none.
    """
    size = recipe.student.vocabulary
    if size is None:
        return None, readers
    texts = [*task.splits["train"].texts, *more]
    whole = readers.student if readers.apart else readers.teacher
    found = trim_vocabulary(whole, texts, size, any(family_of(config).position_offset for config in models))
    own = found.tokenizer
    if readers.apart:
        return found, Readers(own, readers.teacher, apart=True)
    return found, Readers(as_student_reads(own, *models), own)
