"""The lines of `fieldlab check` about events: are they told, and can the state of conditions be asked for?"""

from collections.abc import Sequence

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds

from edge.sources.base import CheckLine, SourceContext
from edge.sources.opcua.browse import CallLimits, plain, read_namespaces, read_values
from edge.sources.opcua.config import OpcuaConfig, event_places
from edge.sources.opcua.event_items import EventItems
from edge.sources.opcua.event_types import EventTypes, read_event_types
from edge.sources.opcua.link import Link

_SERVER = ua.NodeId(ua.Int32(2253))
_SUBSCRIBE = 0x01  # EventNotifier, OPC 10000-3, 5.5.1


class _Asked:
    """What is asked for, by nobody who would take an answer."""

    def __init__(self, types: EventTypes, namespaces: Sequence[str], config: OpcuaConfig) -> None:
        self.namespaces = namespaces
        self.wanted = [types.find(table.types, namespaces) for table in config.events]
        self.queues: dict[int, int] = {}

    def lost(self) -> None:
        """Nothing is kept."""


async def check_events(link: Link, config: OpcuaConfig, context: SourceContext, subscription: int) -> list[CheckLine]:
    """Ask for the events of each table in a subscription that is deleted afterwards."""
    if not config.events:
        return []
    types = await read_event_types(link.session)
    asked = _Asked(types, await read_namespaces(link.session), config)
    items = EventItems(link, config, asked)
    await items.start(subscription)
    await items.refresh()
    lines = []
    for i, (table, place) in enumerate(zip(config.events, event_places(config, context), strict=True)):
        subject = f"{context.name} {place.machine} events"
        data = {"node": table.node, "event_types": len(types), "condition_refresh": bool(items.refreshable)}
        if i in items.missing:
            lines.append(CheckLine(level="fail", subject=subject, text=items.missing[i], data=data))
            continue
        data["queue"] = asked.queues[i]
        level, more = "ok", "the state of conditions is asked for at each connect"
        if not items.refreshable:
            level, more = "warn", "the server cannot tell which conditions it retains (no ConditionRefresh)"
        if asked.queues[i] < table.queue:
            level, more = "warn", f"the server keeps {asked.queues[i]} events, not {table.queue} as asked; {more}"
        words = f"events of {table.node}: {', '.join(table.types)} ({len(types)} types known); {more}"
        lines.append(CheckLine(level="warn" if level == "warn" else "ok", subject=subject, text=words, data=data))
    return lines


async def reports_events(link: Link) -> bool:
    """Whether the Server object tells events."""
    (value,) = await read_values(link.session, [(_SERVER, AttributeIds.EventNotifier)], CallLimits())
    notifier = plain(value)
    return isinstance(notifier, int) and bool(notifier & _SUBSCRIBE)
