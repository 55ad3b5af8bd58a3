"""Both decoders of PublishResponses against asyncua's own, on every shape and on damaged bodies."""

import base64
import datetime as dt
import math
import os
import random
import struct
import uuid
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edge.sources.opcua.decode as decode_module
import edge.sources.opcua.grouped as grouped_module
import edge.sources.opcua.located as located_module
from edge.sources.opcua.columns import SCALAR
from edge.sources.opcua.decode import UndecodableError
from edge.sources.opcua.repeats import Memory

ARRIVAL = 1_795_000_000_000_000_000
DAY = 24 * 3600 * 10**9
EPOCH_TICKS = 116_444_736_000_000_000
BAD, MISMATCH, OUT_OF_RANGE = 0x80000000, 0x80740000, 0x803C0000
UTC = dt.UTC

INTEGERS = {
    ua.VariantType.SByte: (-(2**7), 2**7 - 1), ua.VariantType.Byte: (0, 2**8 - 1),
    ua.VariantType.Int16: (-(2**15), 2**15 - 1), ua.VariantType.UInt16: (0, 2**16 - 1),
    ua.VariantType.Int32: (-(2**31), 2**31 - 1), ua.VariantType.UInt32: (0, 2**32 - 1),
    ua.VariantType.Int64: (-(2**63), 2**63 - 1), ua.VariantType.UInt64: (0, 2**64 - 1),
}  # fmt: skip
VALUES = {
    **{kind: st.integers(low, high) for kind, (low, high) in INTEGERS.items()},
    ua.VariantType.Boolean: st.booleans(),
    ua.VariantType.Double: st.floats(),
    ua.VariantType.Float: st.floats(width=32),
    ua.VariantType.String: st.text(max_size=8),
    ua.VariantType.DateTime: st.datetimes(
        dt.datetime(1601, 1, 2), dt.datetime(9998, 1, 1), timezones=st.just(UTC)  # noqa: DTZ001  hypothesis wants naive bounds
    ),
    ua.VariantType.Guid: st.uuids(),
    ua.VariantType.ByteString: st.binary(max_size=8),
    ua.VariantType.LocalizedText: st.builds(ua.LocalizedText, st.text(max_size=5), st.just("en")),
    ua.VariantType.QualifiedName: st.builds(ua.QualifiedName, st.text(max_size=5), st.just(1)),
    ua.VariantType.NodeId: st.builds(ua.NodeId, st.text(min_size=1, max_size=5), st.just(2)),
    ua.VariantType.StatusCode: st.builds(ua.StatusCode, st.just(ua.UInt32(0x80000000))),
    ua.VariantType.XmlElement: st.builds(ua.XmlElement, st.text(max_size=8)),
    ua.VariantType.DiagnosticInfo: st.builds(ua.DiagnosticInfo, SymbolicId=st.just(1), AdditionalInfo=st.just("why")),
    ua.VariantType.ExtensionObject: st.builds(ua.Range, Low=st.just(1.0), High=st.just(2.0)),
}  # fmt: skip
# OPC 10000-6, 5.1.9: null, empty and zero-length arrays are semantically the same, and so are Strings and ByteStrings.
TEXTS = (ua.VariantType.String, ua.VariantType.ByteString, ua.VariantType.XmlElement)
OPAQUE = (22, 23, 24)  # read by the server's own definitions: see test_structures.py
TIMES = st.none() | st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2026, 11, 1), timezones=st.just(UTC))  # noqa: DTZ001  same
STATUSES = st.sampled_from([None, 0, 0x40900000, 0x808C0000, 0x480])


@st.composite
def data_values(draw: Any, kind: Any = None) -> Any:
    kind = kind or draw(st.sampled_from(list(VALUES)))
    array = draw(st.booleans()) and kind is not ua.VariantType.StatusCode
    value = draw(st.lists(VALUES[kind], max_size=4) if array else VALUES[kind])
    status = draw(STATUSES)
    return ua.DataValue(
        Value=ua.Variant(value, kind, is_array=array),
        StatusCode=None if status is None else ua.StatusCode(ua.UInt32(status)),
        SourceTimestamp=draw(TIMES),
        ServerTimestamp=draw(TIMES),
    )


def body_of(items: Any, *, acks: Any = (), sequence: int = 7) -> bytes:
    """A PublishResponse as asyncua's server sends it."""
    response = ua.PublishResponse()
    response.ResponseHeader.Timestamp = dt.datetime.now(UTC)
    response.Parameters.SubscriptionId = 3
    response.Parameters.AvailableSequenceNumbers = [5, 6, 7]
    response.Parameters.Results = [ua.StatusCode(ua.UInt32(a)) for a in acks]
    message = response.Parameters.NotificationMessage
    message.SequenceNumber = sequence
    message.PublishTime = dt.datetime.now(UTC)
    if items is not None:
        notification = ua.DataChangeNotification()
        notification.MonitoredItems = [
            ua.MonitoredItemNotification(ClientHandle=handle, Value=value) for handle, value in items
        ]
        message.NotificationData = [notification]
    return struct_to_binary(response)


def decode(body: bytes, arrival: int, **keys: Any) -> Any:
    """Ours; every test says itself what it expects to be there."""
    return decode_module.decode(body, arrival, **keys)


def ns(time: Any) -> Any:
    return (time - dt.datetime(1970, 1, 1, tzinfo=UTC)) // dt.timedelta(microseconds=1) * 1000


def expected(body: Any) -> Any:
    """Rows as asyncua's own decoder sees the body: (handle, element, time, value, status)."""
    response = struct_from_binary(ua.PublishResponse, Buffer(body))
    rows: list[Any] = []
    for notification in response.Parameters.NotificationMessage.NotificationData:
        for item in notification.MonitoredItems:
            value, kind = item.Value.Value.Value, item.Value.Value.VariantType
            status = item.Value.StatusCode.value if item.Value.StatusCode is not None else 0
            times = (item.Value.SourceTimestamp, item.Value.ServerTimestamp)
            time = next((ns(t) for t in times if t is not None and 0 <= ns(t) <= ARRIVAL + DAY), ARRIVAL)
            if item.Value.SourcePicoseconds is not None or item.Value.ServerPicoseconds is not None:
                time = None  # asyncua takes them in another order than 5.2.2.17, and so other bytes for the times
            if item.Value.Value is not None and kind.value in OPAQUE and not status & BAD:
                continue
            if status & BAD:
                rows.append((item.ClientHandle, SCALAR, time, None, status))
            elif kind.value > 21 or kind is ua.VariantType.Null:
                rows.append((item.ClientHandle, SCALAR, time, None, MISMATCH))
            elif item.Value.Value.is_array:
                rows += [(item.ClientHandle, i, time, *kept(v, status)) for i, v in enumerate(value or [])]
            elif value is None and kind not in TEXTS:
                rows.append((item.ClientHandle, SCALAR, time, None, MISMATCH))
            elif value is None:
                rows.append((item.ClientHandle, SCALAR, time, "", status))
            else:
                rows.append((item.ClientHandle, SCALAR, time, *kept(value, status)))
    return rows


def node_text(node: Any) -> str:
    where = f"ns={node.NamespaceIndex};" if node.NamespaceIndex else ""
    kind = {"Numeric": "i", "TwoByte": "i", "FourByte": "i", "String": "s", "Guid": "g", "ByteString": "b"}[
        node.NodeIdType.name
    ]
    known = node.Identifier
    if kind == "s":
        known = known or ""
    if kind == "b":
        known = base64.b64encode(known or b"").decode()
    uri = getattr(node, "NamespaceUri", None)
    if uri:
        where = f"nsu={uri.replace('%', '%25').replace(';', '%3B')};"
    server = f"svr={node.ServerIndex};" if getattr(node, "ServerIndex", 0) else ""
    return f"{server}{where}{kind}={known}"


class Seconds(float):
    """Of a DateTime, which asyncua cuts to microseconds."""


def kept(value: Any, status: Any) -> Any:
    """What is kept of a value: (value, status)."""
    if isinstance(value, bool):
        return float(value), status
    if isinstance(value, int):
        return (value if abs(value) > 2**53 and value < 2**63 else float(value)), status
    if isinstance(value, float):
        return (value, status) if math.isfinite(value) else (None, OUT_OF_RANGE)
    if isinstance(value, dt.datetime):
        return Seconds((value - dt.datetime(1970, 1, 1, tzinfo=UTC)) / dt.timedelta(seconds=1)), status
    if isinstance(value, ua.StatusCode):
        return float(value.value), status
    if isinstance(value, ua.LocalizedText):
        return value.Text or "", status
    if isinstance(value, ua.XmlElement):
        return value.Value or "", status
    if isinstance(value, ua.QualifiedName):
        return value.Name or "", status
    if isinstance(value, ua.NodeId):  # asyncua has ExpandedNodeId as its subclass
        return node_text(value), status
    if isinstance(value, bytes):
        return base64.b64encode(value).decode(), status
    return (str(value) if isinstance(value, uuid.UUID) else value), status


def rows_of(columns: Any) -> Any:
    """The same, of ours."""
    if columns is None:
        return []
    batch = columns.batch
    texts = batch.texts()
    integers = dict(zip(batch.integer_row.tolist(), batch.integer.tolist(), strict=True))
    element = [SCALAR] * len(batch) if columns.element is None else columns.element.tolist()
    rows = []
    for i in range(len(batch)):
        value = texts.get(i, integers.get(i, batch.value[i].item()))
        rows.append(
            (
                batch.signal[i].item(),
                element[i],
                batch.time[i].item(),
                None if value != value else value,
                batch.status[i].item(),
            )
        )
    return rows


def same(ours: Any, theirs: Any) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        if isinstance(b[3], float) and isinstance(a[3], float):
            assert a[3] == b[3] or math.isclose(a[3], b[3], rel_tol=1e-15)  # DateTime: the order of two roundings
            assert (*a[:3], a[4]) == (*b[:3], b[4])
        else:
            assert a == b


@pytest.fixture
def eager(monkeypatch: Any) -> None:
    """The paths of numpy also where they do not pay."""
    monkeypatch.setattr(decode_module, "_SMALL", 0)
    monkeypatch.setattr(grouped_module, "_LEAST", 1)


@pytest.mark.usefixtures("eager")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), data_values()), max_size=12))
def test_any_mixture_agrees_with_asyncua(items: Any) -> None:
    body = body_of(items)
    fast, slow = decode(body, ARRIVAL).columns, decode(body, ARRIVAL, fast=False).columns
    same(rows_of(fast), expected(body))
    assert rows_of(fast) == rows_of(slow)
    if items:
        assert (fast.unkept, fast.times_replaced, fast.empty) == (slow.unkept, slow.times_replaced, slow.empty)


SCALARS = [*INTEGERS, *(getattr(ua.VariantType, n) for n in ("Boolean", "Double", "Float", "String", "DateTime"))]
PAST = st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2026, 11, 1), timezones=st.just(UTC))  # noqa: DTZ001  same


@st.composite
def usual_values(draw: Any, kind: Any) -> Any:
    """One value with a source time; a Bad one may have none."""
    status = draw(st.sampled_from([None, None, 0x40900000, 0x808C0000, 0x480, 0x80310000]))
    nothing = status is not None and status & BAD and draw(st.booleans())
    return ua.DataValue(
        Value=ua.Variant(None) if nothing else ua.Variant(draw(VALUES[kind]), kind),
        StatusCode=None if status is None else ua.StatusCode(ua.UInt32(status)),
        SourceTimestamp=draw(PAST),
        ServerTimestamp=draw(st.none() | PAST),
    )


@st.composite
def sequences(draw: Any) -> Any:
    """The items of notifications of one subscription: mostly of the same types in the same order, but not always."""
    kinds = draw(st.lists(st.sampled_from(SCALARS), min_size=1, max_size=8))
    found = []
    for _ in range(draw(st.integers(3, 6))):
        change = draw(st.sampled_from(["", "", "", "", "types", "order", "fewer", "any"]))
        if change == "types":
            kinds = [*kinds[:-1], draw(st.sampled_from(SCALARS))]
        elif change == "order":
            kinds = draw(st.permutations(kinds))
        elif change == "fewer" and len(kinds) > 1:
            kinds = kinds[1:]
        items = [(draw(st.integers(0, 2**32 - 1)), draw(usual_values(kind))) for kind in kinds]
        if change == "any":
            items.append((1, draw(data_values())))
        found.append(items)
    return found


@pytest.mark.usefixtures("eager")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequences())
def test_what_is_remembered_of_earlier_notifications_changes_no_value(sequence: Any) -> None:
    memory = Memory()
    for items in sequence:
        body = body_of(items)
        fast, slow = decode(body, ARRIVAL, memory=memory).columns, decode(body, ARRIVAL, fast=False).columns
        same(rows_of(fast), expected(body))
        assert rows_of(fast) == rows_of(slow)
        assert (fast.unkept, fast.times_replaced, fast.empty) == (slow.unkept, slow.times_replaced, slow.empty)
        dtypes = [column.dtype for column in (fast.batch.signal, fast.batch.time, fast.batch.value, fast.batch.status)]
        assert dtypes == [np.uint32, np.int64, np.float64, np.uint32]


def usual_body(tick: int, kinds: Any = (11, 6, 12, 1, 10, 11), count: int = 60, *, bare: bool = True) -> Any:
    """Items of the usual kinds; with `tick` move the Bad ones, those that are sent without a value, and the texts."""
    values = {
        11: 1.5 + tick,
        6: -tick,
        8: 7 - tick,
        12: "ä" * (tick % 5),
        1: tick % 2 == 0,
        10: 0.5,
        13: dt.datetime(2026, 2, 3, tzinfo=UTC),
    }
    items = []
    for handle in range(count):
        kind = kinds[handle % len(kinds)]
        bad = (handle * 7 + tick) % 10 == 0
        items.append(
            (
                handle + 3,
                ua.DataValue(
                    ua.Variant(None)
                    if bad and bare and tick % 3 == 2
                    else ua.Variant(values[kind], ua.VariantType(kind)),
                    ua.StatusCode(ua.UInt32(0x808C0000)) if bad else None,
                    SourceTimestamp=ua.DateTime(2026, 1, 1, tzinfo=UTC),
                    ServerTimestamp=ua.DateTime(2026, 1, 2, tzinfo=UTC) if handle % 4 else None,
                ),
            )
        )
    return body_of(items)


def test_what_came_before_is_remembered() -> None:
    memory = Memory()
    before = None
    for tick in range(6):
        body = usual_body(tick, bare=False)
        columns = decode(body, ARRIVAL, memory=memory).columns
        same(rows_of(columns), expected(body))
        assert memory.hits == tick, "although statuses, texts and lengths changed"
        assert before is None or columns.batch.signal is before
        before = columns.batch.signal
    for kinds in [(11, 6, 12, 1, 10, 6), (11, 10, 12, 1, 6, 10), (11, 10, 12), (10, 11, 12, 1, 10, 11)]:
        memory.hits = 0
        for tick in range(3):
            body = usual_body(tick, kinds, bare=False)
            same(rows_of(decode(body, ARRIVAL, memory=memory).columns), expected(body))
        assert memory.hits == 2, "a new layout takes its place"


def test_items_are_found_though_values_look_like_items(monkeypatch: Any) -> None:
    """A value whose bytes are those of an item; of many, the reader that goes from item to item finds the places."""
    walked: list[int] = []
    walk = located_module._walk

    def watched(*given: Any) -> Any:
        walked.append(1)
        return walk(*given)

    monkeypatch.setattr(located_module, "_walk", watched)
    trap = struct.unpack("<d", bytes((9, 0, 0, 0, 5, 11, 7, 7)))[0]  # handle 9, value and source time, Double
    chain = b"".join(struct.pack("<IBBdq", 3, 5, 11, 1.0, EPOCH_TICKS + 5) for _ in range(40))
    for text, least in (("", 0), ("\0\0\0\0\5\13 12", 0), (chain.decode("latin-1"), 1)):
        rows = [data_value(i, 0x0D if i % 2 else 0x05, trap if i % 3 else float(i)) for i in range(40)]
        raw = text.encode("latin-1")
        rows.append(struct.pack("<IBBi", 40, 5, 12, len(raw)) + raw + struct.pack("<q", EPOCH_TICKS + 9))
        body = raw_body(b"".join(rows), len(rows))
        walked.clear()
        assert decode(body, ARRIVAL).columns.fast
        assert len(walked) >= least
        assert rows_of(decode(body, ARRIVAL).columns) == rows_of(decode(body, ARRIVAL, fast=False).columns)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("kinds", [(10,), (10, 6), (10, 13), (10, 6, 11)])
def test_a_signalling_nan_is_a_status_and_no_warning(kinds: Any) -> None:
    memory = Memory()
    plain = usual_body(1, kinds, bare=False)
    signalling = plain.replace(struct.pack("<Bf", 10, 0.5), struct.pack("<BI", 10, 0x7FA00000))
    assert plain != signalling
    for body in (plain, plain, signalling):
        fast = rows_of(decode(body, ARRIVAL, memory=memory).columns)
        assert fast == rows_of(decode(body, ARRIVAL, fast=False).columns)
    assert OUT_OF_RANGE in {row[4] for row in fast}


@st.composite
def uniform_items(draw: Any) -> Any:
    kind = draw(st.sampled_from([*INTEGERS, ua.VariantType.Double, ua.VariantType.Float, ua.VariantType.Boolean]))
    has_status, has_source, has_server = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    some = st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2026, 11, 1), timezones=st.just(UTC))  # noqa: DTZ001  same
    return [
        (
            draw(st.integers(0, 2**32 - 1)),
            ua.DataValue(
                Value=ua.Variant(draw(VALUES[kind]), kind),
                StatusCode=ua.StatusCode(ua.UInt32(draw(st.sampled_from([1, 0x40900000, 0x808C0000, 0x480]))))
                if has_status
                else None,
                SourceTimestamp=draw(some) if has_source else None,
                ServerTimestamp=draw(some) if has_server else None,
            ),
        )
        for _ in range(draw(st.integers(1, 20)))
    ]


@settings(max_examples=300, deadline=None)
@given(uniform_items())
def test_the_fast_path_agrees_with_the_walker_and_with_asyncua(items: Any) -> None:
    body = body_of(items)
    small, decode_module._SMALL = decode_module._SMALL, 0
    try:
        fast = decode(body, ARRIVAL)
    finally:
        decode_module._SMALL = small
    slow = decode(body, ARRIVAL, fast=False)
    assert fast.columns.fast
    assert not slow.columns.fast
    same(rows_of(fast.columns), rows_of(slow.columns))
    same(rows_of(fast.columns), expected(body))
    assert fast.columns.times_replaced == slow.columns.times_replaced


def uniform_body(n: Any = 50, mask: Any = 0x0D, **fields: Any) -> Any:
    """A body made by hand, with every DataValue field where OPC 10000-6, 5.2.2.17 puts it."""
    return raw_body(b"".join(data_value(i, mask, float(i), **fields) for i in range(n)), n)


def raw_body(rows: bytes, n: int) -> Any:
    empty = body_of([])
    notification = struct.pack("<i", n) + rows + struct.pack("<i", -1)
    marker = struct.pack("<i", 8) + struct.pack("<ii", 0, 0)  # asyncua's empty DataChangeNotification
    assert empty.count(marker) == 1
    return empty.replace(marker, struct.pack("<i", len(notification)) + notification)


def data_value(
    handle: Any,
    mask: Any,
    value: Any,
    source: Any = EPOCH_TICKS + 17,
    source_pico: Any = 1234,
    server: Any = EPOCH_TICKS + 99,
    server_pico: Any = 1,
) -> Any:
    parts = [struct.pack("<IBBd", handle, mask, 11, value)]
    for bit, form, field in (
        (0x02, "<I", 0x40900000), (0x04, "<q", source), (0x10, "<H", source_pico),
        (0x08, "<q", server), (0x20, "<H", server_pico),
    ):  # fmt: skip
        if mask & bit:
            parts.append(struct.pack(form, field))
    return b"".join(parts)


@pytest.mark.parametrize("mask", [m | 1 for m in range(0, 0x40, 2)])
def test_every_set_of_fields_in_the_order_of_the_specification(mask: Any) -> None:
    body = uniform_body(mask=mask)
    fast, slow = decode(body, ARRIVAL), decode(body, ARRIVAL, fast=False)
    assert fast.columns.fast
    same(rows_of(fast.columns), rows_of(slow.columns))
    time = 1712 if mask & 0x14 == 0x14 else 1700 if mask & 4 else 9900 if mask & 8 else ARRIVAL
    assert set(fast.columns.batch.time.tolist()) == {time}, "100 ns, and picoseconds where they are sent"
    assert fast.columns.batch.value.tolist() == [float(i) for i in range(50)]


@pytest.mark.parametrize("fast", [True, False])
def test_null_is_empty(fast: bool) -> None:
    """OPC 10000-6, 5.1.9: semantically the same; which of them it was need not be kept."""
    time = struct.pack("<q", EPOCH_TICKS + 17)
    both = [struct.pack("<i", -1), struct.pack("<i", 0)]
    for kind in (12, 15, 16):
        for length in both:
            rows = b"".join(struct.pack("<IBB", i, 0x05, kind) + length + time for i in range(30))
            columns = decode(raw_body(rows, 30), ARRIVAL, fast=fast).columns
            assert columns.batch.texts() == dict.fromkeys(range(30), "")
            assert not columns.batch.status.any()
    for kind in (0x8B, 0x8C, 0x9C - 0x0C):  # arrays of Double, String and XmlElement
        for length in both:
            rows = b"".join(struct.pack("<IBB", i, 0x05, kind) + length + time for i in range(30))
            columns = decode(raw_body(rows, 30), ARRIVAL, fast=fast).columns
            assert (len(columns.batch), columns.empty) == (0, 30), "no reading, and counted"


TODAY = ARRIVAL // 100 + EPOCH_TICKS


@pytest.mark.parametrize("source", [0, 1, -1, EPOCH_TICKS - 1, TODAY + DAY // 100 + 1, 2**63 - 1])
@pytest.mark.parametrize("how", ["uniform", "grouped", "walked"])
def test_a_time_that_cannot_be_one_is_replaced_and_told(source: Any, how: str, monkeypatch: Any) -> None:
    if how == "grouped":
        monkeypatch.setattr(decode_module, "read_uniform", lambda *_: None)
    both = decode(uniform_body(mask=0x0D, source=source), ARRIVAL, fast=how != "walked").columns
    assert set(both.batch.time.tolist()) == {9900}, "the server's"
    absurd = source != 0  # 0 says that there is none
    assert both.times_replaced == (0 if absurd else 50)
    assert (None if both.aside is None else both.aside.tolist()) == ([source] * 50 if absurd else None)
    neither = decode(uniform_body(mask=0x0D, source=source, server=0), ARRIVAL, fast=how != "walked").columns
    assert set(neither.batch.time.tolist()) == {ARRIVAL}
    latest = decode(uniform_body(mask=0x0D, source=TODAY + DAY // 100), ARRIVAL, fast=how != "walked").columns
    assert latest.aside is None, "a clock that is a day ahead is still believed"


def test_only_the_wrong_times_of_a_mixture_are_told() -> None:
    items = [data_value(i, 0x0D, float(i), source=7 if i % 3 == 0 else EPOCH_TICKS + i) for i in range(60)]
    items += [struct.pack("<IBBiq", 60, 0x05, 6, 5, 9), struct.pack("<IBBIq", 61, 0x07, 0, 0x808C0000, 9)]
    body = raw_body(b"".join(items), len(items))
    fast, slow = decode(body, ARRIVAL).columns, decode(body, ARRIVAL, fast=False).columns
    assert fast.aside.tolist() == slow.aside.tolist() == [7 if i % 3 == 0 else 0 for i in range(60)] + [9, 0]
    assert rows_of(fast) == rows_of(slow)
    assert fast.times_replaced == slow.times_replaced == 1, "a status has no time of its own"


def test_keep_alive_acknowledgements_and_status_change() -> None:
    quiet = decode(body_of(None, acks=[0, 0x807A0000], sequence=9), ARRIVAL)
    assert (quiet.keep_alive, quiet.subscription, quiet.sequence) == (True, 3, 9)
    assert quiet.results == (0, 0x807A0000)
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = 4
    response.Parameters.NotificationMessage.NotificationData = [
        ua.StatusChangeNotification(Status=ua.StatusCode(ua.UInt32(0x800A0000)), DiagnosticInfo=ua.DiagnosticInfo()),
        ua.EventNotificationList(),
        ua.Range(),
    ]
    other = decode(struct_to_binary(response), ARRIVAL)
    assert (other.status_change, other.ignored, other.events, other.keep_alive) == (0x800A0000, 1, (), False)


def test_nested_diagnostics_and_variants_do_not_exhaust_the_stack() -> None:
    deep = b"\x40" * 100_000 + b"\0"
    body = body_of([])
    with pytest.raises(UndecodableError):
        decode(body[:20] + deep + body[21:], ARRIVAL)
    variants = b"\x98\x01\0\0\0" * 10_000
    with pytest.raises(UndecodableError):
        decode(uniform_body(1).replace(b"\x0b" + struct.pack("<d", 0.0), variants), ARRIVAL)


def outcome(body: Any, fast: Any, memory: Any = None) -> Any:
    try:
        found = decode(body, ARRIVAL, fast=fast, memory=memory)
    except UndecodableError as e:
        return ("undecodable", e.subscription, e.sequence)
    opaque = () if found.columns is None else found.columns.opaque
    return (found.subscription, found.sequence, found.results, found.status_change, rows_of(found.columns), opaque)


def mixed_body(rng: Any, count: int = 20) -> Any:
    items = []
    for handle in range(count):
        kind = rng.choice([11, 6, 12, 1, 13])
        value = {11: 1.5, 6: -3, 12: "text", 1: True, 13: dt.datetime(2026, 1, 1, tzinfo=UTC)}[kind]
        array = rng.random() < 0.3
        variant = ua.Variant([value, value] if array else value, ua.VariantType(kind), is_array=array)
        status = ua.StatusCode(ua.UInt32(0x808C0000)) if rng.random() < 0.1 else None
        items.append((handle, ua.DataValue(variant, status, SourceTimestamp=ua.DateTime(2026, 1, 1, tzinfo=UTC))))
    return body_of(items)


FUZZ = int(os.environ.get("FIELDLAB_FUZZ", "3000"))


@pytest.mark.timeout(120 + FUZZ / 50)
@pytest.mark.parametrize("least", [1, 16])
def test_damaged_bodies_give_the_same_answer_on_both_paths_or_an_error(least: int, monkeypatch: Any) -> None:
    """Half of FIELDLAB_FUZZ bodies each: no crash, and no value that the other decoders do not see."""
    monkeypatch.setattr(grouped_module, "_LEAST", least)
    rng = random.Random(20261123 + least)
    now = EPOCH_TICKS + 17_000_000_000_000_017
    sources = [
        uniform_body(30, 0x0D, source=now),
        uniform_body(30, 0x07, source=now),
        uniform_body(20, 0x3F),
        mixed_body(rng),
        mixed_body(rng, 120),
        usual_body(1, (11, 6, 12, 13, 8, 10)),
        usual_body(2, (11, 6, 12, 13, 8, 10)),
        usual_body(1, bare=False),
        usual_body(3, bare=False),
    ]
    memories = [Memory() for _ in sources]
    agreed = 0
    for n in range(FUZZ // 2):
        body = bytearray(sources[n % len(sources)])
        for _ in range(rng.choice([1, 1, 2, 5])):
            how = rng.random()
            at = rng.randrange(len(body))
            if how < 0.6:
                body[at] = rng.randrange(256)
            elif how < 0.75:
                del body[at:]
            elif how < 0.9:
                body[at : at + 4] = struct.pack("<i", rng.choice([-1, -2, 0, 2**31 - 1, -(2**31)]))
            else:
                body[at:at] = rng.randbytes(rng.randrange(1, 9))
            if not body:
                body = bytearray(b"\0")
        damaged = bytes(body)
        if n % 50 < len(sources):  # damage may have taught it another layout
            for _ in range(2):
                outcome(sources[n % len(sources)], fast=True, memory=memories[n % len(sources)])
        fast = outcome(damaged, fast=True, memory=memories[n % len(sources)])
        assert fast == outcome(damaged, fast=False)
        if fast[0] == "undecodable" or fast[5]:
            continue  # of a structure asyncua says nothing, or another thing
        try:
            theirs = expected(damaged)
        except Exception:  # noqa: BLE001  asyncua refuses with whatever comes up
            continue
        alike(fast[4], theirs)
        agreed += 1
    assert agreed > FUZZ / 20
    assert sum(memory.hits for memory in memories) > FUZZ / 50


def alike(ours: Any, theirs: Any) -> None:
    """`same`, but asyncua clamps wild times, cuts to microseconds, and escapes text that is not UTF-8."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a[0], a[1], a[4]) == (b[0], b[1], b[4]), (a, b, ours[:5], theirs[:5])
        if b[2] is not None and 0 < b[2] < 2**62 and a[2] != ARRIVAL:
            assert a[2] // 1000 == b[2] // 1000
        known = b[3]
        if isinstance(known, str):
            known = known.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        cut = 1e-6 if isinstance(known, Seconds) else 0.0
        if isinstance(known, str) or isinstance(a[3], str):
            assert a[3] == known, (a, b)
            continue
        assert a[3] == known or math.isclose(a[3], known, rel_tol=1e-15, abs_tol=cut), (a, b)


def test_asyncua_cuts_what_we_keep() -> None:
    """Why its decoder is not the fallback: it drops 100 ns, and takes picoseconds in another order."""
    ticks = struct_from_binary(ua.PublishResponse, Buffer(uniform_body(1, 0x05)))
    time = ticks.Parameters.NotificationMessage.NotificationData[0].MonitoredItems[0].Value.SourceTimestamp
    assert ns(time) == 1000
    assert decode(uniform_body(1, 0x05), ARRIVAL).columns.batch.time.tolist() == [1700]


def test_columns_are_of_the_types_that_a_batch_promises() -> None:
    for fast in (True, False):
        batch = decode(uniform_body(), ARRIVAL, fast=fast).columns.batch
        kinds = (batch.signal.dtype, batch.time.dtype, batch.value.dtype, batch.status.dtype)
        assert kinds == (np.uint32, np.int64, np.float64, np.uint32)
        assert all(c.flags.c_contiguous for c in (batch.signal, batch.time, batch.value, batch.status))
