"""What an event's bytes may be, and what its row is to be: bad fields stop nobody; one time holds many events."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary
from hypothesis import given
from hypothesis import strategies as st

from edge.sources.opcua.decode import UndecodableError, decode
from edge.sources.opcua.event_fields import BASE, FIELDS, Ticks, event_filter, named
from edge.sources.opcua.event_memory import EventMemory, Seen
from fieldlab.model import MachineEvent, Place

ARRIVAL = 1_763_900_000_000_000_000
TICKS = 134_083_616_001_234_567  # 100 ns since 1601: finer than asyncua's microseconds
CNC = Place("drachten", "shavers", "3", "cnc-07")


def body_of(*events: list[ua.Variant]) -> bytes:
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = 3
    response.Parameters.NotificationMessage.SequenceNumber = ua.UInt32(7)
    fields = [ua.EventFieldList(ClientHandle=ua.UInt32(i), EventFields=fields) for i, fields in enumerate(events)]
    response.Parameters.NotificationMessage.NotificationData = [ua.EventNotificationList(Events=fields)]
    encoded: bytes = struct_to_binary(response)
    return encoded


def event(**wrong: ua.Variant) -> list[ua.Variant]:
    """A whole event; `wrong` fields are something else."""
    right = {
        "event_id": ua.Variant(b"\x0a\x1b", ua.VariantType.ByteString),
        "event_type": ua.Variant(ua.NodeId(ua.Int32(9341)), ua.VariantType.NodeId),
        "source_name": ua.Variant("Spindle", ua.VariantType.String),
        "message": ua.Variant(ua.LocalizedText("hot", "en"), ua.VariantType.LocalizedText),
        "severity": ua.Variant(800, ua.VariantType.UInt16),
        "active": ua.Variant(True, ua.VariantType.Boolean),
        "quality": ua.Variant(ua.StatusCode(ua.UInt32(0x40000000)), ua.VariantType.StatusCode),
        "high_limit": ua.Variant(70.5, ua.VariantType.Double),
    } | wrong
    return [right.get(field.name, ua.Variant()) for field in FIELDS]


def test_two_events_with_every_kind_of_field() -> None:
    published = decode(body_of(event(), event()), ARRIVAL)
    assert (published.ignored, published.keep_alive, published.columns) == (0, False, None)
    assert [one.handle for one in published.events] == [0, 1]
    values, bad = named(published.events[0].values, FIELDS)
    assert bad == 0
    kind = values.pop("event_type")
    assert kind.Identifier == 9341
    assert values == {
        "event_id": "0a1b",
        "source_name": "Spindle",
        "message": "hot",
        "severity": 800,
        "active": True,
        "quality": 0x40000000,
        "high_limit": 70.5,
    }


def test_a_time_keeps_its_100_ns() -> None:
    """asyncua's decoder would cut them."""
    body = body_of([ua.Variant(ua.ByteString(b"12345678"), ua.VariantType.ByteString)])
    marker = b"\x0f\x08\x00\x00\x00" + b"12345678"
    assert body.count(marker) == 1
    body = body.replace(marker, b"\x0d" + TICKS.to_bytes(8, "little"))
    # The ExtensionObject is four bytes shorter now.
    at = body.index(b"\x01\x00\x94\x03\x01") + 5
    size = int.from_bytes(body[at : at + 4], "little")
    body = body[:at] + (size - 4).to_bytes(4, "little") + body[at + 4 :]
    (found,) = decode(body, ARRIVAL).events
    assert found.values == (TICKS,)
    assert isinstance(found.values[0], Ticks)


WRONG = st.sampled_from(
    [
        ua.Variant(ua.StatusCode(ua.UInt32(0x80BF0000)), ua.VariantType.StatusCode),
        ua.Variant([1.0, 2.0], ua.VariantType.Double),
        ua.Variant(ua.NodeId(ua.Int32(1), ua.Int16(300)), ua.VariantType.NodeId),
        ua.Variant("no", ua.VariantType.String),
        ua.Variant(float("nan"), ua.VariantType.Double),
        ua.Variant(b"x", ua.VariantType.ByteString),
        ua.Variant(True, ua.VariantType.Boolean),
        ua.Variant(ua.Range(1.0, 2.0), ua.VariantType.ExtensionObject),
        ua.Variant(),
    ]
)


@given(st.dictionaries(st.sampled_from([field.name for field in FIELDS]), WRONG))
def test_a_bad_field_is_empty_and_counted_and_stops_no_other(wrong: dict[str, ua.Variant]) -> None:
    values, bad = named(decode(body_of(event(**wrong)), ARRIVAL).events[0].values, FIELDS)
    right, _ = named(decode(body_of(event()), ARRIVAL).events[0].values, FIELDS)
    for name in right.keys() - wrong.keys():
        assert values[name] == right[name]
    empty = sum(1 for name, v in wrong.items() if v.Value is None or name in values or v.Value == ua.NodeId())
    assert bad == len(wrong) - empty


@given(st.binary(max_size=8), st.integers(0, 400), st.integers(0, 400))
def test_mutated_bytes_are_an_event_or_a_counted_error(noise: bytes, start: int, length: int) -> None:
    body = body_of(event(), event())
    try:
        published = decode(body[:start] + noise + body[start + length :], ARRIVAL)
    except UndecodableError:
        return
    for one in published.events:
        named(one.values, FIELDS)


def test_the_filter_is_a_tree_with_its_root_first() -> None:
    found = event_filter(BASE, [ua.NodeId(ua.Int32(1)), ua.NodeId(ua.Int32(2))], 500)
    operators = [element.FilterOperator.name for element in found.WhereClause.Elements]
    assert operators == ["And", "Or", "OfType", "OfType", "GreaterThanOrEqual"]
    assert len(found.SelectClauses) == len(BASE)
    assert event_filter(BASE, [], 0).WhereClause.Elements == []


def seen(n: int, time: int = ARRIVAL, *, timed: bool = True, scope: str = "s", **more: Any) -> Seen:
    row = MachineEvent(time=time, place=CNC, source="Spindle", kind="BaseEventType", id=f"{n:04x}", **more)
    return Seen(row, scope, timed)


def test_the_time_of_an_event_is_decided_once_also_over_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "known.db"
    memory = EventMemory(path, 0)
    first = memory.decide([seen(n) for n in range(5)])
    assert first[0].row.time == ARRIVAL, "the first one keeps its time"
    assert len({one.row.time for one in first}) == 5
    assert max(one.row.time for one in first) < ARRIVAL + 100, "whole nanoseconds"
    memory.decide([], kept=[first[0].digest])
    again = EventMemory(path, 0)  # the first one was killed
    found = again.decide([seen(n) for n in (4, 9, 0, 1)])
    assert [one.kept for one in found] == [False, False, True, False]
    assert [found[0].row, found[3].row] == [first[4].row, first[1].row]
    assert found[1].row.time not in {one.row.time for one in first}
    other = EventMemory(tmp_path / "other.db", 1)
    assert other.decide([seen(0)])[0].row.time == ARRIVAL + 1, "two sources of one machine stay apart"
    for one in (memory, again, other):
        one.close()


def test_an_event_without_a_time_is_known_by_what_it_says(tmp_path: Path) -> None:
    memory = EventMemory(tmp_path / "known.db", 0)
    (first,) = memory.decide([seen(1, ARRIVAL, timed=False)])
    (again,) = memory.decide([seen(1, ARRIVAL + 10**9, timed=False)])
    assert again.row == first.row
    memory.close()


def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    memory = EventMemory(tmp_path / "known.db", 0, most=100)
    first = memory.decide([seen(0)], [])[0]
    for n in range(1, 400):
        memory.decide([seen(n, ARRIVAL + n * 1000), seen(0)])
    with sqlite3.connect(tmp_path / "known.db") as db:
        (count,) = db.execute("SELECT count(*) FROM known").fetchone()
    db.close()
    assert count <= 100
    assert memory.decide([seen(0)])[0].row == first.row, "what comes again and again stays known"
    memory.close()


def test_conditions_that_a_refresh_does_not_name_have_ended(tmp_path: Path) -> None:
    memory = EventMemory(tmp_path / "known.db", 0)
    memory.decide([seen(1, condition="hot", retain=True, active=True), seen(2, condition="low", retain=True)])
    memory.decide([seen(3, scope="other", condition="far", retain=True), seen(4, condition="low", retain=False)])
    memory.decide([seen(5, condition="jam", retain=True), seen(6)])
    (ended,) = memory.end_refresh("s", {("jam", "")}, ARRIVAL + 5, "ee")
    assert (ended.condition, ended.retain, ended.active, ended.time, ended.id) == (
        "hot",
        False,
        None,
        ARRIVAL + 5,
        "ee",
    )
    memory.decide([Seen(ended, "s")])
    assert memory.end_refresh("s", {("jam", "")}, ARRIVAL + 6, "ef") == []
    memory.close()


@pytest.mark.parametrize("content", [b"this is no database, not at all" * 50])
def test_a_damaged_file_is_set_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "known.db"
    path.write_bytes(content)
    memory = EventMemory(path, 0)
    assert memory.decide([seen(1)])[0].row.time == ARRIVAL
    assert path.with_name("known.db.damaged").read_bytes() == content
    assert path.stat().st_mode & 0o077 == 0
    memory.close()
