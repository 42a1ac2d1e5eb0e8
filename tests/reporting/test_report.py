"""`layerstill report`: the page as a parser sees it, the terminal, and what is refused."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser

import pytest

from layerstill.acts import distill, report
from layerstill.data.tasks import Task
from layerstill.recipe import Recipe
from layerstill.reporting.arms import cells, compare_all
from layerstill.reporting.diagnostic_plots import diagnostics
from layerstill.reporting.looks import Looks
from layerstill.reporting.overview import run_table, shown
from layerstill.reporting.page import report_page
from layerstill.reporting.runs import read_runs
from layerstill.training.arguments import Options
from tests.reporting.example import diagnostics as noted
from tests.reporting.example import result, write_example, write_run
from tests.tiny import save_tiny, write_csv

pytest.importorskip("matplotlib")

VOID = {"meta", "link", "input", "br"}
EVIL = "<script>alert(1)</script><b onmouseover=x>\"'& $x$ [red]"


class Page(HTMLParser):
    """Every tag with its attributes, and the text; complains about tags that are not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag):
        return [attrs for name, attrs, _ in self.tags if name == tag]


def page_of(folder) -> str:
    runs = read_runs(folder)
    found = cells(runs)
    return report_page(folder.name, runs, found, compare_all(found), {})


@pytest.fixture
def call(call, monkeypatch):
    """The command line, in a wide terminal."""
    monkeypatch.setenv("COLUMNS", "120")
    return call


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return write_example(tmp_path_factory.mktemp("report") / "study")


@pytest.fixture(scope="module")
def page(example):
    return page_of(example)


def test_the_page_needs_nothing_but_itself(page):
    parsed = Page(page)
    for tag, attrs, _ in parsed.tags:
        for name in ("src", "srcset", "action", "data", "poster", "xlink:href"):
            assert name not in attrs, (tag, attrs)
        assert attrs.get("href", "#").startswith(("#", "data:,")), (tag, attrs)
        assert "url(" not in attrs.get("style", "").replace("url(#", "")
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_ids_are_there_once_and_every_reference_has_its_target(page):
    parsed = Page(page)
    ids = [attrs["id"] for _, attrs, _ in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs, _ in parsed.tags:
        for name in ("href", "aria-labelledby", "clip-path", "data-for"):
            target = attrs.get(name, "").removeprefix("url(").rstrip(")").removeprefix("#")
            assert target in ids or target in ("", "data:,"), (name, target)


def test_every_plot_has_words_and_a_table_beside_it(page):
    parsed = Page(page)
    figures = page.split("<figure>")[1:]
    drawings = [attrs for attrs in parsed.all("svg") if "swatch" not in attrs.get("class", "")]
    assert len(figures) == len(drawings) > 20
    for figure in figures:
        inside = Page("<figure>" + figure.split("</figure>")[0] + "</figure>")
        (image,) = (attrs for _, attrs, _ in inside.tags if attrs.get("role") == "img")
        assert len(image["aria-label"]) > 20
        assert image["aria-label"] in inside.text
        assert len(inside.all("tr")) > 1
        assert [way for name, _, way in inside.tags if name == "table"] == [("figure", "details", "div")]


def test_the_page_has_every_part(page):
    text = Page(page).text
    for words in (
        "57 finished, 1 unfinished, 1 damaged runs",
        "cr-ild 76.2 ± 0.9 (n = 10) against finetune 71.2 ± 0.8 over 2 tasks: difference 5.0, 95 % interval",
        "mrpc: which student cr-ild accuracy 76.2 ± 0.9 teacher 80.6, 5 seeds lost 4.4 points keeps 94.5 %",
        "mrpc: accuracy against million parameters",
        "mrpc: training loss",
        "mrpc, kd: objectives on dev",
        "cola: matthews_correlation on dev",
        "mrpc out of domain",
        "hans against mrpc, each run",
        "mrpc: parts of the out-of-domain sets",
        "mrpc: accuracy against share of wrong training labels",
        "What became of wrong training labels",
        "mrpc, dev: score under weight noise",
        "mrpc, dev: loss around the minimum",
        "mrpc, kd: similarity of layers",
        "mrpc, kd: loss in a plane",
        "Gap between train and dev",
        "Agreement with the teacher",
        "top eigenvalue",
        "Friedman p =",
        "broken damaged result.json cannot be read",
        "begun unfinished no result.json yet",
        "layerstill distill runs/teacher --task mrpc --data DATA --recipe",
        "DATA stands for where the data are (--data), which no record says.",
        "signal: logits",
        "python 3.11.7, torch 2.13.0",
    ):
        assert words in text, words


def test_colours_come_from_the_page(page):
    svgs = page.split("<svg")[1:]
    assert "var(--c0)" in page
    assert not any("#0101" in svg or "#010203" in svg for svg in svgs)


def test_names_from_files_stay_text(tmp_path, call):
    folder = tmp_path / "x"
    for seed in range(2):
        data = result(EVIL, EVIL, seed, 0.7, regime={"label_noise": 0.1, "transitions": {EVIL: 1}}, teacher=EVIL)
        data["metrics"] = {EVIL: 0.7, "selected": EVIL}
        data["ood"] = {EVIL: {"metrics": {EVIL: 0.5}, "parts": {EVIL: {"metrics": {EVIL: 0.5}}}}}
        data["student"]["init"] = {"layers": [EVIL], "from": EVIL}
        data["environment"] = {EVIL: EVIL}
        place = write_run(folder / f"</td><img src=x onerror=alert({seed})>", data)
        (place / "recipe.yaml").write_text(f"# </pre>{EVIL}", "utf-8")
        cka = {"student_layers": [EVIL], "teacher_layers": [EVIL], "values": [[0.5]]}
        (place / "diagnostics.json").write_text(
            json.dumps({"cka": cka, "agreement": {EVIL: {"teacher": 0.5}}}), "utf-8"
        )
    (folder / "failed").mkdir()
    (folder / "failed" / "result.json").write_text(json.dumps({"recipe": EVIL}), "utf-8")
    html = page_of(folder)
    parsed = Page(html)
    assert len(parsed.all("script")) == 1
    assert not parsed.all("img")
    assert not parsed.all("b")
    assert not any(name.startswith("on") for _, attrs, _ in parsed.tags for name in attrs)
    assert EVIL in parsed.text
    status, out, err = call(f"report {folder}")
    assert status == 0, err
    assert "[red]" in out.replace("\n", "")


@pytest.mark.parametrize(
    "content", ["{}", "[]", "x", '{"cka": {"values": [[1], [1, 2]]}, "gap": 3}', '{"slice_2d": 1}']
)
def test_diagnostics_of_any_shape_do_no_harm(content, tmp_path):
    place = write_run(tmp_path / "x" / "a", result("kd", "mrpc", 0, 0.7))
    (place / "diagnostics.json").write_text(content, "utf-8")
    (place / "metrics.jsonl").write_text(
        '{"step": 1}\n[]\nx\n{"stage": 1, "step": "a"}\n{"step": 2, "loss": null}\n', "utf-8"
    )
    assert "Diagnostics" not in Page(page_of(tmp_path / "x")).text.split("Results")[0]


def test_a_missing_point_takes_no_line_and_no_plane_with_it(tmp_path):
    for seed in range(2):
        place = write_run(tmp_path / f"{seed}", result("kd", "mrpc", seed, 0.7), curves=False)
        found = noted(seed, 0.0)
        if seed == 0:
            found["slice_1d"]["train"][0] = None
            found["slice_1d"]["dev"][3] = float("inf")
            found["slice_2d"]["loss"][2][5] = None
        (place / "diagnostics.json").write_text(json.dumps(found), "utf-8")
    plots = {p.title: p for p in diagnostics(cells(read_runs(tmp_path))).plots}
    train, dev = (plots[f"mrpc, {split}: loss around the minimum"].table.rows for split in ("train", "dev"))
    alpha = noted(0, 0.0)["slice_1d"]["alpha"]
    assert [row[1] for row in train] == pytest.approx(alpha[1:])
    assert [row[1] for row in dev] == pytest.approx(alpha[:3] + alpha[4:])
    plane = plots["mrpc, kd: loss in a plane"]
    assert plane.alt == "Loss from 0.5 to 2.5. 1 of 121 points have none."
    assert plane.table.rows[2][1 + 5] is None
    assert plane.table.rows[2][1 + 4] == pytest.approx(0.5 + alpha[2] ** 2 + alpha[4] ** 2)


def test_counts_are_shown_as_counts(tmp_path):
    data = result("kd", "mrpc", 0, 0.7)
    data["train"] |= {"steps": 2100, "seconds": 2100.4}
    write_run(tmp_path / "a", data, curves=False)
    runs = read_runs(tmp_path)
    found = cells(runs)
    table = run_table(runs, found, Looks(found), {})
    row = dict(zip(table.header, map(shown, table.rows[0]), strict=True))
    assert [row[head] for head in ("teacher", "steps", "seconds", "examples/s")] == ["80.6", "2100", "2100", "51.1"]
    assert [shown(v) for v in (6, 70.0, 0.25, 12345.6)] == ["6", "70.0", "0.25", "12346"]


def test_one_run_alone_is_called_an_anecdote(tmp_path):
    write_run(tmp_path / "x" / "a", result("kd", "mrpc", 0, 0.7))
    text = Page(page_of(tmp_path / "x")).text
    assert "1 finished run." in text
    assert "one run is an anecdote" in text
    assert "±" not in text.split("Results")[2]


def test_a_study_in_which_everything_failed_still_has_a_page(tmp_path, call):
    folder = tmp_path / "x"
    folder.mkdir()
    record = {"hash": "a", "status": "failed", "coordinates": {"task": "mrpc"}, "seed": 0, "error": "no <disk>"}
    (folder / "records.jsonl").write_text(json.dumps(record), "utf-8")
    status, out, _ = call(f"report {folder} --output {tmp_path}/r.html")
    assert status == 0
    assert "failed: mrpc: no <disk>" in out
    text = Page((tmp_path / "r.html").read_text("utf-8")).text
    assert "No run has finished." in text
    assert "no <disk>" in text


def test_the_terminal_has_means_sentences_and_what_went_wrong(example, call):
    status, out, err = call(f"report {example}")
    assert status == 0, err
    lines = out.split("\n")
    assert any(
        line.split() == "│ mrpc │ kd │ 5 │ accuracy │ 72.2 ± 1.0 │ 80.6 │ f1 80.2 ± 1.0 │ last │".split()
        for line in lines
    )
    assert any(line.startswith("- kd 72.2 ± 1.0 (n = 10) against finetune") for line in lines)
    assert "unfinished: begun: no result.json yet" in lines


def test_against_chooses_the_control(example, call):
    status, out, _ = call(f"report {example} --against cr-ild")
    assert status == 0
    assert "- kd 72.2 ± 1.0 (n = 10) against cr-ild 76.2" in out
    assert "against finetune" not in out
    status, _, err = call(f"report {example} --against nothing")
    assert status == 2
    assert "--against nothing: no finished run of it; there are cr-ild, finetune, kd, rail-kd-l" in err


def test_a_study_says_what_is_compared_by_which_metric(tmp_path, call):
    entries = []
    for recipe, score in (("kd", 0.6), ("u-ild", 0.7), ("cr-ild", 0.8)):
        for seed in range(2):
            data = result("kd", "mrpc", seed, score + seed / 50)
            place = {"recipe": recipe, "seed": seed}
            entries.append({"hash": f"{recipe[:2]}{seed}", "status": "finished", "coordinates": place, "result": data})
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries), "utf-8")
    write = (tmp_path / "study.json").write_text
    compare = {"metric": "f1", "by": "recipe", "against": "u-ild"}
    write(json.dumps({"name": "x", "quick": False, "study": {"compare": compare}}), "utf-8")
    status, out, err = call(f"report {tmp_path}")
    assert status == 0, err
    assert "- cr-ild 89.0 ± 1.4 (n = 2) against u-ild 79.0 ± 1.4" in out
    assert "against kd" not in out
    assert "against kd 69.0" in call(f"report {tmp_path} --against kd")[1]
    for damaged in ("x", "[]", '{"study": {"compare": [1]}}'):
        write(damaged, "utf-8")
        assert "- cr-ild 81.0 ± 1.4 (n = 2) against kd 61.0" in call(f"report {tmp_path}")[1]


def test_the_margin_of_a_study_is_what_its_report_calls_equal(tmp_path, call):
    entries = []
    for recipe, score in (("kd", 0.700), ("u-ild", 0.701)):
        for seed in range(8):
            data = result("kd", "mrpc", seed, score + 0.002 * (seed % 3) * (recipe == "kd"))
            place = {"recipe": recipe, "seed": seed}
            entries.append({"hash": f"{recipe[:2]}{seed}", "status": "finished", "coordinates": place, "result": data})
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries), "utf-8")
    for margin, said in (
        ({}, "equal within 0.5 points"),
        ({"margin": 2}, "equal within 2 points"),
        ({"margin": 0.1}, "no evidence of a difference (p = "),
        ({"margin": "x"}, "equal within 0.5 points"),
    ):
        compare = {"by": "recipe", "against": "kd", **margin}
        (tmp_path / "study.json").write_text(json.dumps({"study": {"compare": compare}}), "utf-8")
        status, out, err = call(f"report {tmp_path} --output {tmp_path}/r.html")
        assert status == 0, err
        (sentence,) = (line for line in out.splitlines() if line.startswith("- "))
        assert f"; {said}" in sentence
        assert f"; {said}" in Page((tmp_path / "r.html").read_text("utf-8")).text


def test_everything_that_a_report_tests_is_one_family(example):
    found = report(example)
    families = [c.family for _, c in found.findings.comparisons]
    families += [m.loss.comparison.family for m in found.models if m.loss and m.loss.comparison]
    families += [int(n) for card in found.cards for n in re.findall(r"Holm, (\d+) comparisons", " ".join(card.lines))]
    assert len(found.findings.comparisons) < families[0]
    assert set(families) == {families[0]}


@pytest.mark.parametrize(("axis", "values"), [("initialisation", ("1,2,3", "4,5,6")), ("regime", ("full", "few 9"))])
def test_a_study_may_compare_values_of_another_axis(axis, values, tmp_path, call):
    """Where everything else is equal, each recipe by itself."""
    entries = []
    for value, gain in zip(values, (0.0, 0.1), strict=True):
        for recipe, score in (("kd", 0.6), ("att-kl", 0.7)):
            for seed in range(2):
                data = result(recipe, "mrpc", seed, score + gain + seed / 50)
                if axis == "initialisation":
                    data["student"]["init"] = {"layers": [1 if gain else 2], "from": "teacher"}
                place = {"recipe": recipe, "seed": seed, axis: value}
                entries.append({"hash": f"h{len(entries)}", "status": "finished", "coordinates": place, "result": data})
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries), "utf-8")
    compare = {"by": axis, "against": values[0]}
    (tmp_path / "study.json").write_text(json.dumps({"study": {"compare": compare}}), "utf-8")
    status, out, err = call(f"report {tmp_path} --output {tmp_path}/r.html")
    assert status == 0, err
    sentences = [line for line in out.splitlines() if line.startswith("- ")]
    assert [line.split(" (n")[0] for line in sentences] == [
        f"- {values[1]}, of att-kl 81.0 ± 1.4",
        f"- {values[1]}, of kd 71.0 ± 1.4",
    ]
    assert all(f"against {values[0]}, of " in line and "difference 10.0" in line for line in sentences)


def test_a_report_replaces_a_report_and_nothing_else(tmp_path, call):
    write_run(tmp_path / "x" / "a", result("kd", "mrpc", 0, 0.7))
    for _ in range(2):
        assert call(f"report {tmp_path}/x --output {tmp_path}/r.html")[0] == 0
    first = (tmp_path / "r.html").read_bytes()
    (tmp_path / "mine.html").write_text("<p>mine", "utf-8")
    for name, words in (
        ("mine.html", "not a report of layerstill"),
        ("x", "a folder"),
        ("no/r.html", "does not exist"),
    ):
        status, _, err = call(f"report {tmp_path}/x --output {tmp_path}/{name}")
        assert status == 2
        assert words in err
    assert (tmp_path / "mine.html").read_text("utf-8") == "<p>mine"
    assert call(f"report {tmp_path}/x --output {tmp_path}/r.html")[0] == 0
    assert (tmp_path / "r.html").read_bytes() == first  # a function of the runs
    assert not list(tmp_path.glob(".*"))


def test_an_empty_folder_is_refused(tmp_path, call):
    status, out, err = call(f"report {tmp_path}")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "no runs to report" in err


def test_matplotlib_is_asked_for_before_anything_is_read(tmp_path, call, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, err = call(f"report {tmp_path}/nowhere --output {tmp_path}/r.html")
    assert status == 2
    assert "pip install 'layerstill[report]'" in err


def test_real_runs_are_compared_by_seed_and_example(tmp_path, call):
    teacher = save_tiny(tmp_path / "teacher")
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "train.csv", rows=24)
    write_csv(tmp_path / "data" / "dev.csv", rows=15, seed=1)
    task = Task.from_files("classification", tmp_path / "data")
    for recipe in ("finetune", "kd"):
        for seed in range(2):
            options = Options(seed=seed, max_length=32, max_steps=2, progress=False, precision="fp32")
            # So fast that after two steps the two say other things of some examples.
            fast = Recipe.load(recipe, ("stages.0.learning_rate=0.004", "stages.0.optimiser.warmup=0"))
            distill(str(teacher), task, fast, 2, tmp_path / "runs" / f"{recipe}-{seed}", options)
    status, out, err = call(f"report {tmp_path}/runs --output {tmp_path}/r.html")
    assert status == 0, err
    assert "(over seeds and examples); no evidence of a difference" in out
    text = Page((tmp_path / "r.html").read_text("utf-8")).text
    assert "training loss" in text
    command = (
        f"layerstill distill {teacher} --task classification --data {tmp_path}/data --text-columns text "
        f"--recipe {tmp_path}/runs/kd-1/recipe.yaml --student-layers 2 --seed 1 --max-length 32 --max-steps 2"
    )
    assert f"{command} --precision fp32 --output {tmp_path}/runs/kd-1-again" in text


def test_latency_is_measured_once_for_each_kind_of_model(tmp_path, call):
    for seed in range(2):
        for layers in (1, 2):
            data = result("kd", "mrpc", seed, 0.7)
            data["student"] |= {"layers": layers, "parameters": layers * 1000}
            place = write_run(tmp_path / "x" / f"kd-{layers}-{seed}", data)
            save_tiny(place, layers=layers)
    status, _, err = call(f"report {tmp_path}/x --latency --output {tmp_path}/r.html")
    assert status == 0, err
    measured = json.loads((tmp_path / "x" / "latency.json").read_text("utf-8"))
    assert len(measured["milliseconds"]) == 2
    assert all(ms > 0 for ms in measured["milliseconds"].values())
    assert "accuracy against milliseconds for one text" in Page((tmp_path / "r.html").read_text("utf-8")).text
    (tmp_path / "x" / "latency.json").write_text("[1]", "utf-8")
    assert call(f"report {tmp_path}/x --output {tmp_path}/r.html")[0] == 0
    shutil.rmtree(tmp_path / "x" / "kd-1-0")
    write_run(tmp_path / "y" / "a", result("kd", "mrpc", 0, 0.7))
    assert "no run below" in call(f"report {tmp_path}/y --latency")[2]
