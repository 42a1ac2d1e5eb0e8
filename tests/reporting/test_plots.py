"""Plots stay readable: no line is flat because of another, no name hides anything, legends say what is drawn."""

import itertools
import re

import numpy as np
import pytest

from layerstill.reporting.arms import cells
from layerstill.reporting.curves import learning_curves
from layerstill.reporting.figures import quality_and_cost
from layerstill.reporting.labels import Box, place
from layerstill.reporting.looks import Looks
from layerstill.reporting.models import models_of
from layerstill.reporting.panels import CHANGES, LEAST, MOST, arrange
from layerstill.reporting.runs import read_runs
from tests.reporting.example import write_student, write_teacher
from tests.reporting.test_card import RIGHT, but

plots = pytest.importorskip("layerstill.reporting.plots")
pytest.importorskip("matplotlib")


def falling(low, high):
    return list(np.geomspace(high, low, 20))


def share(line, others, log):
    change = np.log if log else np.asarray
    ends = [(min(change(one)), max(change(one))) for one in others]
    return (max(change(line)) - min(change(line))) / (max(h for _, h in ends) - min(low for low, _ in ends))


@pytest.mark.parametrize(
    ("lines", "panels", "log"),
    [
        ([falling(1, 2), falling(1, 3)], 1, False),
        ([falling(0.01, 1), falling(0.1, 100)], 1, True),
        ([falling(40, 41), falling(0.3, 1)], 2, False),  # a line that hardly changes, far above the other
        ([falling(1, 2), falling(100, 200), falling(10_000, 20_000)], 3, False),
        ([falling(40, 41), falling(0.01, 1)], 2, True),
        ([[3.0, 3.001], falling(1, 2)], 1, False),  # what does not change needs no room
        ([[-1.0, 1.0], [0.0, 300.0]], 2, False),
    ],
)
def test_no_line_is_flat_because_of_another(lines, panels, log):
    found = arrange(lines, split=True)
    assert (len(found), found[0].log) == (panels, log)
    assert sorted(i for panel in found for i in panel.members) == list(range(len(lines)))
    for panel in found:
        inside = [lines[i] for i in panel.members]
        for line in inside:
            if max(line) - min(line) > CHANGES * max(map(abs, line)):
                assert share(line, inside, panel.log) >= LEAST


def test_panels_are_not_more_than_fit_on_a_screen():
    assert len(arrange([falling(10.0**i, 2 * 10.0**i) for i in range(20)], split=True)) == MOST
    assert len(arrange([falling(10.0**i, 2 * 10.0**i) for i in range(20)], split=False)) == 1


def drawn_heights(svg):
    """Heights of the coloured lines of an SVG, in its units."""
    found = []
    for path in re.findall(r'<path d="([^"]*)"[^>]*style="[^"]*stroke: var\(--c\d\)[^"]*"', svg):
        y = [float(pair.split()[1]) for pair in re.findall(r"[ML] ([-\d.]+ [-\d.]+)", path)]
        if len(y) > 5:
            found.append(max(y) - min(y))
    return found


def test_objectives_of_other_sizes_are_drawn_as_tall_as_each_other():
    series = [plots.Series(n, list(range(20)), y, None, i) for i, (n, y) in enumerate(
        {"far": falling(40, 41), "task": falling(0.1, 1), "attention": falling(0.002, 0.02)}.items())]  # fmt: skip
    heights = drawn_heights(plots.lines(series, "step", "value", own=True))
    assert len(heights) == 3
    assert min(heights) > 15
    flat = drawn_heights(plots.lines(series, "step", "value"))
    assert min(flat) < 10  # which is what this is about


def test_names_hide_neither_marks_nor_each_other():
    rng = np.random.default_rng(0)
    frame = Box(0, 0, 300, 200)
    for count in (3, 12, 60):
        points = [(float(x), float(y)) for x, y in rng.uniform((0, 0), (300, 200), (count, 2))]
        names = [f"model number {i}" for i in range(count)]
        places = [spot for spot in place(points, names, frame, 10.0, 4.0) if spot is not None]
        assert places
        boxes = [spot.box for spot in places]
        assert not any(a.meets(b) for a, b in itertools.combinations(boxes, 2))
        marks = [Box(x - 4, y - 4, x + 4, y + 4) for x, y in points]
        assert not any(box.meets(mark) for box in boxes for mark in marks)
        assert all(box.within(frame) for box in boxes)
    assert all(place([(50, 50), (250, 150)], ["one", "two"], frame, 10.0))


@pytest.fixture
def folder(tmp_path):
    teacher = write_teacher(tmp_path / "teacher", RIGHT)
    for number in range(20):
        rates = (f"stages.0.learning_rate={1e-5 * (number + 1):g}",)
        write_student(tmp_path / f"kd-{number}", teacher, but(3 + number), 3 + number % 2, rates)
    return tmp_path


def test_what_is_drawn_grey_is_counted_in_the_legend(folder):
    found = cells(read_runs(folder))
    section = learning_curves([cell for cell in found if not cell.is_teacher])
    loss = section.plots[0]
    kinds = [key.kind for key in loss.legend]
    assert kinds == ["line"] * 8 + ["rest"]
    assert loss.legend[-1].name == "12 more"
    colours = re.findall(r"stroke: var\(--c(\d)\)", loss.svg)
    assert sorted(colours) == sorted(str(key.colour) for key in loss.legend[:-1])
    assert loss.svg.count("stroke: var(--line); stroke-width: 1.1;") >= 12


def test_the_teacher_is_a_star_in_the_plot_and_in_the_legend(folder):
    found = cells(read_runs(folder))
    looks = Looks(found)
    (plot,) = quality_and_cost(models_of(found, looks), looks).plots
    assert [key.name for key in plot.legend if "teacher" in key.kind] == ["teacher"]
    assert ">teacher</text>" in plot.svg
    assert [row[1] for row in plot.table.rows].count("teacher") == 1
    assert len(plot.table.rows) == 21
