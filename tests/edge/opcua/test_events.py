"""Events, alarms and conditions of a server that we did not write (node-opcua) become rows, each once."""

import asyncio
from collections import Counter as Count
from typing import Any

import pytest
from asyncua import ua

from edge.sources.opcua import KIND
from edge.sources.opcua.counters import Counters
from edge.sources.opcua.event_fields import FIELDS, EventFields, Ticks
from edge.sources.opcua.event_types import EventTypes
from edge.sources.opcua.events import EventReceiver
from fieldlab.model import MachineEvent

REFRESH_START, REFRESH_END, OVERFLOW = 2787, 2788, 3035
LIMITS = {"lowLowLimit": 10, "lowLimit": 25, "highLimit": 75, "highHighLimit": 90}


class Plant:
    """A notifier with alarms on the shared server."""

    def __init__(self, server: Any) -> None:
        self.server = server
        server.ask("notifier", name="press")

    def alarm(self, name: str, kind: str = "ExclusiveLimitAlarmType", **more: Any) -> None:
        prefix = self.server.prefix
        self.server.ask("add", name=f"{name}.in", type="Double", value=50)
        self.server.ask(
            "alarm", name=name, kind=kind, source=f"{prefix}press", input=f"{prefix}{name}.in", limits=LIMITS, **more
        )

    def off_normal(self, name: str) -> None:
        prefix = self.server.prefix
        for part in ("in", "normal"):
            self.server.ask("add", name=f"{name}.{part}", type="Boolean", value=False)
        kind = "OffNormalAlarmType"
        self.server.ask(
            "alarm", name=name, kind=kind, source=f"{prefix}press", input=f"{prefix}{name}.in",
            normal=f"{prefix}{name}.normal",
        )  # fmt: skip

    def put(self, name: str, value: Any) -> None:
        kind = "Boolean" if isinstance(value, bool) else "Double"
        self.server.ask("set", name=f"{name}.in", type=kind, value=value)


@pytest.fixture
def plant(shared: Any) -> Plant:
    return Plant(shared({"a": {"type": "Double", "value": 0}}))


@pytest.fixture
def sink(new_sink: Any, plant: Plant) -> Any:
    made = new_sink()
    made.prefix = plant.server.prefix
    return made


@pytest.fixture
def events(table: Any) -> Any:
    """`events(plant, **keys)`: the configuration of a source that reads `a` and the events of the plant."""

    def make(plant: Plant, *, source: dict[str, Any] | None = None, **keys: Any) -> Any:
        return table(plant.server, ["a"], events=[keys], **(source or {}))

    return make


def rows(sink: Any, alarm: str = "") -> list[MachineEvent]:
    """The rows of an alarm, or of all that this test made: the server is shared."""
    found = [r for r in list(sink.rows) if isinstance(r, MachineEvent)]
    return [r for r in found if (r.condition.endswith(f"{sink.prefix}{alarm}") if alarm else sink.prefix in f"{r}")]


def ready(source: Any) -> bool:
    """Connected, and the first ConditionRefresh is over."""
    return bool(source.status.connected and source.status.counters["condition_refreshes"])


def test_an_alarm_is_raised_acknowledged_and_over(
    plant: Plant, sink: Any, events: Any, run_source: Any, wait_until: Any
) -> None:
    plant.alarm("hot")
    source = run_source(events(plant), sink)
    wait_until(lambda: ready(source))
    assert rows(sink) == []
    plant.put("hot", 95)
    wait_until(lambda: rows(sink, "hot"))
    raised = rows(sink, "hot")[-1]
    assert raised.place.path == "drachten/shavers/3/cnc-07"
    assert (raised.kind, raised.source) == ("ExclusiveLimitAlarmType", "2:Ram"), "as node-opcua has it"
    assert raised.condition == f"nsu={plant.server.uri};s={plant.server.prefix}hot"
    assert (raised.active, raised.acknowledged, raised.retain) == (True, False, True)
    assert raised.severity > 0
    assert raised.message
    assert bytes.fromhex(raised.id)
    assert raised.detail["high_high_limit"] == "90"
    assert raised.detail["limit_state"] == "HighHigh"
    assert abs(raised.time - sink.readings("a")[0].time) < 60 * 10**9
    plant.server.ask("acknowledge", name="hot", comment="seen by Anna")
    wait_until(lambda: rows(sink, "hot")[-1].acknowledged)
    acknowledged = rows(sink, "hot")[-1]
    assert (acknowledged.active, acknowledged.detail["comment"]) == (True, "seen by Anna")
    assert acknowledged.time > raised.time
    plant.put("hot", 50)
    wait_until(lambda: rows(sink, "hot")[-1].active is False)
    times = [row.time for row in rows(sink)]
    assert len(set(times)) == len(times)
    wait_until(lambda: not plant.server.unacknowledged(source), what="acknowledged once they are kept")
    bad = source.status.counters["event_fields_bad"]
    assert bad == 1, "while the alarm is inactive, LimitState has a StatusCode instead of a value"
    assert source.status.counters["ignored"] == 0


def test_branches_shelving_and_dialogs(plant: Plant, sink: Any, events: Any, run_source: Any, wait_until: Any) -> None:
    plant.alarm("hot")
    source = run_source(events(plant), sink)
    wait_until(lambda: ready(source))
    plant.put("hot", 95)
    wait_until(lambda: rows(sink, "hot"))
    plant.put("hot", 50)
    wait_until(lambda: rows(sink, "hot")[-1].active is False)
    plant.put("hot", 95)  # raised again before anybody has acknowledged: the earlier state is kept as a branch
    wait_until(lambda: [row for row in rows(sink, "hot") if "branch" in row.detail], what="the branch")
    branch = next(row for row in rows(sink, "hot") if "branch" in row.detail)
    assert branch.detail["branch"]
    assert (branch.acknowledged, branch.retain) == (False, True)
    assert "branch" not in rows(sink, "hot")[0].detail
    plant.server.ask("shelve", name="hot", state="OneShotShelved")
    wait_until(lambda: rows(sink, "hot")[-1].message == "OneShotShelved")
    assert rows(sink, "hot")[-1].detail["shelving"] == "OneShotShelved"
    assert rows(sink, "hot")[-1].detail["suppressed_or_shelved"] == "true"
    plant.server.ask("dialog", name="ask", source=f"{plant.server.prefix}press", prompt="Is the guard shut?", open=True)
    wait_until(lambda: rows(sink, "ask"))
    asked = rows(sink, "ask")[-1]
    assert (asked.kind, asked.detail["prompt"], asked.detail["dialog"]) == (
        "DialogConditionType", "Is the guard shut?", "true",
    )  # fmt: skip
    assert asked.retain
    plant.server.ask(
        "dialog", name="ask", source=f"{plant.server.prefix}press", prompt="Is the guard shut?", open=False
    )
    wait_until(lambda: rows(sink, "ask")[-1].detail["dialog"] == "false")
    assert rows(sink, "ask")[-1].retain is False


@pytest.mark.parametrize("kind", ["NonExclusiveLimitAlarmType", "OffNormalAlarmType"])
def test_other_kinds_of_alarm(
    plant: Plant, sink: Any, events: Any, run_source: Any, wait_until: Any, kind: str
) -> None:
    if kind == "OffNormalAlarmType":
        plant.off_normal("odd")
    else:
        plant.alarm("odd", kind)
    source = run_source(events(plant, types=["AlarmConditionType"]), sink)
    wait_until(lambda: ready(source))
    plant.put("odd", True if kind == "OffNormalAlarmType" else 80)
    wait_until(lambda: rows(sink, "odd"))
    row = rows(sink, "odd")[-1]
    assert (row.kind, row.active, row.retain) == (kind, True, True)
    if kind == "NonExclusiveLimitAlarmType":
        assert (row.detail["high"], row.detail["high_high"]) == ("true", "false")


def test_what_is_raised_and_ends_while_the_agent_is_away(
    plant: Plant, sink: Any, events: Any, run_source: Any, wait_until: Any
) -> None:
    """Another session and subscription: only ConditionRefresh can tell."""
    for name in ("early", "late", "gone"):
        plant.alarm(name)
    config = events(plant)
    source = run_source(config, sink)
    wait_until(lambda: ready(source))
    for name in ("early", "gone"):
        plant.put(name, 95)
        wait_until(lambda name=name: rows(sink, name))
    source.stop()
    plant.server.ask("trouble", id=source.opcua._held.subscription, what="session")
    plant.put("late", 5)
    plant.put("gone", 50)
    plant.server.ask("acknowledge", name="gone", comment="over", confirm=True)
    before = len(rows(sink, "early"))
    again = run_source(config, sink)
    wait_until(lambda: ready(again))
    wait_until(lambda: rows(sink, "late"), what="what was raised meanwhile")
    assert again.status.counters["resumed"] == again.status.counters["transfers"] == 0
    assert rows(sink, "late")[-1].active
    wait_until(lambda: rows(sink, "gone")[-1].retain is False, what="what ended meanwhile")
    assert again.status.counters["conditions_ended"] >= 1
    assert len(rows(sink, "early")) == before, "it is known, also to another process"
    assert again.status.counters["events_known"] >= 1


def test_a_refresh_changes_nothing(plant: Plant, sink: Any, events: Any, run_source: Any, wait_until: Any) -> None:
    for name in ("one", "two"):
        plant.alarm(name)
    source = run_source(events(plant), sink)
    wait_until(lambda: ready(source))
    for name in ("one", "two"):
        plant.put(name, 95)
        wait_until(lambda name=name: rows(sink, name))
    before = rows(sink)
    rounds = source.status.counters["condition_refreshes"]
    for n in (1, 2):
        source.opcua._events.wish()
        wait_until(lambda n=n: source.status.counters["condition_refreshes"] >= rounds + n)
    assert source.status.counters["events_known"] >= 4
    plant.put("one", 50)
    wait_until(lambda: len(rows(sink)) > len(before), what="the stream goes on")
    assert rows(sink)[: len(before)] == before


def test_a_server_may_ask_for_a_refresh(plant: Plant, sink: Any, events: Any, run_source: Any, wait_until: Any) -> None:
    source = run_source(events(plant), sink)
    wait_until(lambda: ready(source))
    source.opcua._events._next_refresh = 0.0
    rounds = source.status.counters["condition_refreshes"]
    plant.server.ask("refreshRequired")
    wait_until(lambda: source.status.counters["condition_refreshes"] > rounds)


def test_a_burst_of_events_at_one_time_is_there_once_each(
    plant: Plant, sink: Any, events: Any, run_source: Any, wait_until: Any
) -> None:
    source = run_source(events(plant, queue=5000), sink)
    wait_until(lambda: ready(source))
    plant.server.ask("raise", name="press", message=f"{sink.prefix}burst", severity=300, count=1000)
    wait_until(lambda: len(rows(sink)) >= 1000, what="all of them")
    found = rows(sink)
    assert sorted(int(row.message.split()[-1]) for row in found) == list(range(1000))
    assert len({row.time for row in found}) == 1000, "each has a time of its own"
    assert max(Count(row.time // 10**6 for row in found).values()) > 1, "the server raised several at one time"
    assert {(row.source, row.severity, row.condition) for row in found} == {("Ram", 300, "")}


def test_severity_and_types_are_chosen_by_the_server(
    plant: Plant, sink: Any, events: Any, run_source: Any, wait_until: Any
) -> None:
    config = events(plant, severity=500, types=["SystemEventType", "i=2041"])
    assert config.events[0].types
    source = run_source(config, sink)
    wait_until(lambda: ready(source))
    for severity in (499, 500):
        plant.server.ask("raise", name="press", message=f"{sink.prefix}{severity}", severity=severity)
    wait_until(lambda: rows(sink))
    assert [row.severity for row in rows(sink)] == [500]
    source.stop()
    source = run_source(events(plant, types=["SystemEventType"]), sink)
    wait_until(lambda: ready(source))
    for kind in ("BaseEventType", "DeviceFailureEventType"):
        plant.server.ask("raise", name="press", type=kind, message=f"{sink.prefix}{kind}", severity=1)
    wait_until(lambda: len(rows(sink)) == 2)
    assert rows(sink)[-1].kind == "DeviceFailureEventType"
    assert source.status.counters["events_unwanted"] == 0, "the server filters"


def test_nothing_is_acknowledged_before_it_is_kept(
    plant: Plant, sink: Any, new_sink: Any, events: Any, run_source: Any, wait_until: Any
) -> None:
    """Killed between receipt and commit, and between commit and acknowledgement: the event is there once."""
    config = events(plant)
    source = run_source(config, sink)
    wait_until(lambda: ready(source))
    wait_until(lambda: not plant.server.unacknowledged(source))
    sink.hold()
    plant.server.ask("raise", name="press", message=f"{sink.prefix}kept or not", severity=7)
    wait_until(lambda: rows(sink))
    assert plant.server.unacknowledged(source)
    (first,) = rows(sink)
    source.stop()
    second = new_sink()
    second.prefix = sink.prefix
    again = run_source(config, second)
    wait_until(lambda: rows(second), what="the server sends it again")
    assert rows(second) == [first], "at the same time: whether the journal had it or not, the stores have it once"
    wait_until(lambda: not plant.server.unacknowledged(again))
    again.stop()
    third = new_sink()
    third.prefix = sink.prefix
    last = run_source(config, third)
    wait_until(lambda: ready(last))
    assert rows(third) == []


def test_a_notifier_that_is_not_there_is_missing_and_tried_again(
    plant: Plant, sink: Any, events: Any, run_source: Any, wait_until: Any
) -> None:
    node = f"nsu={plant.server.uri};s={sink.prefix}later"
    source = run_source(events(plant, node=node), sink)
    wait_until(lambda: source.status.missing)
    assert source.status.missing == {"cnc-07 events": f"no events: BadNodeIdUnknown (ns=2;s={sink.prefix}later)"}
    assert source.status.connected
    wait_until(lambda: sink.readings("a"), what="signals go on")
    plant.server.ask("notifier", name="later")
    wait_until(lambda: not source.status.missing)


def test_a_type_that_is_not_there_is_missing(
    plant: Plant, sink: Any, events: Any, run_source: Any, wait_until: Any
) -> None:
    source = run_source(events(plant, types=["NoSuchType"]), sink)
    wait_until(lambda: source.status.missing)
    assert "NoSuchType" in source.status.missing["cnc-07 events"]


def test_a_queue_that_is_too_short_is_counted(
    plant: Plant, sink: Any, events: Any, run_source: Any, wait_until: Any
) -> None:
    source = run_source(events(plant, queue=100), sink)
    wait_until(lambda: ready(source))
    plant.server.ask("raise", name="press", message=f"{sink.prefix}flood", severity=300, count=1000)
    wait_until(lambda: rows(sink), what="what the queue held")
    assert len(rows(sink)) <= 100
    assert source.status.counters["event_queues_full"] >= 1, "node-opcua itself says nothing of it"


def test_loss_that_the_server_tells_of_is_counted_and_ends_no_condition(
    plant: Plant, sink: Any, context: Any, events: Any, wait_until: Any
) -> None:
    """node-opcua never sends EventQueueOverflowEventType, so a receiver is given the events."""
    counters = Counters()
    receiver = EventReceiver(events(plant, queue=50), context, sink, counters)
    receiver.new_session(EventTypes(), ["http://opcfoundation.org/UA/"])
    assert receiver.take_wish()

    def event(kind: int, **more: Any) -> EventFields:
        known = {
            "event_type": ua.NodeId(ua.Int32(kind)),
            "event_id": b"\x01",
            "time": Ticks(134_083_616_000_000_000),
        } | more
        return EventFields(0, tuple(known.get(field.name) for field in FIELDS))

    def give(*some: EventFields) -> None:
        kept = receiver.receive(some, 1)
        if kept is not None:
            kept.result(10)

    hot = event(9341, condition_id=ua.NodeId(ua.String("hot")), retain=True, active=True)
    give(hot)
    give(event(REFRESH_START), event(OVERFLOW), event(REFRESH_END))
    assert (counters.event_queue_overflows, counters.conditions_ended) == (1, 0), "nobody knows what fell out"
    receiver.wish()
    assert receiver.take_wish()
    give(event(REFRESH_START), hot, event(REFRESH_END))
    assert counters.conditions_ended == 0
    give(event(REFRESH_START), event(REFRESH_END))
    assert counters.conditions_ended == 1
    assert [r.retain for r in sink.rows] == [True, False]
    assert counters.events_known == 1
    receiver.close()


def test_a_server_without_condition_refresh_still_tells_events(
    interop: Any, new_sink: Any, table: Any, run_source: Any, wait_until: Any, context: Any
) -> None:
    """And a source without signals is one."""
    server = interop(alarms=False)
    server.ask("notifier", name="press")
    config = table(server, [], events=[{}])
    (line,) = [one for one in asyncio.run(KIND.check(config, context)) if one.subject.endswith("events")]
    assert (line.level, line.data["condition_refresh"]) == ("warn", False)
    sink = new_sink()
    source = run_source(config, sink)
    wait_until(lambda: source.status.connected and source.opcua._event_items.refreshable is False)
    server.ask("raise", name="press", message="still here", severity=5)
    wait_until(lambda: sink.rows)
    assert sink.rows[0].message == "still here"
    wait_until(lambda: not server.unacknowledged(source))


@pytest.mark.parametrize("ticks", [0, 1, 2**63 - 1])
def test_a_time_that_cannot_be_is_replaced_and_told(
    plant: Plant, sink: Any, context: Any, events: Any, ticks: int
) -> None:
    """Tomorrow's event would be the newest for ever."""
    counters = Counters()
    receiver = EventReceiver(events(plant), context, sink, counters)
    receiver.new_session(EventTypes(), ["http://opcfoundation.org/UA/"])
    known = {"event_type": ua.NodeId(ua.Int32(2041)), "event_id": b"\x01", "time": Ticks(ticks)}
    for arrival in (1_763_900_000_000_000_000, 1_763_900_001_000_000_000):  # sent twice
        kept = receiver.receive([EventFields(0, tuple(known.get(field.name) for field in FIELDS))], arrival)
        assert kept is not None
        kept.result(10)
    (row,) = sink.rows
    assert row.time == 1_763_900_000_000_000_000
    assert row.detail == ({"time": f"{ticks} ticks of 100 ns since 1601, which cannot be"} if ticks else {})
    assert counters.event_times_replaced == 2
    receiver.close()
