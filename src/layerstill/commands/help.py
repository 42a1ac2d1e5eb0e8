"""What `--help` shows: what a beginner needs, with `--help-all` every option, and an example at the end."""

import copy
import difflib
import functools
import inspect
import shutil
import textwrap
from collections.abc import Callable, Iterable
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from layerstill.errors import UserError, nearest

WIDTH = 100
"""Columns that help fills at most, however wide the terminal."""
_EXAMPLE = "\n\nExample:"
_FEW = 3
"""So many special options are shown at once."""
_LIKE = 3
"""At most so many options are named beside a misspelt one."""
_NEAR, _NEARLY_AS_NEAR = 0.6, 0.15


def with_help_all(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option `--help-all`, which the class `Verb` answers."""
    ours = inspect.Parameter(HELP_ALL, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_HelpAll)
    signature = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)
    theirs = [one.replace(annotation=hints[one.name]) for one in signature.parameters.values()]

    @functools.wraps(command)
    def with_option(help_all: bool = False, **given: Any) -> None:  # which was answered before, or not asked for
        command(**given)

    with_option.__signature__ = signature.replace(parameters=[*theirs, ours])  # type: ignore[attr-defined]  # as in `bundled`
    with_option.__annotations__ = {one.name: one.annotation for one in [*theirs, ours]}
    return with_option


def _answer(context: typer.Context, asked: bool) -> None:
    if asked and not context.resilient_parsing and isinstance(context.command, Verb):
        context.command.show_all(context)
        raise typer.Exit


HELP_ALL = "help_all"
_HelpAll = Annotated[
    bool,
    typer.Option("--help-all", help="Show every option.", is_eager=True, callback=_answer, show_default=False),
]


class _Flags:
    """A command whose flags are shown without a type."""

    def get_params(self, ctx: Any) -> Any:
        options = super().get_params(ctx)  # type: ignore[misc]  # of the command that this is mixed into
        for option in options:
            if getattr(option, "is_flag", False):
                option.metavar = ""
        return options


class Verb(_Flags, TyperCommand):
    """A command with two helps.

    `--help` shows the options without a panel of their own, and the others where they are few; `--help-all` shows all.
    What follows `Example:` at the end of the docstring comes last, as it is written.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.help, _, example = (self.help or "").partition(_EXAMPLE)
        self.example = textwrap.dedent(example).strip()
        more = len(self.params) - len(self._basic())
        for option in self.params:
            if option.name == HELP_ALL and more:
                option.help = f"Show every option: {more} more."  # type: ignore[attr-defined]  # an option has it

    def show_all(self, context: typer.Context) -> None:
        """Print the help with every option."""
        formatter = context.make_formatter()
        self._write(self, context, formatter)
        typer.echo(formatter.getvalue().rstrip("\n"))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write what a beginner needs."""
        short = copy.copy(self)
        short.params = self._basic()
        self._write(short, ctx, formatter)

    def _basic(self) -> list[Any]:
        basic = [option for option in self.params if getattr(option, "rich_help_panel", None) is None]
        return basic if len(self.params) - len(basic) > _FEW else self.params

    def _write(self, shown: "Verb", context: Any, formatter: Any) -> None:
        _limit_width()
        super(Verb, shown).format_help(context, formatter)
        if self.example:
            formatter.write(f"\n Example:\n\n{textwrap.indent(self.example, '   ')}\n")


class Verbs(_Flags, TyperGroup):
    """The verbs together; a misspelt one is answered with those that are like it."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the list of verbs."""
        _limit_width()
        super().format_help(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb of the first word; UserError, with the nearest and all there are, if there is none."""
        word = args[0]
        if not word.startswith("-") and self.get_command(ctx, word) is None and not ctx.resilient_parsing:
            raise UserError(f"No such command {word!r}: {nearest(word, self.list_commands(ctx))} (see --help)")
        return super().resolve_command(ctx, args)


def options_like(word: str, context: Any) -> list[str]:
    """The options of a command that a misspelt one may mean, the most alike first."""
    options = [
        name for option in context.command.get_params(context) for name in (*option.opts, *option.secondary_opts)
    ]
    names = {name.lstrip("-"): name for name in options if name.startswith("--")}
    return [names[name] for name in _alike(word.lstrip("-").replace("_", "-").lower(), names)]


def _alike(word: str, names: Iterable[str]) -> list[str]:
    """Names that are spelt nearly so, have the word among theirs (`--layers`), or its letters as initials (`--lr`)."""
    near = {name: difflib.SequenceMatcher(None, word, name).ratio() for name in names}
    for name in near:
        parts = name.split("-")
        if word in parts or word == "".join(part[0] for part in parts) != name:
            near[name] = max(near[name], 0.9)
    best = max(near.values(), default=0)
    alike = [name for name, ratio in near.items() if ratio >= max(_NEAR, best - _NEARLY_AS_NEAR)]
    return sorted(alike, key=lambda name: -near[name])[:_LIKE]


def _limit_width() -> None:
    from typer import rich_utils

    rich_utils.MAX_WIDTH = min(WIDTH, shutil.get_terminal_size().columns)
