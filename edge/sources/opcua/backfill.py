"""Gaps that have ended are read again from the server's history, as far as it keeps one.

This is a task of its own, beside the live readings: one call at a time, and at least as long a pause behind each.
What was read is in the journal before its gap is closed; after a crash in between it is read again, and is the same.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

import msgspec
import structlog
from asyncua import ua
from asyncua.client.ua_session import UaSession
from asyncua.ua import uaerrors

from edge.sources.base import Over, Sink
from edge.sources.opcua import absurd, browse
from edge.sources.opcua.blocks import packed
from edge.sources.opcua.browse_paths import resolve_all
from edge.sources.opcua.columns import Columns
from edge.sources.opcua.config import OpcuaConfig
from edge.sources.opcua.counters import Counters
from edge.sources.opcua.gaps import GapKeeper
from edge.sources.opcua.history import Answer, HistoryLimits, reaches, read_limits, read_raw, readable, status_name
from edge.sources.opcua.nodes import NodeAddress
from edge.sources.opcua.ranges import cut
from edge.sources.opcua.refill import Refill, in_calls
from edge.sources.opcua.signals import SignalMap
from edge.sources.opcua.typed import Typed
from fieldlab.model import Batch, BatchBuilder, concat

log = structlog.get_logger()

_QUIET: Final = 1.0  # s that a gap has to be over: one that flaps or grows is read once
_ROWS: Final = 5000  # readings on their way to the disk
_SHORTEST_PAUSE: Final = 0.02  # s
_DELAYS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # s between tries, as history may be written late
_TRANSIENT: Final = frozenset({"BadTimeout", "BadNoContinuationPoints", "BadTooManyOperations", "BadServerTooBusy"})
_READ_AGAIN: Final = "read again from the server's history"


class _State(msgspec.Struct):
    """What is known of a gap that is to be read.

    Attributes:
        end: of the gap when it was looked at last; one that grew is begun anew.
        due: when to read it, monotonic seconds.
        tries: in vain so far.
        done: whether nothing more can be had.
    """

    end: int
    due: float
    tries: int = 0
    done: bool = False


class Backfill:
    """Reads the gaps of one source again.

    Args:
        source: its name.
        sink: where gaps are known and readings go.
        signals: which signal a reading is of.
        typed: what structures are made of.
        keeper: see there.
        counters: counts what was recovered.
    """

    def __init__(
        self,
        source: str,
        sink: Sink,
        signals: SignalMap,
        typed: Typed,
        keeper: GapKeeper,
        counters: Counters,
    ) -> None:
        self._source = source
        self._sink = sink
        self._signals = signals
        self._typed = typed
        self._keeper = keeper
        self._counters = counters
        self._longest = 0  # ns that are read back
        self._states: dict[str, _State] | None = None
        self._refills: dict[str, Refill] = {}  # what was read of a gap so far, also when the connection broke

    @contextlib.asynccontextmanager
    async def beside(self, session: UaSession, config: OpcuaConfig) -> AsyncIterator[None]:
        """Read gaps again for as long as the body runs; not at all with `history = "off"`."""
        if config.history == "off":
            yield
            return
        self._longest = config.history_max.ns
        task = asyncio.create_task(self._run(_Server(session, config)))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self, server: "_Server") -> None:
        while True:
            self._keeper.ended.clear()
            due, wait = self._due()
            try:
                if due:
                    await server.ask()
                for group in in_calls(due, server.limits.nodes):
                    await self._read(server, group)
            except browse.TOO_MUCH as e:
                if not server.ask_less():
                    log.warning("opcua_history_failed", source=self._source, error=type(e).__name__)
                    self._again(due)
            except (uaerrors.UaError, OSError, TimeoutError) as e:
                # Where the connection broke, this task is cancelled; otherwise it tries again.
                log.warning("opcua_history_failed", source=self._source, error=str(e) or type(e).__name__)
                self._again(due)
            except Exception:  # whatever is wrong here, the live readings go on
                log.exception("opcua_history_broke", source=self._source)
                self._again(due)
            if not due:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._keeper.ended.wait(), wait)
                    await asyncio.sleep(_SHORTEST_PAUSE)

    def _due(self) -> tuple[list[Refill], float]:
        """What is to be read now, and how long to wait otherwise, seconds."""
        now = time.monotonic()
        gaps = [gap for gap in self._sink.gaps(self._source) if gap.state == "ended"]
        if self._states is None:  # what an earlier run recovered in part is all that there was
            self._states = {gap.id: _State(gap.end, now, done=gap.recovered > 0) for gap in gaps}
        for gone in self._states.keys() - {gap.id for gap in gaps}:
            del self._states[gone]
            self._refills.pop(gone, None)
        due: list[Refill] = []
        wait = 60.0
        indices = {key: i for i, key in self._sink.signals_of(self._source).items()} if gaps else {}
        for gap in gaps:
            state = self._states.get(gap.id)
            if state is None or state.end != gap.end:
                state = self._states[gap.id] = _State(gap.end, now + _QUIET)
                self._refills.pop(gap.id, None)
            handle = self._keeper.handle_of(gap.key)
            if state.done or handle is None or gap.key not in indices:  # settled, or no longer configured
                continue
            if state.due > now:
                wait = min(wait, state.due - now)
                continue
            if gap.id not in self._refills:
                index, earliest = indices[gap.key], time.time_ns() - self._longest
                known = self._keeper.heard(index, gap.time, gap.end)
                newest = self._keeper.newest(index)
                self._refills[gap.id] = Refill(gap, handle, index, earliest, known, newest)
            due.append(self._refills[gap.id])
        if all(state.done for state in self._states.values()):
            self._keeper.forget()
        return due, max(wait, 0.05)

    async def _read(self, server: "_Server", group: Sequence[Refill]) -> None:
        """One call with its continuations, for gaps of different signals and about the same interval."""
        old = [refill for refill in group if refill.start >= refill.gap.end]  # beyond `history_max`
        await server.look_up({refill.handle for refill in group})
        found = [refill for refill in group if refill.handle in server.nodes and refill not in old]
        self._again([refill for refill in group if refill.handle not in server.nodes])
        of: dict[int, list[Refill]] = {}
        for refill in found:
            refill.kept = server.kept[refill.handle]
            if refill.kept:
                of.setdefault(refill.handle, []).append(refill)
        if of:
            await self._fetch(server, of)
        asked = [refill for refills in of.values() for refill in refills]
        for refill in asked:
            if not refill.refused and not refill.reached:
                refill.reached = await reaches(server.session, server.nodes[refill.handle], refill.start)
        await self._conclude([*old, *found])

    async def _fetch(self, server: "_Server", of: dict[int, list[Refill]]) -> None:
        every = [refill for refills in of.values() for refill in refills]
        start, end = min(r.through for r in every), max(r.gap.end for r in every)
        nodes = {handle: server.nodes[handle] for handle in of}
        asked = time.monotonic()
        async with contextlib.aclosing(read_raw(server.session, nodes, start, end, server.limits)) as calls:
            async for answers in calls:
                self._counters.history_reads += 1
                ours = [server.cut(answer) for answer in answers]
                await self._hand_over([found for answer in ours for found in self._new(answer, of[answer.handle])])
                spent = time.monotonic() - asked
                await asyncio.sleep(max(_SHORTEST_PAUSE, spent))  # the live readings come first
                asked = time.monotonic()

    def _batch(self, columns: Columns) -> Batch:
        """The readings by signal; those whose time cannot be are left out."""
        columns, _ = absurd.split(columns)
        batch = self._signals.to_batch(columns)
        if not columns.opaque:
            return batch
        builder = BatchBuilder()
        self._typed.expand(columns.opaque, builder)
        return concat([batch, builder.build()])

    def _new(self, answer: Answer, refills: Sequence[Refill]) -> Iterator[tuple[Refill, Batch]]:
        """What the journal does not have of an answer, by gap."""
        self._counters.history_not_raw += answer.not_raw
        batch = self._batch(answer.columns) if answer.columns is not None else None
        for refill in refills:
            refill.hole |= answer.hole
            if answer.status & 0x80000000:
                refill.refused = status_name(answer.status)
            if batch is not None and len(new := refill.take(batch)):
                yield refill, new

    async def _hand_over(self, found: Sequence[tuple[Refill, Batch]]) -> None:
        """Put what is new into the journal, and wait until it is on disk."""
        for batch, delivery in packed(self._source, [(refill.gap.id, new) for refill, new in found], _ROWS):
            await asyncio.shield(asyncio.wrap_future(self._sink.backfill(batch, delivery=delivery)))
            self._counters.recovered += len(batch)
        for refill, new in found:
            refill.commit(new)

    async def _conclude(self, refills: Sequence[Refill]) -> None:
        """Close the gaps, or say why they cannot be."""
        current = {gap.id: gap for gap in self._sink.gaps(self._source)}
        settled: dict[tuple[Over, str], list[Refill]] = {}
        for refill in refills:
            gap, state = current.get(refill.gap.id), self._state(refill)
            if gap is None or state is None or gap.state != "ended" or gap.end != refill.gap.end:
                continue  # it goes on, or grew meanwhile: it is read anew when it is over
            why = refill.why_not()
            if (refill.refused in _TRANSIENT or refill.late) and state.tries < len(_DELAYS):
                refill.refused = ""
                self._again([refill])
                continue
            state.done = True
            settled.setdefault(("ended", why) if why else ("closed", _READ_AGAIN), []).append(refill)
        # All are told before any is waited for: no gap can change in between, and they share a commit.
        closing = [
            self._sink.close_gaps(
                {r.gap.id: r.recovered for r in part},
                state=over,
                detail=detail,
                rests={r.gap.id: r.rests() for r in part} if over == "ended" else None,
            )
            for (over, detail), part in settled.items()
        ]
        for (over, detail), part in settled.items():
            log.info(
                "opcua_gaps_read",
                source=self._source,
                state=over,
                detail=detail,
                gaps=len(part),
                recovered=sum(refill.recovered for refill in part),
                signals=[refill.gap.key.short for refill in part[:5]],
            )
        for future in closing:
            await asyncio.shield(asyncio.wrap_future(future))

    def _state(self, refill: Refill) -> _State | None:
        return (self._states or {}).get(refill.gap.id)

    def _again(self, refills: Sequence[Refill]) -> None:
        for refill in refills:
            state = self._state(refill)
            if state is not None:
                state.due = time.monotonic() + _DELAYS[min(state.tries, len(_DELAYS) - 1)]
                state.tries += 1


class _Server:
    """What is known of the server of one session.

    Attributes:
        session: it.
        limits: how much one call may ask for.
        nodes: client handle → node.
        kept: client handle → whether we may read its history.
    """

    def __init__(self, session: UaSession, config: OpcuaConfig) -> None:
        self.session = session
        self.limits = HistoryLimits()
        self.nodes: dict[int, ua.NodeId] = {}
        self.kept: dict[int, bool] = {}
        self._config = config
        self._calls: browse.CallLimits | None = None

    async def ask(self) -> None:
        """Ask for its limits, once."""
        if self._calls is None:
            self.limits = await read_limits(self.session)
            self._calls = await browse.read_limits(self.session)

    def cut(self, answer: Answer) -> Answer:
        """Of an array of which we read a part, that part."""
        part = self._config.signal[answer.handle].range
        if not part or answer.columns is None:
            return answer
        columns, whole = cut(answer.columns, part)
        return msgspec.structs.replace(answer, columns=columns, hole=answer.hole or not whole)

    def ask_less(self) -> bool:
        """Halve what one call asks for; False if it cannot be less."""
        before = self.limits
        self.limits = HistoryLimits(max(1, before.nodes // 2), min(before.values, max(100, before.values // 2)))
        return self.limits != before

    async def look_up(self, handles: set[int]) -> None:
        """Find nodes that are not known yet, and whether their history may be read."""
        unknown = sorted(handles - self.nodes.keys())
        if not unknown:
            return
        signals = self._config.signal
        addresses = {h: NodeAddress.parse(signals[h].node, signals[h].start) for h in unknown}
        found = await resolve_all(self.session, await browse.read_namespaces(self.session), addresses)
        nodes = {h: node for h, node in found.items() if not isinstance(node, str)}
        allowed = await readable(self.session, list(nodes.values()), self._calls or browse.CallLimits())
        self.kept.update(zip(nodes, allowed, strict=True))
        self.nodes |= nodes
