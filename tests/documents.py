"""What documents hold: fenced blocks, commands, links, and the names that headings are linked by."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
"""What the site is made of."""
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *PAGES]
_FENCE = re.compile(r"^```(.*)$", re.MULTILINE)


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of every fenced block; "" for one without a language."""
    # Split by fences: text, language, code, "" (the closing fence), text, ...
    parts = _FENCE.split(text)
    return [(language.strip(), code) for language, code in zip(parts[1::4], parts[2::4], strict=True)]


def prose(text: str) -> str:
    """The text without its fenced blocks and code spans."""
    return re.sub(r"`[^`\n]*`", "", "".join(_FENCE.split(text)[0::4]))


def commands(code: str) -> list[str]:
    """The lines of a block that call layerstill, joined where a backslash ends them, without `layerstill` and comments."""
    lines = code.replace("\\\n", " ").splitlines()
    lines = [re.split(r"\s#", line)[0].strip() for line in lines]
    # After a pipe or a launcher the words of layerstill come later in the line.
    found = [re.search(r"(?:^|\| |-m )layerstill (.*)$", line) for line in lines]
    return [match.group(1).split(" > ")[0] for match in found if match]


def words(command: str) -> list[str]:
    """A command as a shell splits it."""
    return shlex.split(command)


def links(text: str) -> list[str]:
    """Targets of the links and pictures of a document that lead to files or headings here."""
    return [to for to in re.findall(r"\]\(([^)\s]+)\)", prose(text)) if not re.match(r"https?:|mailto:", to)]


def anchors(text: str) -> set[str]:
    """What the headings of a document are linked by, as GitHub and the site have it."""
    heads = re.findall(r"^#+ (.*)$", "".join(_FENCE.split(text)[0::4]), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}
