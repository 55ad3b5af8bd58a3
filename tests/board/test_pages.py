"""The pages of a machine, a part, a finding and a chart in headless Chromium: by link, by search and by keyboard."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from edge import acknowledge
from fieldlab.model import (
    ChartPoint,
    Control,
    Finding,
    MachineState,
    PartEvent,
    Place,
    RecordKind,
    SignalInfo,
    SignalKey,
    Verdict,
)
from ingest.journal import Journal

SECOND = 10**9
CNC, PRESS = Place("drachten", "shavers", "3", "cnc-07"), Place("drachten", "shavers", "4", "press 2b")
AXE = Path(__file__).parents[1] / "interop" / "node_modules" / "axe-core" / "axe.min.js"
RAISED = "00000000000000aa"


def fill(shop: Any) -> int:
    """A mill with a chart, a finding and a part in two revisions, and a press that took that part into another."""
    start = time.time_ns() - 400 * SECOND
    points = [
        ChartPoint(
            time=start + n * SECOND,
            place=CNC,
            signal="diameter",
            chart="size",
            statistic=20.0 + (0.05 if n == 250 else (n % 7) / 1000),
            center=20.0,
            ucl=20.01 if n < 150 else 20.02,
            lcl=19.99,
            limits_version=1 if n < 150 else 2,
        )
        for n in range(300)
    ]
    known: dict[str, Any] = {"place": CNC, "signal": "diameter", "chart": "size", "rule": "1", "id": RAISED}
    raised = Finding(
        **known, time=start + 250 * SECOND, statistic=20.05, limit=20.02, limits_version=2, part="P-250", detail="large"
    )
    made: dict[str, Any] = {"place": CNC, "id": "P-250", "start": start + 250 * SECOND}
    first, second = start + 251 * SECOND, start + 290 * SECOND
    shop.write(
        SignalInfo(key=SignalKey(CNC, "diameter"), unit="mm"),
        MachineState(time=start, place=CNC, state="running"),
        MachineState(time=start, place=PRESS, state="idle"),
        *points,
        raised,
        Verdict(
            **made, time=first, verdict="suspect", score=0.4, reasons=("size: too large",), genealogy={"tool": "T7"}
        ),
        Verdict(
            **made,
            time=second,
            revision=2,
            verdict="fail",
            score=0.9,
            reasons=("measured 20.06 mm",),
            features={"d.mean": 20.05},
        ),
        PartEvent(time=start + 250 * SECOND, place=CNC, event="start", id="P-250"),
        PartEvent(time=start + 251 * SECOND, place=CNC, event="consume", id="P-250", other="T7"),
        PartEvent(time=start + 300 * SECOND, place=PRESS, event="consume", id="A-9/x y", other="P-250"),
        Verdict(place=PRESS, id="A-9/x y", time=start + 301 * SECOND),
    )
    shop.status |= {"agent": "line-3"}
    return start


@pytest.fixture(scope="module")
def hall(open_shop: Any, open_board: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Journal]]:
    """The board beside a journal that takes people's words, as the agent has them."""
    folder = tmp_path_factory.mktemp("hall")
    with open_shop(folder) as shop, contextlib.closing(Journal(folder / "journal.db")) as journal:
        fill(shop)
        with open_board(shop.reader, lambda: shop.status, [acknowledge.route(journal)]) as served:
            yield served.url, journal


@pytest.fixture
def page(hall: Any, look: Callable[..., Page]) -> Page:
    page = look(hall[0])
    expect(page.locator("figure .plot[data-drawn]")).to_have_count(1)
    return page


def shown(page: Page, name: str) -> None:
    expect(page.locator(f'#detail-body[data-shown="{name}"]')).to_be_visible()


def test_from_a_finding_to_its_evidence_its_part_and_where_that_went(page: Page) -> None:
    page.locator(f'#finding-list [data-id="{RAISED}"] .rule a').click()
    shown(page, RAISED)
    expect(page.locator("#detail-title")).to_have_text("one value beyond a control limit: cnc-07/diameter")
    expect(page.locator("#evidence[data-drawn]")).to_be_visible()
    traces = page.evaluate("Object.fromEntries(document.querySelector('#evidence').data.map(t => [t.name, [...t.y]]))")
    assert len(traces["statistic"]) == 170, "120 points before, and the 50 after it"
    assert traces["findings"] == [20.05]
    assert traces["beyond"] == [20.05]
    page.locator("#detail .facts a", has_text="P-250").click()
    shown(page, "P-250")
    cards = page.locator("#detail article")
    assert [cards.nth(i).get_attribute("data-verdict") for i in range(2)] == ["fail", "suspect"], "newest first"
    expect(cards.first).to_contain_text("measured 20.06 mm")
    page.locator("#detail a", has_text="A-9/x y").click()
    shown(page, "A-9/x y")
    expect(page.locator("#detail article")).to_contain_text("press 2b")
    page.go_back()
    shown(page, "P-250")
    page.locator("#where a").click()
    expect(page.locator("#machines")).to_be_visible()
    expect(page.locator("#detail")).to_be_hidden()


def test_a_machine_shows_its_own_rows_alone(page: Page) -> None:
    page.locator("#plan .tile", has_text="press 2b").click()
    expect(page.locator("#where-now")).to_have_text(PRESS.path)
    expect(page.locator("#part-list tr:visible")).to_have_count(1)
    expect(page.locator("#finding-list li:visible")).to_have_count(0)
    expect(page.locator("figure:visible")).to_have_count(0)
    page.locator("#where a").click()
    expect(page.locator("#part-list tr:visible")).to_have_count(2)
    expect(page.locator("figure:visible")).to_have_count(1)
    assert page.locator("#plan .floor h3").all_inner_texts() == ["drachten / shavers / 3", "drachten / shavers / 4"]


def test_search_by_keyboard(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("P-2")
    page.keyboard.press("Enter")
    shown(page, "P-250")
    page.locator("#search-text").fill("no such part")
    page.keyboard.press("Enter")
    expect(page.locator("#detail-body")).to_contain_text("Nothing is known by the name no such part")
    page.locator("#detail").focus()
    page.keyboard.press("Escape")
    expect(page.locator("#hall")).to_be_visible()
    page.complaints[:] = [c for c in page.complaints if "404" not in c]  # type: ignore[attr-defined]  # the browser's word on an unknown part


def test_a_chart_has_its_versions_and_zooms(page: Page) -> None:
    page.locator("figure h3 a").click()
    expect(page.locator("#evidence[data-drawn='300']")).to_be_visible()
    assert page.locator("#detail tr[data-version] td:first-child").all_inner_texts() == ["v1", "v2"]
    whole = page.evaluate("document.querySelector('#evidence')._fullLayout.xaxis.range")
    box = page.locator("#evidence .nsewdrag").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 200, steps=5)
    page.mouse.up()
    page.wait_for_function("w => document.querySelector('#evidence')._fullLayout.xaxis.range[0] !== w", arg=whole[0])
    page.get_by_role("button", name="15 min").click()
    expect(page.get_by_role("button", name="15 min")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#evidence[data-drawn='300']")).to_be_visible()
    page.get_by_role("button", name="earlier").click()
    expect(page.locator("#evidence:not([data-drawn='300']), #detail-body .empty").first).to_be_visible()


def test_an_acknowledgement_is_on_disk(page: Page, hall: Any, wait_until: Callable[..., Any]) -> None:
    page.goto(f"{hall[0]}#/finding/{RAISED}")
    shown(page, RAISED)
    page.get_by_label("Your name").fill("Sjoerd")
    page.get_by_label("Cause").select_option("tool")
    page.get_by_label("Comment").fill("insert chipped")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.locator("#acknowledge [role=status]")).to_have_text("Kept. The list shows it in a moment.")
    (record,) = hall[1].read(0, frozenset({RecordKind.CONTROL}), max_readings=100).records
    (control,) = record.rows
    assert isinstance(control, Control)
    assert (control.action, control.by) == ("acknowledge", "Sjoerd")
    assert control.detail == {"id": RAISED, "cause": "tool: insert chipped"}


def test_dutch(hall: Any, look: Callable[..., Page]) -> None:
    page = look(hall[0], locale="nl-NL")
    expect(page.locator("html")).to_have_attribute("lang", "nl")
    expect(page.locator("#findings-h")).to_have_text("Bevindingen")
    expect(page.locator("#finding-list .rule").first).to_have_text("één waarde buiten een regelgrens")
    page.locator("#language").click()
    expect(page.locator("#findings-h")).to_have_text("Findings")
    page.reload()
    expect(page.locator("#findings-h")).to_have_text("Findings")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1600), ("dark", 1600), ("light", 390)])
def test_axe_finds_nothing(hall: Any, look: Callable[..., Page], scheme: str, width: int) -> None:
    """axe-core's rules for WCAG 2.2 AA, on every page."""
    if not AXE.exists():
        pytest.fail("npm ci in tests/interop: axe-core is missing")
    page = look(hall[0], scheme=scheme, width=width, locale="nl-NL" if scheme == "dark" else "en-GB")
    expect(page.locator("figure .plot[data-drawn]")).to_have_count(1)
    page.evaluate(AXE.read_text("utf-8"))
    chart = page.locator("figure").get_attribute("data-chart")
    pages = ["/", f"/machine/{CNC.path}", "/part/P-250", f"/finding/{RAISED}", f"/chart/{chart}"]
    for where in pages:
        page.evaluate("where => { location.hash = `#${where}`; }", where)
        kind, _, name = where.strip("/").partition("/")
        if kind in ("part", "finding"):
            shown(page, name)
        if kind in ("finding", "chart"):
            expect(page.locator("#evidence[data-drawn]")).to_be_visible()
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        found = page.evaluate("tags => axe.run({runOnly: tags})", tags)
        said = [(v["id"], v["help"], [n["html"][:150] for n in v["nodes"]]) for v in found["violations"]]
        assert said == [], where
        assert len(found["passes"]) > 20
