"""What the documentation site shows besides docs/: README as its first page, the other pages of the root, and files.

A hook of MkDocs (`hooks` in mkdocs.yml). On GitHub a page of docs/ links to `../examples/shard.py` and README to
`docs/guide.md`; the site has all of them in one folder, so links are rewritten and the files that they lead to added.
"""

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]+)?\)")


def place_of(path: str) -> str:
    """Where the site has a file of the repository, both relative to their roots."""
    if path == "README.md":
        return "index.md"
    return path.removeprefix("docs/")


def from_root(to: str, page: str) -> str:
    """The file that a link leads to, as a path from the repository's root; `page` is where the link stands."""
    parts: list[str] = []
    for part in (PurePosixPath(page).parent / to).parts:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def rewritten(text: str, page: str) -> str:
    """A page with its links as the site needs them."""
    return _LINK.sub(lambda m: f"]({place_of(from_root(m[1], page))}{m[2] or ''})", text)


def on_files(files: "Files", config: Any) -> "Files":
    """Add the pages of the root, and every other file that a page links to."""
    from mkdocs.structure.files import File  # MkDocs lives in an environment of its own

    pages = {name: (ROOT / name).read_text("utf-8") for name in PAGES}
    linked = set()
    for page in [*PAGES, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]:
        text = pages.get(page) or (ROOT / page).read_text("utf-8")
        linked |= {from_root(match[1], page) for match in _LINK.finditer(text)}
    for name in sorted({*PAGES, *(path for path in linked if not path.startswith("docs/"))}):
        if (ROOT / name).is_file():
            files.append(File.generated(config, place_of(name), abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that lead where the site has things."""
    uri = page.file.src_uri
    source = {place_of(name): name for name in PAGES}.get(uri, f"docs/{uri}")
    return rewritten(markdown, source)
