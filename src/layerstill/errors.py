"""Mistakes a user can make and mend, as opposed to bugs in layerstill."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the input: one line that says what, where, both values and the way out.

    The command line prints it without a traceback and leaves with exit status 2.
    """


class ObjectiveError(UserError):
    """An objective that is zero or not finite, outputs that are not, or a capture that came back empty."""


def nearest(name: object, known: Iterable[object]) -> str:
    """Words that follow "unknown ...": the closest known name if there is one, then all of them."""
    names = [str(k) for k in known]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names)}"
