"""Commands whose parameters are bundles of options."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints


def bundled(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its bundles as options of their own.

    They come in the order of the parameters, and in each bundle required ones first.
    """
    hints = get_type_hints(command, include_extras=True)
    bundles = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    shown: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in bundles:
            shown.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        inner = get_type_hints(bundles[name], include_extras=True)
        for one in sorted(fields(bundles[name]), key=lambda field: field.default is not MISSING):
            default = inspect.Parameter.empty if one.default is MISSING else one.default
            kind = inspect.Parameter.KEYWORD_ONLY
            shown.append(inspect.Parameter(one.name, kind, default=default, annotation=inner[one.name]))

    @functools.wraps(command)
    def with_bundles(**given: Any) -> None:
        made = {name: kind(**{one.name: given.pop(one.name) for one in fields(kind)}) for name, kind in bundles.items()}
        command(**given, **made)

    with_bundles.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]  # which inspect looks for
    with_bundles.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return with_bundles
