"""Reads one OPC UA server, for ever: connects, watches that it is alive, and connects again."""

import asyncio
import time
from concurrent.futures import Future
from typing import Final

import msgspec
import structlog
from asyncua.ua import uaerrors

from edge.actions.command import Answer, Command
from edge.sources.base import Sink, SourceContext, SourceStatus
from edge.sources.opcua.backfill import Backfill
from edge.sources.opcua.browse_paths import Wildcards
from edge.sources.opcua.commands import execute
from edge.sources.opcua.config import OpcuaConfig, deadband_of, declared, sampling_of
from edge.sources.opcua.counters import Counters
from edge.sources.opcua.decode import UndecodableError, decode
from edge.sources.opcua.event_items import EventItems
from edge.sources.opcua.event_types import read_event_types
from edge.sources.opcua.events import EventReceiver
from edge.sources.opcua.expiry import Expiry
from edge.sources.opcua.gaps import GapKeeper
from edge.sources.opcua.held import Held, digest_of, held_path, read_held, save_held
from edge.sources.opcua.link import Link, NotResumedError, gone, open_link, reason
from edge.sources.opcua.nodes import NodeAddress
from edge.sources.opcua.receiver import Receiver, SubscriptionLostError
from edge.sources.opcua.session import Acknowledgements
from edge.sources.opcua.signals import SignalMap
from edge.sources.opcua.subscription import CLOCK_EVERY, Feed, clock_offset, read_namespaces, server_start
from edge.sources.opcua.supervise import serve_for_ever
from fieldlab.errors import FieldlabError
from ingest.stores.base import DeadLetter

log = structlog.get_logger()

_CLOSE_WITHIN: Final = 2.0
_VAIN: Final = 2  # a session that could be resumed and yet gives nothing is worth no third try
_SILENT: Final = 3  # keep-alive intervals without a word


class SilentServerError(Exception):
    """Neither data nor a keep-alive came for too long."""


class OpcuaSource:
    """A `Source` of kind "opcua"."""

    def __init__(self, config: OpcuaConfig, context: SourceContext, sink: Sink) -> None:
        self.name = context.name
        self._wild = Wildcards(config)
        self._config = self._wild.literal
        self._context = context
        self._sink = sink
        self._declared = declared(self._config, context)
        self._signals = SignalMap(self._declared, sink)
        self._counters = Counters()
        self._events = EventReceiver(config, context, sink, self._counters) if config.events else None
        self._keeper = GapKeeper(context.name, sink, remember=config.history == "auto")
        self._receiver = Receiver(
            context.name, config.url, self._signals, sink, self._counters, self._events, self._keeper
        )
        self._backfill = Backfill(context.name, sink, self._signals, self._receiver.typed, self._keeper, self._counters)
        self._event_items: EventItems | None = None
        self._feed: Feed | None = None
        self._link: Link | None = None
        self._acks: Acknowledgements | None = None
        self._held: Held | None = None
        self._held_file = held_path(context.data, context.name)
        self._digest = digest_of(config)
        self._clock_offset: float | None = None
        self._connected = False
        self._was_connected = False
        self._error = "not connected yet"
        self._missing: dict[str, str] = {}
        self._started = ""
        self._expiry = Expiry(self._config, context, sink)
        self._vain = 0  # connections since one was up that tried to go on
        self._next_look = 0.0
        self._too_many = 0  # of sessions that are over
        self._warn_of_indices()

    def status(self) -> SourceStatus:
        """How it is doing; safe to call from any thread."""
        counters = dict(msgspec.structs.asdict(self._counters))
        counters["series_refused"] = self._signals.refused
        counters["unknown_handles"] = self._signals.unknown
        link, feed = self._link, self._feed
        acks = self._acks
        counters["acknowledged"] = acks.sent if acks is not None else 0
        counters["not_kept"] = acks.failed if acks is not None else 0
        counters["pending"] = acks.pending if acks is not None else 0
        if self._clock_offset is not None:
            counters["clock_offset_ms"] = round(self._clock_offset * 1000)
        counters["too_many_publish_requests"] = self._too_many + (link.session.too_many if link is not None else 0)
        counters |= self._expiry.days
        if feed is not None:
            counters["queues_revised"] = feed.revised_queues
            counters["sampling_revised"] = feed.revised_sampling
        return SourceStatus(
            name=self.name,
            kind="opcua",
            url=self._config.url,
            connected=self._connected,
            error=self._error,
            signals=feed.running if feed is not None and self._connected else 0,
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
        """Read until `stop` is set; reconnect for ever meanwhile. At a stop, keep the subscription on the server."""
        self._acks = Acknowledgements()
        self._keeper.adopt(self._declared, whole=not self._wild.patterns)
        try:
            await serve_for_ever(stop, self._serve, lambda: self._connected, self._lost)
        finally:
            self._connected = False
            self._error = "stopped"
            if self._events is not None:
                self._events.close()

    async def _serve(self) -> None:
        """Connect and read until something goes wrong, which is raised."""
        acks = self._acks
        assert acks is not None
        await acks.room()  # what an earlier session read still waits for the disk: do not pile up more
        self._receiver.new_session()
        held = self._held
        if (
            held is None and not self._wild.patterns and self._vain < _VAIN
        ):  # what a handle of an earlier run meant is not known with wildcards
            held = read_held(self._held_file, self._digest)
        if self._vain >= _VAIN:
            self._held = held = None
        try:
            link = await open_link(
                self._config,
                self._context,
                self._receiver.receive,
                acknowledgements=acks,
                gaps=self._receiver,
                held=held,
            )
        except NotResumedError:
            self._vain += 1
            raise
        self._link = link
        try:
            await self._expand(link)
            feed = Feed(link, self._config, self._declared, self._receiver.typed)
            self._started = await server_start(link)
            self._clock_offset = await clock_offset(link)
            self._receiver.freshness.grow(len(self._declared))
            if not link.resumed or not self._receiver.typed.ready:  # a session that goes on has the same types
                self._receiver.typed.new_session()
                if held is not None:
                    await feed.learn()
            self._vain += 1
            items = await self._learn_events(link)
            if held is None or not await self._go_on(link, feed, held):
                acks.forget()
                self._receiver.new_subscription()
                await feed.start()
                if items is not None:
                    await items.start(feed.id)
            elif items is not None:
                items.go_on_with(held)
            self._feed, self._event_items = feed, items
            self._vain = 0
            self._hold(link, feed)
            self._up(link, feed)
            async with self._backfill.beside(link.session, self._config):
                await self._watch(link, feed)
        except asyncio.CancelledError:
            await link.close(keep_subscriptions=True, within=_CLOSE_WITHIN)
            raise
        finally:
            await link.drop()
            self._too_many += link.session.too_many
            self._link = None

    async def _expand(self, link: Link) -> None:
        """Look up what wildcards stand for now."""
        if self._wild.patterns:
            self._config = await self._wild.expand(link.session, await read_namespaces(link))
            self._declared = declared(self._config, self._context)
            self._signals.grow(self._declared)
            self._keeper.adopt(self._declared, whole=True)

    async def _learn_events(self, link: Link) -> EventItems | None:
        """Read the server's event types, before the first event comes."""
        if self._events is None:
            return None
        self._events.new_session(await read_event_types(link.session), await read_namespaces(link))
        return EventItems(link, self._config, self._events)

    async def _go_on(self, link: Link, feed: Feed, held: Held) -> bool:
        """Whether the server still holds our subscription. What it sent in vain is fetched, oldest first."""
        body = b""
        try:
            feed.go_on_with(held)
            if link.resumed:
                await feed.stay_alive()
                body = await link.session.first(_SILENT * held.keep_alive + self._config.timeout)
                available = decode(body, time.time_ns()).available
            elif self._started == held.server_start:  # numbers of a server of before mean nothing now
                available = tuple(await feed.transfer(held.subscription))
            else:
                return False
        except (uaerrors.UaStatusCodeError, UndecodableError) as e:
            log.warning(
                "opcua_subscription_not_kept",
                source=self.name,
                url=self._config.url,
                reason=str(e) or type(e).__name__,
                what="a new one is made; what happened in between is not known",
            )
            return False
        numbers = available
        if body:
            own = decode(body, 0).sequence
            numbers = tuple(n for n in available if n != own)
        self._receiver.go_on_with(held.subscription, numbers)
        await link.session.fill()
        if body:
            receipt = self._receiver.receive(body)
            if receipt is not None:
                link.session.acknowledgements.add(receipt)
        link.session.go_on_with(held.subscription)
        if link.resumed:
            self._counters.resumed += 1
        else:
            self._counters.transfers += 1
        return True

    def _hold(self, link: Link, feed: Feed) -> None:
        """Remember session and subscription, also for an agent that is killed now."""
        held = Held(
            digest=self._digest,
            token=link.session.authentication_token.to_string(),
            nonce=link.client.nonce,
            server_start=self._started,
            subscription=feed.id,
            interval=feed.interval,
            keep_alive=feed.keep_alive,
            lifetime=feed.lifetime,
            items=feed.items,
            events=self._event_items.running if self._event_items is not None else {},
        )
        if held != self._held:
            self._held = held
            save_held(self._held_file, held)

    async def _watch(self, link: Link, feed: Feed) -> None:
        """Raise when the session is over or silent; meanwhile try what is missing again."""
        tick = min(feed.keep_alive / 2, 0.5)
        settle_at = time.monotonic() + max(1.0, 3 * feed.interval)  # by then the queues have been emptied
        next_retry = time.monotonic() + self._config.retry_missing
        next_sign = 0.0
        next_clock = time.monotonic() + CLOCK_EVERY
        self._next_look = time.monotonic() + self._config.stale / 2
        typed = self._receiver.typed
        await typed.learn_states(link.session)
        while True:
            await gone(link, tick)
            self._expiry.see_to(link.identity)
            if time.monotonic() >= next_clock:
                next_clock = time.monotonic() + CLOCK_EVERY
                self._clock_offset = await clock_offset(link)
            if typed.unknown:
                await typed.look_up(link.session)
            now = time.monotonic()
            if self._keeper.settling and now >= settle_at:
                self._keeper.settle(time.time_ns() + round((self._clock_offset or 0.0) * 1e9), feed.missing)
            if link.session.acknowledgements.holding:
                self._receiver.heard = now  # we ask for nothing, so silence means nothing
                if now >= next_sign:
                    await feed.stay_alive()
                    next_sign = now + feed.lifetime / 4
            elif now - self._receiver.heard > _SILENT * feed.keep_alive:
                raise SilentServerError(
                    f"{self._config.url} sent nothing for {now - self._receiver.heard:.1f} s, not even a keep-alive"
                )
            elif now >= self._next_look:
                await self._look_for_stale(link, feed)
            if self._receiver.gone:
                await feed.drop(self._receiver.gone)
                self._receiver.gone.clear()
                self._note_missing(feed)
                self._hold(link, feed)
            if self._events is not None and self._event_items is not None and self._events.take_wish():
                await self._event_items.refresh()
            if (feed.missing or self._missing_events()) and now >= next_retry:
                next_retry = now + self._config.retry_missing
                await self._retry_missing(link, feed)

    async def _retry_missing(self, link: Link, feed: Feed) -> None:
        for handle in await feed.retry():
            log.info("opcua_signal_back", source=self.name, signal=self._declared[handle].key.short)
        if self._events is not None and self._event_items is not None:
            for handle in await self._event_items.retry():
                log.info("opcua_events_back", source=self.name, node=self._config.events[handle].node)
                self._events.wish()
        self._note_missing(feed)
        self._hold(link, feed)

    async def _look_for_stale(self, link: Link, feed: Feed) -> None:
        """Read the items that are silent; make those anew of which the server has another value than we do."""
        config, fresh = self._config, self._receiver.freshness
        self._next_look = time.monotonic() + config.stale / 2
        limits = {
            h: max(config.stale, 3 * sampling_of(config, s))
            for h, s in enumerate(config.signal)
            if deadband_of(config, s) is None
        }
        silent = fresh.silent(feed.items, limits)
        if not silent:
            return
        heard = {h: fresh.since(h) for h in silent}
        suspects = fresh.differing(await feed.read(silent))
        if not suspects:
            return
        await gone(link, max(1.0, 3 * feed.interval))  # what changed just now is on its way
        dead = [h for h in suspects if fresh.since(h) == heard[h]]
        dead = fresh.differing(await feed.read(dead)) if dead else []
        if dead:
            signals = [self._declared[h].key.short for h in dead[:5]]
            log.error("opcua_items_stale", source=self.name, url=config.url, count=len(dead), signals=signals)
            await feed.renew(dead)
            self._counters.recreated += len(dead)
            self._note_missing(feed)
            self._hold(link, feed)

    def _up(self, link: Link, feed: Feed) -> None:
        self._counters.reconnects += self._was_connected
        self._connected = self._was_connected = True
        self._expiry.look(link.identity)
        self._error = ""
        log.info(
            "opcua_connected",
            source=self.name,
            url=self._config.url,
            security=link.choice.text,
            signals=feed.running,
            missing=len(feed.missing),
            events=len(self._event_items.running) if self._event_items is not None else 0,
            publishing_interval=feed.interval,
            keep_alive=feed.keep_alive,
            slower_sampling=feed.revised_sampling,
            shorter_queues=feed.revised_queues,
        )
        self._note_missing(feed)

    def _note_missing(self, feed: Feed) -> None:
        missing = {self._declared[handle].key.short: why for handle, why in feed.missing.items()} | self._wild.wrong
        missing |= self._missing_events()
        for signal, why in missing.items():
            if self._missing.get(signal) != why:
                log.error("opcua_signal_missing", source=self.name, url=self._config.url, signal=signal, reason=why)
        self._missing = missing

    def _missing_events(self) -> dict[str, str]:
        """What no events come from, and why."""
        found = self._event_items.missing if self._event_items is not None else {}
        return {f"{self._config.events[h].machine or self._config.machine} events": why for h, why in found.items()}

    def _lost(self, error: BaseException | None) -> None:
        """Say what is wrong; at the loss of a connection give each signal one status, and no value."""
        self._expiry.look()  # it may be what is wrong
        if error is None:
            words = f"{self._config.url}: the session ended"
        elif isinstance(error, SilentServerError | SubscriptionLostError | FieldlabError):
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
            self._keeper.lose(self._signals.indices(), words, self._clock_offset)

    def _warn_of_indices(self) -> None:
        by_index = [s.name for s in self._config.signal if NodeAddress.parse(s.node, s.start).by_index]
        if by_index:
            log.warning(
                "opcua_namespace_index",
                source=self.name,
                signals=by_index[:5],
                count=len(by_index),
                what="ns=… may mean another namespace after a restart of the server: write nsu=URI;…",
            )
