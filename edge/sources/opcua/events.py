"""Events, alarms and conditions of one server: from an EventNotificationList to rows of the measurement `event`."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import msgspec
import structlog
from asyncua import ua

from edge.sources.base import Sink, SourceContext
from edge.sources.opcua.browse import node_text
from edge.sources.opcua.config import OpcuaConfig, OpcuaEvents, event_places
from edge.sources.opcua.counters import Counters
from edge.sources.opcua.event_fields import BASE, FIELDS, EventFields, Ticks, named
from edge.sources.opcua.event_memory import Seen, memory_path, scope_of
from edge.sources.opcua.event_types import EventTypes
from edge.sources.opcua.event_writer import EventWriter, joined
from edge.sources.opcua.wire import EPOCH_TICKS, latest
from fieldlab.model import MachineEvent, Place

log = structlog.get_logger()

_REFRESH_START, _REFRESH_END, _REFRESH_REQUIRED, _OVERFLOW = 2787, 2788, 2789, 3035
_NOT_AGAIN_WITHIN: Final = 10.0  # s between two refreshes that a server asks for
_LONGEST_TEXT: Final = 4000
_DETAILS: Final = (
    "condition_name", "enabled", "confirmed", "quality", "comment", "limit_state", "high_high_limit", "high_limit",
    "low_limit", "low_low_limit", "high_high", "high", "low", "low_low",
    "suppressed_or_shelved", "shelving", "dialog", "prompt",
)  # fmt: skip


class Refresh(msgspec.Struct):
    """A ConditionRefresh under way on one monitored item.

    Attributes:
        named: (condition, branch) of every event since its start.
        whole: whether nothing was lost since.
    """

    named: set[tuple[str, str]] = msgspec.field(default_factory=set)
    whole: bool = True


class EventReceiver:
    """Turns events into rows and gives them to the sink.

    Attributes:
        types: the server's event types.
        namespaces: the server's NamespaceArray.
        queues: client handle → events that the server keeps between two publishes.
        wanted: client handle → event types that are wanted, none for all; or what is wrong with them.
    """

    def __init__(self, config: OpcuaConfig, context: SourceContext, sink: Sink, counters: Counters) -> None:
        self._name = context.name
        self._url = config.url
        self._tables: tuple[OpcuaEvents, ...] = config.events
        self._places: list[Place] = event_places(config, context)
        self._counters = counters
        self._writer = EventWriter(context.name, memory_path(context.data, context.name), context.index, sink, counters)
        self._refreshes: dict[int, Refresh] = {}
        self._wants_refresh = False
        self._next_refresh = 0.0
        self.types = EventTypes()
        self.namespaces: Sequence[str] = ()
        self.queues: dict[int, int] = {}
        self.wanted: list[list[ua.NodeId] | str] = [[] for _ in config.events]

    def new_session(self, types: EventTypes, namespaces: Sequence[str]) -> None:
        """A server's types, as they are now. What its conditions are now is not known: ask for it."""
        self.types = types
        self.namespaces = namespaces
        self.wanted = [types.find(table.types, namespaces) for table in self._tables]
        self._refreshes.clear()
        self._wants_refresh = True
        self._next_refresh = 0.0

    def lost(self) -> None:
        """Notifications never came: there may have been events in them."""
        for refresh in self._refreshes.values():
            refresh.whole = False
        self._wants_refresh = True

    def wish(self) -> None:
        """Ask for the conditions soon."""
        self._wants_refresh = True
        self._next_refresh = 0.0

    def take_wish(self) -> bool:
        """Whether a ConditionRefresh is due; asked for again only after a while."""
        if not self._wants_refresh or time.monotonic() < self._next_refresh:
            return False
        self._wants_refresh = False
        self._next_refresh = time.monotonic() + _NOT_AGAIN_WITHIN
        return True

    def receive(self, events: Sequence[EventFields], arrival: int) -> "Future[None] | None":
        """Give events to the sink; the future is done when all of them are on disk. None if there is nothing to keep.

        Args:
            events: of one notification, in order.
            arrival: when it came, ns.
        """
        waiting: list[Future[None]] = []
        rows: list[Seen] = []
        self._look_for_full_queues(events)
        for event in events:
            if event.handle >= len(self._tables):
                self._counters.unknown_events += 1
                continue
            values, bad = named(event.values, BASE if len(event.values) == len(BASE) else FIELDS)
            self._counters.event_fields_bad += bad
            kind = values.get("event_type")
            special = kind.Identifier if kind is not None and kind.NamespaceIndex == 0 else None
            if special in (_REFRESH_START, _REFRESH_END, _REFRESH_REQUIRED, _OVERFLOW):
                if special == _REFRESH_END and rows:
                    waiting.append(self._writer.keep(rows))
                    rows = []
                waiting += self._control(special, event.handle, values, arrival)
                continue
            seen = self._row(event.handle, values, arrival)
            if seen is not None:
                rows.append(seen)
        if rows:
            waiting.append(self._writer.keep(rows))
        return joined(waiting) if waiting else None

    def close(self) -> None:
        """Note what the journal has by now."""
        self._writer.close()

    def _look_for_full_queues(self, events: Sequence[EventFields]) -> None:
        """As many events at once as a queue holds: what was before them may be lost, and not every server says so."""
        for handle, count in Counter(event.handle for event in events).items():
            if handle < len(self._tables) and count >= self.queues.get(handle, self._tables[handle].queue):
                self._counters.event_queues_full += 1
                self._lost_events(handle, "the server's queue came full: events before them may be lost")

    def _lost_events(self, handle: int, what: str) -> None:
        log.error(
            "opcua_events_lost",
            source=self._name,
            url=self._url,
            node=self._tables[handle].node,
            what=f"{what}; make `queue` larger. The state of conditions is asked for again",
        )
        self.lost()

    def _control(self, kind: int, handle: int, values: Mapping[str, Any], arrival: int) -> "list[Future[None]]":
        """What tells about the stream itself: OPC 10000-9, 5.11, and OPC 10000-5, 6.4.34."""
        if kind == _REFRESH_START:
            self._refreshes[handle] = Refresh()
        elif kind == _REFRESH_REQUIRED:
            self._wants_refresh = True
        elif kind == _OVERFLOW:
            self._counters.event_queue_overflows += 1
            self._lost_events(handle, "the server says that its queue was full")
        elif (refresh := self._refreshes.pop(handle, None)) is not None:
            self._counters.condition_refreshes += 1
            if not refresh.whole or len(refresh.named) + 2 >= self.queues.get(handle, self._tables[handle].queue):
                return []  # some may have fallen out of the queue: nobody can say which conditions have ended
            at, _ = _time(values, arrival)
            return [self._writer.end_refresh(self._scope(handle), refresh.named, at, values.get("event_id", ""))]
        return []

    def _scope(self, handle: int) -> str:
        return scope_of(self._places[handle], self._tables[handle].node)

    def _row(self, handle: int, values: Mapping[str, Any], arrival: int) -> Seen | None:
        """The row of an event; None if it is not wanted, which a server that does not filter leaves to us."""
        table = self._tables[handle]
        wanted = self.wanted[handle]
        of_type = isinstance(wanted, str) or self.types.is_one_of(values.get("event_type"), wanted)
        if values.get("severity", 0) < table.severity or not of_type:
            self._counters.events_unwanted += 1
            return None
        at, timed = _time(values, arrival)
        self._counters.event_times_replaced += not timed
        said = values.get("time")
        detail = {} if timed or not said else {"time": f"{said} ticks of 100 ns since 1601, which cannot be"}
        detail |= {name: _text(values[name]) for name in _DETAILS if name in values}
        if "source_node" in values:
            detail["source_node"] = self._node(values["source_node"])
        if "branch" in values:
            detail["branch"] = self._node(values["branch"])
        condition = self._node(values["condition_id"]) if "condition_id" in values else ""
        row = MachineEvent(
            time=at,
            place=self._places[handle],
            source=_clean(values.get("source_name") or detail.get("source_node", "")),
            kind=self.types.name(values.get("event_type")),
            id=values.get("event_id", ""),
            condition=condition,
            severity=values.get("severity", 0),
            message=_clean(values.get("message", "")),
            active=values.get("active"),
            acknowledged=values.get("acknowledged"),
            retain=values.get("retain"),
            detail=detail,
        )
        if condition and handle in self._refreshes:
            self._refreshes[handle].named.add((condition, detail.get("branch", "")))
        return Seen(row, self._scope(handle), timed or not row.id)

    def _node(self, node: ua.NodeId) -> str:
        """As text that means the same after a restart of the server."""
        plain = ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)
        return node_text(plain, self.namespaces) if node.NamespaceIndex < len(self.namespaces) else plain.to_string()


def _time(values: Mapping[str, Any], arrival: int) -> tuple[int, bool]:
    """(when it happened, ns; whether the server said so). The year 1, or tomorrow, cannot be."""
    for name in ("time", "receive_time"):
        ticks = values.get(name)
        if isinstance(ticks, Ticks) and EPOCH_TICKS < ticks <= latest(arrival):
            return (int(ticks) - EPOCH_TICKS) * 100, name == "time"
    return arrival, False


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else _clean(str(value))


def _clean(text: str) -> str:
    """A text that every store can hold."""
    return text.encode("utf-8", "replace").decode()[:_LONGEST_TEXT]
