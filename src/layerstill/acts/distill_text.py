"""The act `distill` on running text, before there is a task (How to Distill your BERT, arXiv 2305.15032, section 4)."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase, set_seed

from layerstill.acts.inputs import Model, model_at, read_recipe
from layerstill.acts.start import as_student_reads
from layerstill.data.encode import Collator, Encoded, usable_length
from layerstill.data.text.blocks import Blocks, held_out
from layerstill.data.text.packing import Corpus, Packed, describe, pack, to_record
from layerstill.errors import UserError
from layerstill.heads.body import Body
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
        teacher: a folder, a hub id, or a loaded model of a proven family; its head, if it has one, is left out.
        data: a `Corpus`, or the file or folder of one (`.txt .jsonl .parquet .csv .tsv`, also packed as `.gz`).
        recipe: a recipe whose terms need neither labels nor logits.
        student_layers: how many layers the student has.
        output: becomes a plain model folder (`AutoModel`) with a model card and the record of the run.
        options: how to run. `cache.where` may be a directory in which several runs share the blocks of their corpora.
        init_from: the student is cut from this model with the same tokens instead of the teacher.
        length: tokens or hours in place of the recipe's epochs.
        tokenizer: of a loaded teacher.

    UserError for everything that does not fit together.
    """
    corpus = data if isinstance(data, Corpus) else Corpus.at(data)
    recipe = read_recipe(recipe)
    refuse_task_terms(recipe)
    with showing(options.progress), model_at(teacher, tokenizer) as (place, name):
        agreed = _agree(place, recipe, student_layers, options, None if init_from is None else str(init_from))
        settings = _settings(name, place, agreed, corpus, recipe, options, length)
        # Models are loaded before the folder is made, so that a damaged one leaves nothing behind.
        set_seed(options.seed)
        teacher_model = load_body(place)
        adopt_padding(teacher_model, agreed.tokenizer)
        source = teacher_model if agreed.init_from is None else load_body(agreed.init_from)
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
                options=options,
                origin={"layers": chosen or "random weights", "from": agreed.init_from or "teacher"},
                text=to_record(packed, train, dev),
                describe=card_writer(recipe, Body()),
            ).train()


def refuse_task_terms(recipe: Recipe) -> None:
    """UserError for a recipe with terms that running text and a model without a head do not have."""
    for number, stage in enumerate(recipe.stages, 1):
        for name, objective in stage.objectives.items():
            what = "gold labels" if objective.signal.gold else "logits" if objective.signal.of_head else None
            if what is not None:
                raise UserError(
                    f"recipe {recipe.name}, stage {number}: objective {name!r} compares {what}, which running "
                    "text does not have; use a recipe whose name begins with text- (layerstill recipes list), or one "
                    "of your own without it"
                )
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

    config: PretrainedConfig
    source: PretrainedConfig
    depth: int
    tokenizer: PreTrainedTokenizerBase
    init_from: str | None
    notices: list[str]


def _agree(place: str, recipe: Recipe, depth: int | None, options: Options, init_from: str | None) -> _Agreed:
    head = Body()
    config = load_config(place, head)
    source = config if init_from is None else load_config(init_from, head)
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
    return _Agreed(config, source, depth, student, init_from, special_token_notices(place, config, tokenizer))


def _settings(
    name: str, place: str, agreed: _Agreed, corpus: Corpus, recipe: Recipe, options: Options, length: Length
) -> dict[str, Any]:
    """What `run.json` keeps."""
    start = agreed.init_from
    return {
        "task": Body.word,
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
    name = f"{corpus.fingerprint}-{options.max_length}" + (f"-{most}" if most is not None else "")
    place = Path(options.cache.where) / f"corpus-{name}" if shared else folder.corpus
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
    collate = Collator(agreed.tokenizer)
    return [
        measure_step_seconds(recipe, number, student, agreed.config, encoded, collate, Body(), options).step
        for number in range(len(recipe.stages))
    ]


def _length_notices(recipe: Recipe, train: Blocks, options: Options) -> list[str]:
    mean = train.tokens / len(train)
    steps = [steps_of(stage, len(train), options.max_steps) for stage in recipe.stages]
    told = " and ".join(
        f"{n:,} steps of {stage.batch_size} blocks" for n, stage in zip(steps, recipe.stages, strict=True)
    )
    seen = sum(n * stage.batch_size for n, stage in zip(steps, recipe.stages, strict=True))
    return [f"training takes {told}, about {seen * mean:,.0f} tokens, {seen / len(train):.2g} passes over the corpus"]
