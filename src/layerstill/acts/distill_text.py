"""The act `distill` on running text, before there is a task (How to Distill your BERT, arXiv 2305.15032, section 4)."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from layerstill.acts.inputs import Model, model_at, read_recipe
from layerstill.acts.start import as_student_reads
from layerstill.data.encode import Encoded, usable_length
from layerstill.data.text.blocks import Blocks, held_out
from layerstill.data.text.collator import TextCollator
from layerstill.data.text.packing import Corpus, Packed, describe, identity_of, pack, to_record
from layerstill.errors import UserError
from layerstill.heads import Head, language_head_of
from layerstill.heads.body import Body
from layerstill.knowledge.views import Clean
from layerstill.names import TEXT_TASK
from layerstill.progress import our_bars_only, showing
from layerstill.recipe import Recipe
from layerstill.reporting.model_card import card_writer
from layerstill.result import Result
from layerstill.students.build import build_student, chosen_layers, student_config
from layerstill.training import processes
from layerstill.training.arguments import Options, dtype_of
from layerstill.training.length import steps_of
from layerstill.training.misfits import refuse_misfits
from layerstill.training.models import (
    adopt_padding,
    fingerprint,
    load_body,
    load_config,
    load_language_model,
    load_tokenizer,
    special_token_notices,
    with_weights_in,
)
from layerstill.training.records import RunFolder, folder_for
from layerstill.training.stages import note
from layerstill.training.step_time import measure_step_seconds
from layerstill.training.text_run import TextRun

DEFAULT_RECIPE = "text-att-mse"
"""The best of the paper's objectives in this setting (its Table 2)."""
TIMED = 512
"""Blocks of which a few batches are timed."""


@dataclass(frozen=True)
class Length:
    """How long training takes, in place of the recipe's epochs."""

    tokens: float | None = None
    """Tokens of the student's inputs, repetitions counted. No more are packed, so a corpus may be larger than that."""
    hours: float | None = None
    """On this machine, by the time of a few real steps; evaluations and checkpoints come on top."""

    def __post_init__(self) -> None:
        if self.tokens is not None and self.hours is not None:
            raise UserError(f"--max-tokens {self.tokens:g} and --max-hours {self.hours:g}: give one of them")
        for option, value in (("--max-tokens", self.tokens), ("--max-hours", self.hours)):
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"{option} {value:g}: it must be above 0")


@our_bars_only()
def distill_text(
    teacher: Model,
    data: str | Path | Corpus,
    recipe: str | Path | Recipe = DEFAULT_RECIPE,
    student_layers: int | None = None,
    output: str | Path | None = None,
    options: Options = Options(),
    init_from: str | Path | None = None,
    length: Length = Length(),
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Result:
    """Distil what happens inside `teacher` on running text into a student of `student_layers` layers.

    Running the same thing again in the same folder resumes what was interrupted and returns what is finished.

    Args:
        teacher: a folder, a hub id, or a loaded model of a proven family. A masked or causal language model keeps its
            head, and so does the student; another head is left out.
        data: a `Corpus`, or the file or folder of one (`.txt .jsonl .parquet .csv .tsv`, also packed as `.gz`).
        recipe: a recipe; terms on labels or logits are about words, and need a language model.
        student_layers: how many layers the student has.
        output: becomes a plain model folder (`AutoModelForMaskedLM`, `AutoModelForCausalLM` or `AutoModel`) with a
            model card and the record of the run.
        options: how to run. `cache.where` may be a directory in which several runs share the blocks of their corpora.
        init_from: the student is cut from this model with the same tokens instead of the teacher.
        length: tokens or hours in place of the recipe's epochs.
        tokenizer: of a loaded teacher.

    UserError for everything that does not fit together.
    """
    corpus = data if isinstance(data, Corpus) else Corpus.at(data)
    recipe = read_recipe(recipe)
    with showing(options.progress), model_at(teacher, tokenizer) as (place, name):
        agreed = _agree(place, recipe, student_layers, options, None if init_from is None else str(init_from))
        recipe = agreed.recipe
        settings = _settings(name, place, agreed, corpus, recipe, options, length)
        # Models are loaded before the folder is made, so that a damaged one leaves nothing behind.
        set_seed(options.seed)
        teacher_model = _loaded(place, agreed.head)
        adopt_padding(teacher_model, agreed.tokenizer)
        source = teacher_model if agreed.init_from is None else _loaded(agreed.init_from, agreed.head)
        adopt_padding(source, agreed.tokenizer)
        with RunFolder(folder_for(output, recipe, settings), settings) as folder:
            if done := folder.finished:
                note([f"{done.folder} already holds this run, finished"])
                return done
            note([*agreed.notices, *corpus.notices])
            packed, blocks = _packed(corpus, agreed.tokenizer, folder, options, length)
            apart = held_out(len(blocks))
            train, dev = blocks.part((~apart).nonzero()[0]), blocks.part(apart.nonzero()[0])
            note(describe(packed, train, dev, options.max_length))
            recipe = _settled(recipe, train, length, folder, agreed, options)
            note(_length_notices(recipe, train, options))
            set_seed(options.seed)
            built = build_student(source, agreed.depth, recipe.student, options.seed)
            chosen = chosen_layers(source.config, agreed.depth, recipe.student, options.seed)
            return TextRun(
                folder=folder,
                student=built,
                teacher=with_weights_in(teacher_model, dtype_of(options.precision)),
                tokenizer=agreed.tokenizer,
                train_blocks=train,
                dev_blocks=dev,
                recipe=recipe,
                head=agreed.head,
                options=options,
                origin={"layers": chosen or "random weights", "from": agreed.init_from or "teacher"},
                text=to_record(packed, train, dev),
                describe=card_writer(recipe, agreed.head),
            ).train()


def _loaded(place: str, head: Head) -> PreTrainedModel:
    return load_language_model(place, head) if head.speaks else load_body(place)


def _head(config: PretrainedConfig, source: PretrainedConfig) -> Head:
    """What both models have to say: the words of a text, or nothing."""
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


@dataclass(frozen=True)
class _Agreed:
    """What a teacher and a recipe agree on before weights are read."""

    head: Head
    recipe: Recipe
    config: PretrainedConfig
    source: PretrainedConfig
    depth: int
    tokenizer: PreTrainedTokenizerBase
    init_from: str | None
    notices: list[str]


def _agree(place: str, recipe: Recipe, depth: int | None, options: Options, init_from: str | None) -> _Agreed:
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
        raise UserError(
            f"student.vocabulary {recipe.student.vocabulary}: a student of running text keeps all tokens; make it "
            "smaller when it is distilled on a task"
        )
    for model, whose in ((config, "the model"), (source, f"the model of --init-from {init_from}")):
        usable_length(options.max_length, tokenizer, model, whose)
    refuse_misfits(recipe, config, source, depth, options.seed, head)
    student = as_student_reads(tokenizer, config, source)
    for stage in recipe.stages:
        TextCollator(student, head, stage.hiding, options.seed)  # refuses to hide words that it cannot
    notices += special_token_notices(place, config, tokenizer)
    return _Agreed(head, recipe, config, source, depth, student, init_from, notices)


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


def _settings(
    name: str, place: str, agreed: _Agreed, corpus: Corpus, recipe: Recipe, options: Options, length: Length
) -> dict[str, Any]:
    """What `run.json` keeps."""
    start = agreed.init_from
    return {
        "task": TEXT_TASK,
        "data_fingerprint": corpus.fingerprint,
        "recipe": recipe.model_dump(mode="json", exclude={"name"}),
        "seed": options.seed,
        "max_length": options.max_length,
        "max_steps": options.max_steps,
        "max_tokens": length.tokens,
        "max_hours": length.hours,
        "precision": options.precision,
        **({"compile": True} if options.compile else {}),
        "teacher": name,
        "teacher_fingerprint": fingerprint(place, agreed.config),
        "student_layers": agreed.depth,
        "init_from": start,
        "init_from_fingerprint": start and fingerprint(start, agreed.source),
    }


def _packed(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, folder: RunFolder, options: Options, length: Length
) -> tuple[Packed, Blocks]:
    """The corpus as blocks of tokens; the first process packs, the others wait and read."""
    most = None if length.tokens is None else math.ceil(length.tokens)
    shared = options.cache.where not in {"auto", "off"}
    identity = identity_of(corpus, tokenizer, options.max_length, most)
    place = Path(options.cache.where) / f"corpus-{identity}" if shared else folder.corpus
    if processes.is_first():
        pack(corpus, tokenizer, options.max_length, place, most)
    processes.wait_for_all()
    packed = pack(corpus, tokenizer, options.max_length, place, most)
    return packed, packed.opened(place)


def _settled(
    recipe: Recipe, train: Blocks, length: Length, folder: RunFolder, agreed: _Agreed, options: Options
) -> Recipe:
    """The recipe with its stages as long as tokens or hours say, in the proportions that it has."""
    numbers = [float(stage.automatic or stage.epochs) for stage in recipe.stages]
    if length.tokens is not None:
        share = length.tokens / train.tokens / sum(numbers)
        return recipe.with_epochs([_least(number * share, train, recipe, i) for i, number in enumerate(numbers)])
    if length.hours is None:
        return recipe.with_epochs(numbers)
    steps = folder.kept("steps")
    if steps is None:
        seconds = _step_seconds(recipe, train, agreed, options)
        whole = 3600 * length.hours
        steps = [max(round(whole * n / sum(numbers) / s), 1) for n, s in zip(numbers, seconds, strict=True)]
        folder.keep("steps", steps)
        steps = folder.kept("steps")
    # Half a step short, so that rounding up ends at the number.
    sizes = [math.ceil(len(train) / stage.batch_size) for stage in recipe.stages]
    return recipe.with_epochs([(n - 0.5) / size for n, size in zip(steps, sizes, strict=True)])


def _least(epochs: float, train: Blocks, recipe: Recipe, number: int) -> float:
    """At least half a step, which is rounded up to one."""
    return max(epochs, 0.5 * recipe.stages[number].batch_size / len(train))


def _step_seconds(recipe: Recipe, train: Blocks, agreed: _Agreed, options: Options) -> list[float]:
    """What a step of each stage takes here."""
    some = train.part(held_out(len(train)).nonzero()[0][:TIMED])
    encoded = Encoded(some, 0, some.tokens, 0)  # type: ignore[arg-type]  # read as rows and lengths only
    student = student_config(agreed.source, agreed.depth, recipe.student, options.seed)
    seconds = []
    for number, stage in enumerate(recipe.stages):
        collate = TextCollator(agreed.tokenizer, agreed.head, stage.hiding, options.seed)
        made = measure_step_seconds(recipe, number, student, agreed.config, encoded, collate, agreed.head, options)
        seconds.append(made.step)
    return seconds


def _length_notices(recipe: Recipe, train: Blocks, options: Options) -> list[str]:
    mean = train.tokens / len(train)
    steps = [steps_of(stage, len(train), options.max_steps) for stage in recipe.stages]
    told = " and ".join(
        f"{n:,} steps of {stage.batch_size} blocks" for n, stage in zip(steps, recipe.stages, strict=True)
    )
    seen = sum(n * stage.batch_size for n, stage in zip(steps, recipe.stages, strict=True))
    return [f"training takes {told}, about {seen * mean:,.0f} tokens, {seen / len(train):.2g} passes over the corpus"]
