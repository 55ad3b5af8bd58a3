"""`mode = "poll"`: reads values at an interval, for servers without subscriptions. What happens in between is not seen.

Each answer is given to the same receiver as a notification, so that values, statuses, times and structures mean the
same. A value that is unchanged (same value, status and source time) is not given again.
"""

import asyncio
import contextlib
import itertools
import time
from concurrent.futures import Future
from typing import Any, Final

import msgspec
import structlog
from asyncua import ua
from asyncua.ua import uaerrors

from edge.actions.command import Answer, Command
from edge.sources.base import Sink, SourceContext, SourceStatus
from edge.sources.opcua.backfill import Backfill
from edge.sources.opcua.browse import CallLimits, in_batches, read_limits, read_namespaces
from edge.sources.opcua.browse_paths import Wildcards, resolve_all
from edge.sources.opcua.commands import execute
from edge.sources.opcua.config import OpcuaConfig, declared, sampling_of
from edge.sources.opcua.counters import Counters
from edge.sources.opcua.expiry import Expiry
from edge.sources.opcua.gaps import GapKeeper
from edge.sources.opcua.link import Link, open_link, reason
from edge.sources.opcua.nodes import NodeAddress
from edge.sources.opcua.polling_wire import as_notification, read_encoded, status_of
from edge.sources.opcua.receiver import Receiver
from edge.sources.opcua.session import Receipt
from edge.sources.opcua.signals import SignalMap
from edge.sources.opcua.subscription import CLOCK_EVERY, clock_offset
from edge.sources.opcua.supervise import serve_for_ever
from fieldlab.errors import FieldlabError
from ingest.stores.base import DeadLetter

log = structlog.get_logger()

_CLOSE_WITHIN: Final = 2.0
_SHORTEST: Final = 0.01  # s between two reads of a signal
_PENDING: Final = 64  # answers on their way to the disk
_GONE: Final = frozenset({0x80330000, 0x80340000})  # BadNodeIdInvalid, BadNodeIdUnknown


class PollingSource:
    """A `Source` that reads instead of subscribing."""

    def __init__(self, config: OpcuaConfig, context: SourceContext, sink: Sink) -> None:
        self.name = context.name
        self._wild = Wildcards(config)
        self._config = self._wild.literal
        self._context = context
        self._sink = sink
        self._declared = declared(self._config, context)
        self._signals = SignalMap(self._declared, sink)
        self._counters = Counters()
        self._keeper = GapKeeper(context.name, sink, remember=config.history == "auto")
        self._receiver = Receiver(context.name, config.url, self._signals, sink, self._counters, keeper=self._keeper)
        self._backfill = Backfill(context.name, sink, self._signals, self._receiver.typed, self._keeper, self._counters)
        self._sequence = itertools.count(1)
        self._seen: dict[int, bytes] = {}
        self._waiting: set[asyncio.Future[Any]] = set()
        self._link: Link | None = None
        self._nodes: dict[int, ua.NodeId] = {}
        self._registered: dict[int, ua.NodeId] = {}
        self._limits = CallLimits()
        self._missing: dict[str, str] = {}
        self._gone: set[int] = set()
        self._connected = self._was_connected = False
        self._error = "not connected yet"
        self._expiry = Expiry(self._config, context, sink)
        self._clock_offset: float | None = None
        self._reads = self._late = self._unchanged = 0

    def status(self) -> SourceStatus:
        """How it is doing; safe to call from any thread."""
        counters = dict(msgspec.structs.asdict(self._counters))
        counters |= {"reads": self._reads, "polls_late": self._late, "unchanged": self._unchanged}
        if self._clock_offset is not None:
            counters["clock_offset_ms"] = round(self._clock_offset * 1000)
        counters |= self._expiry.days
        counters |= {"series_refused": self._signals.refused, "pending": len(self._waiting)}
        return SourceStatus(
            name=self.name,
            kind="opcua",
            url=self._config.url,
            connected=self._connected,
            error=self._error,
            signals=len(self._nodes) if self._connected else 0,
            missing=dict(self._missing),
            last_data=self._receiver.last_data,
            counters=counters,
        )

    async def command(self, command: Command) -> Answer:
        """Write or call on the live session; see `Commandable`."""
        return await execute(self._link if self._connected else None, command)

    def resend(self, letter: DeadLetter) -> "Future[None]":
        """Keep the readings of a dead letter with the server's time; see `Resending`."""
        return self._receiver.resend(letter)

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop` is set; reconnect for ever meanwhile."""
        self._keeper.adopt(self._declared, whole=not self._wild.patterns)
        try:
            await serve_for_ever(stop, self._serve, lambda: self._connected, self._lost)
        finally:
            self._connected = False
            self._error = "stopped"

    async def _serve(self) -> None:
        """Connect and read until something goes wrong, which is raised."""
        self._link = link = await open_link(self._config, self._context, lambda _: None)
        try:
            self._config = await self._wild.expand(link.session, await read_namespaces(link.session))
            self._declared = declared(self._config, self._context)
            self._signals.grow(self._declared)
            self._keeper.adopt(self._declared, whole=True)
            self._keeper.start_anew()
            self._limits = await read_limits(link.session)
            self._registered.clear()  # they were of the session before
            self._receiver.typed.new_session()
            await self._find(link, list(range(len(self._declared))))
            self._counters.reconnects += self._was_connected
            self._connected = self._was_connected = True
            self._expiry.look(link.identity)
            self._clock_offset = await clock_offset(link)
            self._error = ""
            log.info("opcua_polling", source=self.name, url=self._config.url, signals=len(self._nodes))
            await self._receiver.typed.learn_states(link.session)
            async with self._backfill.beside(link.session, self._config):
                await self._poll(link)
        finally:
            self._link = None
            with contextlib.suppress(asyncio.CancelledError):
                await link.close(keep_subscriptions=False, within=_CLOSE_WITHIN)

    async def _find(self, link: Link, handles: list[int]) -> None:
        """Look nodes up, and register those found, which the server may then read faster (OPC 10000-4, 5.9.5)."""
        namespaces = await read_namespaces(link.session)
        addresses = {h: NodeAddress.parse(self._config.signal[h].node, self._config.signal[h].start) for h in handles}
        found = await resolve_all(link.session, namespaces, addresses)
        before = self._nodes
        self._nodes = {h: node for h, node in found.items() if not isinstance(node, str)}
        await self._receiver.typed.learn(
            link.session, {h: node for h, node in self._nodes.items() if before.get(h) != node or not self._connected}
        )
        why = {h: text for h, text in found.items() if isinstance(text, str)}
        self._gone &= set(self._nodes)
        kept = {self._short(h) for h in self._gone} | {self._short(h) for h in why} | set(self._wild.wrong)
        self._missing = {name: text for name, text in self._missing.items() if name in kept} | self._wild.wrong
        for handle, text in why.items():
            self._miss(handle, text)
        self._registered = {
            h: n for h, n in self._registered.items() if h in self._nodes and before.get(h) == self._nodes[h]
        }
        order = [h for h in self._nodes if h not in self._registered]  # once each: a server keeps what is registered
        plain = [self._nodes[h] for h in order]
        try:
            registered = await in_batches(plain, self._limits.register, link.session.register_nodes)
        except uaerrors.UaError as e:
            log.info(
                "opcua_not_registered", source=self.name, reason=type(e).__name__, what="nodes are read as they are"
            )
            registered = plain
        self._registered.update(zip(order, registered, strict=True))

    def _short(self, handle: int) -> str:
        return self._declared[handle].key.short

    def _miss(self, handle: int, why: str) -> None:
        signal = self._short(handle)
        if self._missing.get(signal) != why:
            log.error("opcua_signal_missing", source=self.name, url=self._config.url, signal=signal, reason=why)
        self._missing[signal] = why

    async def _poll(self, link: Link) -> None:
        """Read each signal at its interval. A round that takes longer is counted, and the next one follows."""
        groups: dict[float, list[int]] = {}
        for handle in self._nodes:
            every = max(_SHORTEST, sampling_of(self._config, self._config.signal[handle]))
            groups.setdefault(every, []).append(handle)
        due = dict.fromkeys(groups, time.monotonic())
        look_again = time.monotonic() + self._config.retry_missing
        next_clock = time.monotonic() + CLOCK_EVERY
        while True:
            if self._receiver.typed.unknown:
                await self._receiver.typed.look_up(link.session)
            self._expiry.see_to(link.identity)
            now = time.monotonic()
            if now >= next_clock:
                next_clock = now + CLOCK_EVERY
                self._clock_offset = await clock_offset(link)
            if self._missing and now >= look_again:
                await self._find(link, list(range(len(self._declared))))
                return await self._poll(link)
            ready = [every for every, at in due.items() if at <= now]
            if ready:
                await self._room()
                await self._read(link, [handle for every in ready for handle in groups[every]])
            for every in ready:
                due[every] += every
                behind = time.monotonic() - due[every]
                if behind > 0:
                    self._late += 1
                    due[every] += every * int(behind / every)
            nearest = min([*due.values(), look_again if self._missing else now + 1.0])
            await asyncio.sleep(max(0.0, nearest - time.monotonic()))

    async def _room(self) -> None:
        """Wait while too much is on its way to the disk: what is not read meanwhile is not seen."""
        while len(self._waiting) >= _PENDING:
            await asyncio.wait(self._waiting, return_when=asyncio.FIRST_COMPLETED)

    async def _read(self, link: Link, handles: list[int]) -> None:
        async def read(part: list[int]) -> list[bytes]:
            ranges = [self._config.signal[handle].range for handle in part]
            return await read_encoded(link.session, [self._registered[h] for h in part], ranges=ranges)

        values = await in_batches(handles, self._limits.read, read)
        self._reads += 1
        items = []
        for handle, value in zip(handles, values, strict=True):
            if status_of(value) in _GONE:
                self._gone.add(handle)
                self._miss(handle, f"the server has no node {self._nodes[handle].to_string()}")
                if handle not in self._seen:
                    continue  # it was never there: there is nothing to mark as Bad
            elif handle in self._gone:
                self._gone.discard(handle)
                self._missing.pop(self._short(handle), None)
                log.info("opcua_signal_back", source=self.name, signal=self._short(handle))
            if self._seen.get(handle) == value:
                self._unchanged += 1
                continue
            self._seen[handle] = value
            items.append((handle, value))
        if items:
            self._keep(self._receiver.receive(as_notification(next(self._sequence), items)))

    def _keep(self, receipt: Receipt | None) -> None:
        if receipt is None or receipt.kept is None:
            return
        waiting = asyncio.wrap_future(receipt.kept)
        self._waiting.add(waiting)
        waiting.add_done_callback(self._kept)

    def _kept(self, future: "asyncio.Future[Any]") -> None:
        self._waiting.discard(future)
        if not future.cancelled() and future.exception() is not None:
            log.error("opcua_not_kept", source=self.name, error=str(future.exception()))

    def _lost(self, error: BaseException | None) -> None:
        """Say what is wrong; at the loss of a connection give each signal one status, and no value."""
        self._expiry.look()  # it may be what is wrong
        if isinstance(error, FieldlabError):
            words = str(error)
        elif isinstance(error, uaerrors.UaError | OSError | TimeoutError):
            words = reason(error, self._config)
        else:
            words = f"{type(error).__name__}: {error}"
            log.error("opcua_unexpected", source=self.name, exc_info=error)
        if words != self._error:
            log.error("opcua_lost" if self._connected else "opcua_unreachable", source=self.name, error=words)
        self._error = words
        if self._connected:
            self._connected = False
            self._seen.clear()
            self._keeper.lose(self._signals.indices(), words, self._clock_offset)
