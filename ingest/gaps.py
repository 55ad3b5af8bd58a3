"""Gaps: the intervals in which readings of a signal may be missing, from the moment they are noticed until settled.

Their state is the table `gap` of the journal; each change is also a `Gap` row, for the stores. Both commit in one
transaction, and so does everything that changed while the one before it was on its way to the disk. What only grew is
in the table first, with a negative revision, and becomes a row within a second.
"""

import heapq
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from types import MappingProxyType
from typing import Literal

import msgspec
import structlog

from fieldlab.model import Gap, GapCause, GapState, Guarantee, SignalKey, gap_id
from ingest.journal import Journal, JournalClosedError

log = structlog.get_logger()

Over = Literal["ended", "closed", "unverifiable"]

_GOES_ON = 1.0  # s: what is lost again so soon goes on in the gap before; a gap grows on disk so often at most
_READ_AGAIN = "read again from the source's history"
_GOES_ON_NS = int(_GOES_ON * 1e9)
_KEPT = 20_000  # gaps that are over and kept one by one, or two a signal
_FOLD_FIRST: dict[GapState, int] = {"closed": 0, "unverifiable": 1, "ended": 2}
_WEAKEST: dict[Guarantee, int] = {"sampled": 0, "from-receipt": 1, "end-to-end": 2}
_LONGEST_DETAIL = 500  # characters

_Series = tuple[str, GapCause, int]  # source, cause, signal
_Of = tuple[int, GapCause, GapState]  # signal, cause, state


class Folded(msgspec.Struct):
    """Old gaps of one signal, cause and state, of which only the sums are left."""

    gaps: int = 0
    seconds: float = 0.0
    recovered: int = 0
    lost: int = 0

    def add(self, other: "Folded") -> None:
        """Add the sums of others."""
        self.gaps += other.gaps
        self.seconds += other.seconds
        self.recovered += other.recovered
        self.lost += other.lost


class Gaps:
    """All gaps that the journal knows. Every method is safe to call from any thread and never blocks on the disk.

    Times are ns by the machine's clock where it is known. A signal is meant by its index in the journal's table.

    Args:
        journal: where they are kept.
        agent: the tag `agent` of their rows.
    """

    def __init__(self, journal: Journal, agent: str) -> None:
        self._journal = journal
        self._agent = agent
        self._lock = threading.RLock()
        self._gaps: dict[str, Gap] = {}  # by id
        self._newest: dict[_Series, str] = {}
        self._taken: dict[tuple[int, GapCause, int], str] = {}  # signal, cause, start: a point of the store
        self._folded: dict[_Of, Folded] = {}
        self._ended_at: dict[str, float] = {}  # by the monotonic clock
        self._written_at: dict[str, float] = {}
        self._changed: set[str] = set()
        self._grown: set[str] = set()  # of these, what is not in the table either
        self._sums: dict[_Of, Folded] = {}  # folded, not yet on their way to the disk
        self._gone: list[str] = []
        self._pending = 0  # writes that are not yet on disk
        self._again = False  # there is more to write behind them
        self._waiters: list[Future[None]] = []
        self._origin: dict[int, tuple[str, Guarantee]] = {}
        self._claimed: set[int] = set()
        self._load()
        journal.damaged = self._damaged

    # ---- what happened ----

    def open(self, source: str, cause: GapCause, since: Mapping[int, int], *, detail: str = "") -> None:
        """Note that readings may be missing from now on.

        A gap of the same source, cause and signal that is open goes on; one that ended less than a second ago opens
        again: a connection that flaps is one gap.

        Args:
            source: what they are missing from.
            cause: why.
            since: signal → the last moment up to which nothing is missing, such as its last reading.
            detail: in words.
        """
        with self._lock:
            now = time.monotonic()
            for signal, start in since.items():
                last = self._last((source, cause, signal))
                if last is not None and last.state == "open":
                    continue
                if last is not None and now - self._ended_at.get(last.id, float("-inf")) < _GOES_ON:
                    self._change(last, state="open", end=0)
                else:
                    self._begin((source, cause, signal), start, state="open", end=0, detail=detail)
            self._flush()

    def end(
        self,
        source: str,
        until: Mapping[int, int] | int,
        *,
        state: Over,
        cause: GapCause | None = None,
        lost: int = 0,
        detail: str = "",
    ) -> None:
        """Note that the open gaps of a source are over.

        Args:
            source: as in `open`.
            until: signal → when; or one time for every open gap of the source.
            state: what is known of the readings in between. Of a signal that is counted from its receipt nobody can
                say that they were kept: `closed` becomes `unverifiable`.
            cause: only gaps of this cause.
            lost: readings of each signal known to be lost.
            detail: in words; absent: as it was.
        """
        with self._lock:
            for gap, signal in self._open_of(source, cause, until):
                end = until if isinstance(until, int) else until[signal]
                promised = self._origin.get(signal, ("", "end-to-end"))[1] != "from-receipt"
                known: Over = state if promised or state != "closed" else "unverifiable"
                self._change(gap, state=known, end=max(end, gap.time), lost=gap.lost + lost, detail=detail)
                self._ended_at[gap.id] = time.monotonic()
            self._flush()

    def note(
        self,
        source: str,
        cause: GapCause,
        spans: Mapping[int, tuple[int, int]],
        *,
        state: Over = "ended",
        lost: Mapping[int, int] | int = 0,
        detail: str = "",
    ) -> None:
        """Note gaps that are known only afterwards.

        One that begins within a second of the end of the last one of its source, cause, signal and state continues
        it; such growth becomes a row once a second (`flush`).

        Args:
            source: as in `open`.
            cause: why.
            spans: signal → start and end.
            state: what is known of the readings in between.
            lost: readings known to be lost, of each signal or by signal.
            detail: in words.
        """
        with self._lock:
            urgent = False
            for signal, (start, end) in spans.items():
                series = (source, cause, signal)
                count = lost if isinstance(lost, int) else lost.get(signal, 0)
                last = self._last(series)
                if last is not None and last.state == "open":
                    self._change(last, lost=last.lost + count)
                elif last is not None and last.state == state and last.time <= end and start <= last.end + _GOES_ON_NS:
                    self._change(last, end=max(end, last.end), lost=last.lost + count, detail=detail)
                else:
                    last = self._begin(series, start, state=state, end=max(start, end), lost=count, detail=detail)
                self._grown.add(last.id)
                urgent = urgent or time.monotonic() - self._written_at.get(last.id, float("-inf")) >= _GOES_ON
            if urgent:
                self._flush()

    def close(
        self,
        recovered: Mapping[str, int],
        *,
        state: Over = "closed",
        detail: str = "",
        rests: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    ) -> "Future[None]":
        """Settle gaps, and see it on disk.

        Args:
            recovered: id → readings that were read again; ids that are not known are passed over.
            state: `closed`; or what else is known now.
            detail: in words; absent: as it was.
            rests: id → the intervals of it that are missing still, in order. They stay `ended`, as gaps of their own;
                what is between them is closed. The first piece keeps the id.
        """
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()
        with self._lock:
            for found, count in recovered.items():
                gap = self._gaps.get(found)
                missing = (rests or {}).get(found, ())
                if gap is not None and missing:
                    self._cut(gap, missing, count, detail)
                elif gap is not None:
                    self._change(
                        gap, state=state, end=gap.end or gap.time, recovered=gap.recovered + count, detail=detail
                    )
            self._waiters.append(done)
            self._flush()
        return done

    def _cut(self, gap: Gap, missing: Sequence[tuple[int, int]], recovered: int, detail: str) -> None:
        """Make a gap that was read again in part into pieces; `recovered` counts with the first that is closed."""
        signal = self._journal.signals.index(gap.key)
        series = (gap.source, gap.cause, signal)
        newest = self._newest[series]
        at = gap.time
        pieces: list[tuple[int, int, Over]] = []
        for start, end in missing:
            if start > at:
                pieces.append((at, start, "closed"))
            pieces.append((start, end, "ended"))
            at = end
        if at < gap.end:
            pieces.append((at, gap.end, "closed"))
        for start, end, state in pieces:
            piece = gap if start == gap.time else self._begin(series, start, state=state, end=end, detail=detail)
            credit = recovered if state == "closed" else 0
            recovered -= credit
            words = _READ_AGAIN if state == "closed" else detail
            self._change(piece, state=state, end=end, recovered=piece.recovered + credit, detail=words)
        self._newest[series] = newest

    def recover(self, source: str, cause: GapCause, kept: Mapping[int, tuple[int, int]]) -> None:
        """Note readings that a store has taken after all; a gap of which all lost ones came back is closed.

        Args:
            source: the store.
            cause: of the gap that they are from.
            kept: signal → a time within the gap, and how many readings.
        """
        with self._lock:
            for signal, (at, count) in kept.items():
                key = self._journal.signals[signal]
                for gap in self._of(source, cause, key):
                    if count > 0 and gap.time <= at <= gap.end:
                        recovered = gap.recovered + count
                        state: GapState = "closed" if recovered >= gap.lost else gap.state
                        self._change(gap, recovered=recovered, state=state)
                        break
            self._flush()

    def claim(self, source: str, signal: int, guarantee: Guarantee = "end-to-end") -> None:
        """Note whose a signal is, and the weakest guarantee that it has had, also for later runs."""
        known = self._origin.get(signal)
        if known is None or known[0] != source or _WEAKEST[guarantee] < _WEAKEST[known[1]]:
            with self._lock:
                weakest = min(guarantee, known[1], key=_WEAKEST.__getitem__) if known else guarantee
                self._origin[signal] = (source, weakest)
                self._claimed.add(signal)
                self._flush()

    def flush(self) -> None:
        """Have all that grew since the last time written."""
        with self._lock:
            if self._changed:
                self._flush()

    def precede(self) -> None:
        """Have what was told so far reach the disk no later than readings that are appended after this call.

        Or a crash between the two would leave the readings behind a gap, and nobody who knows of the gap.
        """
        if self._again or self._grown:
            with self._lock:
                if self._again:
                    self._submit()
                elif self._grown:
                    grown = [self._gaps[id_] for id_ in sorted(self._grown) if id_ in self._gaps]
                    self._grown.clear()
                    self._journal.write(work=_saving(grown, self._numbers(grown), told=False))

    # ---- what is known ----

    def unsettled(self, source: str | None = None) -> list[Gap]:
        """The gaps that are open or ended, oldest first."""
        with self._lock:
            found = [g for g in self._gaps.values() if g.state in ("open", "ended") and source in (None, g.source)]
        return sorted(found, key=lambda gap: (gap.time, gap.id))

    def of_source(self, source: str) -> list[int]:
        """The signals that a source has ever had."""
        with self._lock:
            return sorted(signal for signal, (of, _) in self._origin.items() if of == source)

    def guarantees(self) -> dict[int, Guarantee]:
        """The weakest guarantee that each signal has had since the journal began, as its counts are since then."""
        with self._lock:
            return {signal: guarantee for signal, (_, guarantee) in self._origin.items()}

    def since(self, start: int = 0) -> list[Gap]:
        """The gaps that had not ended by `start`, oldest first."""
        with self._lock:
            found = [g for g in self._gaps.values() if g.state == "open" or g.end >= start]
        return sorted(found, key=lambda gap: (gap.time, gap.id))

    def newest(self, number: int) -> list[Gap]:
        """The gaps that began last, oldest first; before them come open ones of long ago, as far as there is room."""
        with self._lock:
            found = heapq.nlargest(number, self._gaps.values(), key=lambda gap: (gap.state == "open", gap.time, gap.id))
        return sorted(found, key=lambda gap: (gap.time, gap.id))

    def folded(self) -> dict[_Of, Folded]:
        """The sums of the gaps that are no longer kept one by one, by signal, cause and state."""
        with self._lock:
            return {of: msgspec.structs.replace(sums) for of, sums in self._folded.items()}

    def counts(self) -> dict[GapCause, dict[GapState, int]]:
        """How many gaps there have been, by cause and state, folded ones included."""
        counts: dict[GapCause, dict[GapState, int]] = {}
        with self._lock:
            for gap in self._gaps.values():
                of = counts.setdefault(gap.cause, {})
                of[gap.state] = of.get(gap.state, 0) + 1
            for (_, cause, state), sums in self._folded.items():
                of = counts.setdefault(cause, {})
                of[state] = of.get(state, 0) + sums.gaps
        return counts

    # ---- inside ----

    def _load(self) -> None:
        signals = self._journal.signals
        query = "SELECT id, signal, source, cause, start, end, state, revision, recovered, lost, detail FROM gap"
        for id_, signal, source, cause, start, end, state, revision, recovered, lost, detail in self._journal.select(
            f"{query} ORDER BY start"
        ):
            gap = Gap(
                time=start, key=signals[signal], agent=self._agent, cause=cause, id=id_, revision=abs(revision),
                state=state, end=end, recovered=recovered, lost=lost, source=source, detail=detail,
            )  # fmt: skip
            self._keep((source, cause, signal), gap)
            if revision <= 0:  # it was salvaged, or grew just before a crash: the stores do not know yet
                self._changed.add(id_)
        for signal, cause, state, gaps, seconds, recovered, lost in self._journal.select(
            "SELECT signal, cause, state, gaps, seconds, recovered, lost FROM gap_folded"
        ):
            self._folded[signal, cause, state] = Folded(gaps, seconds, recovered, lost)
        for signal, source, guarantee in self._journal.select("SELECT signal, source, guarantee FROM signal_source"):
            self._origin[signal] = (source, guarantee)

    def _damaged(self, start: int, end: int, words: str) -> None:
        """A record of the journal cannot be read: whose readings it had, nobody can say."""
        spans = dict.fromkeys(range(len(self._journal.signals)), (start, end))
        self.note("journal", "journal_damaged", spans, state="unverifiable", detail=f"the journal is damaged: {words}")

    def _of(self, source: str, cause: GapCause, key: SignalKey) -> list[Gap]:
        return [g for g in self._gaps.values() if (g.source, g.cause, g.key) == (source, cause, key)]

    def _last(self, series: _Series) -> Gap | None:
        found = self._newest.get(series)
        return None if found is None else self._gaps[found]

    def _open_of(
        self, source: str, cause: GapCause | None, signals: Mapping[int, int] | int
    ) -> Iterable[tuple[Gap, int]]:
        for (of, why, signal), newest in list(self._newest.items()):
            gap = self._gaps[newest]
            meant = of == source and cause in (None, why) and (isinstance(signals, int) or signal in signals)
            if meant and gap.state == "open":
                yield gap, signal

    def _begin(self, series: _Series, start: int, *, state: GapState, end: int, lost: int = 0, detail: str) -> Gap:
        """A new gap; or the one with the same start, which goes on."""
        source, cause, signal = series
        key = self._journal.signals[signal]
        known = self._taken.get((signal, cause, start))
        while known is not None and self._gaps[known].source != source:  # two stores' gaps are two points
            start += 1
            known = self._taken.get((signal, cause, start))
        if known is not None:
            gap = self._gaps[known]
            self._newest[series] = known
            return self._change(gap, state=state, end=end and max(end, gap.end), lost=gap.lost + lost, detail=detail)
        gap = Gap(
            time=start, key=key, agent=self._agent, cause=cause, id=gap_id(key, source, cause, start), revision=0,
            state=state, end=end, lost=lost, source=source, detail=_clean(detail),
        )  # fmt: skip
        self._keep(series, gap)
        self._changed.add(gap.id)
        return gap

    def _keep(self, series: _Series, gap: Gap) -> None:
        _, cause, signal = series
        self._gaps[gap.id] = gap
        self._newest[series] = gap.id
        self._taken[signal, cause, gap.time] = gap.id

    def _change(self, gap: Gap, *, detail: str = "", **changes: object) -> Gap:
        changed = msgspec.structs.replace(gap, detail=_clean(detail) or gap.detail, **changes)
        if changed != gap:
            self._gaps[gap.id] = changed
            self._changed.add(gap.id)
        return changed

    def _fold(self) -> None:
        """Keep only the sums of the oldest gaps that are over, settled ones first, when there are too many."""
        most = max(_KEPT, 2 * len(self._journal.signals))
        over = [gap for gap in self._gaps.values() if gap.state != "open"] if len(self._gaps) > most else []
        if len(over) <= most:
            return
        over.sort(key=lambda gap: (_FOLD_FIRST[gap.state], gap.time))
        for gap in over[: len(over) - most * 9 // 10]:
            signal = self._journal.signals.index(gap.key)
            sums = Folded(1, (gap.end - gap.time) / 1e9, gap.recovered, gap.lost)
            for table in (self._folded, self._sums):
                table.setdefault((signal, gap.cause, gap.state), Folded()).add(sums)
            self._gone.append(gap.id)
            del self._gaps[gap.id]
            del self._taken[signal, gap.cause, gap.time]
            series = (gap.source, gap.cause, signal)
            if self._newest.get(series) == gap.id:
                del self._newest[series]
            self._ended_at.pop(gap.id, None)
            self._written_at.pop(gap.id, None)
        log.info("gaps_folded", gaps=len(self._gone), kept=len(self._gaps))

    def _flush(self) -> None:
        """Write what changed, unless the write before it is not yet on disk: then behind that."""
        if self._pending:
            self._again = True
        else:
            self._submit()

    def _submit(self) -> None:
        now = time.monotonic()
        rows = []
        for changed in sorted(self._changed):
            gap = msgspec.structs.replace(self._gaps[changed], revision=self._gaps[changed].revision + 1)
            self._gaps[changed] = gap
            self._written_at[changed] = now
            rows.append(gap)
        rows.sort(key=lambda gap: gap.time)
        self._changed.clear()
        self._grown.clear()
        self._again = False
        self._fold()
        waiters, self._waiters = self._waiters, []
        sums, self._sums = self._sums, {}
        gone, self._gone = self._gone, []
        claims = [(signal, *self._origin[signal]) for signal in self._claimed]
        self._claimed.clear()
        self._pending += 1
        written = self._journal.write(rows, work=_saving(rows, self._numbers(rows), gone, sums, claims))
        written.add_done_callback(lambda done: self._written(done, waiters))

    def _numbers(self, gaps: Sequence[Gap]) -> list[int]:
        return [self._journal.signals.index(gap.key) for gap in gaps]

    def _written(self, done: "Future[None]", waiters: Sequence["Future[None]"]) -> None:
        error = done.exception()
        with self._lock:
            self._pending -= 1
            if error is not None and not isinstance(error, JournalClosedError):
                log.error("gaps_not_kept", error=repr(error))
            if self._again and not self._pending:
                self._submit()
        for waiter in waiters:
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)


def _saving(
    rows: Sequence[Gap],
    signals: Sequence[int],
    gone: Sequence[str] = (),
    sums: Mapping[_Of, Folded] = MappingProxyType({}),
    claims: Sequence[tuple[int, str, Guarantee]] = (),
    *,
    told: bool = True,
) -> Callable[[sqlite3.Connection], object]:
    """What the writing thread does to the tables, in the transaction of the rows; `told`: whether there are rows."""
    kept = [
        (
            g.id,
            signal,
            g.source,
            g.cause,
            g.time,
            g.end,
            g.state,
            g.revision if told else -g.revision,
            g.recovered,
            g.lost,
            g.detail,
        )
        for g, signal in zip(rows, signals, strict=True)
    ]
    folded = [(*of, s.gaps, s.seconds, s.recovered, s.lost) for of, s in sums.items()]

    def save(db: sqlite3.Connection) -> None:
        db.executemany("INSERT OR REPLACE INTO gap VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", kept)
        db.executemany("DELETE FROM gap WHERE id = ?", [(id_,) for id_ in gone])
        db.executemany(
            "INSERT INTO gap_folded VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (signal, cause, state) DO UPDATE SET"
            " gaps = gaps + excluded.gaps, seconds = seconds + excluded.seconds,"
            " recovered = recovered + excluded.recovered, lost = lost + excluded.lost",
            folded,
        )
        db.executemany("INSERT OR REPLACE INTO signal_source VALUES (?, ?, ?)", claims)

    return save


def _clean(detail: str) -> str:
    """Words of others, so that JSON and the database can hold them."""
    return detail[:_LONGEST_DETAIL].encode("utf-8", "replace").decode()
