"""What a teacher and a recipe agree on for running text before weights are read: the preamble of distill and plan."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from layerstill.acts.start import as_student_reads
from layerstill.data.encode import usable_length
from layerstill.data.text.collator import TextCollator
from layerstill.errors import UserError
from layerstill.families import family_of
from layerstill.heads import Head, language_head_of
from layerstill.heads.body import Body
from layerstill.knowledge.views import Clean
from layerstill.recipe import Recipe
from layerstill.students.vocabulary import Vocabulary, keep_tokens, refuse_untrimmable
from layerstill.training.arguments import Options
from layerstill.training.misfits import refuse_misfits
from layerstill.training.models import load_config, load_tokenizer, special_token_notices


@dataclass(frozen=True)
class TextAgreement:
    """A recipe bound to a teacher and to the model that the student is cut from."""

    head: Head
    """What both models have to say: the words of a text, or nothing."""
    recipe: Recipe
    config: PretrainedConfig
    """Of the teacher."""
    source: PretrainedConfig
    """Of what the student is cut from."""
    depth: int
    tokenizer: PreTrainedTokenizerBase
    """What both models read with."""
    init_from: str | None
    notices: list[str]
    """What the user should know before hours are spent."""
    vocabulary: Vocabulary | None = None
    """What the student keeps of the tokens, once the corpus has been counted."""

    @property
    def tokens(self) -> list[int] | None:
        """The teacher's numbers of the tokens that both models read, if these are a smaller vocabulary's."""
        return None if self.vocabulary is None else self.vocabulary.kept

    def trimmed(self, counts: Mapping[int, int]) -> "TextAgreement":
        """The same with the smaller vocabulary that the recipe asks for, if it does; `counts` are those of the corpus.

        UserError for a size that leaves no room for characters.
        """
        size = self.recipe.student.vocabulary
        if size is None:
            return self
        models = self.config, self.source
        offset = any(family_of(config).position_offset for config in models)
        found = keep_tokens(self.tokenizer, counts, size, offset, "the corpus")
        return replace(self, vocabulary=found, tokenizer=as_student_reads(found.tokenizer, *models))

    def vocabulary_notice(self, before: Mapping[int, int], after: Mapping[int, int], whole: int) -> str:
        """What the smaller vocabulary makes of the corpus, whose tokens are counted `before` and `after` it; it had
        `whole` tokens."""
        assert self.vocabulary is not None
        kept = self.vocabulary.kept
        share = sum(before.get(token, 0) for token in kept) / max(sum(before.values()), 1)
        here = self.tokenizer.unk_token_id
        unknown = after.get(here, 0) - before.get(kept[here], 0)
        return (
            f"student.vocabulary: {len(kept):,} of {whole:,} tokens are kept, with {100 * share:.1f} % of the corpus; "
            f"what is left out is cut into kept ones, or unknown ({unknown:,} of {sum(after.values()):,} tokens)"
        )


def agree_text(place: str, recipe: Recipe, depth: int | None, options: Options, init_from: str | None) -> TextAgreement:
    """Bring together what `distill_text` is given; UserError for the first thing that does not fit."""
    _refuse_task_settings(recipe)
    config = load_config(place, Body())
    source = config if init_from is None else load_config(init_from, Body())
    head = _head(config, source)
    if not head.speaks:
        _refuse_words(recipe, config, source, init_from)
    recipe, notices = _as_read(recipe, head)
    if depth is None:
        raise UserError("--student-layers: say how many layers the student should have")
    tokenizer = load_tokenizer(place, config)
    if init_from is not None and load_tokenizer(init_from, source).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"--init-from {init_from}: its tokens are not the teacher's, and on running text everything is compared "
            "token by token; start the student from a model with the same tokenizer"
        )
    if recipe.student.vocabulary is not None:
        refuse_untrimmable(tokenizer)
    for model, whose in ((config, "the model"), (source, f"the model of --init-from {init_from}")):
        usable_length(options.max_length, tokenizer, model, whose)
    refuse_misfits(recipe, config, source, depth, options.seed, head)
    student = as_student_reads(tokenizer, config, source)
    for stage in recipe.stages:
        TextCollator(student, head, stage.hiding, options.seed)  # refuses to hide words that it cannot
    if not head.speaks and any("For" in str(name) for name in config.architectures or []):
        notices.append(f"the head of {', '.join(map(str, config.architectures))} is left out: it says no words")
    notices += special_token_notices(place, config, tokenizer)
    return TextAgreement(head, recipe, config, source, depth, student, init_from, notices)


def _head(config: PretrainedConfig, source: PretrainedConfig) -> Head:
    head = language_head_of(config)
    return head if head is not None and head.fits(source) else Body()


def _refuse_words(recipe: Recipe, config: PretrainedConfig, source: PretrainedConfig, init_from: str | None) -> None:
    """UserError for a recipe with terms about words where a model says none."""
    at_fault = source if language_head_of(config) is not None else config
    whose = "the teacher" if at_fault is config else f"the model of --init-from {init_from}"
    named = ", ".join(map(str, at_fault.architectures or [])) or "no architecture named"
    for number, stage in enumerate(recipe.stages, 1):
        for name, objective in stage.objectives.items():
            if objective.signal.gold or objective.signal.of_head:
                what = "the words of the text" if objective.signal.gold else "logits over words"
                raise UserError(
                    f"recipe {recipe.name}, stage {number}: objective {name!r} is about {what}, and {whose} has no "
                    f"language head for them ({named}); use one saved as ...ForMaskedLM or ...ForCausalLM, or a "
                    "recipe that needs none, such as text-att-mse"
                )


def _refuse_task_settings(recipe: Recipe) -> None:
    """UserError for settings of stages that running text does not have."""
    for number, stage in enumerate(recipe.stages, 1):
        if stage.data == "supplementary":
            raise UserError(
                f"recipe {recipe.name}, stage {number}: data: supplementary; on running text all stages train on "
                "--data, leave it out"
            )
        if stage.select == "best":
            raise UserError(
                f"recipe {recipe.name}, stage {number}: select: best needs a score, and running text has none; leave "
                "it out"
            )


def _as_read(recipe: Recipe, head: Head) -> tuple[Recipe, list[str]]:
    """The recipe as these models read texts, and a notice if that changes it: the next word is not hidden."""
    if head.hides or not any(stage.hiding for stage in recipe.stages):
        return recipe, []
    clean = Clean()
    stages = []
    for stage in recipe.stages:
        seen = {n: o.model_copy(update={"view": None}) if stage.hiding else o for n, o in stage.objectives.items()}
        stages.append(stage.model_copy(update={"view": clean, "objectives": seen} if stage.hiding else {}))
    told = f"recipe {recipe.name}: a causal model is asked for the next word, so none is hidden (view: clean)"
    return recipe.model_copy(update={"stages": stages}), [told]
