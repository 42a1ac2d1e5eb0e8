"""The two acts: `finetune` a model on a task, `distill` a teacher into a student."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from layerstill.data.checks import chance_notices, data_counts, data_notices, supplementary_notices
from layerstill.data.encode import usable_length
from layerstill.data.label_agreement import agree_on_labels, fit_all
from layerstill.data.ood import OodSet
from layerstill.data.regimes import other_regime
from layerstill.data.supplementary import Supplementary
from layerstill.data.tasks import Task
from layerstill.errors import UserError
from layerstill.evaluation.predict import evaluate_split
from layerstill.families import depth_of, family_of
from layerstill.heads import Head, head_settings
from layerstill.recipe import Recipe
from layerstill.result import Result
from layerstill.students.build import build_student, chosen_layers, student_config
from layerstill.students.vocabulary import Vocabulary, trim_vocabulary
from layerstill.training.arguments import Options, dtype_of
from layerstill.training.compiling import refuse_compiling
from layerstill.training.models import (
    adopt_padding,
    fingerprint,
    load_config,
    load_fine_tuned,
    load_for_finetuning,
    load_tokenizer,
    refuse_other_tokens,
    require_head,
    special_token_notices,
    with_weights_in,
)
from layerstill.training.module import bind_objectives
from layerstill.training.records import RunFolder, task_fingerprint
from layerstill.training.stages import StagedRun, note

log = logging.getLogger("layerstill")


def distill(
    teacher: str,
    task: Task,
    recipe: Recipe,
    student_layers: int,
    output: str | Path,
    options: Options = Options(),
    init_from: str | None = None,
    ood: Sequence[OodSet] = (),
    supplementary: Supplementary | None = None,
    teacher_metrics: dict[str, float] | None = None,
    describe: Callable[[Result], None] | None = None,
) -> Result:
    """Distil a fine-tuned `teacher` (folder or hub id) into a student of `student_layers` layers.

    The student is cut from the teacher, or from the model `init_from` (its pre-trained parent, say), as the recipe's
    `student` section says. `supplementary` has the texts of stages with `data: supplementary`; the student is scored on
    the sets `ood`, too. `teacher_metrics` are the teacher's scores on dev, if they are known. `output` becomes a plain
    model folder with the record of the run beside it, and `describe` may write about the result in that folder, just
    before the run counts as finished. Running the same thing again in the same folder resumes what was
    interrupted and returns what is finished.
    """
    recipe.agree_on_supplementary(supplementary is not None)
    config = load_config(teacher, task.head)
    require_head(teacher, config, task.head)
    task, notices = agree_on_labels(task, config, f"teacher {teacher}")
    if supplementary is not None:
        supplementary.refuse_words(task)
    fitted = fit_all(ood, task)
    source_config = config if init_from is None else load_config(init_from, task.head)
    refuse_misfits(recipe, config, source_config, student_layers, options.seed, task.head)
    if options.compile:
        refuse_compiling(config)
    tokenizer = load_tokenizer(teacher, config)
    usable_length(options.max_length, tokenizer, config)
    if init_from is not None:
        refuse_other_tokens(init_from, source_config, config, tokenizer.get_vocab())
    vocabulary = student_vocabulary(recipe, tokenizer, task, config, supplementary)
    checks = data_counts(task)
    notices += task.notices
    if supplementary is not None:
        notices += [*supplementary.notices, *supplementary_notices(task, supplementary.texts)]
    notices += [*data_notices(task, checks), *special_token_notices(teacher, config, tokenizer)]
    notices += [*other_regime(task, Path(teacher)), *(notice for ood_set in fitted for notice in ood_set.notices)]
    settings = {
        "teacher": teacher,
        "teacher_fingerprint": fingerprint(teacher, config),
        "student_layers": student_layers,
        "init_from": init_from,
        "init_from_fingerprint": init_from and fingerprint(init_from, source_config),
        "supplementary": supplementary and supplementary.fingerprint,
        "data_checks": checks,
    }
    # Models are loaded before the folder is made, so that a damaged one leaves nothing behind.
    set_seed(options.seed)  # a source without a head for this task gets a random one
    teacher_model = load_fine_tuned(teacher, task.head)
    source = teacher_model if init_from is None else load_for_finetuning(init_from, task)
    for model in (teacher_model, source):
        adopt_padding(model, tokenizer)
    with RunFolder(output, _settings(task, recipe, options, ood) | settings) as folder:
        if done := folder.finished:
            return _nothing_to_do(done)
        note(notices)
        if not recipe.needs_teacher:
            teacher_metrics = {}
        elif teacher_metrics is None:
            teacher_metrics = _score_teacher(teacher_model, tokenizer, task, options)
        set_seed(options.seed)
        student = build_student(source, student_layers, recipe.student, options.seed, config, vocabulary)
        chosen = chosen_layers(source.config, student_layers, recipe.student, options.seed)
        origin = {"layers": chosen or "random weights", "from": init_from or "teacher"}
        # After the student was cut from it: the student's weights stay in fp32.
        used = with_weights_in(teacher_model, dtype_of(options.precision)) if recipe.needs_teacher else None
        tokenizer, tokens = (vocabulary.tokenizer, vocabulary.kept) if vocabulary else (tokenizer, None)
        common = (folder, student, used, tokenizer, task, recipe, options)
        return StagedRun(*common, teacher_metrics, origin, tokens, fitted, supplementary, describe).train()


def finetune(
    model: str,
    task: Task,
    output: str | Path,
    recipe: Recipe | None = None,
    options: Options = Options(),
    ood: Sequence[OodSet] = (),
    describe: Callable[[Result], None] | None = None,
) -> Result:
    """Fine-tune `model` (folder or hub id) on a task: the recipe `finetune`; `ood` and `describe` as in `distill`."""
    config = load_config(model, task.head)
    recipe = recipe or Recipe.load("finetune")
    if recipe.needs_teacher:
        raise UserError("finetune takes a recipe without a teacher; use distill")
    if recipe.supplementary_stages:
        raise UserError("finetune trains on the task alone; stages with data: supplementary belong to distill")
    fitted = fit_all(ood, task)
    if recipe.student.narrower or recipe.student.vocabulary:
        raise UserError("finetune trains a model as wide as it is; student widths and vocabulary belong to distill")
    if options.compile:
        refuse_compiling(config)
    tokenizer = load_tokenizer(model, config)
    usable_length(options.max_length, tokenizer, config)
    checks = data_counts(task)
    settings = {"model": model, "model_fingerprint": fingerprint(model, config), "data_checks": checks}
    set_seed(options.seed)
    student = load_for_finetuning(model, task)
    adopt_padding(student, tokenizer)
    with RunFolder(output, _settings(task, recipe, options, ood) | settings) as folder:
        if done := folder.finished:
            return _nothing_to_do(done)
        note([*task.notices, *data_notices(task, checks), *special_token_notices(model, config, tokenizer)])
        note([notice for ood_set in fitted for notice in ood_set.notices])
        origin = {"layers": "all", "from": model}
        common = (folder, student, None, tokenizer, task, recipe, options)
        return StagedRun(*common, {}, origin, ood=fitted, describe=describe).train()


def student_vocabulary(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    teacher: PretrainedConfig,
    supplementary: Supplementary | None = None,
) -> Vocabulary | None:
    """The smaller vocabulary that a recipe asks for, of all texts it trains on; None for the teacher's own."""
    size = recipe.student.vocabulary
    if size is None:
        return None
    texts = [*task.splits["train"].texts, *(supplementary.texts if supplementary else ())]
    return trim_vocabulary(tokenizer, texts, size, family_of(teacher).position_offset)


def refuse_misfits(
    recipe: Recipe, teacher: PretrainedConfig, source: PretrainedConfig, depth: int, seed: int, head: Head
) -> None:
    """UserError for a depth or an objective that two models cannot meet, before anything is loaded or written."""
    total = depth_of(source)
    if not 1 <= depth <= total:
        whose = "the teacher" if source is teacher else "the model of --init-from"
        raise UserError(f"--student-layers {depth}: {whose} has {total} layers; choose 1 to {total}")
    student = student_config(source, depth, recipe.student, seed)
    for stage in recipe.stages:
        for objective in bind_objectives(stage, student, teacher, head, seed):
            with torch.random.fork_rng(devices=[]):
                objective.build()


def _settings(task: Task, recipe: Recipe, options: Options, ood: Sequence[OodSet]) -> dict[str, Any]:
    return {
        "task": task.name,
        **({"head": own_head} if (own_head := head_settings(task.head)) is not None else {}),
        **({"regime": task.regime} if task.regime else {}),
        **({"ood": {ood_set.name: ood_set.fingerprint for ood_set in ood}} if ood else {}),
        "data_fingerprint": task_fingerprint(task),
        "recipe": recipe.model_dump(mode="json", exclude={"name"}),
        "seed": options.seed,
        "max_length": options.max_length,
        "max_steps": options.max_steps,
        "precision": options.precision,
        **({"compile": True} if options.compile else {}),
        "cache": options.cache.where if options.cache.where in {"auto", "off"} else "shared",
    }


def _nothing_to_do(result: Result) -> Result:
    note([f"{result.folder} already holds this run, finished"])
    return result


def _score_teacher(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, options: Options
) -> dict[str, float]:
    metrics, _ = evaluate_split(teacher, tokenizer, task, "dev", options.max_length)
    log.info("teacher on dev: %s", ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
    note(chance_notices(task, metrics))
    return metrics
