"""One subscription of one session: its monitored items, and the way of their notifications to the sink."""

import math
import time
from collections.abc import Sequence
from typing import Any, Final

import structlog
from asyncua import ua
from asyncua.ua import uaerrors
from asyncua.ua.attribute_ids import AttributeIds

from edge.sources.base import Sink
from edge.sources.opcua.config import DeclaredSignal, OpcuaConfig, queue_size, sampling_of
from edge.sources.opcua.counters import Counters
from edge.sources.opcua.decode import UndecodableError, decode
from edge.sources.opcua.link import Link
from edge.sources.opcua.nodes import NodeAddress, UnknownNamespaceError
from edge.sources.opcua.session import Receipt
from edge.sources.opcua.signals import SignalMap, overflow
from ingest.stores.base import DeadLetter

log = structlog.get_logger()

ITEMS_PER_CALL: Final = 1000
NOTIFICATIONS_PER_PUBLISH: Final = 10_000
_NODE_GONE: Final = (0x80330000, 0x80340000)  # BadNodeIdInvalid, BadNodeIdUnknown
_MAX_ITEMS_NODE: Final = ua.NodeId(ua.Int32(11714))  # OperationLimits.MaxMonitoredItemsPerCall, OPC 10000-5, 6.3.11
_NAMESPACE_ARRAY: Final = ua.NodeId(ua.Int32(2255))


class SubscriptionLostError(Exception):
    """The server has ended the subscription."""


class Receiver:
    """Takes the bodies of PublishResponses: decodes, appends, and says what to acknowledge when.

    Attributes:
        heard: when the newest response came, monotonic seconds.
        last_data: when the newest reading came, ns.
        gone: client handles whose node the server no longer has.
    """

    def __init__(self, name: str, url: str, signals: SignalMap, sink: Sink, counters: Counters) -> None:
        self._name = name
        self._url = url
        self._signals = signals
        self._sink = sink
        self._counters = counters
        self._next: dict[int, int] = {}
        self.heard = time.monotonic()
        self.last_data = 0
        self.gone: set[int] = set()

    def new_session(self) -> None:
        """Sequence numbers start anew."""
        self._next.clear()
        self.gone.clear()
        self.heard = time.monotonic()

    def receive(self, body: bytes) -> Receipt | None:
        """Take a response; None if there is nothing to acknowledge.

        Raises:
            SubscriptionLostError: if it says that the subscription has ended.
        """
        self.heard = time.monotonic()
        arrival = time.time_ns()
        count = self._counters
        try:
            published = decode(body, arrival)
        except UndecodableError as e:
            return self._set_aside(body, e, arrival)
        count.acks_refused += sum(1 for result in published.results if result & 0x80000000)
        if published.keep_alive:
            return None
        count.notifications += 1
        count.ignored += published.ignored
        self._look_for_gap(published.subscription, published.sequence)
        if published.status_change is not None:
            raise SubscriptionLostError(f"the server ended the subscription (status {published.status_change:#010x})")
        columns = published.columns
        if columns is None:
            return Receipt(published.subscription, published.sequence, None)
        count.unkept += columns.unkept
        count.times_replaced += columns.times_replaced
        count.empty += columns.empty
        if not columns.fast:
            status = columns.batch.status
            self.gone.update(columns.batch.signal[(status == _NODE_GONE[0]) | (status == _NODE_GONE[1])].tolist())
        batch = self._signals.to_batch(columns)
        count.readings += len(batch)
        self.last_data = arrival
        kept = self._sink.append(batch, overflow=overflow(batch) or None)
        return Receipt(published.subscription, published.sequence, kept)

    def _set_aside(self, body: bytes, error: UndecodableError, arrival: int) -> Receipt | None:
        """Bytes that nobody can read must not stop the others, and must not vanish either."""
        self._counters.undecodable += 1
        log.error("opcua_undecodable", source=self._name, url=self._url, error=str(error), bytes=len(body))
        letter = DeadLetter(
            store=self._name,
            machine=self._url,
            signal="",
            readings=1,
            reason=f"not a readable PublishResponse: {error}",
            first=arrival,
            last=arrival,
            body=body,
        )
        kept = self._sink.set_aside([letter])
        if not error.sequence:
            return None
        self._look_for_gap(error.subscription, error.sequence)
        return Receipt(error.subscription, error.sequence, kept)

    def _look_for_gap(self, subscription: int, sequence: int) -> None:
        """Count notifications that never came: sequence numbers run 1, 2, …, 2^32-1, 1 (OPC 10000-4, 7.25.2)."""
        expected = self._next.get(subscription, 1)
        missed = (sequence - expected) % 0xFFFFFFFF
        if 0 < missed < 0x7FFFFFFF:
            self._counters.gaps += missed
            log.error("opcua_sequence_gap", source=self._name, url=self._url, expected=expected, got=sequence)
        self._next[subscription] = sequence % 0xFFFFFFFF + 1


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

    def __init__(self, link: Link, config: OpcuaConfig, declared: Sequence[DeclaredSignal]) -> None:
        self._link = link
        self._config = config
        self._declared = declared
        self._addresses = [NodeAddress.parse(signal.node) for signal in config.signal]
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

    async def stay_alive(self) -> None:
        """Any call that names the subscription keeps it alive while we ask for nothing (OPC 10000-4, 5.14.1.2)."""
        params = ua.SetPublishingModeParameters()
        params.PublishingEnabled = True
        params.SubscriptionIds = [ua.UInt32(self.id)]
        await self._link.session.set_publishing_mode(params)

    async def _create(self, handles: list[int]) -> None:
        if not handles:
            return
        namespaces = await read_namespaces(self._link)
        wanted: list[tuple[int, ua.NodeId]] = []
        for handle in handles:
            try:
                wanted.append((handle, self._addresses[handle].resolve(namespaces)))
            except UnknownNamespaceError as e:
                self.missing[handle] = str(e)
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
        request.MonitoringMode = ua.MonitoringMode.Reporting
        request.RequestedParameters.ClientHandle = ua.UInt32(handle)
        request.RequestedParameters.SamplingInterval = ua.Double(sampling_of(self._config, signal) * 1000)
        request.RequestedParameters.QueueSize = ua.UInt32(queue_size(self._config, signal))
        request.RequestedParameters.DiscardOldest = True
        return request


def _never_called(_: Any) -> None:
    """What asyncua wants for a callback; our session does not call it."""


async def read_namespaces(link: Link) -> list[str]:
    """The server's NamespaceArray, as it is now."""
    return [str(uri) for uri in await link.client.get_node(_NAMESPACE_ARRAY).read_value()]


async def items_per_call(link: Link) -> int:
    """How many monitored items one request may hold."""
    try:
        limit = await link.client.get_node(_MAX_ITEMS_NODE).read_value()
    except (uaerrors.UaError, TimeoutError):
        limit = 0
    return min(int(limit), ITEMS_PER_CALL) if isinstance(limit, int) and limit > 0 else ITEMS_PER_CALL
