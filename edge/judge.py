"""Runs the analytics over the journal: results and cursor in one transaction, so a crash changes no judgement."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
import structlog

from analytics.config import AnalyticsConfig, config_hash
from analytics.engine import KINDS, Engine, SnapshotError
from fieldlab.model import Control, RecordKind
from fieldlab.model.record import Row
from ingest.forwarder import ConsumerStatus
from ingest.journal import Journal

log = structlog.get_logger()

T = TypeVar("T")

NAME = "analytics"
_SNAPSHOT_EVERY = 500  # records between two snapshots of the engine's state
_CHUNK = 5_000  # readings judged at once: findings reach people while a backlog is worked off


class Judge:
    """The consumer `analytics`. `run` belongs to one event loop.

    Args:
        journal: where it reads, and where results go.
        config: by what it judges. What is known of signals it reads in the journal.

    Attributes:
        error: why it stopped judging, else empty.
        not_judged: readings that it let go, after it broke, for want of room in the journal.
    """

    def __init__(self, journal: Journal, config: AnalyticsConfig) -> None:
        self._journal = journal
        self._config = config
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=NAME)
        found = journal.register(NAME, stateful=True)
        self._engine = Engine(journal.signals)
        self.error = ""
        self.not_judged = 0
        if found.state is not None:
            try:
                self._engine.restore(found.state)
            except SnapshotError as e:  # charts learn again from what the journal still holds
                log.warning("analytics_starts_afresh", reason=str(e))
        self._position, self._snapshot = found.position, found.keep_from
        start = found.keep_from
        while start < found.position:  # results up to `position` are in the journal already
            chunk = journal.read(start, KINDS, max_readings=_CHUNK, upto=found.position)
            self._engine.fold(chunk.records)
            start = chunk.upto
        self._saved = self._position

    async def configure(self, config: AnalyticsConfig | None = None) -> None:
        """Put the configuration into the journal, or another one, if the charts are not yet judged by it."""
        self._config = config or self._config
        pending, _ = self._journal.lag(self._position, frozenset({RecordKind.CONTROL}))
        if pending or self._engine.config_hash != config_hash(self._config):
            detail = msgspec.to_builtins(self._config)
            control = Control(time=time.time_ns(), action="configure", by="agent", detail=detail)
            await asyncio.wrap_future(self._journal.write([control]))

    @property
    def engine(self) -> Engine:
        """What judges. While `run` goes on, only its own thread may touch it: see `look`."""
        return self._engine

    async def look(self, ask: Callable[[Engine], T]) -> T:
        """Ask the engine something, between two judgements.

        Raises:
            RuntimeError: if judging has ended.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, ask, self._engine)

    def unjudged(self) -> dict[str, int]:
        """Readings that were stored and not judged, by reason; safe to call from any thread.

        `late`, `implausible`, `doubted`, `sick` and `unusable` as the engine counts them; `let_go`: see `not_judged`.
        """
        counters = self._engine.counters
        reasons = ("late", "implausible", "doubted", "sick", "unusable")
        return {**{reason: counters[reason] for reason in reasons}, "let_go": self.not_judged}

    def wake(self) -> None:
        """Say that the journal has more; to be called in the event loop."""
        self._wake.set()

    def status(self) -> ConsumerStatus:
        """How it is doing; safe to call from any thread."""
        records, readings = self._journal.lag(self._position, KINDS)
        return ConsumerStatus(
            name=NAME,
            position=self._position,
            lag_records=records,
            lag_readings=readings,
            lag_seconds=self._journal.age(self._position, KINDS) if records else 0.0,
            error=self.error,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Judge until `stop` is set and nothing is left. If judging breaks, the stores go on without it."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._wake.clear()
                chunk = await loop.run_in_executor(
                    self._thread, lambda: self._journal.read(self._position, KINDS, max_readings=_CHUNK)
                )
                if chunk.records:
                    try:
                        rows = await loop.run_in_executor(self._thread, self._engine.fold, chunk.records)
                    except Exception as e:
                        log.exception("analytics_broke", position=self._position)
                        self.error = f"judgement broke behind record {self._position} ({e!r}); stores go on; report it"
                        await self._stand_still(stop)
                        return
                    await self._move(chunk.upto, rows)
                    continue
                self._position = chunk.upto
                if stop.is_set():
                    await self._move(chunk.upto, [], snapshot=True)
                    return
                if chunk.upto - self._saved > _SNAPSHOT_EVERY:
                    await self._move(chunk.upto, [])
                await self._wake.wait()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _stand_still(self, stop: asyncio.Event) -> None:
        """After it broke: what is to be judged waits, until the journal is full of it; then the oldest is let go.

        The stores have those readings or get them; only their judgement is lost, counted. The next start is behind it.
        """
        words = self.error
        while not stop.is_set():
            self._wake.clear()
            if not await asyncio.to_thread(self._journal.held_by, NAME):
                await self._wake.wait()
                continue
            chunk = await asyncio.to_thread(self._journal.read, self._position, KINDS)
            if chunk.upto > self._position:
                self.not_judged += sum(len(r.batch) for r in chunk.records if r.batch is not None)
                advanced = self._journal.advance(NAME, chunk.upto, keep_from=chunk.upto)
                await asyncio.wrap_future(advanced)
                self._position = self._saved = self._snapshot = chunk.upto
                log.error("readings_not_judged", upto=chunk.upto, readings=self.not_judged, reason="journal full")
                self.error = f"{words}; {self.not_judged} readings were not judged, as the journal was full of them"
                continue
            await self._wake.wait()

    async def _move(self, position: int, rows: list[Row], *, snapshot: bool = False) -> None:
        save = snapshot or position - self._snapshot >= _SNAPSHOT_EVERY or self._journal.full
        state = await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.snapshot) if save else None
        await asyncio.wrap_future(
            self._journal.advance(
                NAME,
                position,
                keep_from=position if save else None,
                state=state,
                config_hash=self._engine.config_hash,
                rows=rows,
            )
        )
        self._position = self._saved = position
        self._snapshot = position if save else self._snapshot
