"""One subscription of one session, and its monitored items."""

import datetime as dt
import math
import time
from collections.abc import Sequence
from typing import Any, Final

from asyncua import ua
from asyncua.ua import uaerrors
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.ua_binary import struct_to_binary

from edge.sources.opcua.browse import read_limits, read_values
from edge.sources.opcua.browse_paths import resolve_all
from edge.sources.opcua.columns import Columns
from edge.sources.opcua.config import DeclaredSignal, OpcuaConfig, deadband_of, queue_size, sampling_of
from edge.sources.opcua.decode import decode
from edge.sources.opcua.held import Held
from edge.sources.opcua.link import Link
from edge.sources.opcua.nodes import NodeAddress
from edge.sources.opcua.typed import Typed

ITEMS_PER_CALL: Final = 1000
CLOCK_EVERY: Final = 60.0  # s between two looks at the server's clock
NOTIFICATIONS_PER_PUBLISH: Final = 10_000
_MAX_ITEMS_NODE: Final = ua.NodeId(ua.Int32(11714))  # OperationLimits.MaxMonitoredItemsPerCall, OPC 10000-5, 6.3.11
_CURRENT_TIME: Final = ua.NodeId(ua.Int32(2258))  # Server.ServerStatus.CurrentTime
_START_TIME: Final = ua.NodeId(ua.Int32(2257))  # Server.ServerStatus.StartTime
_NAMESPACE_ARRAY: Final = ua.NodeId(ua.Int32(2255))


class Feed:
    """The subscription of one session.

    Attributes:
        id: the server's number of it.
        interval: revised publishing interval, seconds.
        keep_alive: revised keep-alive interval, seconds.
        lifetime: revised lifetime, seconds.
        missing: client handle → why it is not read.
        revised_queues: items whose queue the server made shorter.
        revised_sampling: items that the server samples less often than asked.
    """

    def __init__(
        self, link: Link, config: OpcuaConfig, declared: Sequence[DeclaredSignal], typed: Typed | None = None
    ) -> None:
        self._link = link
        self._typed = typed
        self._config = config
        self._declared = declared
        self._addresses = [NodeAddress.parse(signal.node, signal.start) for signal in config.signal]
        self._items: dict[int, int] = {}
        self.id = 0
        self.interval = float(config.interval)
        self.keep_alive = float(config.keep_alive)
        self.lifetime = float(config.lifetime)
        self.missing: dict[int, str] = {}
        self.revised_queues = 0
        self.revised_sampling = 0

    @property
    def running(self) -> int:
        """Items that the server watches."""
        return len(self._items)

    async def start(self) -> None:
        """Create the subscription and its items. Nodes that the server refuses go to `missing`."""
        keep_alive = max(1, round(self._config.keep_alive / self._config.interval))
        params = ua.CreateSubscriptionParameters()
        params.RequestedPublishingInterval = ua.Double(self._config.interval * 1000)
        params.RequestedMaxKeepAliveCount = ua.UInt32(keep_alive)
        params.RequestedLifetimeCount = ua.UInt32(
            max(3 * keep_alive, math.ceil(self._config.lifetime / self._config.interval))
        )
        params.MaxNotificationsPerPublish = ua.UInt32(NOTIFICATIONS_PER_PUBLISH)
        params.PublishingEnabled = True
        result = await self._link.session.create_subscription(params, _never_called)
        self.id = result.SubscriptionId
        self.interval = result.RevisedPublishingInterval / 1000
        self.keep_alive = self.interval * result.RevisedMaxKeepAliveCount
        self.lifetime = self.interval * result.RevisedLifetimeCount
        await self._create(list(range(len(self._declared))))

    def go_on_with(self, held: Held) -> None:
        """The subscription and the items of an earlier session."""
        self.id = held.subscription
        self.interval = held.interval
        self.keep_alive = held.keep_alive
        self.lifetime = held.lifetime
        self._items = dict(held.items)
        self.missing = {h: "not tried yet" for h in range(len(self._declared)) if h not in self._items}

    async def learn(self, nodes: dict[int, ua.NodeId] | None = None) -> None:
        """Ask what the nodes of these client handles are made of, before their values come; None for all."""
        if self._typed is None:
            return
        if nodes is None:
            namespaces = await read_namespaces(self._link)
            found = await resolve_all(self._link.session, namespaces, dict(enumerate(self._addresses)))
            nodes = {h: node for h, node in found.items() if not isinstance(node, str)}
        await self._typed.learn(self._link.session, nodes)

    @property
    def items(self) -> dict[int, int]:
        """Client handle → monitored item."""
        return dict(self._items)

    async def transfer(self, subscription: int) -> list[int]:
        """Take over the subscription of another session; returns the sequence numbers that the server keeps.

        Raises:
            uaerrors.UaError: if the server does not allow it, or has it no more.
        """
        params = ua.TransferSubscriptionsParameters(SubscriptionIds=[ua.UInt32(subscription)], SendInitialValues=False)
        (result,) = await self._link.session.transfer_subscriptions(params)
        result.StatusCode.check()
        return [int(n) for n in result.AvailableSequenceNumbers or ()]

    async def retry(self) -> list[int]:
        """Try the missing nodes again; returns those that now run."""
        handles = sorted(self.missing)
        await self._create(handles)
        return [handle for handle in handles if handle not in self.missing]

    async def drop(self, handles: set[int]) -> None:
        """Give up items whose node is gone; they are missing from now on."""
        items = [ua.UInt32(self._items.pop(h)) for h in handles if h in self._items]
        self.missing.update(dict.fromkeys(handles, "the node is gone from the server"))
        if items:
            params = ua.DeleteMonitoredItemsParameters(SubscriptionId=ua.UInt32(self.id), MonitoredItemIds=items)
            await self._link.session.delete_monitored_items(params)

    async def renew(self, handles: Sequence[int]) -> None:
        """Make items anew; the server then sends their values at once."""
        items = [ua.UInt32(self._items.pop(h)) for h in handles if h in self._items]
        params = ua.DeleteMonitoredItemsParameters(SubscriptionId=ua.UInt32(self.id), MonitoredItemIds=items)
        await self._link.session.delete_monitored_items(params)
        await self._create(list(handles))

    async def read(self, handles: Sequence[int]) -> Columns:
        """The values of items as the server has them now; those whose node is not found are left out."""
        namespaces = await read_namespaces(self._link)
        found = await resolve_all(self._link.session, namespaces, {h: self._addresses[h] for h in handles})
        nodes = {h: node for h, node in found.items() if not isinstance(node, str)}
        wanted = [(node, AttributeIds.Value) for node in nodes.values()]
        ranges = [self._config.signal[h].range for h in nodes]
        values = await read_values(self._link.session, wanted, await read_limits(self._link.session), ranges)
        response = ua.PublishResponse()
        change = ua.DataChangeNotification()
        change.MonitoredItems = [
            ua.MonitoredItemNotification(ua.UInt32(h), v) for h, v in zip(nodes, values, strict=True)
        ]
        response.Parameters.NotificationMessage.NotificationData = [change]
        columns = decode(struct_to_binary(response), 0).columns
        assert columns is not None
        return columns

    async def stay_alive(self) -> None:
        """Any call that names the subscription keeps it alive while we ask for nothing (OPC 10000-4, 5.14.1.2).

        Raises:
            uaerrors.UaError: if the server does not have it.
        """
        params = ua.SetPublishingModeParameters()
        params.PublishingEnabled = True
        params.SubscriptionIds = [ua.UInt32(self.id)]
        for result in await self._link.session.set_publishing_mode(params):
            result.check()

    async def _create(self, handles: list[int]) -> None:
        if not handles:
            return
        namespaces = await read_namespaces(self._link)
        wanted: list[tuple[int, ua.NodeId]] = []
        found = await resolve_all(self._link.session, namespaces, {h: self._addresses[h] for h in handles})
        for handle, node in found.items():
            if isinstance(node, str):
                self.missing[handle] = node
            else:
                wanted.append((handle, node))
        await self.learn(dict(wanted))
        size = await items_per_call(self._link)
        while wanted:
            part, rest = wanted[:size], wanted[size:]
            try:
                await self._create_part(part)
            except (uaerrors.BadTooManyOperations, uaerrors.BadEncodingLimitsExceeded, uaerrors.BadRequestTooLarge):
                if size == 1:
                    raise
                size = max(1, size // 2)
                continue
            wanted = rest

    async def _create_part(self, part: list[tuple[int, ua.NodeId]]) -> None:
        params = ua.CreateMonitoredItemsParameters()
        params.SubscriptionId = ua.UInt32(self.id)
        params.TimestampsToReturn = ua.TimestampsToReturn.Both
        params.ItemsToCreate = [self._request(handle, node) for handle, node in part]
        results = await self._link.session.create_monitored_items(params)
        for (handle, node), result in zip(part, results, strict=True):
            if result.StatusCode.is_good():
                self._items[handle] = result.MonitoredItemId
                self.missing.pop(handle, None)
                signal = self._config.signal[handle]
                self.revised_queues += result.RevisedQueueSize < queue_size(self._config, signal)
                self.revised_sampling += result.RevisedSamplingInterval > sampling_of(self._config, signal) * 1010
            else:
                self.missing[handle] = f"{result.StatusCode.name} ({node.to_string()})"

    def _request(self, handle: int, node: ua.NodeId) -> ua.MonitoredItemCreateRequest:
        signal = self._config.signal[handle]
        request = ua.MonitoredItemCreateRequest()
        request.ItemToMonitor.NodeId = node
        request.ItemToMonitor.AttributeId = AttributeIds.Value
        request.ItemToMonitor.IndexRange = signal.range or None
        request.MonitoringMode = ua.MonitoringMode.Reporting
        request.RequestedParameters.ClientHandle = ua.UInt32(handle)
        request.RequestedParameters.SamplingInterval = ua.Double(sampling_of(self._config, signal) * 1000)
        request.RequestedParameters.QueueSize = ua.UInt32(queue_size(self._config, signal))
        request.RequestedParameters.DiscardOldest = True
        deadband = deadband_of(self._config, signal)
        if deadband is not None:
            size, percent = deadband
            kind = ua.DeadbandType.Percent if percent else ua.DeadbandType.Absolute
            request.RequestedParameters.Filter = ua.DataChangeFilter(
                Trigger=ua.DataChangeTrigger.StatusValue, DeadbandType=ua.UInt32(kind), DeadbandValue=ua.Double(size)
            )
        return request


def _never_called(_: Any) -> None:
    """What asyncua wants for a callback; our session does not call it."""


async def read_namespaces(link: Link) -> list[str]:
    """The server's NamespaceArray, as it is now."""
    return [str(uri) for uri in await link.client.get_node(_NAMESPACE_ARRAY).read_value()]


async def server_start(link: Link) -> str:
    """When the server started; empty if it does not say."""
    try:
        return str(await link.client.get_node(_START_TIME).read_value())
    except (uaerrors.UaError, TimeoutError):
        return ""


async def clock_offset(link: Link) -> float | None:
    """Seconds by which the server's clock is ahead of ours, to half the time that asking takes; None if it has none."""
    asked = time.time()
    try:
        theirs = await link.client.get_node(_CURRENT_TIME).read_value()
    except (uaerrors.UaError, TimeoutError):
        return None
    middle = (asked + time.time()) / 2
    return float(theirs.timestamp()) - middle if isinstance(theirs, dt.datetime) else None


async def items_per_call(link: Link) -> int:
    """How many monitored items one request may hold."""
    try:
        limit = await link.client.get_node(_MAX_ITEMS_NODE).read_value()
    except (uaerrors.UaError, TimeoutError):
        limit = 0
    return min(int(limit), ITEMS_PER_CALL) if isinstance(limit, int) and limit > 0 else ITEMS_PER_CALL
