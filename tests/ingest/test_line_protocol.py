"""Line protocol: what goes in comes back, read by a strict parser written from the format's reference."""

import math
import re
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldlab.model import (
    ActionRow,
    AgentRow,
    Batch,
    BatchBuilder,
    ChartPoint,
    Control,
    Finding,
    Gap,
    LedgerRow,
    MachineEvent,
    MachineState,
    PartEvent,
    Place,
    SignalInfo,
    SignalKey,
    SignalTable,
    Verdict,
)
from fieldlab.model.status import BAD_NO_COMMUNICATION, BAD_OUT_OF_RANGE
from ingest.line_protocol import LineEncoder, join, plain, plain_text

PLACE = Place("drachten", "shavers", "3", "cnc-07")
KEY = SignalKey(PLACE, "spindle_load")
_FLOAT = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
_INTEGER = re.compile(r"-?\d+i")

Point = tuple[str, list[tuple[str, str]], dict[str, Any], int]


def parse(body: bytes) -> list[Point]:
    """Every point of a body; raises ValueError at anything that the reference does not allow or leaves open."""
    text = body.decode("utf-8")
    if not text:
        return []
    if text[-1] != "\n":
        raise ValueError("no line feed at the end")
    return [_parse_line(line) for line in text[:-1].split("\n")]


def _parse_line(line: str) -> Point:
    if re.search(r"[\x00-\x1f\x7f]", line):
        raise ValueError("control character")
    measurement, at = _word(line, 0, ", ")
    tags = []
    while line[at] == ",":
        key, at = _word(line, at + 1, "=, ")
        if line[at] != "=":
            raise ValueError("tag without a value")
        value, at = _word(line, at + 1, ", =")
        if line[at] == "=":
            raise ValueError("= in a tag value")
        tags.append((key, value))
    fields: dict[str, Any] = {}
    while True:
        key, at = _word(line, at + 1, "=, ")
        if line[at] != "=" or key in fields:
            raise ValueError("field without a value, or twice")
        fields[key], at = _field(line, at + 1)
        if line[at] == " ":
            break
        if line[at] != ",":
            raise ValueError(f"{line[at]!r} after a field")
    if not re.fullmatch(r"-?\d+", line[at + 1 :]):
        raise ValueError("timestamp")
    names = [k for k, _ in tags] + list(fields)
    if len(set(names)) != len(names):
        raise ValueError("a tag and a field share a name")
    return measurement, tags, fields, int(line[at + 1 :])


def _word(line: str, at: int, ends: str) -> tuple[str, int]:
    word = ""
    while True:
        if at >= len(line):
            raise ValueError("line ends in a name")
        c = line[at]
        if c == "\\":
            following = line[at + 1 : at + 2]
            if following == "\\":
                raise ValueError("two backslashes: servers differ")
            if following in (",", "=", " "):
                word += following
                at += 2
                continue
        elif c in ends:
            if not word:
                raise ValueError("empty name or tag value")
            return word, at
        word += c
        at += 1


def _field(line: str, at: int) -> tuple[Any, int]:
    if line[at] == '"':
        word = ""
        at += 1
        while line[at] != '"':
            if line[at] == "\\":
                at += 1
                if line[at] not in '"\\':
                    raise ValueError("unknown escape")
            word += line[at]
            at += 1
        return word, at + 1
    token = re.match(r"[^, ]*", line[at:])
    assert token
    if token[0] in ("true", "false"):
        return token[0] == "true", at + token.end()
    if _INTEGER.fullmatch(token[0]):
        whole = int(token[0][:-1])
        if not -(2**63) <= whole < 2**63:
            raise ValueError("integer beyond 64 bits")
        return whole, at + token.end()
    if not _FLOAT.fullmatch(token[0]):
        raise ValueError(f"not a number: {token[0]!r}")
    return float(token[0]), at + token.end()


def table(*keys: SignalKey) -> SignalTable:
    return SignalTable(keys or (KEY,))


def only(row: Any, time: int = 5) -> Point:
    lines = LineEncoder(table()).rows([row], time)
    points = parse(lines.body)
    assert len(lines) == len(points) == 1
    assert lines.time.tolist() == [points[0][3]]
    return points[0]


LEDGER = ("received", "committed", "stored", "bad", "overflow", "duplicate", "dead")
TAGS = [("site", "drachten"), ("area", "shavers"), ("line", "3"), ("machine", "cnc-07")]
SYMBOLS = [chr(c) for c in range(0x2400, 0x2422)] + ["\u29f5"]
anything = st.text(st.characters(exclude_characters=SYMBOLS, exclude_categories=["Cs"]), max_size=30)
nasty = st.text(st.sampled_from(list('\\,= "\n\r\t\0#ä€x1i')), max_size=12)
texts = anything | nasty
names = texts.filter(bool)
times = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
places = st.builds(Place, names, names, names, names)


def test_a_reading_is_written_to_the_letter() -> None:
    batch = Batch.of([0, 0], [1763900000123456789, 2], [12.5, 1.0], [0, BAD_NO_COMMUNICATION])
    prefix = b"telemetry,site=drachten,area=shavers,line=3,machine=cnc-07,signal=spindle_load "
    assert LineEncoder(table()).batch(batch).body == (
        prefix + b"value=12.5 1763900000123456789\n" + prefix + b"status=2150694912i 2\n"
    )


def test_numbers_text_statuses_and_large_integers_come_back_with_their_times() -> None:
    builder = BatchBuilder()
    given_: list[tuple[int, int, Any, int, dict[str, Any]]] = [
        (0, 1, 1.5, 0, {"value": 1.5}),
        (1, 2, "busy", 0, {"text": "busy"}),
        (0, 3, 2.5, 0x40000000, {"value": 2.5, "status": 0x40000000}),
        (0, 4, 7.0, BAD_NO_COMMUNICATION, {"status": BAD_NO_COMMUNICATION}),
        (1, 5, "no", BAD_NO_COMMUNICATION, {"status": BAD_NO_COMMUNICATION}),
        (0, 6, math.nan, 0, {"status": BAD_OUT_OF_RANGE}),
        (0, 7, math.inf, 0, {"status": BAD_OUT_OF_RANGE}),
        (0, 8, 2**53 + 1, 0, {"value": float(2**53), "integer": 2**53 + 1}),
        (0, 9, True, 0x480, {"value": 1.0, "status": 0x480}),
    ]
    for signal, time, value, status, _ in given_:
        builder.add(signal, time, value, status)
    lines = LineEncoder(table(KEY, SignalKey(PLACE, "program"))).batch(builder.build())
    points = parse(lines.body)
    assert [p[3] for p in points] == lines.time.tolist()
    assert [dict(p[1])["signal"] == "program" for p in points] == (lines.signal == 1).tolist()
    assert {p[3]: p[2] for p in points} == {g[1]: g[4] for g in given_}


def test_columns_that_break_the_rules_of_a_batch_still_make_valid_lines() -> None:
    value = np.array([math.nan, math.inf, 5.0, math.nan])
    status = np.array([0, 0, 0x80000000, 0x40000000], np.uint32)
    batch = Batch(np.zeros(4, np.uint32), np.arange(4), value, status)
    points = parse(LineEncoder(table()).batch(batch).body)
    assert [p[2]["status"] for p in points] == [BAD_OUT_OF_RANGE, BAD_OUT_OF_RANGE, 0x80000000, BAD_OUT_OF_RANGE]
    assert all(list(p[2]) == ["status"] for p in points)


@settings(max_examples=200, deadline=None)  # no deadline: the machine may be busy
@given(
    keys=st.lists(st.builds(SignalKey, places, names), min_size=1, max_size=4, unique=True),
    readings=st.lists(st.tuples(st.integers(0, 3), times, floats | texts | st.none()), max_size=20),
)
def test_any_batch_comes_back(keys: list[SignalKey], readings: list[tuple[int, int, Any]]) -> None:
    builder = BatchBuilder()
    for signal, time, value in readings:
        builder.add(signal % len(keys), time, value)
    lines = LineEncoder(table(*keys)).batch(builder.build())
    points = parse(lines.body)
    assert len(points) == len(readings) == len(lines)
    wanted = []
    for signal, time, value in readings:
        kept = ("status", BAD_OUT_OF_RANGE) if value is None else ("value", value)
        wanted.append((keys[signal % len(keys)], time, ("text", value) if isinstance(value, str) else kept))
    found = []
    for (measurement, tags, fields, time), index in zip(points, lines.signal.tolist(), strict=True):
        assert measurement == "telemetry"
        assert [k for k, _ in tags] == ["site", "area", "line", "machine", "signal"]
        assert keys[index].path == "/".join(plain(v) for _, v in tags)
        ((field, value),) = fields.items()
        found.append((keys[index], time, (field, plain_text(value) if field == "text" else value)))
    assert sorted(found, key=repr) == sorted(wanted, key=repr)


@settings(deadline=None)
@given(place=places, chart=texts, text=texts, number=st.floats(), time=times)
def test_any_finding_comes_back(place: Place, chart: str, text: str, number: float, time: int) -> None:
    row = Finding(
        time=time, place=place, signal="_all", chart=chart, rule="1", id=text, statistic=number, part=text, detail=text
    )
    measurement, tags, fields, at = only(row)
    assert (measurement, at) == ("finding", time)
    order = ["site", "area", "line", "machine", "signal", "chart", "rule"]
    assert [k for k, _ in tags] == [k for k in order if k != "chart" or chart]
    assert plain(dict(tags).get("chart", "")) == chart
    assert plain(dict(tags)["machine"]) == place.machine
    assert [plain_text(fields[k]) for k in ("id", "part", "detail")] == [text] * 3
    assert ("statistic" in fields) == math.isfinite(number)
    assert fields.get("statistic", number) == number or math.isnan(number)


@given(
    key=st.builds(SignalKey, places, names), unit=texts, lsl=st.none() | floats, states=st.dictionaries(names, texts)
)
def test_any_description_comes_back(key: SignalKey, unit: str, lsl: float | None, states: dict[str, str]) -> None:
    _, tags, fields, at = only(SignalInfo(key=key, unit=unit, lsl=lsl, states=states), time=77)
    assert at == 77
    assert plain(dict(tags)["signal"]) == key.name
    assert plain_text(fields["unit"]) == unit
    assert fields.get("lsl") == lsl
    assert msgspec.json.decode(plain_text(fields.get("states", "{}"))) == states


def test_every_other_kind_of_row() -> None:
    assert only(ChartPoint(time=1, place=PLACE, signal="d", chart="c", statistic=2.0, ucl=3.0, limits_version=4)) == (
        "chart",
        [*TAGS, ("signal", "d"), ("chart", "c")],
        {"statistic": 2.0, "ucl": 3.0, "limits_version": 4},
        1,
    )
    verdict = Verdict(time=9, place=PLACE, id="p", revision=2, verdict="fail", score=0.5, reasons=("a", "b"), start=3)
    assert only(verdict) == (
        "part",
        TAGS,
        {"id": "p", "revision": 2, "verdict": "fail", "score": 0.5, "reasons": "a; b", "start": 3},
        9,
    )
    rich = msgspec.structs.replace(
        verdict, features={"d.mean": 1.5}, genealogy={"tool": 'T"1'}, limits_versions={"c": 1}
    )
    assert only(rich)[2] | {} == {
        **only(verdict)[2],
        "features": '{"d.mean":1.5}',
        "genealogy": '{"tool":"T\\"1"}',
        "limits_versions": '{"c":1}',
    }
    event = PartEvent(time=2, place=PLACE, event="measure", id="p", other="d", value=1.0)
    assert only(event) == (
        "part_event",
        [*TAGS, ("event", "measure")],
        {"id": "p", "other": "d", "value": 1.0, "text": ""},
        2,
    )
    assert only(MachineState(time=1, place=PLACE, state="running"))[:3] == ("machine_state", TAGS, {"state": "running"})
    ledger = only(LedgerRow(time=1, key=KEY, agent="line-3", received=5, dead=1))
    assert ledger[1] == [*TAGS, ("signal", "spindle_load"), ("agent", "line-3")]
    assert ledger[2] == {**dict.fromkeys(LEDGER, 0), "received": 5, "dead": 1}
    agent = only(AgentRow(time=1, agent="line-3", figures={"lag": 1.0, "agent": 2.0, "a b": 3.0, "x": math.nan}))
    assert agent[1:3] == ([("agent", "line-3")], {"lag": 1.0, "agent_": 2.0, "a b": 3.0})


def test_gaps_events_and_actions() -> None:
    gap = Gap(time=4, key=KEY, agent="a", cause="source_down", id="g", state="closed", end=9, recovered=2, source="o-0")
    tags = [*TAGS, ("signal", "spindle_load"), ("agent", "a"), ("cause", "source_down")]
    measurement, found, fields, at = only(gap)
    assert (measurement, found, at) == ("gap", tags, 4)
    assert fields == {
        "id": "g", "state": "closed", "source": "o-0", "detail": "", "revision": 1, "end": 9, "recovered": 2, "lost": 0,
    }  # fmt: skip
    assert only(msgspec.structs.replace(gap, revision=2, state="ended", end=8))[1::2] == (tags, 4)  # one point a gap
    event = MachineEvent(
        time=5, place=PLACE, source="Spindle", kind="T", id="e", severity=800, active=True, detail={"a": 'b"'}
    )
    assert only(event) == (
        "event",
        TAGS,
        {
            "source": "Spindle", "kind": "T", "id": "e", "condition": "", "message": "", "severity": 800,
            "active": True, "detail": '{"a":"b\\""}',
        },
        5,
    )  # fmt: skip
    action = ActionRow(time=6, place=PLACE, action="hold", id="x", value="1", outcome="dry_run")
    assert only(action) == (
        "action",
        [*TAGS, ("action", "hold")],
        {"id": "x", "trigger": "", "target": "", "value": "1", "outcome": "dry_run", "detail": ""},
        6,
    )


def test_a_control_and_a_row_without_figures_write_nothing() -> None:
    encoder = LineEncoder(table())
    assert encoder.rows([Control(time=1, action="freeze"), AgentRow(time=1, agent="a")], 1).body == b""


def test_the_later_of_two_descriptions_in_one_record_counts() -> None:
    rows = [SignalInfo(key=KEY, lsl=1.0), SignalInfo(key=KEY, unit="mm")]
    (point,) = parse(LineEncoder(table()).rows(rows, 1).body)
    assert point[2] == {"unit": "mm", "kind": "gauge", "guarantee": "end-to-end"}


def test_signals_that_appear_later_are_known() -> None:
    signals = table()
    encoder = LineEncoder(signals)
    encoder.batch(Batch.of([0], [1], [1.0]))
    index = signals.index(SignalKey(PLACE, "later"))
    assert b"signal=later value=2.0 3\n" in encoder.batch(Batch.of([index], [3], [2.0])).body
    with pytest.raises(IndexError):
        encoder.batch(Batch.of([9], [3], [2.0]))


def test_joined_lines_keep_what_each_is_about() -> None:
    encoder = LineEncoder(table())
    rows = encoder.rows([MachineState(time=8, place=PLACE, state="x")], 1)
    lines = join([encoder.batch(Batch.of([0], [1], [1.0])), rows, rows])
    assert len(parse(lines.body)) == len(lines) == 3
    assert lines.about == {1: (PLACE.path, ""), 2: (PLACE.path, "")}
    assert lines.signal.tolist() == [0, -1, -1]
    assert lines.time.tolist() == [1, 8, 8]
    assert len(join([])) == 0
