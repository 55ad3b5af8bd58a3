"""Moves records from the journal to one store, for ever, and moves the store's cursor only when they are safe."""

import asyncio
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from fieldlab.model import Record
from ingest.journal import Chunk, Journal
from ingest.stores.base import DeadLetter, Store, StoreError, StoreMisconfiguredError

log = structlog.get_logger()

_CHECKPOINT_EVERY = 500  # records between two checkpoints of the counts
_LAZY_MOVE = 500  # positions without anything for this store before its cursor is moved on disk
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


class ConsumerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a consumer is doing: its cursor, what it has yet to do, and what is wrong."""

    name: str
    position: int
    lag_records: int
    lag_readings: int
    lag_seconds: float
    error: str = ""


class Counts:
    """Readings a signal that the store keeps, and that it refused for good."""

    def __init__(self, data: bytes | None = None) -> None:
        stored, dead = msgspec.msgpack.decode(data) if data else (b"", b"")
        self.stored: NDArray[np.int64] = np.frombuffer(stored, np.int64).copy()
        self.dead: NDArray[np.int64] = np.frombuffer(dead, np.int64).copy()

    def add(self, records: Sequence[Record], letters: Sequence[DeadLetter] = ()) -> None:
        """Count what was written, less what was refused."""
        for record in records:
            if record.batch is not None:
                counted = np.bincount(record.batch.signal)
                self._grow(len(counted))
                self.stored[: len(counted)] += counted
        for letter in letters:
            for signal, count in letter.counts.items():
                self._grow(signal + 1)
                self.stored[signal] -= count
                self.dead[signal] += count

    def _grow(self, size: int) -> None:
        if size > len(self.stored):
            extra = np.zeros(size - len(self.stored), np.int64)
            self.stored = np.append(self.stored, extra)
            self.dead = np.append(self.dead, extra)

    def snapshot(self) -> bytes:
        """The counts as bytes."""
        return msgspec.msgpack.encode((self.stored.tobytes(), self.dead.tobytes()))


class Forwarder:
    """Drives one store. `run` belongs to one event loop; the store's calls run in a thread of their own.

    Attributes:
        counts: what the store keeps and refused, a signal.
        error: the store's words while it does not take records, else empty.
    """

    def __init__(self, journal: Journal, store: Store) -> None:
        self.store = store
        self.error = ""
        self._journal = journal
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"store-{store.name}")
        self._wake = asyncio.Event()
        found = journal.register(store.name, stateful=True)
        self._position = self._saved = found.position
        self._checkpoint = found.keep_from
        self.counts = Counts(found.state)
        self._recount(found.keep_from, found.position)

    def _recount(self, start: int, end: int) -> None:
        """Count again what was written after the checkpoint."""
        while start < end:
            chunk = self._journal.read(start, self.store.kinds, upto=end)
            self.counts.add(chunk.records)
            start = chunk.upto

    def wake(self) -> None:
        """Say that the journal has more; to be called in the event loop."""
        self._wake.set()

    def status(self) -> ConsumerStatus:
        """How it is doing; safe to call from any thread."""
        records, readings = self._journal.lag(self._position, self.store.kinds)
        return ConsumerStatus(
            name=self.store.name,
            position=self._position,
            lag_records=records,
            lag_readings=readings,
            lag_seconds=self._journal.age(self._position, self.store.kinds) if records else 0.0,
            error=self.error,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Forward until `stop` is set and nothing is left, or until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._wake.clear()
                chunk = await loop.run_in_executor(self._thread, self._journal.read, self._position, self.store.kinds)
                if chunk.records:
                    await self._forward(chunk)
                    continue
                self._position = chunk.upto
                if chunk.upto - self._saved > _LAZY_MOVE:
                    await self._move(chunk.upto, ())
                if stop.is_set():
                    await self._move(chunk.upto, (), checkpoint=True)
                    return
                await self._wake.wait()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _forward(self, chunk: Chunk) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while True:
            try:
                letters = await loop.run_in_executor(self._thread, self.store.write, chunk.records)
            except StoreError as e:
                self._say(str(e), must_act=isinstance(e, StoreMisconfiguredError))
                await asyncio.sleep(e.retry_after if e.retry_after is not None else pause * random.uniform(0.5, 1))  # noqa: S311  jitter, not a secret
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            if self.error:
                log.info("store_takes_records_again", store=self.store.name)
            self.error = ""
            break
        for letter in letters:
            log.warning(
                "store_refused_readings",
                store=self.store.name,
                machine=letter.machine,
                signal=letter.signal,
                readings=letter.readings,
                reason=letter.reason,
            )
        self.counts.add(chunk.records, letters)
        await self._move(chunk.upto, letters)

    async def _move(self, position: int, letters: Sequence[DeadLetter], *, checkpoint: bool = False) -> None:
        # Letters are not in the journal's readings: the counts are saved with them, so that a recount stays exact.
        save = checkpoint or bool(letters) or position - self._checkpoint >= _CHECKPOINT_EVERY
        await asyncio.wrap_future(
            self._journal.advance(
                self.store.name,
                position,
                keep_from=position if save else None,
                state=self.counts.snapshot() if save else None,
                letters=letters,
            )
        )
        self._position = self._saved = position
        self._checkpoint = position if save else self._checkpoint

    def _say(self, error: str, *, must_act: bool) -> None:
        if error != self.error:
            event = "store_misconfigured" if must_act else "store_unavailable"
            log.warning(event, store=self.store.name, error=error)
        self.error = error
