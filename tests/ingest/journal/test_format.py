import struct

import google_crc32c
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
    Limits,
    MachineEvent,
    MachineState,
    PartEvent,
    Place,
    RecordKind,
    SignalInfo,
    SignalKey,
    Verdict,
)
from fieldlab.model.record import KIND_OF_ROW, Row
from ingest.journal import format as fmt
from ingest.journal.format import DamagedRecordError, Extras, Messages

steady = settings(deadline=None)  # a slow machine is no fault
PLACE = Place("site", "area", "line", "máquina 7")
U32 = st.integers(0, 2**32 - 1)
VALUES = (
    st.floats()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(2**53 + 1, 2**53 + 9)
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["", "😀", "\ud800x", "a\0b"])
    | st.none()
)
READINGS = st.lists(
    st.tuples(U32, st.integers(-(2**63), 2**63 - 1), VALUES, st.sampled_from([0, 0, 0x40000000, 0x80310000])),
    max_size=12,
)


@st.composite
def extras(draw: st.DrawFn) -> Extras:
    moved = draw(st.lists(st.tuples(U32, U32), max_size=4))
    counts = draw(st.lists(st.tuples(U32, U32, U32, U32), max_size=4))
    messages = draw(
        st.lists(
            st.tuples(
                st.text(max_size=9),
                st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 2**64 - 1)), max_size=5),
            ),
            max_size=3,
        )
    )
    return Extras(
        np.array([row for row, _ in moved], np.uint32),
        np.array([by for _, by in moved], np.uint32),
        np.array(counts, np.uint32).reshape(-1, 4),
        tuple(
            Messages(name, np.array([i for i, _ in pairs], np.uint16), np.array([h for _, h in pairs], np.uint64))
            for name, pairs in messages
        ),
    )


def build(given: list[tuple[int, int, float | str | None, int]]) -> Batch:
    builder = BatchBuilder()
    for reading in given:
        builder.add(*reading)
    return builder.build()


def same(a: Batch, b: Batch) -> bool:
    columns = ("signal", "time", "value", "status", "text_row", "integer_row", "integer")
    exact = all(
        getattr(a, name).dtype == getattr(b, name).dtype and getattr(a, name).tobytes() == getattr(b, name).tobytes()
        for name in columns
    )
    return exact and tuple(t.encode("utf-8", "replace").decode() for t in a.text) == b.text


KINDS = st.sampled_from([RecordKind.READINGS, RecordKind.BACKFILL])


@steady
@given(KINDS, READINGS, extras())
def test_readings_come_back_as_they_were(
    kind: RecordKind, given: list[tuple[int, int, float | str | None, int]], extra: Extras
) -> None:
    batch = build(given)
    data = fmt.encode_readings(kind, batch, extra)
    record = fmt.decode(7, 99, data)
    assert (record.position, record.kind, record.time, record.rows) == (7, kind, 99, ())
    assert record.batch is not None
    assert same(batch, record.batch)
    found = fmt.decode_extras(data)
    assert found.moved_row.tolist() == extra.moved_row.tolist()
    assert found.moved_by.tolist() == extra.moved_by.tolist()
    assert found.counts.tolist() == extra.counts.tolist()
    assert [(m.session, m.ids.tolist(), m.hashes.tolist()) for m in found.messages] == [
        (m.session, m.ids.tolist(), m.hashes.tolist()) for m in extra.messages
    ]


def test_columns_of_another_type_are_written_as_the_format_has_them() -> None:
    odd = Batch(np.array([3, 4]), np.array([5, 6], ">i8"), np.array([1, 2], np.float32), np.array([0, 1]))
    found = fmt.decode(1, 1, fmt.encode_readings(RecordKind.READINGS, odd, Extras())).batch
    assert found is not None
    assert (found.signal.tolist(), found.time.tolist(), found.value.tolist(), found.status.tolist()) == (
        [3, 4],
        [5, 6],
        [1.0, 2.0],
        [0, 1],
    )


ROWS: list[Row] = [
    Finding(time=5, place=PLACE, signal="s", chart="c", rule="1", id="ab", statistic=-1.5, detail="größer 😀"),
    PartEvent(time=6, place=PLACE, event="measure", id="p", value=None, text="x"),
    Verdict(time=7, place=PLACE, id="p", reasons=("a", "b"), features={"s.mean": 1e-300}, limits_versions={"c": 2}),
    Control(time=8, action="configure", detail={"a": [1, 2.5, None, {"b": "c"}]}),
    ChartPoint(time=9, place=PLACE, signal="s", chart="c", statistic=1.0, ucl=2.0, limits_version=1),
    SignalInfo(key=SignalKey(PLACE, "s[0]"), unit="°C", lsl=-0.0, states={"0": "idle"}),
    MachineState(time=10, place=PLACE, state="running"),
    LedgerRow(time=11, key=SignalKey(PLACE, "s"), agent="a", received=2**62),
    AgentRow(time=12, agent="a", figures={"rss": 1.0}),
    Gap(time=13, key=SignalKey(PLACE, "s"), agent="a", cause="agent_down", id="g", state="closed", end=20, recovered=3),
    MachineEvent(
        time=14, place=PLACE, source="Spindle", kind="T", id="e", severity=800, active=True, detail={"a": "b"}
    ),
    ActionRow(time=15, place=PLACE, action="hold", id="x", trigger="f", value="1", outcome="dry_run"),
]


def test_a_row_of_every_kind_comes_back() -> None:
    assert {type(row) for row in ROWS} == set(KIND_OF_ROW)
    for kind in RecordKind:
        rows = [row for row in ROWS if KIND_OF_ROW[type(row)] is kind]
        if rows:
            record = fmt.decode(1, 2, fmt.encode_rows(kind, rows))
            assert (record.kind, record.rows, record.batch) == (kind, tuple(rows), None)


def test_a_tick_comes_back() -> None:
    record = fmt.decode(1, 2, fmt.encode_tick(-5))
    assert (record.kind, record.time) == (RecordKind.TICK, -5)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_could_not_be_read_again_is_refused(number: float) -> None:
    row = ChartPoint(time=9, place=PLACE, signal="s", chart="c", statistic=number)
    with pytest.raises(ValueError, match="CHART cannot be kept"):
        fmt.encode_rows(RecordKind.CHART, [row])


def test_a_lone_surrogate_in_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogate"):
        fmt.encode_rows(RecordKind.AGENT, [AgentRow(time=1, agent="\ud800")])


def test_limits_in_a_control_come_back_as_plain_json() -> None:
    limits = Limits(version=1, center=1.0, ucl=2.0, lcl=0.0, sigma=0.1, n=5)
    row = Control(time=8, action="freeze", detail={"limits": limits})
    (found,) = fmt.decode(1, 1, fmt.encode_rows(RecordKind.CONTROL, [row])).rows
    assert isinstance(found, Control)
    assert found.detail["limits"]["center"] == 1.0


EVERY = [
    fmt.encode_readings(
        RecordKind.READINGS,
        build([(1, 2, 3.5, 0), (2, 3, "text", 0), (3, 4, 2**60 + 1, 0), (4, 5, None, 0x80310000)]),
        Extras(
            np.array([1], np.uint32),
            np.array([2], np.uint32),
            np.array([[1, 2, 3, 4]], np.uint32),
            (Messages("broker", np.array([7], np.uint16), np.array([8], np.uint64)),),
        ),
    ),
    fmt.encode_rows(RecordKind.PART, [row for row in ROWS if isinstance(row, PartEvent | Verdict)]),
    fmt.encode_tick(5),
]


@pytest.mark.parametrize("data", EVERY, ids=["readings", "rows", "tick"])
def test_any_flipped_bit_is_noticed(data: bytes) -> None:
    for at in range(len(data)):
        for bit in (0x01, 0x80, 0xFF):
            bent = bytearray(data)
            bent[at] ^= bit
            with pytest.raises(DamagedRecordError):
                fmt.decode(1, 1, bytes(bent))


@pytest.mark.parametrize("data", EVERY, ids=["readings", "rows", "tick"])
def test_any_missing_end_is_noticed(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(DamagedRecordError):
            fmt.decode(1, 1, data[:length])


def seal(kind: int, body: bytes) -> bytes:
    """A record with a right CRC, as README.md describes it."""
    crc = google_crc32c.extend(google_crc32c.value(bytes([kind])), body)
    return struct.pack("<2sBBI", b"FJ", 1, kind, crc) + body


@steady
@given(st.sampled_from([int(kind) for kind in RecordKind] + [0, 12, 255]), st.binary(max_size=64))
def test_any_body_with_a_right_crc_is_read_or_damaged(kind: int, body: bytes) -> None:
    data = seal(kind, body)
    try:
        record = fmt.decode(1, 1, data)
        if record.batch is not None:
            record.batch.check()
            fmt.decode_extras(data)
    except DamagedRecordError:
        pass


def section(tag: int, body: bytes) -> bytes:
    return struct.pack("<II", tag, len(body)) + body + bytes(-len(body) % 8)


def test_the_format_is_what_the_readme_says_and_unknown_sections_are_passed_over() -> None:
    body = (
        section(4711, b"later")
        + section(1, struct.pack("<2I", 5, 6))
        + section(2, struct.pack("<2q", 10, 11))
        + section(3, struct.pack("<2d", 1.5, 2.5))
        + section(99, b"")
    )
    record = fmt.decode(1, 1, seal(1, body))
    assert record.batch is not None
    assert (record.batch.signal.tolist(), record.batch.time.tolist()) == ([5, 6], [10, 11])
    assert (record.batch.value.tolist(), record.batch.status.tolist()) == ([1.5, 2.5], [0, 0])


def test_columns_that_do_not_fit_each_other_are_damage() -> None:
    body = section(1, struct.pack("<2I", 5, 6)) + section(2, struct.pack("<q", 10)) + section(3, struct.pack("<d", 1.5))
    with pytest.raises(DamagedRecordError, match="one length"):
        fmt.decode(1, 1, seal(1, body))


@steady
@given(READINGS, st.integers(1, 5), st.data())
def test_a_split_record_holds_the_same(
    given: list[tuple[int, int, float | str | None, int]], most: int, data: st.DataObject
) -> None:
    batch = build(given)
    rows = sorted(data.draw(st.sets(st.integers(0, len(given) - 1)) if given else st.just(set())))
    extra = Extras(np.array(rows, np.uint32), np.arange(len(rows), dtype=np.uint32), np.ones((1, 4), np.uint32))
    parts = fmt.split(batch, extra, most)
    assert all(len(b) <= most for b, _ in parts)
    assert [t for b, _ in parts for t in b.time.tolist()] == batch.time.tolist()
    assert [t for b, _ in parts for t in b.text] == list(batch.text)
    assert [i for b, _ in parts for i in b.integer.tolist()] == batch.integer.tolist()
    starts = np.cumsum([0, *(len(b) for b, _ in parts)])
    assert [int(r + s) for (_, e), s in zip(parts, starts, strict=False) for r in e.moved_row] == rows
    assert [len(e.counts) for _, e in parts] == [1] + [0] * (len(parts) - 1)
