"""The command line: parse, call, print. Heavy imports wait until a verb needs them."""

import json
import logging
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from layerstill.errors import UserError
from layerstill.options import (
    DATA,
    BatchSize,
    Cache,
    CacheBudget,
    Data,
    Dev,
    Epochs,
    Init,
    InitFrom,
    Json,
    LabelColumn,
    LearningRate,
    MaxLength,
    MaxSteps,
    Output,
    Precision,
    PrecisionOption,
    Quiet,
    RecipeName,
    ReportTo,
    Seed,
    Set,
    StudentLayers,
    Task_,
    TextColumns,
    TrainExamples,
)

app = typer.Typer(
    name="layerstill",
    help="Compress transformer language models by distilling what happens inside them.\n\n"
    "Start with `layerstill demo`, then `layerstill distill TEACHER --task mrpc --data glue --recipe rail-kd-l "
    "--student-layers 3 --output small`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
recipes_app = typer.Typer(no_args_is_help=True, help="List, show and check recipes: methods as YAML files.")
app.add_typer(recipes_app, name="recipes")


@app.command()
def finetune(
    model: Annotated[str, typer.Argument(help="A pre-trained model: a folder or a hub id.")],
    task: Task_,
    output: Output,
    data: Data = None,
    dev: Dev = None,
    text_columns: TextColumns = None,
    label_column: LabelColumn = "label",
    train_examples: TrainExamples = None,
    max_length: MaxLength = 128,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    max_steps: MaxSteps = None,
    set_: Set = None,
    seed: Seed = 0,
    precision: PrecisionOption = Precision.auto,
    report_to: ReportTo = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a pre-trained model on a task: this makes a teacher."""
    _setup(quiet or json_)
    from layerstill.recipe import Recipe
    from layerstill.training import run

    recipe = Recipe.load("finetune", tuple(set_ or ())).limited(epochs, batch_size, learning_rate)
    the_task = _task(task, data, dev, text_columns, label_column, train_examples)
    options = _options(seed, max_length, max_steps, precision, quiet or json_, report_to)
    _show(run.finetune(model, the_task, output, recipe, options), json_)


@app.command()
def distill(
    teacher: Annotated[str, typer.Argument(help="A fine-tuned model: a folder or a hub id.")],
    task: Task_,
    student_layers: StudentLayers,
    output: Output,
    recipe: RecipeName = "kd",
    data: Data = None,
    dev: Dev = None,
    text_columns: TextColumns = None,
    label_column: LabelColumn = "label",
    train_examples: TrainExamples = None,
    max_length: MaxLength = 128,
    init: Init = None,
    init_from: InitFrom = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    max_steps: MaxSteps = None,
    set_: Set = None,
    seed: Seed = 0,
    precision: PrecisionOption = Precision.auto,
    cache: Cache = "auto",
    cache_budget: CacheBudget = 4.0,
    report_to: ReportTo = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Distil a fine-tuned teacher into a student with fewer layers.

    The output folder is an ordinary model folder: `AutoModelForSequenceClassification.from_pretrained(OUTPUT)`.
    A run that was interrupted goes on when the same command is given again. Several processes share every batch:
    `torchrun --nproc_per_node 2 -m layerstill distill ...`
    """
    _setup(quiet or json_)
    from layerstill.training import run
    from layerstill.training.cache_choice import CacheOptions

    the_recipe = _recipe(recipe, set_, init, epochs, batch_size, learning_rate)
    the_task = _task(task, data, dev, text_columns, label_column, train_examples)
    kept = CacheOptions(cache, cache_budget)
    options = replace(_options(seed, max_length, max_steps, precision, quiet or json_, report_to), cache=kept)
    _show(run.distill(teacher, the_task, the_recipe, student_layers, output, options, init_from), json_)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A fine-tuned model or a student: a folder or a hub id.")],
    task: Task_,
    data: Data = None,
    dev: Dev = None,
    text_columns: TextColumns = None,
    label_column: LabelColumn = "label",
    split: Annotated[str, typer.Option(help="Which split to score.", rich_help_panel=DATA)] = "dev",
    max_length: MaxLength = 128,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a model on a split of a task; a single own file is scored whole."""
    _setup(quiet or json_)
    from layerstill.data.encode import usable_length
    from layerstill.errors import nearest
    from layerstill.evaluation.predict import evaluate_split
    from layerstill.training.models import adopt_padding, agree_on_labels, load_fine_tuned, load_tokenizer

    own_file = data is not None and data.is_file() and dev is None and split == "dev"
    the_task = _task(task, data, data if own_file else dev, text_columns, label_column, None)
    if split not in the_task.splits:
        raise UserError(f"--split {split}: {nearest(split, the_task.splits)}")
    loaded = load_fine_tuned(model)
    tokenizer = load_tokenizer(model, loaded.config)
    adopt_padding(loaded, tokenizer)
    the_task, notices = agree_on_labels(the_task, loaded.config, f"model {model}", subset=True)
    _say([*notices, *the_task.notices])
    usable_length(max_length, tokenizer, loaded.config)
    metrics, logits = evaluate_split(loaded, tokenizer, the_task, split, max_length)
    data_out = {"model": model, "task": the_task.name, "split": split, "examples": len(logits), "metrics": metrics}
    if json_:
        print(json.dumps(data_out, indent=2))
    else:
        print(f"{split} of {the_task.name}, {len(logits)} examples: {_scores(metrics)}")


@app.command()
def plan(
    teacher: Annotated[str, typer.Argument(help="A fine-tuned model: a folder or a hub id.")],
    task: Task_,
    student_layers: StudentLayers,
    recipe: RecipeName = "kd",
    data: Data = None,
    dev: Dev = None,
    text_columns: TextColumns = None,
    label_column: LabelColumn = "label",
    train_examples: TrainExamples = None,
    max_length: MaxLength = 128,
    init: Init = None,
    init_from: InitFrom = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    max_steps: MaxSteps = None,
    set_: Set = None,
    seed: Seed = 0,
    output: Annotated[Optional[Path], typer.Option(hidden=True)] = None,
    precision: Annotated[Optional[str], typer.Option(hidden=True)] = None,
    cache: Annotated[Optional[str], typer.Option(hidden=True)] = None,
    cache_budget: Annotated[Optional[str], typer.Option(hidden=True)] = None,
    report_to: Annotated[Optional[list[str]], typer.Option(hidden=True)] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what `distill` with the same arguments would do: pairs, captured tensors, depth, memory. Trains nothing."""
    _setup(quiet or json_)
    from layerstill.data.checks import data_counts, data_notices
    from layerstill.data.encode import usable_length
    from layerstill.plan import make_plan
    from layerstill.reporting.plan import plan_data, print_plan
    from layerstill.training.models import (
        agree_on_labels,
        load_config,
        load_tokenizer,
        refuse_other_tokens,
        require_head,
        special_token_notices,
    )
    from layerstill.training.run import student_vocabulary

    the_recipe = _recipe(recipe, set_, init, epochs, batch_size, learning_rate)
    the_task = _task(task, data, dev, text_columns, label_column, train_examples)
    config = load_config(teacher)
    require_head(teacher, config)
    the_task, notices = agree_on_labels(the_task, config, f"teacher {teacher}")
    tokenizer = load_tokenizer(teacher, config)
    usable_length(max_length, tokenizer, config)
    source = config if init_from is None else load_config(init_from)
    if init_from is not None:
        refuse_other_tokens(init_from, source, config, tokenizer.get_vocab())
    examples = len(the_task.splits["train"])
    regression = the_task.kind == "regression"
    vocabulary = student_vocabulary(the_recipe, tokenizer, the_task, config)
    bound = (the_recipe, config, source, student_layers, regression, seed)
    made = make_plan(*bound, max_length, examples, max_steps, vocabulary)
    notices += [*the_task.notices, *data_notices(the_task, data_counts(the_task))]
    _say([*notices, *special_token_notices(teacher, config, tokenizer)])
    print(json.dumps(plan_data(made), indent=2)) if json_ else print_plan(made)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where models and results are kept; a second call is fast.")] = Path(
        "runs/demo"
    ),
    seed: Seed = 0,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """The whole story on a small task, in minutes: fine-tune a teacher, distil it three ways, compare."""
    _setup(quiet or json_)
    from layerstill.demo import print_demo, run_demo

    rows = run_demo(output, seed, progress=not (quiet or json_))
    print(json.dumps(rows, indent=2)) if json_ else print_demo(rows)


@recipes_app.command("list")
def recipes_list() -> None:
    """The recipes that come with layerstill, one line each."""
    from layerstill.recipe import recipe_text, shipped_recipes

    for name in shipped_recipes():
        first = recipe_text(name).split("\n")[0].removeprefix("# ")
        print(f"{name:18} {first}")


@recipes_app.command("show")
def recipes_show(name: Annotated[str, typer.Argument(help="A recipe's name or file.")]) -> None:
    """Print a recipe as it is written, ready to be copied and changed."""
    from layerstill.recipe import recipe_text

    print(recipe_text(name), end="")


@recipes_app.command("check")
def recipes_check(file: Annotated[str, typer.Argument(help="A recipe's name or file.")], set_: Set = None) -> None:
    """Check a recipe file; print it resolved, without what is at its default."""
    from layerstill.recipe import Recipe

    recipe = Recipe.load(file, tuple(set_ or ()))
    print(f"# {file}: a valid recipe, hash {recipe.hash}\n{recipe.to_yaml()}", end="")


@recipes_app.command("schema")
def recipes_schema() -> None:
    """Print the JSON schema of recipe files, for editors that complete and check YAML."""
    from layerstill.recipe import recipe_json_schema

    print(json.dumps(recipe_json_schema(), indent=2))


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from layerstill import __version__

        print(__version__)
        raise typer.Exit


def _setup(quiet: bool) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    log = logging.getLogger("layerstill")
    log.setLevel(logging.ERROR if quiet or PROCESS else logging.INFO)
    handler = logging.StreamHandler()  # of this call's standard error, should there have been another before
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]


def _say(notices: list[str]) -> None:
    for notice in notices:
        logging.getLogger("layerstill").warning("note: %s", notice)


def _task(name: str, data: Path | None, dev: Path | None, texts: str | None, label: str, limit: int | None) -> Any:
    from layerstill.data.tasks import KINDS, Task

    own = {"--dev": dev, "--text-columns": texts, "--label-column": None if label == "label" else label}
    unused = [option for option, value in own.items() if value is not None]
    if name not in KINDS and (unused or (name == "tickets" and data is not None)):
        raise UserError(
            f"--task {name} takes no {(unused or ['--data'])[0]}; that is for --task classification or regression"
        )
    if name == "tickets":
        task = Task.demo()
    elif name in KINDS:
        if data is None:
            raise UserError(f"--task {name} needs --data: a folder with train and dev files, or one file")
        columns = tuple(c.strip() for c in texts.split(",")) if texts is not None else ()
        task = Task.from_files(name, data, dev, columns, label)
    else:
        task = Task.glue(name, data)
    return task.limited(limit)


def _recipe(
    name: str, overrides: list[str] | None, init: str | None, epochs: Any, batch_size: Any, learning_rate: Any
) -> Any:
    from layerstill.recipe import Recipe
    from layerstill.students.initialisation import parse_initialisation

    sets = list(overrides or ())
    if init is not None:
        sets.append(f"student.initialisation={json.dumps(parse_initialisation(init))}")
    return Recipe.load(name, tuple(sets)).limited(epochs, batch_size, learning_rate)


def _options(
    seed: int, max_length: int, max_steps: int | None, precision: Precision, quiet: bool, trackers: list[str] | None
) -> Any:
    from transformers.integrations import get_available_reporting_integrations

    from layerstill.errors import nearest
    from layerstill.training.arguments import Options

    for tracker in trackers or ():
        if tracker not in (there := get_available_reporting_integrations()):
            hint = nearest(tracker, there) if there else "none is installed"
            raise UserError(f"--report-to {tracker}: no such tracker is installed: {hint}")

    progress = not quiet and sys.stderr.isatty()
    return Options(seed, max_length, max_steps, precision.value, progress, tuple(trackers or ()))


def _show(result: Any, as_json: bool) -> None:
    if PROCESS:
        return
    if as_json:
        print(json.dumps(result.data, indent=2))
        return
    data = result.data
    student, train, metrics = data["student"], data["train"], dict(data["metrics"])
    selected = metrics.pop("selected")
    print(f"{result.folder}: {student['layers']} layers, {student['parameters']:,} parameters")
    print(f"dev of {data['task']} ({selected} evaluation): {_scores(metrics)}")
    if data["teacher_metrics"]:
        print(f"teacher:{' ' * 12}{_scores(data['teacher_metrics'])}")
    print(f"trained {train['steps']} steps in {train['seconds']:.0f} s, {train['examples_per_second']:.1f} examples/s")


def _scores(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


# Typer brings its own copy of click or uses the installed one; this is ClickException of whichever it is.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
PROCESS = int(os.environ.get("RANK", "0"))
"""Under torchrun or accelerate this process's number; all work, the first one speaks."""


class _Terminated(BaseException):
    """SIGTERM, as an exception so that what is open gets closed."""


def _terminate(*_: Any) -> None:
    raise _Terminated


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit status 2."""
    before = signal.getsignal(signal.SIGTERM)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:  # waiting for another process, Python would not come to handle it
        signal.signal(signal.SIGTERM, _terminate)
    try:
        status = app(prog_name="layerstill", standalone_mode=False)
    except UserError as error:
        sys.exit(_complain(str(error)))
    except _CommandLineError as error:
        # The class is found at run time, so the checker knows no more of it than that it is an exception.
        message = error.format_message()  # type: ignore[attr-defined]
        if "Usage:" in message:  # a bare `layerstill` is answered with its help
            print(message)
            sys.exit(2)
        sys.exit(_complain(f"{message} (see --help)"))
    except _Terminated:
        status = TERMINATED
    except KeyboardInterrupt:
        status = INTERRUPTED
    except OSError as error:  # a path too long, a full disk, a folder that may not be read: the user's to mend
        if error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(_complain(f"{where}{error.strerror}"))
    finally:
        signal.signal(signal.SIGTERM, before)
    if status in (INTERRUPTED, TERMINATED) and not PROCESS:
        word = "interrupted" if status == INTERRUPTED else "terminated"
        print(f"{word}; the same command goes on from the last checkpoint", file=sys.stderr)
    sys.exit(status if isinstance(status, int) else 0)


def _complain(message: str) -> int:
    # Names come from files and may hold anything; what a terminal would act upon is written out.
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(message.split()))
    print(f"process {PROCESS}: " * bool(PROCESS) + f"error: {shown}", file=sys.stderr)
    return 2
