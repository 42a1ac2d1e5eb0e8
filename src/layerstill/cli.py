"""The command line: its verbs, and what becomes of their errors. Heavy imports wait until a verb needs them."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from layerstill import __version__
from layerstill.commands.augment import augment
from layerstill.commands.cache import cache
from layerstill.commands.common import PROCESS
from layerstill.commands.compress import compress
from layerstill.commands.demo import demo
from layerstill.commands.diagnose import diagnose
from layerstill.commands.distill import distill
from layerstill.commands.evaluate import evaluate
from layerstill.commands.export import export
from layerstill.commands.finetune import finetune
from layerstill.commands.help import Verb, Verbs, options_like, with_help_all
from layerstill.commands.plan import plan
from layerstill.commands.predict import predict
from layerstill.commands.recipes import recipes_app
from layerstill.commands.report import report
from layerstill.commands.study import study
from layerstill.errors import UserError

app = typer.Typer(
    name="layerstill",
    cls=Verbs,
    help="Compress transformer language models by distilling what happens inside them.\n\n"
    "`layerstill` alone says how to start, `layerstill VERB --help` what a verb needs.",
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "From a CSV to a small model": (finetune, compress, evaluate, predict, export),
    "One student, one method": (distill, plan, cache, augment, diagnose),
    "Compare": (study, report, demo),
}
for panel, verbs in PANELS.items():
    for verb in verbs:
        app.command(cls=Verb, rich_help_panel=panel)(with_help_all(verb))
app.add_typer(recipes_app, name="recipes", rich_help_panel="Compare")


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(START)


# Typer brings its own copy of click or uses the installed one; this is ClickException of whichever it is.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]
START = """\
layerstill makes a fine-tuned transformer smaller and faster, and measures what that costs.

With a CSV that has the columns text and label, three commands make a small model of it:

  layerstill finetune MODEL --task classification --data texts.csv --output teacher
  layerstill compress teacher --task classification --data texts.csv --output small
  python small/3-layers/onnx/run.py model.int8.onnx "a text"

MODEL is a pre-trained model: a folder, or a hub id such as bert-base-uncased.
Other columns: --text-columns subject,body --label-column team. Tags, scores, several labels: another --task.
See it work first: layerstill demo. All verbs: layerstill --help. One verb: layerstill compress --help."""
RESUMED = ("compress", "finetune", "distill", "study", "cache", "diagnose", "demo")
"""Verbs that go on where they were stopped; the others write their output whole or not at all."""
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


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
        if not message or "Usage:" in message:  # a bare `layerstill recipes` is answered with its help
            print(message, end="")
            sys.exit(2)
        message = message.replace("Value error, ", "")  # as the library that reads arguments begins its own words
        sys.exit(_complain(f"{_about_option(error) or message} (see --help)"))
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
        goes_on = next((a for a in sys.argv[1:] if not a.startswith("-")), None) in RESUMED
        after = "the same command resumes from the last checkpoint" if goes_on else "nothing was written"
        print(f"{word}; {after}", file=sys.stderr)
    sys.exit(status if isinstance(status, int) else 0)


def _about_option(error: Any) -> str | None:
    """What is said of an option that does not exist; None for another error."""
    word, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if "possibilities" not in vars(error) or word is None or context is None:
        return None
    like = options_like(word, context)
    return f"No such option: {word}" + (f"; did you mean {' or '.join(like)}?" if like else "")


def _complain(message: str) -> int:
    # Names come from files and may hold anything; what a terminal would act upon is written out.
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(message.split()))
    print(f"process {PROCESS}: " * bool(PROCESS) + f"error: {shown}", file=sys.stderr)
    return 2
