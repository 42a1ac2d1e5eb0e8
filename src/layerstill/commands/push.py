"""Options of verbs that can upload what they made."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

import typer

from layerstill.commands.common import PROCESS
from layerstill.commands.options import RUN
from layerstill.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """Whether the finished model goes to the Hugging Face hub."""

    push_to_hub: Annotated[
        Optional[str],
        typer.Option(
            metavar="USER/NAME",
            help="Upload the finished model with its card to this repository of the Hugging Face hub, which is "
            "created private unless --public is given. Needs a token (`hf auth login`).",
            rich_help_panel=RUN,
        ),
    ] = None
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see what --push-to-hub uploads.", rich_help_panel=RUN)
    ] = False

    def check(self) -> None:
        """UserError if it could not be uploaded, before anything is done."""
        if self.public and self.push_to_hub is None:
            raise UserError("--public: nothing is uploaded; add --push-to-hub USER/NAME, or leave it out")
        if self.push_to_hub is not None:
            from layerstill.acts.push import refuse_unready

            refuse_unready(self.push_to_hub, self.public)

    def push(self, folder: Path) -> None:
        """Upload a finished folder if that was asked for, and say where it is."""
        if self.push_to_hub is None or PROCESS:
            return
        from layerstill.acts.push import card_words, push_to_hub

        found = push_to_hub(folder, self.push_to_hub, self.public)
        seen = "private" if found.private else "public"
        removed = f", removed of the earlier upload: {', '.join(found.removed)}" if found.removed else ""
        told = f"{seen}{card_words(found)}{removed}"
        print(f"{found.url}: {len(found.files)} files, {found.megabytes} MB, {told}", file=sys.stderr)
