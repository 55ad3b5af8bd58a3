"""The gaps of one server's signals: when they begin, and when and how they are over.

A gap begins at a signal's last reading, by the machine's clock. What is known at its end decides: `closed` where the
server had kept everything, or says itself that nothing changed; else `ended`, for `backfill` to read again.
"""

import asyncio
import time
from collections.abc import Collection, Container, Sequence
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from edge.sources.base import Over, Sink
from edge.sources.opcua.config import DeclaredSignal
from fieldlab.model import Batch, SignalKey
from fieldlab.model.status import BAD_NO_COMMUNICATION

log = structlog.get_logger()

_DOWN: Final = ("agent_down", "source_down")
# A DataValue whose InfoType is DataValue and whose Overflow bit is set, OPC 10000-4, 7.39.1.
_OVERFLOW_MASK: Final = np.uint32(0x0C80)
_OVERFLOW: Final = np.uint32(0x0480)
_SKEW: Final = 2_000_000_000  # ns by which our clock and the server's may differ where nobody corrects it
_REMEMBERED: Final = 1_000_000  # readings
_KEPT: Final = "the server had kept what came meanwhile"
_UNCHANGED: Final = "the server's own time says that nothing changed meanwhile"


class GapKeeper:
    """Knows each signal's last reading, and tells the sink of gaps.

    Args:
        source: its name.
        sink: where gaps are kept.
        remember: whether what comes within a gap is remembered, because the gap will be read again.

    Attributes:
        ended: set when there may be something to read again.
    """

    def __init__(self, source: str, sink: Sink, *, remember: bool = False) -> None:
        self._remember = remember
        self._heard: list[tuple[NDArray[np.uint32], NDArray[np.int64]]] = []
        self._heard_rows = 0
        self._recording = False
        self._source = source
        self._sink = sink
        self._times: NDArray[np.int64] = np.zeros(0, np.int64)  # by signal; 0: none came since the agent started
        self._fresh: tuple[NDArray[np.uint32], NDArray[np.int64]] | None = None  # the last that came, not yet there
        self._awaited: dict[int, int] = {}  # signals that are down → the last moment up to which nothing is missing
        self._by_journal: set[int] = set()  # of these that moment may be a status of ours, by our clock
        self._before: NDArray[np.int64] | None = None  # `_last` before notifications that are missing
        self._adopted: dict[int, SignalKey] = {}
        self._handles: dict[SignalKey, int] = {}
        self._going_on = False  # what the server had kept still comes
        self._holed = False  # what the server had kept was not all there
        self.ended = asyncio.Event()

    @property
    def _last(self) -> NDArray[np.int64]:
        """The time of the newest reading of each signal, ns; 0 if none came since the agent started."""
        if self._fresh is not None:
            (signals, times), self._fresh = self._fresh, None
            top = int(signals.max())
            if top >= len(self._times):
                self._times = np.append(self._times, np.zeros(top + 1 - len(self._times) + 64, np.int64))
            self._times[signals] = np.maximum(self._times[signals], times)
        return self._times

    def adopt(self, declared: Sequence[DeclaredSignal], *, whole: bool) -> None:
        """Take up the signals that earlier runs have read: until their next reading, they may miss some.

        Args:
            declared: the signals that are read.
            whole: whether those are all, so that others are no longer read; not before wildcards are looked up.
        """
        known = self._sink.signals_of(self._source)
        self._handles = {signal.key: handle for handle, signal in enumerate(declared)}
        others = {i: time.time_ns() for i, key in known.items() if whole and self.handle_of(key) is None}
        if others:
            self._over(others, "unverifiable", "the signal is no longer read")
        ours = {i: key for i, key in known.items() if i not in self._adopted and self.handle_of(key) is not None}
        self._adopted |= ours
        heard = {i for i in ours if i < len(self._last) and self._last[i]}  # in this run
        last = {i: t for i, t in self._sink.last_times(ours).items() if i not in heard}
        if not last:
            return
        of = {key: i for i, key in ours.items()}
        for gap in self._sink.gaps(self._source):
            if gap.state == "open" and gap.cause in _DOWN and of.get(gap.key) in last:
                self._awaited[of[gap.key]] = gap.time  # it goes on
        new = {i: t for i, t in last.items() if i not in self._awaited}
        self._awaited |= new
        self._by_journal |= set(new)
        if new:
            self._sink.open_gap(self._source, "agent_down", new, detail="the agent did not run")

    def lose(self, described: NDArray[np.uint32], why: str, clock_offset: float | None = None) -> None:
        """The connection is lost: each signal gets one status and no value, and a gap begins.

        Args:
            described: the signals that were read in this run; those that only earlier runs have read are added.
            why: in words.
            clock_offset: seconds that the server's clock is ahead of ours, if that is known.
        """
        self._going_on = self._holed = False
        earlier = np.fromiter(self._adopted, np.uint32, len(self._adopted))
        signals = np.union1d(described, earlier).astype(np.uint32)
        if not len(signals):
            return
        # By the clock that the readings have, or a status of ours would be the newest for as long as it is ahead.
        ahead = clock_offset if clock_offset is not None and abs(clock_offset) > _SKEW / 2e9 else 0.0
        times = np.full(len(signals), time.time_ns() + round(ahead * 1e9), np.int64)
        status = np.full(len(signals), BAD_NO_COMMUNICATION, np.uint32)
        self._sink.append(Batch.of(signals, times, np.full(len(signals), np.nan), status))
        down = [i for i in signals.tolist() if i not in self._awaited]
        since = self._newest(down)
        self._awaited |= since
        if since:
            self._sink.open_gap(self._source, "source_down", since, detail=why)

    def go_on(self) -> None:
        """A subscription of before goes on: what comes until `settle` is what the server had kept."""
        self._going_on, self._holed, self._recording = True, False, True

    def start_anew(self) -> None:
        """There is a new subscription: each signal's first reading ends its gap."""
        self._going_on = False

    @property
    def settling(self) -> bool:
        """Whether `settle` is to be called, once what the server had kept has come."""
        return self._going_on

    def settle(self, now: int, missing: Container[int]) -> None:
        """What the server had kept has come.

        Args:
            now: the time there, ns.
            missing: handles that are not read; their gaps go on.
        """
        self._going_on = False
        keys = self._sink.signals_of(self._source)
        down = {i: t for i, t in self._awaited.items() if i in keys and self.handle_of(keys[i]) not in missing}
        if not down:
            return
        self._awaited = {i: t for i, t in self._awaited.items() if i not in down}
        until = {i: max(now, start) for i, start in down.items()}
        if self._holed:
            self._over(until, "ended", "the server had not kept all that came meanwhile")
            return
        indices = {keys[i]: i for i in down}
        gaps = [gap for gap in self._sink.gaps(self._source) if gap.state == "open" and gap.cause in _DOWN]
        came = self._heard_since(down)
        recovered = {gap.id: came.get(indices[gap.key], 0) for gap in gaps if gap.key in indices}
        self._over(until, "closed", _KEPT)
        self._sink.close_gaps({id_: count for id_, count in recovered.items() if count}, detail=_KEPT)
        log.info("opcua_gaps_closed", source=self._source, signals=len(down), readings=sum(recovered.values()))

    def note(self, batch: Batch, lost: dict[int, int], *, again: bool) -> None:
        """Readings came; tell it before they go to the sink.

        Args:
            batch: the readings by signal.
            lost: signal → readings whose Overflow bit says that at least one is lost before them.
            again: whether the server sends them a second time.
        """
        signals = batch.signal
        if not len(signals):
            return
        if lost:
            self._recording = True
            self._overflowed(batch, lost, again=again)
        if self._awaited and not self._going_on and not again:
            self._back(batch)
        self._note(signals, batch.time)
        if self._going_on or (self._recording and self._remember):
            self._heard.append((signals, batch.time))
            self._heard_rows += len(signals)
            while self._heard_rows > _REMEMBERED:  # what is forgotten may be counted as recovered
                self._heard_rows -= len(self._heard.pop(0)[0])

    def _note(self, signals: NDArray[np.uint32], times: NDArray[np.int64]) -> None:
        """Of batches of the same signals only the newest times count: they are looked at when somebody asks."""
        if self._fresh is not None:
            if self._fresh[0] is signals:
                times = np.maximum(self._fresh[1], times)
            else:
                _ = self._last
        self._fresh = (signals, times)

    def heard(self, signal: int, start: int, end: int) -> NDArray[np.int64]:
        """The times of a signal's readings in [start, end] that came while a gap was known, ns, (n,)."""
        found = [times[signals == signal] for signals, times in self._heard]
        times = np.concatenate(found) if found else np.zeros(0, np.int64)
        return times[(times >= start) & (times <= end)]

    def newest(self, signal: int) -> int:
        """The time of a signal's newest reading in this run, ns; 0 if none came."""
        return int(self._last[signal]) if signal < len(self._last) else 0

    def _heard_since(self, since: dict[int, int]) -> dict[int, int]:
        """How many readings of each signal came that are newer; those that came twice count once."""
        if not self._heard or not since:
            return {}
        signals = np.concatenate([s for s, _ in self._heard])
        times = np.concatenate([t for _, t in self._heard])
        after = np.full(max(int(signals.max()), *since) + 1, np.iinfo(np.int64).max)
        after[list(since)] = list(since.values())
        new = times > after[signals]
        once = np.unique(np.stack([signals[new].astype(np.int64), times[new]]), axis=1)
        found, counts = np.unique(once[0], return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))

    def forget(self) -> None:
        """No gap is left to be read again."""
        if self._before is None and not self._going_on:
            self._recording = False
            self._heard.clear()
            self._heard_rows = 0

    def hole(self) -> None:
        """Notifications are missing; tell it before what came behind them."""
        self._recording = True
        if self._before is None:
            self._before = self._last.copy()

    def whole(self) -> None:
        """Nothing is missing any more: it came, or is lost."""
        self._before = None

    def notifications_lost(self, signals: NDArray[np.uint32], count: int, now: int) -> None:
        """Notifications are gone for good. Which signals they held nobody knows: it may be any of them.

        Args:
            signals: all that the subscription has.
            count: notifications; how many readings they held is not known.
            now: the server's time, ns.
        """
        self._holed = True
        before = self._last if self._before is None else self._before
        spans = {i: (int(before[i]), self._awaited.get(i, now)) for i in signals.tolist() if i < len(before)}
        spans = {i: (start, end) for i, (start, end) in spans.items() if 0 < start < end}
        if spans:
            detail = f"{count} notifications that the server has no more"
            self._sink.note_gap(self._source, "notification_lost", spans, detail=detail)
            self.ended.set()

    def _overflowed(self, batch: Batch, lost: dict[int, int], *, again: bool) -> None:
        """The oldest of a queue is dropped first: what is lost lies between a reading so marked and the one before."""
        marked = (batch.status & _OVERFLOW_MASK) == _OVERFLOW
        spans: dict[int, tuple[int, int]] = {}
        for signal in lost:
            rows = np.flatnonzero(batch.signal == signal)
            hits = np.flatnonzero(marked[rows])
            first = hits[0]
            start = int(batch.time[rows[first - 1]]) if first else self._newest([signal]).get(signal, 0)
            end = int(batch.time[rows[hits[-1]]])
            if 0 < start < end:
                spans[signal] = (start, end)
        if spans:
            # Marked a second time, it is lost once. The ledger counts it from `append` alone.
            known = {} if again else lost
            detail = "the server's queue was full"
            self._sink.note_gap(self._source, "queue_overflow", spans, lost=known, detail=detail)
            self.ended.set()

    def _back(self, batch: Batch) -> None:
        """First readings after a gap."""
        changed: dict[int, int] = {}
        unchanged: dict[int, int] = {}
        backwards: dict[int, int] = {}
        firsts, rows = np.unique(batch.signal, return_index=True)
        for signal, row in zip(firsts.tolist(), rows.tolist(), strict=True):
            since = self._awaited.pop(signal, None)
            if since is None:
                continue
            at = int(batch.time[row])
            now = max(since, time.time_ns())
            if at > since:
                changed[signal] = at
            elif at == since or (signal in self._by_journal and at < since - _SKEW):
                unchanged[signal] = now
            elif signal in self._by_journal:  # between the two clocks: history may tell
                changed[signal] = now
            else:
                backwards[signal] = now
        if unchanged:
            self._over(unchanged, "closed", _UNCHANGED)
        if backwards:
            self._over(backwards, "unverifiable", "the server's clock went back")
        if changed:
            self._over(changed, "ended", "")

    def _over(self, until: dict[int, int], state: Over, detail: str) -> None:
        for cause in _DOWN:
            self._sink.end_gap(self._source, until, state=state, cause=cause, detail=detail)
        if state == "ended":
            self.ended.set()

    def _newest(self, signals: Collection[int]) -> dict[int, int]:
        """The time of the last reading of each signal that has one, ns."""
        found = {i: int(self._last[i]) for i in signals if i < len(self._last)}
        silent = [i for i in signals if not found.get(i)]
        return {i: t for i, t in found.items() if t} | (self._sink.last_times(silent) if silent else {})

    def handle_of(self, key: SignalKey) -> int | None:
        """The handle that a signal is read by: its own, or that of the array or structure that it is part of."""
        name = key.name
        while name:
            found = self._handles.get(SignalKey(key.place, name))
            if found is not None:
                return found
            name = name[: max(name.rfind("["), name.rfind("."), 0)]
        return None
