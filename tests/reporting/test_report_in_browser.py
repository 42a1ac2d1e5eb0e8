"""The report in a headless Chromium, at the width of a phone and of a desktop, in light and dark."""

import json
import os
import re
import shutil

import pytest

from layerstill.acts import report
from layerstill.compression.choice import Budget, choose
from layerstill.compression.rows import Row
from layerstill.reporting.arms import cells, compare_all
from layerstill.reporting.compression import page as compression_page
from layerstill.reporting.page import report_page
from layerstill.reporting.runs import read_runs
from tests.reporting.example import (
    result,
    write_compression,
    write_example,
    write_grid,
    write_run,
    write_student,
    write_teacher,
)
from tests.reporting.test_card import RIGHT, but

pytest.importorskip("matplotlib")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")

QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
OVERLAPS = """
() => {
  // Corners of a text on the screen, turned as it is, a little inside of its line's height.
  const corners = (e) => {
    const b = e.getBBox(), m = e.getScreenCTM(), lift = 0.15 * b.height;
    return [[b.x, b.y + lift], [b.x + b.width, b.y + lift], [b.x + b.width, b.y + b.height - lift],
      [b.x, b.y + b.height - lift]].map(([x, y]) => [m.a * x + m.c * y + m.e, m.b * x + m.d * y + m.f]);
  };
  // Two turned rectangles are apart if they are on one of their sides' directions.
  const apart = (p, q) => [p, q].some((r) => [[0, 1], [1, 2]].some(([i, j]) => {
    const length = Math.hypot(r[j][0] - r[i][0], r[j][1] - r[i][1]);
    const [x, y] = [(r[j][0] - r[i][0]) / length, (r[j][1] - r[i][1]) / length];
    const [a, b] = [p, q].map((s) => s.map((c) => c[0] * x + c[1] * y));
    return Math.max(...a) < Math.min(...b) + 0.5 || Math.max(...b) < Math.min(...a) + 0.5;
  }));
  return [...document.querySelectorAll("svg:not(.swatch)")].flatMap((svg) => {
    const texts = [...svg.querySelectorAll("text")].filter((e) => e.getBoundingClientRect().width > 0);
    const found = texts.map((e) => [e.textContent, corners(e)]);
    return found.flatMap(([name, p], i) => found.slice(0, i).filter(([, q]) => !apart(p, q)).map(([o]) => [name, o]));
  });
}
"""
"""Pairs of texts in a drawing that hide each other."""
EVIL = "<script>window.bad=1</script><img src=x onerror=window.bad=1>"


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        own = driver.chromium.executable_path
        found = [p for p in (*map(shutil.which, ("chromium", "chromium-browser", "google-chrome")), own) if p]
        path = next((p for p in found if os.path.exists(p)), None)
        if path is None:
            pytest.skip(
                "no Chromium: install one (Debian: apt-get install chromium) or run `playwright install chromium`"
            )
        browser = driver.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = write_example(tmp_path_factory.mktemp("browser") / "study", seeds=3, tasks=("mrpc",))
    evil = result(EVIL, "mrpc", 0, 0.5)
    write_run(folder / "evil", evil)
    runs = read_runs(folder)
    found = cells(runs)
    page = folder.parent / "r.html"
    page.write_text(report_page(EVIL, runs, found, compare_all(found), {}), "utf-8")
    return page.as_uri()


@pytest.fixture
def visit(chromium, address):
    """Open the page; afterwards nothing may have been complained about or asked for."""
    contexts, complaints, asked = [], [], []

    def open_page(width=1280, scheme="light"):
        context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in asked if url != address] == []


def luminance(page, selector, what):
    channels = page.eval_on_selector(
        selector, f"e => getComputedStyle(e).{what}.match(/[0-9.]+/g).slice(0, 3).map(Number)"
    )
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_can_be_read(visit, width, scheme):
    page = visit(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    paper = luminance(page, "body", "backgroundColor")
    assert (paper > 0.5) == (scheme == "light")
    for selector in ("body", ".note", "a", "figcaption", "svg", *(f".c{i}" for i in range(4))):
        ink = luminance(page, selector, "color")
        contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert contrast >= 4.5, (selector, contrast)
    page.eval_on_selector_all("details", "all => all.forEach(e => { e.open = true; })")
    boxes = page.eval_on_selector_all("figure svg:not(.swatch)", "all => all.map(e => e.getBoundingClientRect().width)")
    assert len(boxes) > 20
    for box in boxes:
        assert 250 <= box <= width
    assert page.evaluate(OVERLAPS) == []
    size = page.eval_on_selector(
        "figure svg text", "e => parseFloat(getComputedStyle(e).fontSize) * e.getScreenCTM().a"
    )
    assert size >= 9  # pixels of the labels on the axes


def column(page, table, number):
    return page.eval_on_selector_all(
        f"#{table} tbody tr", f"rows => rows.filter(r => !r.hidden).map(r => r.cells[{number}].textContent)"
    )


def test_tables_are_sorted_by_number_and_by_text(visit):
    page = visit()
    names = page.eval_on_selector_all("#runs-table th", "all => all.map(e => e.textContent)")
    score, recipe = names.index("score"), names.index("recipe")
    assert (names[0], score) == ("run", 1)  # next to the name, so that a phone shows it
    heads = page.locator("#runs-table th button")
    heads.nth(score).click()
    shown = column(page, "runs-table", score)
    values = [float(v) for v in shown if v != "–"]
    assert values == sorted(values)
    assert len(set(values)) > 5
    assert shown[-2:] == ["–", "–"]  # what has no score is last in either direction
    assert page.get_attribute(f"#runs-table th:nth-child({score + 1})", "aria-sort") == "ascending"
    heads.nth(score).click()
    assert [float(v) for v in column(page, "runs-table", score) if v != "–"] == values[::-1]
    assert column(page, "runs-table", score)[-1] == "–"
    heads.nth(recipe).press("Enter")
    texts = column(page, "runs-table", recipe)
    known = [t for t in texts if t and t != EVIL]
    assert known == sorted(known)
    assert len(set(known)) == 4
    assert page.locator("#runs-table th[aria-sort]").count() == 1


def test_rows_are_filtered_by_words_and_choices(visit):
    page = visit()
    form = page.locator(".filter[data-for=runs-table]")
    names = page.eval_on_selector_all("#runs-table th", "all => all.map(e => e.textContent)")
    where = names.index("folder")
    total = len(column(page, "runs-table", 0))
    assert form.locator("output").inner_text() == f"{total} of {total}"
    form.locator("input").fill("KD  noise 0.3")
    assert column(page, "runs-table", where) == [f"noise/{r}-0.3-{s}" for r in ("kd", "rail-kd-l") for s in (0, 1)]
    assert form.locator("output").inner_text() == f"4 of {total}"
    filters = {name: form.locator("label", has_text=name).locator("select") for name in ("recipe", "status")}
    filters["recipe"].select_option("kd")
    assert column(page, "runs-table", where) == ["noise/kd-0.3-0", "noise/kd-0.3-1"]
    form.locator("input").fill("")
    filters["recipe"].select_option("")
    filters["status"].select_option("damaged")
    assert column(page, "runs-table", where) == ["broken"]


def test_names_do_nothing(visit):
    page = visit()
    assert page.evaluate("window.bad") is None
    assert page.locator("h1").inner_text() == EVIL
    assert page.locator("img").count() == 0
    assert page.locator(".filter select option", has_text="<script>").count() >= 1


def test_numbers_beside_a_plot_are_opened_by_keyboard(visit):
    page = visit(360)
    summary = page.locator("figure details summary").first
    assert not page.locator("figure table").first.is_visible()
    summary.press("Enter")
    assert page.locator("figure table").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.fixture(scope="module")
def other_pages(tmp_path_factory):
    """A ladder of three students with `compress.json`, and a grid of 60 runs."""
    top = tmp_path_factory.mktemp("pages")
    teacher = write_teacher(top / "few" / "teacher", RIGHT)
    students = {f"{n} layers": write_student(top / "few" / str(n), teacher, but(20 - 4 * n), n) for n in (2, 3, 4)}
    write_compression(top / "few", teacher, students, "3 layers, int8")
    write_grid(top / "many")
    for name in ("few", "many"):
        report(top / name, top / f"{name}.html")
    record = json.loads((top / "few" / "compress.json").read_text("utf-8"))
    rows = [Row.from_data(row) for row in record["rows"]]
    trials = [{"name": EVIL, "updates": 3, "score": "70.0"}]
    html = compression_page(rows, choose(rows, Budget()), EVIL, "how it was measured", trials)
    (top / "compress.html").write_text(html, "utf-8")
    return top


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("name", ["few", "many", "compress"])
def test_no_label_hides_another_and_the_score_is_on_the_first_screen(chromium, other_pages, name, width):
    height = 844 if width == 390 else 900
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme="dark")
    page = context.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto((other_pages / f"{name}.html").as_uri())
    page.eval_on_selector_all("details", "all => all.forEach(e => { e.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("svg:not(.swatch)").count() >= 2
    assert page.evaluate(OVERLAPS) == []
    facts = page.eval_on_selector_all(
        ".card dl > div", "all => all.map(e => [e.children[1].textContent, e.getBoundingClientRect().bottom])"
    )
    assert len(facts) == 4
    assert all(bottom < height for _, bottom in facts)  # score, lost, gained, size
    assert re.fullmatch(r"\d\d\.\d", facts[0][0])
    assert page.evaluate("window.bad") is None
    assert complaints == []
    context.close()


def test_the_first_column_stays_while_a_wide_table_is_scrolled(chromium, other_pages):
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto((other_pages / "many.html").as_uri())
    region = page.locator(".scroll").first
    region.evaluate("e => { e.scrollLeft = 300; e.scrollTop = 400; }")
    first = region.locator("tbody td").first.bounding_box()
    head = region.locator("thead th").first.bounding_box()
    assert first["x"] == pytest.approx(region.bounding_box()["x"], abs=2)
    assert head["y"] == pytest.approx(region.bounding_box()["y"], abs=2)
    context.close()
