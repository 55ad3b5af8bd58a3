"""The monitored items for events, in the source's one subscription, and the call that refreshes conditions.

They share the subscription of the signals: one sequence of notifications, one acknowledgement after the commit, and
one thing to resume or to transfer. An event that the server held while nobody listened comes the same way as a value.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import structlog
from asyncua import ua
from asyncua.ua import uaerrors
from asyncua.ua.attribute_ids import AttributeIds

from edge.sources.opcua.browse_paths import resolve_all
from edge.sources.opcua.config import OpcuaConfig
from edge.sources.opcua.event_fields import BASE, FIELDS, event_filter
from edge.sources.opcua.held import Held
from edge.sources.opcua.link import Link
from edge.sources.opcua.nodes import NodeAddress

log = structlog.get_logger()

_CONDITION_TYPE: Final = ua.NodeId(ua.Int32(2782))
_CONDITION_REFRESH: Final = ua.NodeId(ua.Int32(3875))
# (fields, whether the server filters): what is tried in turn where a server refuses the filter.
_ATTEMPTS: Final = ((FIELDS, True), (FIELDS, False), (BASE, True), (BASE, False))


class Asking(Protocol):
    """Who asks for events; see `EventReceiver`."""

    namespaces: Sequence[str]
    wanted: list[list[ua.NodeId] | str]
    queues: dict[int, int]

    def lost(self) -> None:
        """The state of the conditions is not known: to be asked for again."""
        ...


class EventItems:
    """The event items of one session.

    Attributes:
        missing: client handle → why no events come from there.
        running: client handle → monitored item.
        refreshable: whether the server knows ConditionRefresh; None if it was not asked yet.
    """

    def __init__(self, link: Link, config: OpcuaConfig, receiver: Asking) -> None:
        self._link = link
        self._config = config
        self._receiver = receiver
        self._subscription = 0
        self._addresses = [NodeAddress.parse(table.node) for table in config.events]
        self.missing: dict[int, str] = {}
        self.running: dict[int, int] = {}
        self.refreshable: bool | None = None

    async def start(self, subscription: int) -> None:
        """Make the items in a subscription. Those that the server refuses go to `missing`."""
        self._subscription = subscription
        await self._create(list(range(len(self._addresses))))

    def go_on_with(self, held: Held) -> None:
        """The items of an earlier session."""
        self._subscription = held.subscription
        self.running = dict(held.events)
        self.missing = {h: "not tried yet" for h in range(len(self._addresses)) if h not in self.running}

    async def retry(self) -> list[int]:
        """Try the missing ones again; returns those that now run."""
        handles = sorted(self.missing)
        await self._create(handles)
        return [handle for handle in handles if handle not in self.missing]

    async def refresh(self) -> None:
        """Ask for the conditions that the server retains. A server that has none may not know how."""
        if not self.running:
            return
        request = ua.CallMethodRequest()
        request.ObjectId = _CONDITION_TYPE
        request.MethodId = _CONDITION_REFRESH
        request.InputArguments = [ua.Variant(ua.UInt32(self._subscription), ua.VariantType.UInt32)]
        try:
            (result,) = await self._link.session.call([request])
            result.StatusCode.check()
        except uaerrors.BadRefreshInProgress:
            self._receiver.lost()  # its start may have passed before us: once more, later
        except uaerrors.UaStatusCodeError as e:
            if self.refreshable is not False:
                log.info("opcua_no_condition_refresh", url=self._config.url, reason=type(e).__name__)
            self.refreshable = False
        else:
            self.refreshable = True

    async def _create(self, handles: list[int]) -> None:
        if not handles:
            return
        found = await resolve_all(
            self._link.session, self._receiver.namespaces, {h: self._addresses[h] for h in handles}
        )
        for handle, node in found.items():
            self.missing[handle] = node if isinstance(node, str) else await self._create_one(handle, node)
            if not self.missing[handle]:
                del self.missing[handle]

    async def _create_one(self, handle: int, node: ua.NodeId) -> str:
        """Make an item; returns what is wrong, or an empty text."""
        table = self._config.events[handle]
        types = self._receiver.wanted[handle]
        if isinstance(types, str):
            return types
        why = ""
        for fields, filtered in _ATTEMPTS:
            request = ua.MonitoredItemCreateRequest()
            request.ItemToMonitor.NodeId = node
            request.ItemToMonitor.AttributeId = AttributeIds.EventNotifier
            request.MonitoringMode = ua.MonitoringMode.Reporting
            request.RequestedParameters.ClientHandle = ua.UInt32(handle)
            request.RequestedParameters.SamplingInterval = ua.Double(0)
            request.RequestedParameters.QueueSize = ua.UInt32(table.queue)
            request.RequestedParameters.DiscardOldest = True
            request.RequestedParameters.Filter = event_filter(
                fields, types if filtered else (), table.severity if filtered else 0
            )
            params = ua.CreateMonitoredItemsParameters()
            params.SubscriptionId = ua.UInt32(self._subscription)
            params.TimestampsToReturn = ua.TimestampsToReturn.Both
            params.ItemsToCreate = [request]
            (result,) = await self._link.session.create_monitored_items(params)
            if result.StatusCode.is_good():
                self.running[handle] = result.MonitoredItemId
                self._receiver.queues[handle] = int(result.RevisedQueueSize)
                if why:
                    log.warning(
                        "opcua_event_filter_refused",
                        url=self._config.url,
                        node=table.node,
                        reason=why,
                        fields=len(fields),
                        filtered_by="server" if filtered else "agent",
                    )
                return ""
            why = f"{result.StatusCode.name} ({node.to_string()})"
            if not _about_the_filter(result.StatusCode):
                break
        return f"no events: {why}"


def _about_the_filter(status: Any) -> bool:
    return "Filter" in status.name or status.name in ("BadMonitoredItemFilterUnsupported", "BadEventFilterInvalid")
