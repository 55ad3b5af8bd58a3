"""One contract for every store that can be queried: the same records give the same answers, also when written twice."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldlab.model import (
    ActionRow,
    AgentRow,
    BatchBuilder,
    ChartPoint,
    Control,
    Finding,
    LedgerRow,
    MachineEvent,
    MachineState,
    PartEvent,
    Place,
    Record,
    RecordKind,
    SignalInfo,
    SignalKey,
    SignalTable,
    Verdict,
)
from fieldlab.model.status import BAD_NO_COMMUNICATION, BAD_OUT_OF_RANGE
from ingest.stores import known_kinds, load_kind
from ingest.stores.base import Reader, Store, StoreContext

T0 = 1_763_900_000_123_456_789
CNC = Place("drachten", "shavers", "3", "cnc-07")
ODD = Place("a b", 'q"uo,te', "l=i\\ne", "m\\")  # everything that line protocol escapes, and a backslash at the end
LOAD = SignalKey(CNC, "spindle_load")
PROGRAM = SignalKey(CNC, "program")
STRANGE = SignalKey(ODD, "it's \\ a, b=c")
TEXT = 'two\nlines, "quoted" \\ and a tab\t'


@pytest.fixture(params=["embedded", "influxdb"])
def opened(request: Any, tmp_path: Path) -> Iterator[tuple[Store, Reader, SignalTable]]:
    signals = SignalTable([LOAD, PROGRAM, STRANGE])
    kind = load_kind(request.param)
    if request.param == "embedded":
        config = kind.config()
    else:
        influxd = request.getfixturevalue("influxd")
        config = kind.config(url=influxd.url, api="v1", bucket=influxd.create_database())
    store, reader = kind.create(config, StoreContext(name="here", agent="a", data=tmp_path), signals)
    assert reader is not None
    yield store, reader, signals
    store.close()


def finding(n: int, revision: int = 1, **more: Any) -> Finding:
    return Finding(
        **{
            "time": T0 + 1000 * n + revision,
            "place": CNC,
            "signal": "diameter",
            "chart": "c",
            "rule": "1",
            "id": f"f{n}",
            "revision": revision,
            "statistic": 1.5,
            "limit": 1.0,
            "limits_version": 2,
            "part": f"p{n}",
            "detail": TEXT,
            **more,
        }
    )


def verdict(n: int, revision: int = 1, **more: Any) -> Verdict:
    return Verdict(time=T0 + 1000 * n + revision, place=CNC, id=f"p{n}", revision=revision, **more)


def readings() -> Record:
    builder = BatchBuilder()
    builder.add(0, T0, 1.5)
    builder.add(0, T0 + 1, 2.5, 0x40000000)
    builder.add(0, T0 + 2, None, BAD_NO_COMMUNICATION)
    builder.add(0, T0 + 3, math.nan)
    builder.add(0, T0 + 4, 2**53 + 1)
    builder.add(0, T0 + 5, True, 0x480)
    builder.add(1, T0, "O1000")
    builder.add(1, T0 + 7, TEXT)
    builder.add(2, T0, 0.1)
    builder.add(2, T0 + 1, 1e300)
    builder.add(0, T0 - 10, -5e-324)  # late: older than what came before
    return Record(1, RecordKind.READINGS, T0, builder.build())


def everything() -> list[Record]:
    load = SignalInfo(key=LOAD, unit="%", lsl=0.0, usl=95.0, target=50.0, guarantee="from-receipt")
    strange = SignalInfo(key=STRANGE, unit='"°C\\', kind="state", states={"0": "idle", "1": "bu;sy"})
    described_later = SignalInfo(key=LOAD, unit="percent", usl=95.0)
    events = [
        PartEvent(time=T0 + 1, place=CNC, event="start", id="p1", other=""),
        PartEvent(time=T0 + 2, place=CNC, event="measure", id="p1", other="diameter", value=1.25),
        PartEvent(time=T0 + 3, place=CNC, event="consume", id="p1", other="lot", text=TEXT),
        PartEvent(time=T0 + 4, place=CNC, event="end", id="o'p\\2\n"),
    ]
    verdicts = [
        verdict(1, verdict="pass"),
        verdict(
            2,
            verdict="fail",
            score=0.75,
            reasons=("too wide", "tool worn"),
            start=T0,
            features={"diameter.mean": 1.5},
            genealogy={"tool": 'T"1\\'},
            limits_versions={"c": 3},
        ),
        verdict(1, 2, verdict="suspect", score=0.5, reasons=("late measurement",)),
    ]
    points = [
        ChartPoint(time=T0 + i, place=CNC, signal="diameter", chart=c, statistic=float(i)) for i, c in enumerate("cdc")
    ]
    points.append(
        ChartPoint(
            time=T0 + 9, place=CNC, signal="_all", chart="c", statistic=2.0, center=1.0, ucl=3.0, limits_version=4
        )
    )
    states = [MachineState(time=T0 + i, place=CNC, state=s) for i, s in enumerate(("idle", "running"))]
    rows: list[tuple[RecordKind, tuple[Any, ...]]] = [
        (RecordKind.SIGNAL, (load, strange)),
        (RecordKind.SIGNAL, (described_later,)),
        (RecordKind.CHART, tuple(points)),
        (RecordKind.FINDING, (finding(1), finding(2), finding(1, 2, state="cleared"), finding(3, rule="2", detail=""))),
        (RecordKind.PART, (*events, *verdicts)),
        (RecordKind.MACHINE_STATE, (*states, MachineState(time=T0, place=ODD, state=TEXT))),
        (RecordKind.LEDGER, (LedgerRow(time=T0, key=LOAD, agent="a", received=9),)),
        (RecordKind.AGENT, (AgentRow(time=T0, agent="a", figures={"lag": 1.0}),)),
        (RecordKind.CONTROL, (Control(time=T0, action="freeze"),)),
    ]
    return [readings(), *(Record(2 + i, kind, T0 + i, rows=r) for i, (kind, r) in enumerate(rows))]


def test_the_answers_are_those_of_the_records(opened: tuple[Store, Reader, SignalTable]) -> None:
    store, reader, _ = opened
    assert store.write(everything()) == []
    check_everything(reader)


def test_written_twice_is_stored_once(opened: tuple[Store, Reader, SignalTable]) -> None:
    store, reader, _ = opened
    records = everything()
    store.write(records)
    store.write(records[:1])
    store.write([*records, *records])
    store.write([Record(r.position + 500, r.kind, r.time, r.batch, r.rows) for r in records])
    check_everything(reader)


def check_everything(reader: Reader) -> None:
    assert reader.counts() == {LOAD: 7, PROGRAM: 2, STRANGE: 2}
    assert reader.counts(T0, T0 + 1) == {LOAD: 1, PROGRAM: 1, STRANGE: 1}
    series = reader.telemetry(LOAD, T0 - 10, T0 + 6)
    assert series.time.tolist() == [T0 - 10, *range(T0, T0 + 6)]
    assert series.status.tolist() == [0, 0, 0x40000000, BAD_NO_COMMUNICATION, BAD_OUT_OF_RANGE, 0, 0x480]
    np.testing.assert_array_equal(series.value, [-5e-324, 1.5, 2.5, np.nan, np.nan, 2.0**53, 1.0])
    assert series.text == {}
    assert [c.dtype.str for c in (series.time, series.value, series.status)] == ["<i8", "<f8", "<u4"]
    assert reader.telemetry(LOAD, 0, T0 + 4, limit=2).time.tolist() == [T0 + 2, T0 + 3]
    assert reader.telemetry(PROGRAM, 0, 2**63 - 1).text == {0: "O1000", 1: TEXT}
    assert np.isnan(reader.telemetry(PROGRAM, 0, 2**63 - 1).value).all()
    assert reader.telemetry(STRANGE, 0, 2**63 - 1).value.tolist() == [0.1, 1e300]
    nobody = reader.telemetry(SignalKey(CNC, "' OR 1=1 --"), 0, 2**63 - 1)
    assert (len(nobody.time), nobody.text) == (0, {})

    assert reader.signals() == [
        SignalInfo(key=STRANGE, unit='"°C\\', kind="state", states={"0": "idle", "1": "bu;sy"}),
        SignalInfo(key=PROGRAM),
        SignalInfo(key=LOAD, unit="percent", usl=95.0),
    ]
    points = reader.chart_points(0, 2**63 - 1)
    assert [(p.time - T0, p.chart, p.signal, p.statistic) for p in points] == [
        (0, "c", "diameter", 0.0),
        (1, "d", "diameter", 1.0),
        (2, "c", "diameter", 2.0),
        (9, "c", "_all", 2.0),
    ]
    assert (points[3].center, points[3].ucl, points[3].lcl, points[3].limits_version) == (1.0, 3.0, None, 4)
    assert (points[0].ucl, points[0].limits_version) == (None, 0)
    assert [p.time - T0 for p in reader.chart_points(T0, T0 + 9, chart="c")] == [0, 2]
    assert [p.time - T0 for p in reader.chart_points(0, 2**63 - 1, limit=2)] == [2, 9]

    newest = [finding(3, rule="2", detail=""), finding(2), finding(1, 2, state="cleared")]
    assert reader.findings() == newest
    assert reader.findings(limit=1) == newest[:1]
    assert reader.findings(T0, T0 + 1002) == [finding(1)]
    verdicts = reader.verdicts()
    assert [(v.id, v.revision, v.verdict) for v in verdicts] == [("p2", 1, "fail"), ("p1", 2, "suspect")]
    assert verdicts[0] == verdict(
        2,
        verdict="fail",
        score=0.75,
        reasons=("too wide", "tool worn"),
        start=T0,
        features={"diameter.mean": 1.5},
        genealogy={"tool": 'T"1\\'},
        limits_versions={"c": 3},
    )
    assert reader.verdicts(limit=1) == verdicts[:1]
    assert [(e.event, e.other, e.value, e.text) for e in reader.part_events("p1")] == [
        ("start", "", None, ""),
        ("measure", "diameter", 1.25, ""),
        ("consume", "lot", None, TEXT),
    ]
    assert [e.event for e in reader.part_events("o'p\\2\n")] == ["end"]
    assert [e.event for e in reader.part_events("p1", limit=1)] == ["start"]
    assert [(v.id, v.revision, v.verdict) for v in reader.part_verdicts("p1")] == [
        ("p1", 1, "pass"), ("p1", 2, "suspect"),
    ]  # fmt: skip
    assert reader.part_verdicts("p2") == verdicts[:1]
    assert [(e.event, e.id, e.text) for e in reader.consumers("lot")] == [("consume", "p1", TEXT)]
    assert reader.consumers("diameter") == [], "other events than consume are not asked for"
    assert reader.consumers("lot", T0 + 4) == reader.consumers("lot", 0, T0 + 3) == []
    assert [f.revision for f in reader.finding("f1")] == sorted(f.revision for f in reader.finding("f1"))
    assert reader.finding("f1")[0] == finding(1)
    assert reader.machine_states() == [
        MachineState(time=T0, place=ODD, state=TEXT),
        MachineState(time=T0 + 1, place=CNC, state="running"),
    ]


def test_an_empty_store_answers_with_nothing(opened: tuple[Store, Reader, SignalTable]) -> None:
    store, reader, _ = opened
    assert store.write([]) == []
    answers: list[list[Any]] = [reader.signals(), reader.findings(), reader.verdicts(), reader.machine_states()]
    assert answers == [[], [], [], []]
    assert reader.chart_points(0, 2**63 - 1) == []
    assert reader.part_events("p") == []
    assert reader.counts() == {}
    assert len(reader.telemetry(LOAD, 0, 2**63 - 1).time) == 0


def test_of_two_values_at_one_time_the_later_one_counts(opened: tuple[Store, Reader, SignalTable]) -> None:
    store, reader, _ = opened
    for values in ([1.0, 2.0], [3.0]):
        builder = BatchBuilder()
        for value in values:
            builder.add(0, T0, value)
        store.write([Record(1, RecordKind.READINGS, T0, builder.build())])
    assert reader.telemetry(LOAD, 0, 2**63 - 1).value.tolist() == [3.0]


def test_the_newest_reading_of_each_signal(opened: tuple[Store, Reader, SignalTable]) -> None:
    store, reader, signals = opened
    store.write([readings()])
    newest = reader.latest(T0)
    assert set(newest) == {signals[0], signals[1], signals[2]}
    for key, series in newest.items():
        expected = reader.telemetry(key, 0, 2**62, limit=1)
        assert (series.time.tolist(), series.status.tolist()) == (expected.time.tolist(), expected.status.tolist())
        np.testing.assert_array_equal(series.value, expected.value)
        assert series.text == expected.text
    assert set(reader.latest(T0 + 6)) == {signals[1]}
    assert reader.latest(T0 + 8) == {}


def test_signals_that_appear_later_are_stored(opened: tuple[Store, Reader, SignalTable]) -> None:
    store, reader, signals = opened
    store.write([readings()])
    index = signals.index(SignalKey(CNC, "later"))
    builder = BatchBuilder()
    builder.add(index, T0, 4.0)
    store.write([Record(9, RecordKind.BACKFILL, T0, builder.build())])
    assert reader.counts()[SignalKey(CNC, "later")] == 1


def test_the_result_of_an_action_takes_the_place_of_its_intent(opened: tuple[Store, Reader, SignalTable]) -> None:
    """Written together, one after the other, or both again: one row a trigger, with the last word."""
    store, reader, _ = opened

    def row(n: int, outcome: str, detail: str, place: Place = CNC) -> Any:
        words = {"trigger": f"f{n}", "target": "nsu=urn:x;s=hold", "value": "true", "detail": detail}
        return ActionRow(time=T0 + n, place=place, action="hold", id=f"a{n}", outcome=outcome, **words)  # type: ignore[arg-type]  # an outcome

    intents = [row(n, "unknown", "sent") for n in range(3)]
    results = [row(0, "done", "Good"), row(1, "refused", TEXT)]
    odd = row(9, "limited", "more than 6/h", ODD)

    def record(position: int, *rows: Any) -> Record:
        return Record(position, RecordKind.ACTION, T0, rows=rows)

    store.write([record(1, *intents), record(2, results[0])])
    store.write([record(3, results[1], odd)])
    expected = [odd, intents[2], results[1], results[0]]
    assert reader.actions() == expected
    store.write([record(1, *intents), record(2, results[0]), record(3, results[1], odd)])
    assert reader.actions() == expected
    assert reader.actions(limit=2) == expected[:2]
    assert reader.actions(T0 + 1, T0 + 3) == expected[1:3]


def test_events_and_the_state_of_each_condition(opened: tuple[Store, Reader, SignalTable]) -> None:
    store, reader, _ = opened

    def row(n: int, condition: str = "", retain: bool | None = None, place: Place = CNC, **more: Any) -> MachineEvent:
        words = {"source": "Spindle", "kind": "ExclusiveLimitAlarmType", "id": f"{n:04x}", "message": TEXT} | more
        return MachineEvent(time=T0 + n, place=place, condition=condition, severity=n, retain=retain, **words)

    hot = "nsu=urn:x;s=hot 'n' \"cold\""
    branch = {"branch": "nsu=urn:x;s=b1", "comment": TEXT}
    early = row(1, "old", True, active=True, acknowledged=False)
    rows = (
        early,
        row(2, hot, True, active=True, acknowledged=False, detail=branch),
        row(3, hot, True, active=True, acknowledged=False, detail={"comment": "x"}),
        row(4, "over", True, active=True),
        row(5, hot, True, ODD, active=True),
        row(6, "over", False, active=False, acknowledged=True),
        row(7),
        row(8, hot, True, active=True, acknowledged=True),
    )
    for _ in range(2):
        store.write([Record(1, RecordKind.EVENT, T0, rows=rows[:5]), Record(2, RecordKind.EVENT, T0, rows=rows[5:])])
        assert reader.events() == list(reversed(rows))
        assert reader.events(T0 + 2, T0 + 4) == [rows[2], rows[1]]
        assert reader.events(limit=2) == [rows[7], rows[6]]
        assert reader.conditions() == [rows[7], rows[4], rows[1], early]
        assert reader.conditions(limit=1) == [rows[7]]


def test_many_findings_are_read_to_the_last(opened: tuple[Store, Reader, SignalTable]) -> None:
    store, reader, _ = opened
    rows = tuple(finding(n, revision) for n in range(700) for revision in (1, 2))
    store.write([Record(1, RecordKind.FINDING, T0, rows=rows)])
    found = reader.findings(limit=600)
    assert [(f.id, f.revision) for f in found] == [(f"f{n}", 2) for n in range(699, 99, -1)]


def test_kinds_are_found_by_name(request: Any) -> None:
    assert known_kinds() == ["embedded", "influxdb", "mqtt"]
    kinds: list[Callable[..., Any]] = [load_kind(kind).config for kind in known_kinds()]
    assert len(kinds) == 3
    with pytest.raises(KeyError):
        load_kind("nothing")
