"""Moves records from the journal to one store, for ever, and moves the store's cursor only when they are safe."""

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from fieldlab.model import Record, RecordKind
from ingest.gaps import Gaps
from ingest.journal import Chunk, ConsumerState, Journal
from ingest.stores.base import Choosy, DeadLetter, Store, StoreError, StoreMisconfiguredError

log = structlog.get_logger()

Takes = Callable[[], NDArray[np.bool_]]

_CHECKPOINT_EVERY = 500  # records between two checkpoints of the counts
_LAZY_MOVE = 500  # positions without anything for this store before its cursor is moved on disk
_BACKFILL = frozenset({RecordKind.BACKFILL})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_PACE = 0.2  # seconds between two small writes: a store's cost a write is far above its cost a reading
_SMALL = 5_000  # readings


class ConsumerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a consumer is doing: its cursor, what it has yet to do, and what is wrong."""

    name: str
    position: int
    lag_records: int
    lag_readings: int
    lag_seconds: float
    error: str = ""


def backfill_lane(store: str) -> str:
    """The name of the cursor of a store's second lane."""
    return f"{store}.backfill"


def takes_of(store: Store) -> Takes | None:
    """Which signals a store takes; None for all."""
    return store.takes if isinstance(store, Choosy) else None


class Counts:
    """Readings a signal that the store keeps, that it refused for good, and that were dropped for want of room.

    `before`: those that were committed before there was this store, and that it never saw. `left_out`: those of signals
    that it is configured not to take. `took`: whether its lane took readings at all; None: not known.

    Args:
        data: what `snapshot` gave.
        takes: whether the store takes each signal; absent: it takes all.
    """

    def __init__(self, data: bytes | None = None, takes: Takes | None = None) -> None:
        given: list[Any] = msgspec.msgpack.decode(data) if data else []
        self.took: bool | None = given[5] if len(given) > 5 else None
        columns = (*given[:5], *(b"" for _ in range(5 - len(given))))
        self.stored, self.dead, self.dropped, self.before, self.left_out = (
            np.frombuffer(column, np.int64).copy() for column in columns
        )
        self._takes = takes

    def add(self, records: Sequence[Record], letters: Sequence[DeadLetter] = ()) -> None:
        """Count what was written, less what was refused."""
        self._count(records, dropped=False)
        for letter in letters:
            for signal, count in letter.counts.items():
                self._grow(signal + 1)
                self.stored[signal] -= count
                self.dead[signal] += count

    def revive(self, letter: DeadLetter, refused: int) -> None:
        """Count a dead letter that was sent again, of which so many readings were refused once more."""
        for signal, count in letter.counts.items():
            self._grow(signal + 1)
            self.stored[signal] += count - refused
            self.dead[signal] -= count - refused

    def drop(self, records: Sequence[Record]) -> None:
        """Count what was dropped."""
        self._count(records, dropped=True)

    def _count(self, records: Sequence[Record], *, dropped: bool) -> None:
        for record in records:
            if record.batch is not None:
                counted = np.bincount(record.batch.signal)
                self._grow(len(counted))
                column = self.dropped if dropped else self.stored
                if self._takes is not None:
                    taken = np.where(self._takes()[: len(counted)], counted, 0)
                    self.left_out[: len(counted)] += counted - taken
                    counted = taken
                column[: len(counted)] += counted

    def _grow(self, size: int) -> None:
        self.stored, self.dead, self.dropped, self.left_out = (
            np.append(column, np.zeros(max(0, size - len(column)), np.int64))
            for column in (self.stored, self.dead, self.dropped, self.left_out)
        )

    def snapshot(self) -> bytes:
        """The counts as bytes."""
        return msgspec.msgpack.encode([*(column.tobytes() for column in self._columns()), bool(self.took)])

    def sums(self, size: int) -> NDArray[np.int64]:
        """Everything that is counted, a signal, (size,)."""
        found = np.zeros(size, np.int64)
        for column in self._columns():
            found[: len(column)] += column[:size]
        return found

    def _columns(self) -> tuple[NDArray[np.int64], ...]:
        return (self.stored, self.dead, self.dropped, self.before, self.left_out)


class Forwarder:
    """Drives one store, in one of two lanes: live, or back-fill, so that fresh readings stay fresh.

    `run` belongs to one event loop. The store's calls run in `thread`, which its two lanes share.

    Args:
        journal: where it reads.
        store: where it writes.
        thread: has one worker.
        backfill: which lane.
        drop_oldest: when the journal is full because this store is behind, drop what is oldest, counted, rather than
            hold the sources.
        gaps: where it notes what the store refused, and what was dropped; absent: nowhere.

    Attributes:
        name: of its cursor: the store's, or `<store>.backfill`.
        counts: what the store keeps, refused, and never got, a signal.
        error: the store's words while it does not take records, else empty.
    """

    def __init__(
        self,
        journal: Journal,
        store: Store,
        thread: Executor,
        *,
        backfill: bool = False,
        drop_oldest: bool = False,
        gaps: Gaps | None = None,
    ) -> None:
        self.store = store
        self.name = backfill_lane(store.name) if backfill else store.name
        self._gaps = gaps
        self.error = ""
        self._kinds = store.kinds & _BACKFILL if backfill else store.kinds - _BACKFILL
        self._drop_oldest = drop_oldest
        self._written = 0.0  # when, on the loop's clock
        self._journal = journal
        self._thread = thread
        self._wake = asyncio.Event()
        self._moving = asyncio.Lock()  # counts and cursor change together, also when a dead letter is sent again
        found = journal.register(self.name, stateful=True)
        self._position = self._saved = found.position
        self._checkpoint = found.keep_from
        self._takes = takes_of(store)
        self.counts = Counts(found.state, self._takes)
        self._take_up(found, backfill=backfill)

    def _take_up(self, found: ConsumerState, *, backfill: bool) -> None:
        """Count on from the checkpoint; a store that is new, or takes readings only now, did not see those before."""
        takes = bool(self._kinds & (_BACKFILL | {RecordKind.READINGS}))
        counts, known = self.counts, found.state is not None
        if known and counts.took is None:
            empty = not counts.sums(len(self._journal.signals)).any()
            counts.took = takes and (backfill or not empty or not self._unseen(found.keep_from).any())
        changed = known and counts.took != takes
        if takes and not backfill and (changed or not known):
            unseen = self._unseen(found.position if changed else found.keep_from)
            counts.before = np.append(counts.before, np.zeros(len(unseen) - len(counts.before), np.int64)) + unseen
        counts.took = takes
        if changed:
            self._checkpoint = found.position
            state = counts.snapshot()
            self._journal.advance(self.name, found.position, keep_from=found.position, state=state).result()
        else:
            self._recount(found.keep_from, found.position)

    def _unseen(self, position: int) -> NDArray[np.int64]:
        """What was committed, a signal, is in no count of this store, and is not in the journal behind `position`."""
        size = len(self._journal.signals)
        other = self._journal.consumer(backfill_lane(self.store.name))
        others = Counts(None if other is None else other.state)
        past = 0 if other is None else other.position if others.took is False else other.keep_from
        before = self._journal.identity.totals(size)["committed"] - self.counts.sums(size) - others.sums(size)
        self._take_off(before, RecordKind.READINGS, position)
        self._take_off(before, RecordKind.BACKFILL, past)
        return before

    def _take_off(self, counts: NDArray[np.int64], kind: RecordKind, start: int) -> None:
        """Take from `counts` the readings of a kind that are in the journal behind `start`."""
        end = self._journal.position
        while start < end and counts.any():
            chunk = self._journal.read(start, frozenset({kind}), upto=end)
            for record in chunk.records:
                if record.batch is not None:
                    counted = np.bincount(record.batch.signal)
                    counts[: len(counted)] -= counted
            start = chunk.upto

    def _recount(self, start: int, end: int) -> None:
        """Count again what was written after the checkpoint."""
        while start < end:
            chunk = self._journal.read(start, self._kinds, upto=end)
            self.counts.add(chunk.records)
            start = chunk.upto

    def wake(self) -> None:
        """Say that the journal has more; to be called in the event loop."""
        self._wake.set()

    def status(self) -> ConsumerStatus:
        """How it is doing; safe to call from any thread."""
        records, readings = self._journal.lag(self._position, self._kinds)
        return ConsumerStatus(
            name=self.name,
            position=self._position,
            lag_records=records,
            lag_readings=readings,
            lag_seconds=self._journal.age(self._position, self._kinds) if records else 0.0,
            error=self.error,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Forward until `stop` is set and nothing is left, or the store takes nothing, or until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            chunk = await self._read()
            if chunk.records:
                early = self._written + _PACE - loop.time()
                if early > 0 and not stop.is_set() and _readings(chunk) < _SMALL:
                    await asyncio.sleep(early)  # and read again: more will have come
                    continue
                if not await self._forward(chunk, stop):
                    return
                self._written = loop.time()
                continue
            self._position = chunk.upto
            if chunk.upto - self._saved > (0 if self._journal.full else _LAZY_MOVE):
                await self._move(chunk.upto, ())
            if stop.is_set():
                await self._move(chunk.upto, (), checkpoint=True)
                return
            await self._wake.wait()

    async def _read(self) -> Chunk:
        """The next chunk; a journal that cannot be read is tried again, slowly."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await loop.run_in_executor(self._thread, self._journal.read, self._position, self._kinds)
            except sqlite3.DatabaseError as e:
                self._say(f"the journal cannot be read: {e}", must_act=True)
                await asyncio.sleep(_LONGEST_PAUSE)

    async def _forward(self, chunk: Chunk, stop: asyncio.Event) -> bool:
        """Write a chunk, however long it takes; False if the store did not take it and `stop` is set."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while True:
            if self._drop_oldest and self._journal.held_by(self.name):
                await self._drop(chunk)
                return True
            try:
                letters = await loop.run_in_executor(self._thread, self.store.write, chunk.records)
            except StoreError as e:
                self._say(str(e), must_act=isinstance(e, StoreMisconfiguredError))
                if stop.is_set():
                    return False
                wait = e.retry_after if e.retry_after is not None else pause * random.uniform(0.5, 1)  # noqa: S311  jitter, not a secret
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), wait)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            if self.error:
                log.info("store_takes_records_again", store=self.name)
            self.error = ""
            break
        for letter in letters:
            log.warning(
                "store_refused_readings",
                store=self.name,
                machine=letter.machine,
                signal=letter.signal,
                readings=letter.readings,
                reason=letter.reason,
            )
        self._note_refused(letters)
        async with self._moving:
            self.counts.add(chunk.records, letters)
            await self._move(chunk.upto, letters)
        return True

    async def resend(
        self, letter: DeadLetter, remove: Callable[[sqlite3.Connection], object]
    ) -> Sequence[DeadLetter] | None:
        """Send a dead letter again: what is refused once more, or None if this kind of store cannot.

        Counts and letter change in one transaction, so that a crash behind the sending only sends it once more.

        Args:
            letter: the letter.
            remove: takes it out of the journal, inside that transaction.

        Raises:
            StoreError: the store does not take anything now.
            KeyError: it is no longer there: somebody else sent or dropped it meanwhile.
        """
        send = getattr(self.store, "resend", None)
        if send is None:
            return None
        loop = asyncio.get_running_loop()
        left: Sequence[DeadLetter] = await loop.run_in_executor(self._thread, send, letter)
        refused = sum(again.readings for again in left)
        async with self._moving:
            before = self.counts.snapshot()
            self.counts.revive(letter, refused)
            try:
                await self._move(self._position, left, checkpoint=True, work=remove)
            except KeyError:
                self.counts = Counts(before, self._takes)
                raise
        if self._gaps is not None:
            kept = {signal: (letter.first, count - refused) for signal, count in letter.counts.items()}
            self._gaps.recover(self.store.name, "store_refused", kept)
        return left

    async def _drop(self, chunk: Chunk) -> None:
        log.warning("readings_dropped", store=self.name, readings=_readings(chunk), reason="journal full")
        self._note_dropped(chunk)
        self.counts.drop(chunk.records)
        await self._move(chunk.upto, (), checkpoint=True)

    def _note_dropped(self, chunk: Chunk) -> None:
        batches = [record.batch for record in chunk.records if record.batch is not None and len(record.batch)]
        if self._gaps is None or not batches:
            return
        signal = np.concatenate([batch.signal for batch in batches])
        time = np.concatenate([batch.time for batch in batches])
        if self._takes is not None:
            taken = self._takes()[signal]
            signal, time = signal[taken], time[taken]
            if not len(signal):
                return
        order = np.argsort(signal, kind="stable")
        found, starts, counts = np.unique(signal[order], return_index=True, return_counts=True)
        first = np.minimum.reduceat(time[order], starts).tolist()
        last = np.maximum.reduceat(time[order], starts).tolist()
        spans = dict(zip(found.tolist(), zip(first, last, strict=True), strict=True))
        lost = dict(zip(found.tolist(), counts.tolist(), strict=True))
        self._gaps.note(self.store.name, "journal_full", spans, lost=lost, detail=self.error)

    def _note_refused(self, letters: Sequence[DeadLetter]) -> None:
        if self._gaps is None:
            return
        spans: dict[int, tuple[int, int]] = {}
        lost: dict[int, int] = {}
        for letter in letters:
            for signal, count in letter.counts.items():
                first, last = spans.get(signal, (letter.first, letter.last))
                spans[signal] = min(first, letter.first), max(last, letter.last)
                lost[signal] = lost.get(signal, 0) + count
        if spans:
            detail = "in the dead letter: " + letters[0].reason
            self._gaps.note(self.store.name, "store_refused", spans, lost=lost, detail=detail)

    async def _move(
        self,
        position: int,
        letters: Sequence[DeadLetter],
        *,
        checkpoint: bool = False,
        work: Callable[[sqlite3.Connection], object] | None = None,
    ) -> None:
        # Letters are not in the journal's readings: the counts are saved with them, so that a recount stays exact.
        due = position - self._checkpoint >= _CHECKPOINT_EVERY or self._journal.full
        save = checkpoint or due or bool(letters)
        await asyncio.wrap_future(
            self._journal.advance(
                self.name,
                position,
                keep_from=position if save else None,
                state=self.counts.snapshot() if save else None,
                letters=letters,
                work=work,
            )
        )
        self._position = self._saved = position
        self._checkpoint = position if save else self._checkpoint

    def _say(self, error: str, *, must_act: bool) -> None:
        if error != self.error:
            event = "store_misconfigured" if must_act else "store_unavailable"
            log.warning(event, store=self.name, error=error)
        self.error = error


def _readings(chunk: Chunk) -> int:
    return sum(len(record.batch) for record in chunk.records if record.batch is not None)
