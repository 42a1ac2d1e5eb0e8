"""The act `distill` on running text, before there is a task (How to Distill your BERT, arXiv 2305.15032, section 4)."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from layerstill.acts.agree_text import TextAgreement, agree_text
from layerstill.acts.inputs import Model, model_at, read_recipe
from layerstill.acts.text_corpus import packed
from layerstill.acts.text_length import TIMED, Length, in_passes, in_steps, length_notice, steps_in_hours, time_steps
from layerstill.data.text.blocks import Blocks, held_out
from layerstill.data.text.estimate import divided
from layerstill.data.text.packing import Corpus, Packed, describe, to_record
from layerstill.data.text.streams import corpus_at
from layerstill.heads import Head
from layerstill.names import DEFAULT_TEXT_RECIPE, TEXT_TASK
from layerstill.progress import our_bars_only, showing
from layerstill.recipe import Recipe
from layerstill.reporting.model_card import card_writer
from layerstill.result import Result
from layerstill.students.build import build_student, chosen_layers
from layerstill.training.arguments import Options, dtype_of
from layerstill.training.models import (
    adopt_padding,
    fingerprint,
    load_body,
    load_language_model,
    with_weights_in,
)
from layerstill.training.records import RunFolder, folder_for
from layerstill.training.stages import note
from layerstill.training.text_run import TextRun


@our_bars_only()
def distill_text(
    teacher: Model,
    data: str | Path | Corpus,
    recipe: str | Path | Recipe = DEFAULT_TEXT_RECIPE,
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
        data: a `Corpus`, or the file or folder of one (`.txt .jsonl .parquet .csv .tsv`, also packed as `.gz`), a data
            set of the hub as `hub:NAME[@REVISION][:CONFIG[:SPLIT]]`, or `-` for standard input.
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
    corpus = data if isinstance(data, Corpus) else corpus_at(data)
    recipe = read_recipe(recipe)
    length.agree(corpus, recipe, options)
    with showing(options.progress), model_at(teacher, tokenizer) as (place, name):
        agreed = agree_text(place, recipe, student_layers, options, None if init_from is None else str(init_from))
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
            agreed, found, blocks = _read(corpus, agreed, options, length, folder)
            train, dev = divided(blocks)
            text = to_record(found.documents, train, dev, agreed.tokens)
            note([describe(text, options.max_length)])
            recipe = _settled(recipe, train, length, folder, agreed, options)
            note([length_notice(recipe, len(train), train.tokens, options)])
            set_seed(options.seed)
            built = build_student(source, agreed.depth, recipe.student, options.seed, vocabulary=agreed.vocabulary)
            chosen = chosen_layers(source.config, agreed.depth, recipe.student, options.seed)
            return TextRun(
                folder=folder,
                student=built,
                teacher=with_weights_in(teacher_model, dtype_of(options.precision)),
                tokenizer=agreed.tokenizer,
                tokens=agreed.tokens,
                train_blocks=train,
                dev_blocks=dev,
                recipe=recipe,
                head=agreed.head,
                options=options,
                origin={"layers": chosen or "random weights", "from": agreed.init_from or "teacher"},
                text=text,
                describe=card_writer(recipe, agreed.head),
            ).train()


def _loaded(place: str, head: Head) -> PreTrainedModel:
    return load_language_model(place, head) if head.speaks else load_body(place)


def _settings(
    name: str, place: str, agreed: TextAgreement, corpus: Corpus, recipe: Recipe, options: Options, length: Length
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


def _read(
    corpus: Corpus, agreed: TextAgreement, options: Options, length: Length, folder: RunFolder
) -> tuple[TextAgreement, Packed, Blocks]:
    """The corpus as blocks of tokens; for a smaller vocabulary it is packed twice, first to count what it needs."""
    whole = agreed.tokenizer
    if corpus.open_ended and length.hours is not None and folder.kept("steps") is None:
        # How much is needed depends on what a step takes.
        _, some = packed(corpus, whole, options, TIMED * options.max_length, folder.corpus / "first")
        _keep_steps(agreed.recipe, some, length.hours, folder, agreed, options)
    most = length.most(corpus, agreed.recipe, options, folder.kept("steps"))
    if agreed.recipe.student.vocabulary is None:
        return agreed, *packed(corpus, whole, options, most, folder.corpus)
    _, blocks = packed(corpus, whole, options, most, folder.corpus / "whole")
    counts = blocks.counts()
    agreed = agreed.trimmed(counts)
    found, blocks = packed(corpus, agreed.tokenizer, options, most, folder.corpus)
    note([agreed.vocabulary_notice(counts, blocks.counts(), len(whole))])
    return agreed, found, blocks


def _settled(
    recipe: Recipe, train: Blocks, length: Length, folder: RunFolder, agreed: TextAgreement, options: Options
) -> Recipe:
    """The recipe with its stages as long as tokens or hours say, in the proportions that it has."""
    if length.hours is None:
        return in_passes(recipe, length, len(train), train.tokens)
    if folder.kept("steps") is None:
        _keep_steps(recipe, train, length.hours, folder, agreed, options)
    return in_steps(recipe, folder.kept("steps"), len(train))


def _keep_steps(
    recipe: Recipe, blocks: Blocks, hours: float, folder: RunFolder, agreed: TextAgreement, options: Options
) -> None:
    """Time a few steps on some of the blocks, and keep in the folder how many there are in so many hours."""
    some = blocks.part(held_out(len(blocks)).nonzero()[0][:TIMED])
    seconds = [made.step for made in time_steps(recipe, some, agreed, options)]
    folder.keep("steps", steps_in_hours(recipe, hours, seconds))
