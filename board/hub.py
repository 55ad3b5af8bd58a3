"""One reading of store and agent, shared by everyone who looks: at most one a second, none when nobody looks."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import anyio.to_thread
import msgspec
import structlog

from board import view
from board.latest import LatestReadings
from board.series import Charts
from fieldlab.model import SignalInfo, SignalKey
from ingest.stores.base import Reader

log = structlog.get_logger()

T = TypeVar("T")

_PACE = 1.0  # seconds between refreshes, at least
_SHARE = 10  # and this many times its CPU time, so that the board costs a tenth of a core at most
_REST = 3  # and this many times what it lasts, so that a slow store has rest
_WHOLE = 60.0  # seconds between whole reads of the chart windows
_LIMIT = 1_000


class ClosingError(Exception):
    """The server stops: nothing is read any more."""


class Section(msgspec.Struct, frozen=True):
    """One JSON answer, and a tag that changes with it."""

    body: bytes
    tag: str


class Snapshot(msgspec.Struct, frozen=True):
    """What the page can ask for.

    Attributes:
        sections: name → answer.
        read: when store and agent were last read, ms; 0 if never.
        error: why they could not be read this time, in words.
    """

    sections: dict[str, Section]
    read: float = 0.0
    error: str = ""


class Hub:
    """Refreshes the snapshot in a thread when somebody asks and it is due. Belongs to one event loop."""

    def __init__(
        self, reader: Reader, status: Callable[[], Mapping[str, Any]], closing: Callable[[], bool] = lambda: False
    ) -> None:
        self._reader = reader
        self._closing = closing
        self._status = status
        self._charts = Charts()
        self._latest = LatestReadings()
        self._counts: dict[SignalKey, int] = {}
        self._infos: list[SignalInfo] = []
        self._slow_due = 0.0
        self._whole_due = 0.0
        self._snapshot = Snapshot({})
        self._task: asyncio.Task[None] | None = None
        self._asking = asyncio.Lock()
        self._asked: asyncio.Future[Any] | None = None
        self._due = 0.0
        self._cpu = 0.0

    async def fresh(self, wait: float) -> Snapshot:
        """The newest snapshot; starts a refresh when due and waits for it, `wait` seconds at most."""
        free = self._asked is None or self._asked.done()
        if self._task is None and free and time.monotonic() >= self._due and not self._closing():
            self._task = asyncio.create_task(self._refresh())
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=wait)
        return self._snapshot

    async def ask(self, read: Callable[[Reader, Charts, list[SignalInfo]], T]) -> T:
        """What `read` makes of the store, in a thread, after whatever is being read.

        Raises:
            ClosingError: if the server stops.
        """
        async with self._asking:  # one at a time, so that many who ask cost no more than one
            await self.fresh(10.0)
            await self.idle()
            if self._closing():
                raise ClosingError
            asked = asyncio.ensure_future(anyio.to_thread.run_sync(read, self._reader, self._charts, self._infos))
            self._asked = asked
            return await asked

    async def idle(self) -> None:
        """Wait until nothing is being read, so that the store can be closed."""
        under_way: set[asyncio.Future[Any]] = {task for task in (self._task, self._asked) if task is not None}
        if under_way:
            await asyncio.wait(under_way)

    async def _refresh(self) -> None:
        began = time.monotonic()
        self._cpu = 0.0
        try:
            sections = await anyio.to_thread.run_sync(self._measured_read)
            self._snapshot = Snapshot(sections, time.time() * 1000)
        except Exception as e:  # noqa: BLE001  a store may raise anything; the page says so and keeps what it has
            log.warning("board_refresh_failed", error=str(e), kind=type(e).__name__)
            self._snapshot = msgspec.structs.replace(self._snapshot, error=f"{type(e).__name__}: {e}"[:300])
        finally:
            took = time.monotonic() - began
            self._due = began + max(_PACE, _SHARE * self._cpu, _REST * took)
            self._task = None

    def _measured_read(self) -> dict[str, Section]:
        began = time.thread_time()
        try:
            return self._read()
        finally:
            self._cpu = time.thread_time() - began

    def _read(self) -> dict[str, Section]:
        """All sections; blocks, so it runs in a thread."""
        reader = self._reader
        status = self._status()
        self._read_slow()
        infos = self._infos
        units = {info.key: info.unit for info in infos}
        findings = reader.findings(limit=_LIMIT)
        verdicts = reader.verdicts(limit=_LIMIT)
        events = reader.events(limit=_LIMIT)
        conditions = reader.conditions(limit=_LIMIT)
        self._latest.refresh(reader, units, time.time_ns())
        self._read_charts()
        ledger = view.ledger(status, infos, self._counts)
        machines = view.machines(infos, reader.machine_states(), findings, self._latest.known)
        sections = {
            "machines": machines,
            "findings": view.findings(findings, units, capped=len(findings) >= _LIMIT),
            "parts": view.parts(verdicts, capped=len(verdicts) >= _LIMIT),
            "alarms": view.events(events, conditions, capped=len(events) >= _LIMIT),
            "charts": self._charts.index(units),
            "trust": view.trust(status, ledger),
            "gaps": view.gaps(status),
            "ledger": ledger[: view.MAX_SIGNALS],
        }
        sections |= {f"charts/{name}": data for name, data in self._charts.data(findings).items()}
        return {name: _section(data) for name, data in sections.items()}

    def _read_charts(self) -> None:
        if time.monotonic() >= self._whole_due:
            self._charts.read_all(self._reader)
            self._whole_due = time.monotonic() + _WHOLE
        else:
            self._charts.read_new(self._reader)

    def _read_slow(self) -> None:
        """Ask for signals and counts, more rarely the longer that takes: both read everything the store holds."""
        began = time.monotonic()
        if began >= self._slow_due:
            self._infos = self._reader.signals()
            self._counts = self._reader.counts()
            self._slow_due = began + 2 * _SHARE * (time.monotonic() - began)


def _section(data: object) -> Section:
    body = msgspec.json.encode(data)
    return Section(body, hashlib.blake2b(body, digest_size=6).hexdigest())
