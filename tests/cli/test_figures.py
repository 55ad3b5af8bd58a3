"""Pictures of reports: well-formed, safe, and drawn for whatever there is."""

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from fieldlab.cli.figures import Bars, Figure, Histogram, Line, RunChart, as_svg, ticks
from fieldlab.cli.tables import Page, Section, Table, as_html, as_text

EVIL = '\x1b[2J<script>alert("1")</script>'
SPEC = (Line(13.0, "USL", "spec"), Line(7.0, "LSL", "spec"), Line(10.0, EVIL, "centre"))
FIGURES: list[Figure] = [
    RunChart("run", [1e18, 2e18, 3e18, 4e18], [10.0, np.nan, 14.0, 9.0], SPEC, (2,)),
    RunChart("nothing", [], []),
    RunChart("one", [5.0], [5.0], time=False),
    RunChart("constant", [1.0, 2.0], [3.0, 3.0], (Line(3.0, "centre", "centre"),), time=False),
    RunChart("long", np.arange(5000.0).tolist(), np.sin(np.arange(5000.0)).tolist(), time=False),
    RunChart("wild times", [-9e18, 9e18], [1.0, 2.0]),
    RunChart("huge", [0.0, 1.0], [1e300, -1e300], time=False),
    Histogram(EVIL, [1.0, 2.0, 3.0], [4, 0], SPEC, [3.0, 1.0]),
    Histogram("nothing", [], []),
    Bars("bars", [EVIL, "b"], [(1.0, 2.0), (0.0, 0.0)], ("x", EVIL), bad=(1,)),
    Bars("none", [], []),
]


@pytest.mark.parametrize("figure", FIGURES, ids=lambda f: f"{type(f).__name__} {f.caption[:8]!r}")
def test_svg_is_well_formed_and_safe(figure: Figure) -> None:
    svg = as_svg(figure)
    root = ET.fromstring(svg)
    assert root.find("svg") is not None
    assert "<script" not in svg
    assert "\x1b" not in svg
    assert "nan" not in re.sub(r"<[a-z]*caption>.*?</[a-z]*caption>", "", svg)
    assert "inf" not in svg


def test_what_stands_out_is_marked_and_told() -> None:
    svg = as_svg(FIGURES[0])
    assert svg.count('class="out"') == 1
    assert "<title>14</title>" in svg
    assert svg.count("<polyline") == 2, "a value that is not there breaks the line"
    assert as_svg(FIGURES[4]).count("<circle") == 0, "a long run is a band"


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-5e-9, 7e-9), (24.97, 25.03), (1e6, 3e9), (-3.0, -1.0)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 11
    slack = 1e-9 * (high - low)
    assert all(low - slack <= t <= high + slack for t in found)


def test_sections() -> None:
    tables = [Table("t", ("a",), [("x",)])]
    page = Page("p", [], [], [], [], [Section("seen", ["line"], [FIGURES[0]], tables), Section("page", page_only=True)])
    assert "seen\n  line\n\nt\n  a\n  x" in as_text(page)
    assert "page" not in as_text(page)
    assert "<h2>page</h2>" in as_html(page)
    assert as_html(page).count("<svg") == 1
