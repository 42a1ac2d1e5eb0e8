"""Names by what differs: of things that stand beside each other, a name says no more than what tells them apart."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath

_HASHLIKE = re.compile(r"(?:[\w.]+-)*[0-9a-f]{6,64}")
_DIGIT = re.compile(r"\d")


def telling(parts: Sequence[Mapping[str, str]]) -> list[str]:
    """A name for each of `parts`, made of the first parts that tell it apart; the first part if nothing does.

    All have the same keys, in the order of how much they tell a reader. A name that is already a thing's own gets no
    further part, so two things of one recipe may be told apart by their size, and a third need not say its own.
    """
    names = [""] * len(parts)

    def tell(members: Sequence[int], keys: Sequence[str]) -> None:
        key = next((key for key in keys if len({parts[i][key] for i in members}) > 1), None)
        if key is None:
            return
        alike: dict[str, list[int]] = {}
        for i in members:
            alike.setdefault(parts[i][key], []).append(i)
            names[i] = ", ".join(filter(None, (names[i], parts[i][key])))
        for group in alike.values():
            tell(group, keys[list(keys).index(key) + 1 :])

    keys = list(parts[0]) if parts else []
    tell(range(len(parts)), keys)
    return [name or part[keys[0]] for name, part in zip(names, parts, strict=True)]


def looks_like_a_hash(text: str) -> bool:
    """Whether a name is, or ends with, hexadecimal digits that a program drew."""
    last = text.rpartition("-")[2]
    return bool(_HASHLIKE.fullmatch(text)) and bool(_DIGIT.search(last)) and len(last) >= 6


def tails(paths: Sequence[str]) -> list[str]:
    """The shortest ends of paths that differ where the paths do; their last names if all paths are one."""
    parts = [PurePath(path).parts or (path,) for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        found = ["/".join(p[-length:]) for p in parts]
        if len(set(found)) == len(set(paths)):
            return found
    return list(paths)


def letter(number: int) -> str:
    """A, B, ..., Z, A1, B1, ...: what tells things apart of which nothing is known."""
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[number % 26] + (str(number // 26) if number >= 26 else "")
