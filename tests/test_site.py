"""The documentation site: every page is in its menu, and links lead where the site has things. `make docs` builds it."""

import re

import pytest
from tools import site

from tests.documents import PAGES, ROOT, links


def test_the_menu_has_every_page_once():
    named = re.findall(r"^ +- [^:]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(named) == sorted({*(page.name for page in PAGES), *map(site.place_of, site.PAGES)})


def test_the_site_is_built_with_the_version_of_the_extra():
    pins = [
        set(re.findall(r"mkdocs-material==[\d.]+", (ROOT / name).read_text("utf-8")))
        for name in ("pyproject.toml", "Makefile")
    ]
    assert len(pins[0]) == 1
    assert pins[0] == pins[1]


@pytest.mark.parametrize(
    ("page", "before", "after"),
    [
        ("README.md", "[x](docs/guide.md#recipes)", "[x](guide.md#recipes)"),
        ("docs/scale.md", "[x](../examples/shard.py)", "[x](examples/shard.py)"),
        ("docs/scale.md", "[x](evidence.md)", "[x](evidence.md)"),
        ("docs/faq.md", "[x](../README.md)", "[x](index.md)"),
        ("CONTRIBUTING.md", "[x](docs/words.md) [y](#set-up)", "[x](words.md) [y](#set-up)"),
        ("README.md", "[x](https://arxiv.org/abs/1) ", "[x](https://arxiv.org/abs/1) "),
    ],
)
def test_links_are_rewritten_for_the_site(page, before, after):
    assert site.rewritten(before, page) == after


def test_what_pages_link_to_has_a_place_of_its_own():
    pages = [*site.PAGES, *(f"docs/{page.name}" for page in PAGES)]
    linked = {
        site.from_root(to.partition("#")[0], page)
        for page in pages
        for to in links((ROOT / page).read_text("utf-8"))
        if not to.startswith("#")
    }
    assert all((ROOT / path).is_file() for path in linked)
    places = [site.place_of(path) for path in sorted({*linked, *pages})]
    assert len(places) == len(set(places))
