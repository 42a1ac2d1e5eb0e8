"""The act `compress`: a ladder of students of one teacher, exported and measured beside it, and the one to ship."""

import logging
import shutil
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from layerstill.acts.ahead import Crew, Errand
from layerstill.acts.cache import cache as fill_cache
from layerstill.acts.distill import distill
from layerstill.acts.export import export
from layerstill.acts.inputs import Model, model_at, read_task
from layerstill.acts.ladder import Ladder, climb_down, side_by_side
from layerstill.acts.rows import Contender, measure_rows
from layerstill.acts.rungs import hushed
from layerstill.acts.trials import Trial, Trials, run_trials, slice_of
from layerstill.atomic import read_json, write_json, write_text
from layerstill.compression.choice import Budget, Choice, choose, outdone
from layerstill.compression.effort import Candidate
from layerstill.compression.rows import Row
from layerstill.data.plain import as_plain
from layerstill.errors import UserError
from layerstill.families import depth_of
from layerstill.progress import our_bars_only, showing
from layerstill.reporting.compression import markdown, page
from layerstill.result import RESULT_FILE
from layerstill.studies.capacity import AtOnce, Jobs, jobs_of, torch_threads
from layerstill.training.arguments import Options
from layerstill.training.cache_choice import CacheOptions
from layerstill.training.lock import FolderLock
from layerstill.training.models import fingerprint
from layerstill.training.records import task_fingerprint
from layerstill.training.stages import note

log = logging.getLogger("layerstill")

RECORD = "compress.json"
"""Settings when it starts; rows, trials and the choice when it is finished."""
ENOUGH = 98.0
"""Percent of the teacher from which on nothing needs to change."""
RENEWED = {"teacher", "threads", "students"}
"""Settings that may differ from those of a finished folder: its students stay, what is new is trained, and all are
measured again."""
DECIDED = {"candidates", "updates", "rungs"}
"""Settings that nothing depends on once a folder is finished; another version may have others."""
PAGE, README = "compress.html", "README.md"


@dataclass(frozen=True)
class Compression:
    """A teacher, its students, and the one to ship."""

    folder: Path
    rows: list[Row]
    choice: Choice
    trials: list[dict[str, Any]]
    """What competed before the students were trained: `name`, `updates`, `score`."""
    record: dict[str, Any]
    """All that `compress.json` holds."""


@our_bars_only()
def compress(
    teacher: Model,
    data: Any,
    output: str | Path,
    budget: Budget = Budget(),
    effort: str = "normal",
    options: Options = Options(),
    layers: Sequence[int] | None = None,
    threads: int = 1,
    student: str | Path | None = None,
    *,
    jobs: Jobs = "auto",
    tokenizer: PreTrainedTokenizerBase | None = None,
    labels: Any = None,
) -> Compression:
    """Find the smallest, fastest student of `teacher` that keeps its quality, as files that run without PyTorch.

    Short trials on a held-out slice of train choose the start, the learning rate and the recipe; a student of every
    depth of the ladder is trained with them; teacher and students are exported in 32 and in 8 bits; all are scored
    once on dev and timed in turns. Running the same thing again resumes what was interrupted.

    Args:
        teacher: a folder, a hub id, or a loaded model.
        data: as in `distill`; without a dev split a tenth of train is held out.
        output: the folder of everything.
        budget: what the model to ship may cost. It decides which row is named, not what is trained.
        effort: `quick`, `normal` or `thorough`.
        options: how to run.
        layers: depths of the students, instead of the ladder for the teacher's depth.
        threads: that models are timed with.
        student: a model that is trained as a student as it is, beside the ladder: a small public encoder, say.
        jobs: how many students are trained at a time, each in a process with its share of the cores; `auto` decides by
            cores, memory and length, and takes one on a GPU.
        tokenizer: of a loaded teacher.
        labels: of a list of texts.

    UserError for everything that does not fit together.
    """
    with showing(options.progress), model_at(teacher, tokenizer) as (place, name):
        named = None if student is None else str(student)
        ladder = climb_down(place, read_task(data, place, labels), effort, options, layers, budget.max_mb, named)
        folder = Path(output)
        # Another budget alone must not ask for other students than those that are there.
        ladder = replace(ladder, overrides=_overrides_in(folder, ladder.overrides))
        settings = _settings(ladder, name, threads)
        jobs_of(str(jobs))  # refused before there is a folder
        there = _open(folder, settings)
        at_once = _at_once(ladder, jobs, there)
        lock = FolderLock(folder)
        lock.take()
        try:
            if "rows" not in there or any(there[key] != settings[key] for key in RENEWED - {"teacher"}):
                write_json(folder / RECORD, there | {"at_once": _told(at_once)})
                there = settings | _carry_out(ladder, folder, threads, there | settings, at_once)
                write_json(folder / RECORD, there)
                for part in ("cache", "trials"):  # once nothing needs them any more
                    shutil.rmtree(folder / part, ignore_errors=True)
            else:
                note([f"{folder} already holds this, finished; only the budget is applied again"])
            return _concluded(folder, there, budget)
        finally:
            lock.release()


def _at_once(ladder: Ladder, jobs: Jobs, there: dict[str, Any]) -> AtOnce:
    """How many students at a time: `auto` does what was done before, since threads change the last bits of results."""
    if jobs == "auto" and "at_once" in there and "rows" not in there:
        return AtOnce(**there["at_once"])
    return side_by_side(ladder, jobs)


def _told(at_once: AtOnce) -> dict[str, int]:
    return {"count": at_once.count, "threads": at_once.threads}


def _settings(ladder: Ladder, teacher: str, threads: int) -> dict[str, Any]:
    return {
        "teacher": teacher,
        "teacher_fingerprint": fingerprint(ladder.teacher, ladder.config),
        "task": ladder.task.name,
        "data_fingerprint": task_fingerprint(ladder.task),
        "effort": ladder.effort_name,
        "students": {one.name: one.to_data() for one in ladder.students},
        "updates": ladder.updates,
        "rungs": list(ladder.rungs),
        "candidates": [candidate.name for candidate in ladder.candidates],
        "overrides": list(ladder.overrides),
        "seed": ladder.options.seed,
        "max_length": ladder.options.max_length,
        "precision": ladder.options.precision,
        "threads": threads,
    }


def _overrides_in(folder: Path, else_: tuple[str, ...]) -> tuple[str, ...]:
    """The settings of the students that a folder has or will have."""
    try:
        return tuple(map(str, read_json(folder / RECORD)["overrides"]))
    except (OSError, ValueError, LookupError, TypeError):
        return else_


def _open(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What is known of this in the folder, which is made for it; UserError if it holds anything else."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder}: a file, not a folder")
    if folder.is_dir() and any(folder.iterdir()):
        try:
            there = read_json(folder / RECORD)
            free = RENEWED | (DECIDED if "rows" in there else set())
            differing = [key for key in settings if key not in free and there.get(key) != settings[key]]
        except (OSError, ValueError, AttributeError):
            raise UserError(f"--output {folder}: not empty, and not made by compress; choose a new folder") from None
        if differing:
            key = differing[0]
            raise UserError(
                f"--output {folder} holds another compression: {key} is {there.get(key)} there and "
                f"{settings[key]} here; choose a new folder, or delete that one"
            )
        return dict(there)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD, settings)
    return settings


def _carry_out(ladder: Ladder, folder: Path, threads: int, there: dict[str, Any], at_once: AtOnce) -> dict[str, Any]:
    """Trials, students, exports, rows: what `compress.json` holds of them. `there` is what it holds already."""
    cache = CacheOptions(str(folder / "cache"), ladder.options.cache.budget_gb)
    options = replace(ladder.options, max_steps=None, cache=cache)
    with Crew(at_once.count, at_once.threads) as crew:
        if "chosen" in there:
            candidate, trials = Candidate(**there["chosen"]), there["trials"]
        else:
            if at_once.count > 1:
                _fill_caches(ladder, options)
            with torch_threads(at_once.threads):
                candidate, trials = _chosen(ladder, folder, options, crew)
            decided = {"chosen": asdict(candidate), "trials": trials, "at_once": _told(at_once)}
            write_json(folder / RECORD, there | decided)
        if at_once.count > 1:
            _students_ahead(ladder, candidate, folder, options, crew)
    contenders = [replace(_contender("teacher", ladder.teacher, folder / "teacher-onnx", ladder), teaches=True)]
    scores: dict[str, float] | None = None
    verdicts = {}
    for number, one in enumerate(ladder.students, 1):
        home = folder / one.folder
        done_ahead = (home / RESULT_FILE).exists()
        if not done_ahead:
            log.info("%s, %d updates", one.what, ladder.updates)
        recipe = ladder.recipe(candidate, ladder.updates, one)
        quiet = hushed() if done_ahead else nullcontext()
        with showing(what=_label(ladder, number)), quiet, torch_threads(at_once.threads):
            done = distill(
                ladder.teacher,
                ladder.task,
                recipe,
                one.layers,
                home,
                options,
                teacher_metrics=scores,
                student=one.model,
            )
        scores = done.record.teacher_metrics
        verdicts[one.name] = done.record.verdict
        contenders.append(_contender(one.name, str(home), home / "onnx", ladder))
    log.info("scoring and timing %d models in three forms", len(contenders))
    rows = measure_rows(contenders, ladder.task, "dev", ladder.options.max_length, threads, folder)
    return {
        "at_once": _told(at_once),
        "chosen": asdict(candidate),
        "trials": trials,
        "examples": len(ladder.task.splits["dev"]),
        "metric": ladder.task.metrics[0],
        "verdicts": verdicts,
        "rows": [row.to_data() for row in rows],
    }


def _label(ladder: Ladder, number: int) -> str:
    return f"student {number} of {len(ladder.students)} ({ladder.students[number - 1].name})"


def _fill_caches(ladder: Ladder, options: Options) -> None:
    """Ask the teacher with all cores, once, before several processes would."""
    middle = ladder.middle
    for candidate in {candidate.recipe: candidate for candidate in ladder.candidates}.values():
        recipe = ladder.recipe(candidate, ladder.updates, middle)
        with suppress(UserError), hushed():  # of recipes that no cache serves; what is cached is said by the runs
            fill_cache(ladder.teacher, ladder.task, recipe, middle.layers, options)


def _students_ahead(ladder: Ladder, candidate: Candidate, folder: Path, options: Options, crew: Crew) -> None:
    """Have the students trained that are not there yet, those that take longest first."""
    missing = [
        (number, one)
        for number, one in enumerate(ladder.students, 1)
        if not (folder / one.folder / RESULT_FILE).exists()
    ]
    task = as_plain(ladder.task)
    if not missing or task is None:
        return
    log.info("students of %d updates, %d at a time", ladder.updates, min(crew.count, len(missing)))
    errands = []
    for number, one in sorted(missing, key=lambda pair: (-(pair[1].layers or depth_of(ladder.config)), pair[0])):
        trial = Trial(one.name, ladder.recipe(candidate, ladder.updates, one), one.layers)
        what, home = _label(ladder, number), folder / one.folder
        errands.append(Errand.of(what, ladder.teacher, task, [trial], home, options, student=one.model))
    crew.do(errands)


def _chosen(ladder: Ladder, folder: Path, options: Options, crew: Crew) -> tuple[Candidate, list[dict[str, Any]]]:
    """The candidate that the students are trained with, and what the trials gave."""
    if not ladder.rungs or len(ladder.candidates) == 1:
        return ladder.candidates[0], []
    named = {candidate.name: candidate for candidate in ladder.candidates}
    middle = ladder.middle
    trials = [
        Trial(name, ladder.recipe(candidate, ladder.updates, middle), middle.layers)
        for name, candidate in named.items()
    ]
    log.info("%d candidates compete, each as a %s", len(trials), middle.what)
    held_out, place = slice_of(ladder.task, ladder.options.seed), folder / "trials"
    task = as_plain(held_out) if crew.count > 1 else None

    def ahead(some: Sequence[Trial], updates: int) -> None:
        if task is not None:
            shares = [some[start :: crew.count] for start in range(min(crew.count, len(some)))]
            crew.do([Errand.of("candidate", ladder.teacher, task, one, place, options, updates) for one in shares])

    found = run_trials(ladder.teacher, held_out, trials, list(ladder.rungs), place, options, ahead=ahead)
    log.info("chosen: %s", found.chosen.name)
    return named[found.chosen.name], _shown(found)


def _shown(found: Trials) -> list[dict[str, Any]]:
    return [
        {"name": one.trial.name, "updates": one.updates, "score": one.score} for rung in found.rungs for one in rung
    ]


def _contender(name: str, model: str, output: Path, ladder: Ladder) -> Contender:
    dev = len(ladder.task.splits["dev"])
    most = max(1.0, 250 / dev)  # a few texts of a small split are more than a point
    length = ladder.options.max_length
    with showing(what=name):
        exported = export(model, ladder.task, output, int8=True, max_drop=most, max_length=length, split="dev")
    return Contender(name, model, exported)


def _concluded(folder: Path, record: dict[str, Any], budget: Budget) -> Compression:
    """The choice among the rows, written as README and page."""
    rows = [Row.from_data(row) for row in record["rows"]]
    choice = choose(rows, budget, collapsed_in(record["verdicts"]))
    advice = _advice(choice, rows, record["verdicts"], record["effort"])
    choice = replace(choice, sentences=(*choice.sentences, *advice))
    title = f"{record['task']}: {record['teacher']}, compressed"
    how = (
        f"Scores are {record['metric']} on {record['examples']} texts of dev, times 100; kept is the share of the "
        f"teacher in PyTorch. Times are for one text and for batches of 32, tokenisation included, {record['threads']} "
        f"thread{'s' * (record['threads'] != 1)}, on this machine's CPU, all models in turns. 1 MB is 10^6 bytes."
    )
    trials = [
        {**trial, "score": "failed" if trial["score"] is None else f"{100 * trial['score']:.1f}"}
        for trial in record["trials"]
    ]
    write_text(folder / README, markdown(rows, choice, title, how))
    write_text(folder / PAGE, page(rows, choice, title, how, trials))
    record |= {
        "budget": asdict(budget),
        "ship": choice.row.path if choice.row else None,
        "verdict": list(choice.sentences),
    }
    write_json(folder / RECORD, record)
    return Compression(folder, rows, choice, record["trials"], record | {"title": title, "how": how})


def _advice(choice: Choice, rows: Sequence[Row], verdicts: dict[str, list[str]], effort: str) -> list[str]:
    """The one change most likely to help the students, and who has learnt one answer."""
    warnings = [f"{model}: {verdicts[model][0]}" for model in sorted(collapsed_in(verdicts))] + outdone(rows)
    kept = [row.kept for row in rows if not row.teaches and row.form == "torch" and row.kept is not None]
    if choice.row is not None and not choice.row.teaches and (choice.row.kept or 0) >= ENOUGH:
        return [*warnings, "Nothing needs to change: it keeps the teacher's quality."]
    if effort != "thorough" and kept and max(kept) < ENOUGH:
        return [
            *warnings,
            "Most likely to help: --effort thorough in another folder, which trains longer.",
        ]
    if choice.row is None or choice.row.teaches:
        return [*warnings, "Most likely to help: deeper students, such as --layers with one more layer."]
    return [*warnings, "Most likely to help: more texts in train; with distill --unlabelled the teacher labels them."]


def collapsed_in(verdicts: dict[str, list[str]]) -> set[str]:
    """Names of the students whose verdict warns that they say one thing of everything."""
    return {model for model, lines in verdicts.items() if lines and lines[0].startswith("WARNING")}
