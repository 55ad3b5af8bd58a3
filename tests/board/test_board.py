"""The board in headless Chromium: what the page shows is what the store holds."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from fieldlab.model import (
    BatchBuilder,
    ChartPoint,
    Finding,
    MachineEvent,
    MachineState,
    Place,
    SignalInfo,
    SignalKey,
    Verdict,
)
from fieldlab.model.finding import finding_id
from fieldlab.model.status import BAD_NO_COMMUNICATION

SECOND = 10**9
CNC = Place("drachten", "shavers", "3", "cnc-07")
PRINTER = Place("drachten", "shavers", "3", "printer-11")
DIAMETER = SignalKey(CNC, "diameter")
TOOL = SignalKey(CNC, "tool")
NOZZLE = SignalKey(PRINTER, "nozzle")
HOSTILE = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">&lt;b&gt;'
EVER = 2**63 - 1
NONE = "\u2013"  # what the page shows for a number that it does not know


def chart_point(n: int, start: int, statistic: float, **more: Any) -> ChartPoint:
    known = {"time": start + n * SECOND, "place": CNC, "signal": "diameter", "chart": "size", "statistic": statistic}
    limits: dict[str, Any] = {} if n < 20 else {"center": 20.0, "ucl": 20.009, "lcl": 19.991, "limits_version": 1}
    if n >= 40:
        limits |= {"ucl": 20.012, "lcl": 19.988, "limits_version": 2}
    return ChartPoint(**{**known, **limits, **more})


def finding(n: int, start: int, statistic: float, **more: Any) -> Finding:
    at = start + n * SECOND
    known = {
        "time": at,
        "place": CNC,
        "signal": "diameter",
        "chart": "size",
        "rule": "1",
        "id": finding_id(CNC, "diameter", "size", "1", at, 2),
        "statistic": statistic,
        "limit": 20.012,
        "limits_version": 2,
        "part": f"P-{n}",
        "detail": f"diameter {statistic} mm is above the limit",
    }
    return Finding(**{**known, **more})


GAP = {"agent": "line-3", "revision": 1, "recovered": 0, "lost": 0, "source": "mqtt-1", "detail": ""}


def verdict(n: int, start: int, **more: Any) -> Verdict:
    known = {"time": start + n * SECOND, "place": CNC, "id": f"P-{n}", "start": start + (n - 1) * SECOND}
    return Verdict(**{**known, **more})


def machine_event(n: int, start: int, condition: str = "", **more: Any) -> MachineEvent:
    known: dict[str, Any] = {"time": start + n * SECOND, "place": CNC, "source": "Spindle", "kind": "LevelAlarmType"}
    known |= {"id": f"{n:04x}", "condition": condition, "severity": 100, "message": f"said at {n}"}
    if condition:
        known |= {"active": True, "acknowledged": False, "retain": True, "detail": {"condition_name": condition}}
    return MachineEvent(**{**known, **more})


def fill(shop: Any) -> int:
    """Sixty parts on a mill, and a printer that lost its connection. Returns the time of the first, ns."""
    start = time.time_ns() - 70 * SECOND
    readings = BatchBuilder()
    diameter, tool, nozzle = map(shop.signals.index, (DIAMETER, TOOL, NOZZLE))
    points = []
    for n in range(60):
        size = 20 + (n * 7919 % 13 - 6) / 1000 + (0.02 if n in (45, 55) else 0)
        readings.add(diameter, start + n * SECOND, size)
        readings.add(tool, start + n * SECOND, f"T{n // 30}")
        points.append(chart_point(n, start, size))
        points.append(chart_point(n, start, 210.5 + n / 100, place=PRINTER, signal="nozzle", chart="heat"))
    readings.add(nozzle, start, 210.0)
    readings.add(nozzle, start + SECOND, None, BAD_NO_COMMUNICATION)
    shop.write_batch(readings.build())
    raised = finding(45, start, points[90].statistic)
    cleared = {"time": start + 46 * SECOND, "revision": 2, "state": "cleared", "detail": "back within the limits"}
    shop.write(
        SignalInfo(key=DIAMETER, unit="mm", usl=20.05, lsl=19.95),
        SignalInfo(key=TOOL, kind="text"),
        SignalInfo(key=NOZZLE, unit="°C", guarantee="from-receipt"),
        MachineState(time=start, place=CNC, state="running"),
        machine_event(1, start, "hot"),
        machine_event(2, start, "hot", acknowledged=True, severity=900, message="spindle too hot"),
        machine_event(3, start, "low", severity=500, message="coolant low"),
        machine_event(4, start, "door"),
        machine_event(5, start, "door", active=False, acknowledged=True, retain=False),
        machine_event(6, start, "jam", active=False, message="jammed"),
        machine_event(7, start, message="program started"),
        *points,
        raised,
        Finding(**{**{f: getattr(raised, f) for f in raised.__struct_fields__}, **cleared}),
        finding(55, start, points[110].statistic),
        finding(50, start, points[100].statistic, rule="4", severity="warning", state="acknowledged"),
        *(verdict(n, start) for n in range(1, 50)),
        verdict(50, start, verdict="suspect", score=0.41, reasons=("eight in a row on one side",)),
        verdict(
            55, start, verdict="fail", score=0.97, reasons=("above the limit", "tool T1"), genealogy={"tool": "T1"}
        ),
        verdict(49, start, revision=2, verdict="suspect", score=0.3, reasons=("measured late",)),
    )
    counts = {"received": 0, "committed": 0, "stored": 0, "bad": 0, "duplicate": 0, "rejected": 0, "dead": 0}
    signals = [
        {**counts, "signal": "cnc-07/diameter", "path": DIAMETER.path, "received": 61, "committed": 60, "stored": 60},
        {**counts, "signal": "cnc-07/tool", "path": TOOL.path, "received": 60, "committed": 60, "stored": 60},
        {**counts, "signal": "printer-11/nozzle", "path": NOZZLE.path, "received": 2, "committed": 2, "stored": 2},
    ]
    for row in signals:
        nozzle_row = row["path"] == NOZZLE.path
        row["loss"] = "1 gap not closed, unverifiable before receipt" if nozzle_row else "0 lost"
        row |= {"guarantee": "from-receipt" if row["path"] == NOZZLE.path else "end-to-end", "overflow": 0}
    shop.status |= {
        "agent": "line-3",
        "sources": [
            {"name": "opcua-0", "kind": "opcua", "url": "opc.tcp://127.0.0.1:4840", "connected": True, "signals": 2,
             "missing": {"coolant": "BadNodeIdUnknown"}, "last_data": start},
            {"name": "mqtt-1", "kind": "mqtt", "url": "mqtt://127.0.0.1:1883", "connected": False, "error": "refused"},
        ],
        "consumers": [
            {"name": "embedded", "position": 812, "lag_records": 3, "lag_readings": 1234, "lag_seconds": 1.5}
        ],
        "ledger": {**counts, "received": 123, "committed": 122, "stored": 122, "duplicate": 1, "lost": 0},
        "ledger_signals": signals,
        "ledger_losses": [
            {"guarantee": "end-to-end", "signals": 2, "lost": 0, "gaps_not_closed": 0, "loss": "0 lost"},
            {"guarantee": "from-receipt", "signals": 1, "lost": 0, "gaps_not_closed": 1,
             "loss": "1 gap not closed, unverifiable before receipt"},
        ],
        "ledger_stores": [
            {"name": "embedded", "before": 0, "stored": 122, "dead": 0, "dropped": 0, "waiting": 0},
            {"name": "influxdb", "before": 20, "stored": 90, "dead": 2, "dropped": 0, "waiting": 10},
        ],
        "gaps": {"by_cause": {"agent_down": {"closed": 1}, "source_down": {"open": 1}}, "newest": [
            {**GAP, "id": "g2", "path": NOZZLE.path, "signal": "printer-11/nozzle", "cause": "source_down",
             "start": start + 5 * SECOND, "end": 0, "state": "open", "detail": "connection refused"},
            {**GAP, "id": "g1", "path": DIAMETER.path, "signal": "cnc-07/diameter", "cause": "agent_down",
             "start": start, "end": start + 2 * SECOND, "state": "closed", "recovered": 20},
        ]},
        "journal": {"bytes": 4_820_000, "max_bytes": 10**9, "records": 99, "position": 815, "full": False},
    }  # fmt: skip
    return start


@pytest.fixture
def page(shop: Any, serve: Any, look: Callable[..., Page]) -> Page:
    fill(shop)
    page = look(serve(shop.reader, lambda: shop.status).url)
    expect(page.locator("figure .plot[data-drawn]")).to_have_count(2)
    return page


@pytest.fixture(scope="module")
def still(open_shop: Any, open_board: Any, open_page: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A filled shop and a page on it, for the tests that only look."""
    with open_shop(tmp_path_factory.mktemp("shop")) as shop:
        fill(shop)
        with open_board(shop.reader, lambda: shop.status) as served, open_page(served.url) as page:
            expect(page.locator("figure .plot[data-drawn]")).to_have_count(2)
            yield shop, page


def texts(page: Page, selector: str) -> list[str]:
    return [t.replace("\u00a0", " ") for t in page.locator(selector).all_inner_texts()]


def drawn(page: Page, chart: str) -> dict[str, Any]:
    """What Plotly drew: name of the trace → its y values (and text)."""
    found: dict[str, Any] = page.evaluate(
        """name => Object.fromEntries(document.querySelector(`figure[data-name="${name}"] .plot`).data
            .map(trace => [trace.name, {y: [...trace.y], text: trace.text}]))""",
        chart,
    )
    return found


def test_findings_are_those_of_the_store(still: Any) -> None:
    shop, page = still
    held = shop.reader.findings()
    assert len(held) == 3
    shown = page.evaluate(
        "[...document.querySelectorAll('#finding-list > li')].map(n => [n.dataset.id, n.dataset.state])"
    )
    assert sorted(shown) == sorted([f.id, f.state] for f in held)
    for f in held:
        item = page.locator(f'#finding-list > li[data-id="{f.id}"]')
        expect(item.locator(".detail")).to_have_text(f.detail)
        expect(item).to_contain_text(f.severity)
        expect(item).to_contain_text(
            f"cnc-07/diameter{f.statistic:.6g} mm against {f.limit:.6g} mm".replace(" mm", "\u00a0mm")
        )
        expect(item).to_contain_text(f"part {f.part}")
    assert "one value beyond a control limit" in texts(page, ".rule")
    assert shown[-1][1] == "cleared", "open findings come first"
    expect(page.locator("#sum-findings")).to_have_text("2")


def test_conditions_and_events_are_those_of_the_store(still: Any) -> None:
    shop, page = still
    rows = page.evaluate(
        "[...document.querySelectorAll('#condition-list > tr')].map(n => [n.dataset.condition, n.dataset.active, "
        "n.dataset.acknowledged])"
    )
    assert rows == [["low", "true", "false"], ["hot", "true", "true"], ["jam", "false", "false"]], "worst first"
    words = texts(page, "#condition-list > tr")
    assert "active, not acknowledged" in words[0]
    assert "active, acknowledged" in words[1]
    assert "spindle too hot" in words[1]
    assert "no longer active, not acknowledged" in words[2]
    since = page.locator("#condition-list > tr:nth-child(2) time").get_attribute("datetime")
    began = min(e.time for e in shop.reader.events() if e.condition == "hot")
    assert since == page.evaluate("ms => new Date(ms).toISOString()", began / 1e6), "active since it was raised"
    assert len(texts(page, "#event-list > tr")) == len(shop.reader.events()) == 7
    assert "program started" in texts(page, "#event-list > tr")[0]


def test_parts_are_those_of_the_store(still: Any) -> None:
    shop, page = still
    held = shop.reader.verdicts()
    assert len(held) == 51
    shown = page.evaluate(
        """[...document.querySelectorAll('#part-list > tr')].map(n =>
            [n.dataset.id, n.dataset.verdict, Number(n.cells[2].dataset.value), n.cells[3].textContent])"""
    )
    assert shown == [[v.id, v.verdict, v.score, "; ".join(v.reasons) or NONE] for v in held]
    expect(page.locator('tr[data-id="P-49"] th')).to_contain_text("rev. 2")
    assert page.locator("#sum-parts").get_attribute("data-note") == "48 pass, 2 suspect, 1 fail"


def test_charts_draw_every_point_with_its_limits(still: Any) -> None:
    shop, page = still
    for name in ("size", "heat"):
        held = shop.reader.chart_points(0, EVER, chart=name)
        traces = drawn(page, name)
        assert traces["statistic"]["y"] == [p.statistic for p in held]
        assert traces["UCL"]["y"] == [p.ucl for p in held]
        assert traces["LCL"]["y"] == [p.lcl for p in held]
        assert traces["centre"]["y"] == [p.center for p in held]
        assert traces["beyond"]["y"] == [p.statistic for p in held if p.ucl is not None and p.statistic > p.ucl]
    size = drawn(page, "size")
    held = shop.reader.chart_points(0, EVER, chart="size")
    # The cleared finding is marked where it was raised, not where it was cleared.
    assert sorted(size["findings"]["y"]) == sorted(held[n].statistic for n in (45, 50, 55))
    figure = page.locator('figure[data-name="size"]')
    last = held[-1]
    for name, value in (("points", 60), ("version", 2), ("ucl", last.ucl), ("lcl", last.lcl)):
        assert float(figure.get_attribute(f"data-{name}") or "nan") == value
    expect(figure.locator(".limits")).to_have_text("limits v2 · 60 values")
    assert "2 of 60 points beyond a limit" in (figure.locator(".plot").get_attribute("aria-label") or "")


def test_machines_show_state_and_newest_values(still: Any) -> None:
    shop, page = still
    cnc = page.locator(f'.machine[data-path="{CNC.path}"]')
    expect(cnc.locator(".state")).to_have_text("running")
    expect(cnc).to_contain_text("2 open findings")
    newest = shop.reader.telemetry(DIAMETER, 0, EVER, limit=1).value[0]
    value = cnc.locator('[data-signal="diameter"]')
    assert float(value.get_attribute("data-value") or "nan") == newest
    assert value.inner_text().endswith("\u00a0mm")
    expect(cnc.locator('[data-signal="tool"]')).to_have_text("T1")
    printer = page.locator(f'.machine[data-path="{PRINTER.path}"]')
    expect(printer.locator('[data-signal="nozzle"]')).to_have_text("Bad")
    expect(printer.locator(".state")).to_have_text("state unknown")


def test_trust_shows_ledger_store_and_cursors(still: Any) -> None:
    shop, page = still
    page.locator("#signals > summary").click()
    expect(page.locator("#signal-list tr")).to_have_count(3)
    held = shop.reader.counts()
    for key in (DIAMETER, TOOL, NOZZLE):
        row = page.locator(f'#signal-list tr[data-signal="{key.path}"]')
        assert int(row.locator('[data-count="kept"]').get_attribute("data-value") or -1) == held[key]
        expect(row).to_contain_text("from-receipt" if key == NOZZLE else "end-to-end")
    total = page.locator('tr[data-guarantee="all"]')
    for name, value in shop.status["ledger"].items():
        assert total.locator(f'[data-count="{name}"]').get_attribute("data-value") == str(value)
    expect(page.locator("#sum-kept")).to_have_text(str(sum(held.values())))
    expect(page.locator('tr[data-guarantee="end-to-end"] [data-count="lost"]')).to_have_text("0")
    assert page.locator("#sum-lost").get_attribute("data-note") == "2 signals end-to-end, 1 signal from-receipt"
    from_receipt = page.locator('tr[data-guarantee="from-receipt"] [data-count="lost"]')
    expect(from_receipt).to_have_text("1 gap not closed, unverifiable before receipt")
    expect(page.locator("#sum-lost")).to_have_text("none known")
    assert texts(page, '#store-list tr[data-name="influxdb"] td') == ["90", "▲ 2", "0", "10", "20"]
    assert texts(page, '#cursor-list tr[data-name="embedded"] td') == ["working", "1.5 s", "1,234", "3", "812"]
    expect(page.locator('#source-list tr[data-name="opcua-0"]')).to_contain_text("coolant: BadNodeIdUnknown")
    expect(page.locator('#source-list tr[data-name="mqtt-1"]')).to_contain_text("▲ refused")
    expect(page.locator("#journal")).to_contain_text("4.82\u00a0MB of 1.00\u00a0GB")


def test_gaps_are_shown_with_cause_and_state(still: Any) -> None:
    _, page = still
    expect(page.locator("#gap-list tr")).to_have_count(2)
    assert texts(page, '#gap-list tr[data-id="g2"] td')[0::4][:2] == ["source down", "▲ open"]
    assert "goes on" in texts(page, '#gap-list tr[data-id="g2"] td')
    closed = texts(page, '#gap-list tr[data-id="g1"] td')
    assert (closed[0], closed[3], closed[4], closed[5]) == ("agent down", "2.0 s", "✓ closed", "20")
    expect(page.locator("#gap-sum")).to_have_text("agent down: 1 closed · source down: 1 open")
    expect(page.locator("#gap-none")).to_be_hidden()


def test_new_records_appear_without_a_reload(page: Page, shop: Any) -> None:
    page.evaluate("window.notReloaded = true")
    start = time.time_ns() - 60 * SECOND
    late = BatchBuilder()
    late.add(shop.signals.index(DIAMETER), start + 61 * SECOND, 20.031)
    shop.write_batch(late.build())
    new = finding(61, start, 20.031)
    shop.write(chart_point(61, start, 20.031), new, verdict(61, start, verdict="fail", score=1.0))
    expect(page.locator(f'#finding-list > li[data-id="{new.id}"]')).to_be_visible()
    expect(page.locator('#part-list tr[data-id="P-61"] .verdict')).to_contain_text("fail")
    expect(page.locator('figure[data-name="size"] .plot[data-drawn="61"]')).to_be_visible()
    expect(page.locator("#sum-kept")).to_have_text("123")
    expect(page.locator("#sum-findings")).to_have_text("3")
    expect(page.locator("#news")).to_have_text("New alarm on cnc-07, diameter: one value beyond a control limit.")
    assert drawn(page, "size")["beyond"]["y"][-1] == 20.031
    expect(page.locator('figure[data-name="size"] .plot')).to_have_attribute("aria-label", re.compile(", 4 findings"))
    assert 20.031 in drawn(page, "size")["findings"]["y"]
    assert page.evaluate("window.notReloaded") is True


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_has_no_sideways_scrolling(shop: Any, serve: Any, look: Callable[..., Page], scheme: str) -> None:
    fill(shop)
    page = look(serve(shop.reader, lambda: shop.status).url, width=390, height=844, scheme=scheme)
    expect(page.locator("#part-list tr")).to_have_count(51)
    page.locator("figure").last.scroll_into_view_if_needed()
    expect(page.locator("figure .plot[data-drawn]").last).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("figure .plot svg.main-svg").first.bounding_box()["width"] <= 390  # type: ignore[index]  # it is visible
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    darkness = sum(int(n) for n in paper.removeprefix("rgb(").rstrip(")").split(","))
    assert (darkness < 200) is (scheme == "dark")


def test_hostile_texts_stay_texts(shop: Any, serve: Any, look: Callable[..., Page]) -> None:
    start = time.time_ns() - 70 * SECOND
    evil = Place(*(HOSTILE.replace("/", "\\") for _ in range(4)))
    name = HOSTILE.replace("/", "\\")
    shop.write(
        SignalInfo(key=SignalKey(evil, name), unit="<b>mm</b>"),
        MachineState(time=start, place=evil, state=HOSTILE),
        chart_point(30, start, 30.0, place=evil, signal=name, chart=HOSTILE),
        finding(30, start, 30.0, place=evil, signal=name, chart=HOSTILE, rule=HOSTILE, detail=HOSTILE, part=HOSTILE),
        verdict(30, start, place=evil, id=HOSTILE, reasons=(HOSTILE,), verdict="fail"),
        machine_event(30, start, HOSTILE, place=evil, message=HOSTILE, source=HOSTILE, detail={"comment": HOSTILE}),
    )
    shop.status |= {
        "agent": HOSTILE,
        "sources": [{"name": HOSTILE, "url": HOSTILE, "error": HOSTILE}],
        "consumers": [{"name": HOSTILE, "error": HOSTILE}],
        "ledger_signals": [{"signal": HOSTILE, "guarantee": HOSTILE, "loss": HOSTILE}],
        "gaps": {
            "by_cause": {HOSTILE: {HOSTILE: 1}},
            "newest": [
                {
                    **GAP,
                    "id": HOSTILE,
                    "cause": HOSTILE,
                    "signal": HOSTILE,
                    "path": HOSTILE,
                    "state": HOSTILE,
                    "detail": HOSTILE,
                    "start": start,
                    "end": 0,
                }
            ],
        },
    }
    page = look(serve(shop.reader, lambda: shop.status).url)
    expect(page.locator("figure .plot[data-drawn]")).to_have_count(1)
    expect(page.locator("#finding-list .detail")).to_have_text(HOSTILE)
    expect(page.locator(".machine .state")).to_have_text(HOSTILE)
    expect(page.locator("#part-list .reasons")).to_have_text(HOSTILE)
    expect(page.locator("#agent")).to_have_text(HOSTILE)
    expect(page.locator("#condition-list .message")).to_contain_text(HOSTILE)
    assert page.locator("figure .plot .textpoint text").first.text_content() == HOSTILE, "Plotly takes some markup"
    page.locator("figure .plot .textpoint").first.scroll_into_view_if_needed()
    box = page.locator("figure .plot .points path.point").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2 - 8, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("figure .hoverlayer .hovertext")).to_contain_text("<b>mm</b>")
    assert page.evaluate("window.hacked") is None
    assert page.locator("main script, main img, main b").count() == 0


def test_says_when_it_is_stale_and_comes_back_by_itself(shop: Any, serve: Any, look: Callable[..., Page]) -> None:
    start = fill(shop)
    served = serve(shop.reader, lambda: shop.status)
    page = look(served.url)
    expect(page.locator("#link-text")).to_have_text("live")
    served.stop()
    expect(page.locator("#banner")).to_contain_text("No live data")
    expect(page.locator("#link-text")).to_have_text("stale")
    expect(page.locator("#finding-list > li")).to_have_count(3)
    shop.write(verdict(70, start, verdict="suspect"))
    served.start()
    expect(page.locator("#link-text")).to_have_text("live")
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator('#part-list tr[data-id="P-70"]')).to_be_visible()
    refused = [c for c in page.complaints if "ERR_" in c or "Failed to load resource" in c]  # type: ignore[attr-defined]  # the browser's own words on a lost link
    for line in refused:
        page.complaints.remove(line)  # type: ignore[attr-defined]  # see above


def test_says_when_the_store_cannot_be_read(page: Page, shop: Any) -> None:
    shop.close()
    expect(page.locator("#banner")).to_contain_text("The store cannot be read")
    expect(page.locator("#finding-list > li")).to_have_count(3)


def test_without_data_it_says_so(shop: Any, serve: Any, look: Callable[..., Page]) -> None:
    page = look(serve(shop.reader, lambda: shop.status).url)
    expect(page.locator("#sum-parts")).to_have_text("0")
    for name in ("machine", "chart", "finding", "part", "cursor", "source"):
        expect(page.locator(f"#{name}-none")).to_be_visible()
    expect(page.locator("#sum-lost")).to_have_text(NONE)  # not known is not zero
    assert page.evaluate("globalThis.Plotly === undefined"), "no chart, no chart library"
